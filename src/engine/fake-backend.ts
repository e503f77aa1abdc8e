/**
 * A backend without a model, for tests and simulations of everything above it.
 *
 * The next token is a hash of all tokens that the sequence can see, so any mix-up of cells, positions or sequences
 * changes the output. It keeps the cells as llama.cpp does and throws on whatever would be illegal there.
 *
 * @module
 */

import { assert } from "../util/errors.ts"
import {
  type Backend,
  type BackendInfo,
  STEP_CODE,
  type StepArrays,
  type StepOutcome,
} from "./backend.ts"
import type { SamplingOptions } from "./sampling.ts"
import { Vocabulary } from "./vocabulary.ts"

/** Options of {@link FakeBackend}; the defaults make a small dense model. */
export interface FakeOptions {
  readonly cells?: number
  readonly batchTokens?: number
  readonly sequences?: number
  readonly vocabularyTokens?: number
  /** Called after each step is checked and before its results are given. */
  readonly onStep?: (step: { readonly tokens: number; readonly rows: number }) => void
  /** Overrides the code of a step, to play a failure. */
  readonly codeOf?: (step: number) => number | undefined
  /** How long a step takes; default: the next microtask. */
  readonly delay?: () => Promise<void>
}

/** The last token of the fake's vocabulary ends generation. */
export function fakeVocabulary(tokens = 256): Vocabulary {
  const texts = Array.from({ length: tokens }, (_, token) =>
    token === tokens - 1 ? "<end>" : `t${token} `,
  )
  const pieces = texts.map((text) => new TextEncoder().encode(text))
  const offsets = new Int32Array(tokens + 1)
  for (const [token, piece] of pieces.entries())
    offsets[token + 1] = (offsets[token] ?? 0) + piece.length
  const bytes = new Uint8Array(offsets[tokens] ?? 0)
  for (const [token, piece] of pieces.entries()) bytes.set(piece, offsets[token])
  const attributes = new Uint8Array(tokens)
  attributes[tokens - 1] = 3
  return new Vocabulary(bytes, offsets, attributes)
}

/** The fake's answer to a visible prefix: what {@link FakeBackend} samples. FNV-1a over the tokens and the seed. */
export function fakeToken(
  visible: readonly number[],
  seed: number,
  vocabularyTokens: number,
): number {
  let hash = 0x811c9dc5 ^ seed
  for (const token of visible) hash = Math.imul(hash ^ token, 0x01000193) >>> 0
  return (hash >>> 8) % vocabularyTokens
}

/** See the module. */
export class FakeBackend implements Backend {
  readonly info: BackendInfo
  readonly arrays: StepArrays
  readonly #options: FakeOptions
  readonly #held: number[][]
  readonly #idleSteps: number[]
  readonly #samplers = new Map<number, SamplingOptions>()
  #nextSampler = 1
  #steps = 0
  #pending: { tokens: number; rows: number; isCancelled: boolean } | undefined
  isDisposed = false

  constructor(options: FakeOptions = {}) {
    const { cells = 256, batchTokens = 32, sequences = 8, vocabularyTokens = 256 } = options
    this.#options = options
    this.info = {
      cells,
      batchTokens,
      rows: sequences,
      sequences,
      topLogprobs: 4,
      vocabularyTokens,
      memory: "dense",
      removal: "partial",
      canShift: true,
    }
    this.#held = Array.from({ length: sequences }, () => [])
    this.#idleSteps = Array.from({ length: sequences }, () => 0)
    this.arrays = fakeArrays(this.info)
  }

  /** Cells in use. */
  get usedCells(): number {
    return this.#held.reduce((sum, tokens) => sum + tokens.length, 0)
  }

  /** Most steps in a row that a sequence which holds cells has not taken part in. */
  get longestIdleSteps(): number {
    return Math.max(...this.#idleSteps.filter((_, id) => this.#sequence(id).length > 0), 0)
  }

  get liveSamplers(): number {
    return this.#samplers.size
  }

  submit(tokens: number, rows: number): void {
    assert(this.#pending === undefined, "a step is submitted while one runs")
    assert(tokens > 0 && tokens <= this.info.batchTokens, `a step of ${tokens} tokens`)
    assert(rows <= this.info.rows, `a step of ${rows} rows`)
    this.#pending = { tokens, rows, isCancelled: false }
    this.#options.onStep?.({ tokens, rows })
  }

  async wait(): Promise<StepOutcome> {
    await this.#options.delay?.()
    const pending = this.#pending
    assert(pending !== undefined, "wait without a step")
    this.#pending = undefined
    this.#steps++
    const forced = pending.isCancelled ? STEP_CODE.aborted : this.#options.codeOf?.(this.#steps)
    if (forced !== undefined && forced !== STEP_CODE.ok) return outcome(forced)
    if (this.usedCells + pending.tokens > this.info.cells) return outcome(STEP_CODE.noCells)
    this.#compute(pending)
    return outcome(STEP_CODE.ok)
  }

  cancel(): void {
    if (this.#pending !== undefined) this.#pending.isCancelled = true
  }

  removeSequence(sequence: number, from: number, to: number): boolean {
    assert(this.#pending === undefined, "memory is touched while a step runs")
    const held = this.#sequence(sequence)
    assert(to === -1 || to >= held.length, "the fake removes only ends of sequences")
    held.length = Math.min(held.length, from)
    return true
  }

  lastPosition(sequence: number): number {
    return this.#sequence(sequence).length - 1
  }

  createSampler(options: SamplingOptions): number {
    this.#samplers.set(this.#nextSampler, options)
    return this.#nextSampler++
  }

  freeSampler(sampler: number): void {
    assert(this.#samplers.delete(sampler), `sampler ${sampler} is freed twice`)
  }

  constrainSampler(sampler: number, gbnf: string, prefill: string): void {
    const options = this.#samplers.get(sampler)
    assert(options !== undefined, `sampler ${sampler} is gone`)
    this.#samplers.set(sampler, { ...options, grammar: gbnf, grammarPrefill: prefill })
  }

  [Symbol.asyncDispose](): Promise<void> {
    assert(this.#pending === undefined, "disposed while a step runs")
    this.isDisposed = true
    return Promise.resolve()
  }

  #sequence(id: number): number[] {
    const held = this.#held[id]
    assert(held !== undefined, `sequence ${id} does not exist`)
    return held
  }

  #compute({ tokens, rows }: { tokens: number; rows: number }): void {
    const { arrays } = this
    const sampledAt = new Map<number, number[]>()
    for (const id of this.#idleSteps.keys()) this.#idleSteps[id] = (this.#idleSteps[id] ?? 0) + 1
    for (let i = 0; i < tokens; i++) {
      const held = this.#sequence(arrays.sequence[i] ?? -1)
      assert(
        arrays.position[i] === held.length,
        `position ${arrays.position[i]} after ${held.length} tokens`,
      )
      held.push(arrays.token[i] ?? -1)
      this.#idleSteps[arrays.sequence[i] ?? -1] = 0
      sampledAt.set(i, [...held])
    }
    for (let row = 0; row < rows; row++) {
      const visible = sampledAt.get(arrays.rowIndex[row] ?? -1)
      const sampler = this.#samplers.get(arrays.rowSampler[row] ?? -1)
      assert(visible !== undefined, `row ${row} samples outside the batch`)
      assert(sampler !== undefined, `row ${row} has no sampler`)
      arrays.outToken[row] = fakeToken(visible, sampler.seed, this.info.vocabularyTokens)
      arrays.outStatus[row] = 0
      arrays.outLogprob[row] = -0.5
      arrays.topToken.fill(-1, row * this.info.topLogprobs, (row + 1) * this.info.topLogprobs)
    }
  }
}

function outcome(code: number): StepOutcome {
  return { code, decodeMicros: 0, sampleMicros: 0 }
}

function fakeArrays({ batchTokens, rows, topLogprobs }: BackendInfo): StepArrays {
  return {
    token: new Int32Array(batchTokens),
    position: new Int32Array(batchTokens),
    sequence: new Int32Array(batchTokens),
    rowIndex: new Int32Array(rows),
    rowSampler: new Int32Array(rows),
    rowTop: new Int32Array(rows),
    outToken: new Int32Array(rows),
    outStatus: new Int32Array(rows),
    outLogprob: new Float32Array(rows),
    topToken: new Int32Array(rows * topLogprobs),
    topLogprob: new Float32Array(rows * topLogprobs),
  }
}
