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
export const CHUNK_TOKENS_MIN = 16

/**
 * On a CPU llama.cpp computes attention for 64 tokens at a time when a step has so many, and one by one when it has
 * less, which behind thousands of tokens takes ten times as long.
 */
export const CHUNK_TOKENS_CPU = 64

/** Used before anything was measured. */
const CHUNK_TOKENS_UNKNOWN = 64

/**
 * A step of n times as many answers takes n to this power as long, until it is measured: fits a 0.5B model on two
 * cores, 18 ms for 1 to 200 ms for 32.
 */
const GROWTH = 0.65

/** Weight of a new measurement. */
const NEWEST = 0.2

/** Times of steps. */
export class Pace {
  /** Milliseconds of steps without prompts, by the number of answers. */
  readonly #answerMs: number[] = []
  readonly #chunkTokens: number
  #promptTokenMs: number | undefined

  /** @param chunkTokens Chunks are at least so long, and multiples of it. */
  constructor(chunkTokens: number) {
    this.#chunkTokens = chunkTokens
  }

  /** Learns from a step of `rows` answers and `promptTokens` tokens of prompts. */
  observe({ rows, promptTokens, ms }: { rows: number; promptTokens: number; ms: number }): void {
    const known = rows === 0 ? 0 : this.#answerMs[rows]
    if (promptTokens === 0) this.#answerMs[rows] = blend(known, ms)
    else if (known !== undefined)
      this.#promptTokenMs = blend(this.#promptTokenMs, Math.max(0, ms - known) / promptTokens)
    else if (this.#promptTokenMs !== undefined)
      // In a burst there is no step without prompts: what these do not explain is the answers' part.
      this.#answerMs[rows] = Math.max(
        this.#answersMs(rows) ?? 0,
        ms - promptTokens * this.#promptTokenMs,
      )
  }

  /**
   * Most prompt tokens in a step beside so many answers. When several prompts wait, many for the answers that flow,
   * these stand still for longer, with the square of the proportion: in a burst all are soon under way.
   */
  promptTokens(rows: number, waitingPrompts: number): number {
    const stretch = STRETCH * Math.max(1, (4 * (waitingPrompts - 1)) / Math.max(1, rows)) ** 2
    const answers = this.#answersMs(rows)
    if (answers === undefined || this.#promptTokenMs === undefined) {
      return this.#whole((CHUNK_TOKENS_UNKNOWN * stretch) / STRETCH)
    }
    const chunk = ((stretch - 1) * answers) / Math.max(this.#promptTokenMs, 1e-6)
    return this.#whole(chunk)
  }

  #whole(tokens: number): number {
    const most = Math.min(tokens, 2 ** 31)
    return Math.max(1, Math.floor(most / this.#chunkTokens)) * this.#chunkTokens
  }

  /** What a step of so many answers takes; from the nearest number that was measured. */
  #answersMs(rows: number): number | undefined {
    if (rows === 0) return 0
    for (let distance = 0; distance <= Math.max(rows, this.#answerMs.length); distance++) {
      for (const near of [rows - distance, rows + distance]) {
        const ms = this.#answerMs[near]
        if (ms !== undefined) return ms * (rows / near) ** GROWTH
      }
    }
    return undefined
  }
}

function blend(old: number | undefined, value: number): number {
  return old === undefined ? value : old + NEWEST * (value - old)
}
