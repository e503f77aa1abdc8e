/**
 * What the engine needs from whatever computes: one interface, implemented by llama.cpp (`ffi/backend.ts`) and by a
 * deterministic fake (`fake-backend.ts`).
 *
 * A step is `submit` … `wait`. Between the two the arrays belong to the backend; after `wait` they hold the results
 * until the next `submit`. Everything that touches sequences is legal only between steps.
 *
 * @module
 */

import type { SamplingOptions } from "./sampling.ts"

/**
 * How a model remembers. It decides what sharing and rollback is legal:
 * dense KV cache, sliding window, recurrent state, both (hybrid), or nothing (encoder-only).
 */
export type MemoryKind = "dense" | "window" | "recurrent" | "hybrid" | "none"

/** What can be removed from the end of a sequence: any part, nothing but all of it, or a few steps. */
export type Removal = "partial" | "full" | "bounded" | "none"

/**
 * What a sequence can take over from another without computing it: any beginning, only all of it as it is now, or
 * nothing.
 */
export type Sharing = "prefix" | "whole" | "none"

/** Sizes and abilities, fixed for the life of a backend. */
export interface BackendInfo {
  /** KV cells in total, shared by all sequences. */
  readonly cells: number
  /** Most tokens in one step. */
  readonly batchTokens: number
  /** Most sampled rows in one step: most requests that run at once. */
  readonly rows: number
  /** So many sequence ids from here on are the engine's; those beyond what runs hold cached prefixes. */
  readonly firstSequence: number
  readonly sequences: number
  /** Most alternatives with log-probabilities per row. */
  readonly topLogprobs: number
  readonly vocabularyTokens: number
  readonly memory: MemoryKind
  readonly removal: Removal
  readonly sharing: Sharing
  /**
   * Attention looks at all cells in use, whoever holds them, and at a tile of tokens at a time: cells make every step
   * slower, and tokens of many sequences in one tile still more. So on CPUs; on GPUs it does not matter.
   */
  readonly isSlowedByCells: boolean
  /** More cells in use than those of running requests, by so many, make steps noticeably slower. */
  readonly cachedCellsMax: number
}

/**
 * Whether a step of several sequences moves the states of all, those that are not in it too: llama.cpp puts the states
 * of a step side by side (`llama_memory_recurrent::find_slot`), layer by layer while it computes. Such a step that is
 * cut short leaves no state whole.
 */
export function movesStates({ memory }: BackendInfo): boolean {
  return memory === "recurrent" || memory === "hybrid"
}

/** The arrays of a step. `batch` entries describe tokens, `row` entries which of them are sampled. */
export interface StepArrays {
  readonly token: Int32Array
  readonly position: Int32Array
  readonly sequence: Int32Array
  /** Index into the batch, rising. */
  readonly rowIndex: Int32Array
  readonly rowSampler: Int32Array
  /** −1: no log-probabilities; n: those of the chosen token and of n alternatives. */
  readonly rowTop: Int32Array
  readonly outToken: Int32Array
  /** {@link ROW_STATUS}. */
  readonly outStatus: Int32Array
  readonly outLogprob: Float32Array
  /** `topLogprobs` entries a row, −1 where there are fewer. */
  readonly topToken: Int32Array
  readonly topLogprob: Float32Array
}

/** Why a row has no token. */
export const ROW_STATUS = {
  ok: 0,
  noLogits: 1,
  grammarStuck: 2,
  notFinite: 3,
  samplerFailed: 4,
} as const

/** Result code of a step, as llama_decode defines it. */
export const STEP_CODE = { ok: 0, noCells: 1, aborted: 2, invalidBatch: -1 } as const

/** How a step went. Times in microseconds. */
export interface StepOutcome {
  /** {@link STEP_CODE}, or below −1 when computing failed. */
  readonly code: number
  readonly decodeMicros: number
  readonly sampleMicros: number
  /** Graphs of the step that were those of the step before: nothing had to be built and placed anew. */
  readonly reusedGraphs: number
  /** Threads that shared the rows. */
  readonly sampleThreads: number
}

/** Computes steps. Not safe for concurrent use; the engine is its only caller. */
export interface Backend extends AsyncDisposable {
  readonly info: BackendInfo
  readonly arrays: StepArrays
  /** Starts a step over the first `tokens` and `rows` entries of the arrays; returns at once. */
  submit(tokens: number, rows: number): void
  /** Resolves when the step is over. @throws {CriaError} `internal` when the backend itself failed. */
  wait(): Promise<StepOutcome>
  /** Asks the running step to end early with `aborted`; backends that cannot, ignore it. */
  cancel(): void
  /** Forgets positions `from` … `to` − 1 (−1: to the end). False when the memory kind cannot do that. */
  removeSequence(sequence: number, from: number, to: number): boolean
  /** Lets `target` hold the cells of `source` at positions `from` … `to` − 1 (−1: all), as `sharing` allows. */
  copySequence(source: number, target: number, from: number, to: number): void
  /** Bytes of the state of positions `from` … `to` − 1; where `sharing` is not `prefix`, only all can be had. */
  stateBytes(sequence: number, from: number, to: number): number
  /** That state; undefined when it cannot be read. */
  saveSequence(sequence: number, from: number, to: number): Uint8Array | undefined
  /**
   * Puts positions `from` … `to` − 1 out of a saved state at the end of a sequence, which holds those before, in cells
   * of its own. All of the state needs free cells meanwhile.
   *
   * @returns False, with the sequence as it was, when the state does not fit this backend.
   */
  restoreSequence(sequence: number, state: Uint8Array, part: { from: number; to: number }): boolean
  /** Last position that a sequence holds, −1 when empty. */
  lastPosition(sequence: number): number
  /** @throws {CriaError} `invalid-input` when the options or the grammar are wrong. */
  createSampler(options: SamplingOptions): number
  freeSampler(sampler: number): void
  /** Constrains what follows to a grammar that first swallows `prefill`. @throws {CriaError} `invalid-input` */
  constrainSampler(sampler: number, gbnf: string, prefill: string): void
}
