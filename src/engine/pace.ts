/**
 * How many prompt tokens a step may take in beside answers, so that these go on flowing.
 *
 * Learns from measured steps what a step of n answers takes, and what each prompt token adds. From that it gives the
 * chunk with which a step takes at most {@link STRETCH} times as long as without.
 *
 * @module
 */

/** Goal of the design is 4: what is between is for other noise. */
const STRETCH = 3

/** Smaller chunks would make prompts crawl: most of a step is then spent on reading the weights. */
const CHUNK_TOKENS_MIN = 16

/** Used before anything was measured. */
const CHUNK_TOKENS_UNKNOWN = 64

/** Weight of a new measurement. */
const NEWEST = 0.2

/** Times of steps. */
export class Pace {
  /** Milliseconds of steps without prompts, by the number of answers. */
  readonly #answerMs: number[] = []
  #promptTokenMs: number | undefined

  /** Learns from a step of `rows` answers and `promptTokens` tokens of prompts. */
  observe({ rows, promptTokens, ms }: { rows: number; promptTokens: number; ms: number }): void {
    if (promptTokens === 0) {
      this.#answerMs[rows] = blend(this.#answerMs[rows], ms)
      return
    }
    const answers = this.#answersMs(rows)
    if (answers === undefined) return
    this.#promptTokenMs = blend(this.#promptTokenMs, Math.max(0, ms - answers) / promptTokens)
  }

  /** Most prompt tokens in a step beside so many answers. */
  promptTokens(rows: number): number {
    const answers = this.#answersMs(rows)
    if (answers === undefined || this.#promptTokenMs === undefined) return CHUNK_TOKENS_UNKNOWN
    const chunk = ((STRETCH - 1) * answers) / Math.max(this.#promptTokenMs, 1e-6)
    return Math.max(CHUNK_TOKENS_MIN, Math.floor(Math.min(chunk, Number.MAX_SAFE_INTEGER)))
  }

  /** What a step of so many answers takes; from the nearest number that was measured. */
  #answersMs(rows: number): number | undefined {
    if (rows === 0) return 0
    for (let distance = 0; distance <= Math.max(rows, this.#answerMs.length); distance++) {
      const below = this.#answerMs[rows - distance]
      if (below !== undefined) return below
      const above = this.#answerMs[rows + distance]
      if (above !== undefined) return (above * rows) / (rows + distance)
    }
    return undefined
  }
}

function blend(old: number | undefined, value: number): number {
  return old === undefined ? value : old + NEWEST * (value - old)
}
