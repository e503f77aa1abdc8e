/**
 * A context of a model: KV cells, the step block and the thread that computes.
 *
 * @module
 */

import { setImmediate as nextTurn } from "node:timers/promises"

import { mapMemory } from "#ffi"

import type {
  MemoryKind,
  Removal,
  Sharing,
  StepArrays,
  StepOutcome,
} from "../src/engine/backend.ts"
import type { CacheType } from "../src/engine/cache-type.ts"
import { assert } from "../src/util/errors.ts"
import type { NativeModel } from "./model.ts"
import { encode, hasFailed, isPending, type NativeLibrary } from "./native.ts"

/** What a context is made of. */
export interface ContextOptions {
  /** KV cells in total; rounded up to a multiple of 256. */
  readonly cells: number
  /** Most tokens in a step. */
  readonly batchTokens: number
  /**
   * Most sequences at once, and most sampled rows in a step. Where any beginning of one can be shared, id 0 is for
   * saving and restoring.
   */
  readonly sequences: number
  /**
   * Sequence ids beyond that for cached prefixes, where the memory can share any beginning of a sequence. Together at
   * most 256.
   */
  readonly pins?: number
  /** Keep all cells of a sliding window: more memory, any prefix can be shared. Default: yes. */
  readonly isWindowFull?: boolean
  readonly threads: number
  readonly flashAttention?: "auto" | "on" | "off"
  readonly cacheTypeK?: CacheType
  readonly cacheTypeV?: CacheType
  /** Compute vectors instead of logits. */
  readonly embeddings?: boolean
  /** `model` takes what the file says. */
  readonly pooling?: "model" | "none" | "mean" | "cls" | "last"
}

/** What a context really has, from `cria_context_info`. */
export interface ContextInfo {
  readonly cells: number
  readonly batch: number
  readonly rows: number
  readonly sequences: number
  /** Ids before it are for saving and restoring others. */
  readonly first_sequence: number
  readonly top: number
  readonly memory: MemoryKind
  readonly removal: Removal
  readonly sharing: Sharing
  readonly can_shift: boolean
  /** llama.cpp's pooling type: 0 none, 1 mean, 2 cls, 3 last, 4 rank. */
  readonly pooling: number
  readonly threads: number
  /** Threads spin for a while and then sleep; without OpenMP they only spin, and there are fewer on busy cores. */
  readonly openmp: boolean
  /** OpenMP's threads sleep soon, because the cores are busy with something else. */
  readonly short_spin: boolean
  /** Length of the step block in 4-byte fields. */
  readonly block_fields: number
}

/** Alternatives per row: the most that any of the APIs allows. */
const TOP_LOGPROBS = 20

const HEADER_FIELDS = 16

/** A context in memory. Its arrays are native memory: unusable after disposal. */
export class NativeContext implements Disposable {
  readonly info: ContextInfo
  readonly arrays: StepArrays
  readonly #library: NativeLibrary
  readonly #handle: number
  readonly #model: NativeModel
  readonly #header: Int32Array
  #isDisposed = false

  /** Takes ownership of a handle; use {@link createContext}. */
  constructor(model: NativeModel, handle: number) {
    this.#library = model.library
    this.#model = model
    this.#handle = handle
    const { functions } = model.library
    this.info = this.readInfo()
    const block = mapMemory(functions.cria_step_block(handle), this.info.block_fields * 4)
    this.#header = new Int32Array(block, 0, HEADER_FIELDS)
    this.arrays = layOut(block, this.info)
  }

  /** What the context is like now; between steps. */
  readInfo(): ContextInfo {
    const info = this.#functions.cria_context_info(this.#handle)
    return this.#library.json(info, "Cannot read the context")
  }

  /** Starts a step over the first entries of the arrays. */
  submit(tokens: number, rows: number): void {
    const result = this.#functions.cria_step_submit(this.#handle, tokens, rows)
    this.#library.check(result, "Cannot start a step")
  }

  /**
   * Waits for the step in slices, so that the event loop goes on turning. Two turns come first: in the one, consumers
   * take the last step's events; in the other, what they wrote leaves.
   */
  async wait(): Promise<StepOutcome> {
    const action = "Cannot compute a step"
    const { cria_step_wait: wait } = this.#functions
    const { waitSliceMicros } = this.#library
    await nextTurn()
    do {
      // The wait is the point of the loop.
      // oxlint-disable-next-line no-await-in-loop
      await nextTurn()
    } while (isPending(this.#library.check(wait(this.#handle, waitSliceMicros), action)))
    const [code = 0, decodeMicros = 0, sampleMicros = 0, reusedGraphs = 0, sampleThreads = 0] =
      this.#header
    return { code, decodeMicros, sampleMicros, reusedGraphs, sampleThreads }
  }

  cancel(): void {
    this.#library.check(this.#functions.cria_step_cancel(this.#handle), "Cannot cancel a step")
  }

  /** Vector of a sequence of the last step. */
  embedding(sequence: number): Float32Array {
    const vector = new Float32Array(this.#model.info.embedding_length)
    const width = this.#functions.cria_embedding(this.#handle, sequence, vector, vector.length)
    this.#library.check(width, "Cannot read the embedding")
    return vector.subarray(0, width)
  }

  /** Forgets positions `from` … `to` − 1; false when the memory kind cannot do that. */
  removeSequence(sequence: number, from: number, to: number): boolean {
    const result = this.#functions.cria_sequence_remove(this.#handle, sequence, from, to)
    return this.#library.check(result, "Cannot free cells") === 1
  }

  /** Lets `target` share the cells of `source` at positions `from` … `to` − 1. */
  copySequence(source: number, target: number, range: { from: number; to: number }): void {
    const call = this.#functions.cria_sequence_copy
    this.#library.check(
      call(this.#handle, source, target, range.from, range.to),
      "Cannot share cells",
    )
  }

  /** First and last position that a sequence holds, −1 when empty. */
  range(sequence: number): readonly [first: number, last: number] {
    const range = new Int32Array(2)
    const result = this.#functions.cria_sequence_range(this.#handle, sequence, range)
    this.#library.check(result, "Cannot read positions")
    return [range[0] ?? -1, range[1] ?? -1]
  }

  /** Bytes of the state of positions `from` … `to` − 1, as {@link save} gives it. */
  stateBytes(sequence: number, from: number, to: number): number {
    const size = this.#functions.cria_state_size(this.#handle, sequence, ...this.#part(from, to))
    return this.#library.check(size, "Cannot save a sequence")
  }

  /**
   * State of positions `from` … `to` − 1 as bytes that {@link restore} takes; undefined when llama.cpp cannot read it, or
   * when it is larger than an array can be (4 GiB in Bun).
   */
  save(sequence: number, from: number, to: number): Uint8Array | undefined {
    const data = allocate(this.stateBytes(sequence, from, to))
    if (data === undefined) return undefined
    const { cria_state_get: get } = this.#functions
    const written = get(this.#handle, sequence, ...this.#part(from, to), data, data.length)
    return hasFailed(written)
      ? undefined
      : data.subarray(0, this.#library.check(written, "Cannot save a sequence"))
  }

  /**
   * Puts positions `from` … `to` − 1 out of a saved state at the end of a sequence.
   *
   * @throws {CriaError} `invalid-input` when it does not fit this context; the sequence is as it was then.
   */
  restore(sequence: number, data: Uint8Array, { from, to }: { from: number; to: number }): void {
    const part = this.#part(from, to)
    const read = this.#functions.cria_state_set(this.#handle, sequence, ...part, data, data.length)
    this.#library.check(read, "Cannot restore a sequence", "invalid-input")
  }

  [Symbol.dispose](): void {
    if (this.#isDisposed) return
    this.#library.check(this.#functions.cria_context_free(this.#handle), "Cannot free the context")
    this.#isDisposed = true
  }

  /** Where a state has no parts, all of it is meant. */
  #part(from: number, to: number): readonly [number, number] {
    return this.info.sharing === "prefix" ? [from, to] : [0, -1]
  }

  get #functions(): NativeLibrary["functions"] {
    assert(!this.#isDisposed, "a context is used after disposal")
    return this.#library.functions
  }
}

/**
 * Makes a context, on the thread that will compute in it.
 *
 * @throws {CriaError} `insufficient-memory` when there is none for that size, `invalid-input` when llama.cpp cannot make
 * one for this model with these options.
 */
export async function createContext(
  model: NativeModel,
  options: ContextOptions,
): Promise<NativeContext> {
  const config = encode(
    JSON.stringify({
      cells: options.cells,
      batch: options.batchTokens,
      sequences: options.sequences,
      pins: options.pins ?? 0,
      swa_full: options.isWindowFull ?? true,
      threads: options.threads,
      threads_batch: options.threads,
      adapt_threads: !model.isOnGpu,
      flash_attention: options.flashAttention ?? "auto",
      type_k: options.cacheTypeK ?? "f16",
      type_v: options.cacheTypeV ?? "f16",
      embeddings: options.embeddings ?? false,
      pooling: options.pooling ?? "model",
      top: TOP_LOGPROBS,
    }),
  )
  const action = `Cannot make a context of ${options.cells} cells`
  const job = model.library.functions.cria_context_new(model.handle, ...config)
  const handle = await model.library.finish(job, action, { nativeCode: "invalid-input" })
  return new NativeContext(model, handle)
}

function allocate(bytes: number): Uint8Array | undefined {
  try {
    return new Uint8Array(bytes)
  } catch (error) {
    if (error instanceof RangeError) return undefined
    throw error
  }
}

/** Views of the step block in the order that `cria.h` documents. */
function layOut(block: ArrayBuffer, { batch, rows, top }: ContextInfo): StepArrays {
  let offset = HEADER_FIELDS * 4
  const take = (length: number): readonly [ArrayBuffer, number, number] => {
    const start = offset
    offset += length * 4
    return [block, start, length]
  }
  return {
    token: new Int32Array(...take(batch)),
    position: new Int32Array(...take(batch)),
    sequence: new Int32Array(...take(batch)),
    rowIndex: new Int32Array(...take(rows)),
    rowSampler: new Int32Array(...take(rows)),
    rowTop: new Int32Array(...take(rows)),
    outToken: new Int32Array(...take(rows)),
    outStatus: new Int32Array(...take(rows)),
    outLogprob: new Float32Array(...take(rows)),
    topToken: new Int32Array(...take(rows * top)),
    topLogprob: new Float32Array(...take(rows * top)),
  }
}
