/**
 * How often answers may be parsed.
 *
 * The parser of a chat template reads the whole answer each time. On long answers it may therefore run less often: all
 * answers of a model together put at most a small part of the time into it, each its equal share.
 *
 * @module
 */

/** Part of the time of the thread. */
const SHARE = 0.05

/** One for all answers of a model. */
export class ParseShare {
  #answers = 0

  /** An answer that is parsed begins. Dispose what it gives when the answer is over. */
  join(): ParseTurns {
    this.#answers++
    return new ParseTurns(this, () => this.#answers--)
  }

  /** Milliseconds that an answer waits after a parse that took so long. */
  pauseMs(parseMs: number): number {
    return (parseMs * this.#answers) / SHARE
  }
}

/** When one answer may be parsed. Times in milliseconds on one clock. */
export class ParseTurns implements Disposable {
  readonly #share: ParseShare
  readonly #leave: () => void
  #nextAt = -Infinity
  #hasLeft = false

  constructor(share: ParseShare, leave: () => void) {
    this.#share = share
    this.#leave = leave
  }

  isDue(now: number): boolean {
    return now >= this.#nextAt
  }

  /** It was parsed. */
  took(startedAt: number, now: number): void {
    this.#nextAt = now + this.#share.pauseMs(now - startedAt)
  }

  [Symbol.dispose](): void {
    if (this.#hasLeft) return
    this.#hasLeft = true
    this.#leave()
  }
}
