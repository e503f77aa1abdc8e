/**
 * A backend without a model, for tests and simulations of everything above it.
 *
 * The next token is a hash of all tokens that the sequence can see, so any mix-up of cells, positions or sequences
 * changes the output. It keeps the cells as llama.cpp does and throws on whatever would be illegal there, for each
 * kind of memory.
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
import { FakeCells, type FakeMemory } from "./fake-cells.ts"
import type { SamplingOptions } from "./sampling.ts"
import { Vocabulary } from "./vocabulary.ts"

/** Options of {@link FakeBackend}; the defaults make a small dense model. */
export interface FakeOptions {
  readonly cells?: number
  readonly batchTokens?: number
  /** Most requests at once. */
  readonly rows?: number
  /** Sequence ids; default: twice the rows. */
  readonly sequences?: number
  readonly vocabularyTokens?: number
  readonly memory?: FakeMemory
  readonly isSlowedByCells?: boolean
  readonly cachedCellsMax?: number
  /** Called after each step is checked and before its results are given. */
  readonly onStep?: (step: { readonly tokens: number; readonly rows: number }) => void
  /** Overrides the code of a step, to play a failure. */
  readonly codeOf?: (step: number) => number | undefined
  /** How long a step takes; default: the next microtask. */
  readonly delay?: () => Promise<void>
  /** What a step reports as its time. */
  readonly decodeMicros?: (step: { readonly tokens: number; readonly rows: number }) => number
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
  readonly #memory: FakeCells
  readonly #samplers = new Map<number, SamplingOptions>()
  #nextSampler = 1
  #steps = 0
  #computedTokens = 0
  #pending: { tokens: number; rows: number; isCancelled: boolean } | undefined
  isDisposed = false

  constructor(options: FakeOptions = {}) {
    const { cells = 256, batchTokens = 32, rows = 8, vocabularyTokens = 256 } = options
    const { sequences = 2 * rows, memory = "dense" } = options
    this.#options = options
    this.#memory = new FakeCells(memory, sequences, cells)
    this.info = {
      cells,
      batchTokens,
      rows,
      firstSequence: 0,
      sequences,
      topLogprobs: 4,
      vocabularyTokens,
      memory,
      removal: memory === "dense" ? "partial" : "full",
      sharing: memory === "dense" ? "prefix" : "whole",
      isSlowedByCells: options.isSlowedByCells ?? false,
      cachedCellsMax: options.cachedCellsMax ?? Infinity,
    }
    this.arrays = fakeArrays(this.info)
  }

  /** Cells in use. */
  get usedCells(): number {
    return this.#memory.used
  }

  /** Tokens of all steps that were computed. */
  get computedTokens(): number {
    return this.#computedTokens
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
    const decodeMicros = this.#options.decodeMicros?.(pending) ?? 0
    const hasRoom = this.usedCells + pending.tokens <= this.info.cells
    const code = forced ?? (hasRoom ? STEP_CODE.ok : STEP_CODE.noCells)
    if (code === STEP_CODE.ok) this.#compute(pending)
    else if (code !== STEP_CODE.noCells) {
      const { sequence } = this.arrays
      this.#memory.cutShort(new Set(sequence.subarray(0, pending.tokens)).size)
    }
    const reusedGraphs = code === STEP_CODE.ok ? 1 : 0
    return { code, decodeMicros, sampleMicros: 0, reusedGraphs, sampleThreads: 1 }
  }

  cancel(): void {
    if (this.#pending !== undefined) this.#pending.isCancelled = true
  }

  removeSequence(sequence: number, from: number, to: number): boolean {
    assert(this.#pending === undefined, "memory is touched while a step runs")
    return this.#memory.remove(sequence, from, to)
  }

  copySequence(source: number, target: number, from: number, to: number): void {
    assert(this.#pending === undefined, "memory is touched while a step runs")
    this.#memory.copy(source, target, from, to)
  }

  stateBytes(_sequence: number, from: number, to: number): number {
    return (to - from) * 4
  }

  saveSequence(sequence: number, from = 0, to?: number): Uint8Array {
    assert(this.#pending === undefined, "memory is touched while a step runs")
    const visible = this.#memory.visible(sequence)
    const isAll = from === 0 && (to ?? visible.length) === visible.length
    assert(this.info.sharing === "prefix" || isAll, "a part of a state that has none is saved")
    return new Uint8Array(Int32Array.from([from, ...visible.slice(from, to)]).buffer)
  }

  restoreSequence(
    sequence: number,
    state: Uint8Array,
    { from, to }: { from: number; to: number },
  ): boolean {
    assert(this.#pending === undefined, "memory is touched while a step runs")
    const [begin = 0, ...tokens] = new Int32Array(state.slice().buffer)
    assert(begin <= from && to <= begin + tokens.length, "the state has what is restored")
    if (this.usedCells + tokens.length > this.info.cells) return false
    for (let position = from; position < to; position++)
      this.#memory.add(sequence, position, tokens[position - begin] ?? -1)
    return true
  }

  lastPosition(sequence: number): number {
    return this.#memory.length(sequence) - 1
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

  #compute({ tokens, rows }: { tokens: number; rows: number }): void {
    const { arrays } = this
    const wanted = new Set(arrays.rowIndex.subarray(0, rows))
    const sampledAt = new Map<number, number[]>()
    for (let i = 0; i < tokens; i++) {
      const sequence = arrays.sequence[i] ?? -1
      this.#memory.add(sequence, arrays.position[i] ?? -1, arrays.token[i] ?? -1)
      if (wanted.has(i)) sampledAt.set(i, this.#memory.visible(sequence))
    }
    this.#computedTokens += tokens
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
