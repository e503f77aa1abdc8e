/**
 * Finds stop strings in text that arrives in pieces.
 *
 * Text that may be the beginning of a stop string is held back until it is clear that it is not one, so that no part
 * of a stop string is ever sent.
 *
 * @module
 */

/** What a piece of text led to. */
export interface StopResult {
  /** Text that is safe to send now. */
  readonly text: string
  /** The stop string that was found; nothing after it counts. */
  readonly match: string | undefined
}

/** Watches one answer for its stop strings. */
export class StopMatcher {
  readonly #stops: readonly string[]
  #held = ""

  /** @param stops Empty strings are ignored. */
  constructor(stops: readonly string[]) {
    this.#stops = stops.filter((stop) => stop !== "")
  }

  /** Adds text. Of several matches the one that begins first wins, then the longest. */
  push(text: string): StopResult {
    if (this.#stops.length === 0) return { text, match: undefined }
    const all = this.#held + text
    const found = this.#find(all)
    if (found !== undefined) {
      this.#held = ""
      return { text: all.slice(0, found.index), match: found.stop }
    }
    const keep = this.#heldLength(all)
    this.#held = keep === 0 ? "" : all.slice(-keep)
    return { text: keep === 0 ? all : all.slice(0, -keep), match: undefined }
  }

  /** The answer is over: what was held back is text after all. */
  flush(): string {
    const text = this.#held
    this.#held = ""
    return text
  }

  #find(text: string): { index: number; stop: string } | undefined {
    let best: { index: number; stop: string } | undefined
    for (const stop of this.#stops) {
      const index = text.indexOf(stop)
      if (index === -1) continue
      const isBetter =
        best === undefined ||
        index < best.index ||
        (index === best.index && stop.length > best.stop.length)
      if (isBetter) best = { index, stop }
    }
    return best
  }

  /** Length of the longest end of `text` with which a stop string begins. */
  #heldLength(text: string): number {
    let longest = 0
    for (const stop of this.#stops) {
      for (let length = Math.min(stop.length - 1, text.length); length > longest; length--) {
        if (text.endsWith(stop.slice(0, length))) {
          longest = length
          break
        }
      }
    }
    return longest
  }
}
