/**
 * How many prompt tokens a step may take in beside answers, so that these go on flowing.
 *
 * Learns from measured steps what a step of n answers takes, and what each prompt token adds; the more tokens lie
 * before it, the more. From that it gives the chunk with which answers come at most {@link STRETCH} times as late as
 * without.
 *
 * @module
 */

import { RANK } from "./admission.ts"
import type { Priority } from "./scheduler.ts"

/** Answers come so many times as late beside prompts. Goal of the design is 4: what is between is for other noise. */
const STRETCH = 3.5

/** How a machine computes prompts. */
export interface ChunkRules {
  /** Chunks of so many tokens and multiples of it cost less for each token than smaller ones; 1: they do not. */
  readonly tile: number
  /** Other chunks are multiples of this: fewer shapes of steps. */
  readonly step: number
  /** Smaller ones would make prompts crawl: most of a step is then spent on reading the weights. */
  readonly least: number
}

/**
 * On a CPU llama.cpp computes attention for 64 tokens at a time when a step has so many, and one by one when it has
 * less, which behind thousands of tokens takes twice as long for each.
 */
export const CPU_CHUNKS: ChunkRules = { tile: 64, step: 4, least: 8 }

/** GPUs compute matrices in blocks of 16 and more. */
export const GPU_CHUNKS: ChunkRules = { tile: 1, step: 16, least: 16 }

/** What a token costs beyond a tile's, behind others, until it is measured. */
const NARROW_FACTOR = 2

/** Used before anything was measured. */
const CHUNK_TOKENS_UNKNOWN = 64

/**
 * A step of n times as many answers takes n to this power as long, until it is measured: fits a 0.5B model on two
 * cores, 18 ms for 1 to 200 ms for 32.
 */
const GROWTH = 0.65

/** Weight of a new measurement. */
const NEWEST = 0.2

/** A measurement that is so many times what was expected is an interruption by something else. */
const SURPRISE_MAX = 3

/** What was computed in a step, and how long it took. */
export interface MeasuredStep {
  readonly rows: number
  /** Tokens of prompts. */
  readonly promptTokens: number
  /** Tokens before those, on average. */
  readonly depth: number
  readonly ms: number
}

/** Times of steps. */
export class Pace {
  /** Milliseconds of steps without prompts, by the number of answers. */
  readonly #answerMs: number[] = []
  readonly #rules: ChunkRules
  readonly #wide = new TokenCost()
  readonly #narrow = new TokenCost()

  constructor(rules: ChunkRules) {
    this.#rules = rules
  }

  /** Learns from a step. */
  observe({ rows, promptTokens, depth, ms }: MeasuredStep): void {
    const known = rows === 0 ? 0 : this.#answerMs[rows]
    if (promptTokens === 0) {
      this.#answerMs[rows] = blend(known, ms)
      return
    }
    const cost = promptTokens < this.#rules.tile ? this.#narrow : this.#wide
    if (known !== undefined) cost.observe(depth, Math.max(0, ms - known) / promptTokens)
    else if (cost.isKnown)
      // In a burst there is no step without prompts: what these do not explain is the answers' part.
      this.#answerMs[rows] = Math.max(
        this.#answersMs(rows) ?? 0,
        ms - promptTokens * cost.perToken(depth),
      )
  }

  /** Milliseconds to read a prompt of so many tokens alone; 0 before anything was measured. */
  readMs(tokens: number): number {
    return tokens * this.#wideMs(0)
  }

  /** Most prompt tokens in a step beside so many answers, behind `depth` others. */
  promptTokens(rows: number, depth: number): number {
    const answersMs = this.#answersMs(rows)
    if (answersMs === undefined || !(this.#wide.isKnown || this.#narrow.isKnown))
      return CHUNK_TOKENS_UNKNOWN
    const budgetMs = (STRETCH - 1) * answersMs
    const { tile, step, least } = this.#rules
    const wide = tokensIn(budgetMs, this.#wideMs(depth))
    if (tile === 1) return Math.max(least, whole(wide, step))
    if (wide >= tile) return whole(wide, tile)
    const narrow = Math.min(tokensIn(budgetMs, this.#narrowMs(depth)), tile - step)
    return Math.max(least, whole(narrow, step))
  }

  #wideMs(depth: number): number {
    if (this.#wide.isKnown) return this.#wide.perToken(depth)
    return this.#narrow.perToken(depth / NARROW_FACTOR)
  }

  #narrowMs(depth: number): number {
    if (this.#narrow.isKnown) return this.#narrow.perToken(depth)
    return this.#wide.perToken(depth * NARROW_FACTOR)
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

function tokensIn(ms: number, perTokenMs: number): number {
  return Math.min(ms / Math.max(perTokenMs, 1e-6), 2 ** 20)
}

function whole(tokens: number, step: number): number {
  return Math.floor(tokens / step) * step
}

/**
 * Milliseconds that a prompt token takes: a part for the weights, and one that grows with the number of tokens before
 * it. Follows measurements by normalised least mean squares (Widrow and Hoff).
 */
class TokenCost {
  #weightsMs: number | undefined
  #msPerThousand = 0

  get isKnown(): boolean {
    return this.#weightsMs !== undefined
  }

  perToken(depth: number): number {
    return (this.#weightsMs ?? 0) + (this.#msPerThousand * depth) / 1000
  }

  observe(depth: number, ms: number): void {
    if (this.#weightsMs === undefined) {
      this.#weightsMs = ms
      return
    }
    const thousands = depth / 1000
    const expected = this.perToken(depth)
    const error = Math.min(ms, expected * SURPRISE_MAX) - expected
    const step = (2 * NEWEST * error) / (1 + thousands ** 2)
    this.#weightsMs = Math.max(0, this.#weightsMs + step)
    this.#msPerThousand = Math.max(0, this.#msPerThousand + step * thousands)
  }
}

function blend(old: number | undefined, value: number): number {
  return old === undefined ? value : old + NEWEST * (Math.min(value, old * SURPRISE_MAX) - old)
}

/** What is read of a request to see whether it came in a burst. */
export interface Arrival {
  readonly submittedAt: number
  readonly remainingTokens: number
  readonly completionTokens: number
  readonly priority: Priority
}

/** Requests that came within so much of each other came together. */
const TOGETHER_MS = 1000

/** A burst of more tokens than this would keep its first answers waiting for too long. */
const BURST_STEPS = 16

/**
 * Whether prompts are part of a burst in which answers have begun already: short, and come together with those that
 * answer, which are no more urgent. Then all of them are read first. Steps with few answers cost more for each, and
 * nobody waits who was there before or came since.
 *
 * @param stepTokens Most tokens of a step.
 */
export function isBurst(
  answers: readonly Arrival[],
  prompts: readonly Arrival[],
  stepTokens: number,
): boolean {
  if (prompts.length < 2) return false
  const tokens = prompts.reduce((sum, { remainingTokens }) => sum + remainingTokens, 0)
  const isShort = prompts.every(
    ({ remainingTokens, completionTokens }) =>
      remainingTokens <= stepTokens && completionTokens === 0,
  )
  return (
    isShort &&
    tokens <= BURST_STEPS * stepTokens &&
    answers.every((answer) =>
      prompts.every(
        (prompt) =>
          Math.abs(answer.submittedAt - prompt.submittedAt) <= TOGETHER_MS &&
          RANK[prompt.priority] <= RANK[answer.priority],
      ),
    )
  )
}
