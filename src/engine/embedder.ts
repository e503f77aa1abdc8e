/**
 * Turns texts into vectors: packs many inputs into each step, one sequence each.
 *
 * @module
 */

import { CriaError } from "../util/errors.ts"
import { type Backend, STEP_CODE } from "./backend.ts"

/** A backend whose steps compute one pooled vector per sequence instead of logits. */
export interface EmbeddingBackend extends Backend {
  /** Vector of a sequence of the last step; not normalised. */
  embedding(sequence: number): Float32Array
}

/** Computes embeddings on a backend that it owns and disposes. One call at a time. */
export class Embedder implements AsyncDisposable {
  readonly #backend: EmbeddingBackend
  #last: Promise<unknown> = Promise.resolve()

  constructor(backend: EmbeddingBackend) {
    this.#backend = backend
  }

  /** Most tokens of one input. */
  get inputTokens(): number {
    return Math.min(this.#backend.info.batchTokens, this.#backend.info.cells)
  }

  /**
   * @param inputs Tokens of each text.
   * @returns One vector of Euclidean length 1 per input, in order.
   * @throws {CriaError} `invalid-input` for an input that is empty or longer than {@link inputTokens}.
   */
  embed(inputs: ReadonlyArray<ArrayLike<number>>): Promise<Float32Array[]> {
    const result = this.#last.then(() => this.#embedAll(inputs))
    this.#last = result.catch(() => {})
    return result
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#last
    await this.#backend[Symbol.asyncDispose]()
  }

  async #embedAll(inputs: ReadonlyArray<ArrayLike<number>>): Promise<Float32Array[]> {
    for (const input of inputs) {
      if (input.length > 0 && input.length <= this.inputTokens) continue
      throw new CriaError(
        "invalid-input",
        `Cannot embed an input of ${input.length} tokens: expected 1 to ${this.inputTokens}`,
      )
    }
    const vectors: Float32Array[] = []
    for (let first = 0; first < inputs.length;) {
      const pack = this.#pack(inputs, first)
      // Steps are computed one after the other.
      // oxlint-disable-next-line no-await-in-loop
      vectors.push(...(await this.#step(pack)))
      first += pack.length
    }
    return vectors
  }

  /** As many inputs as fit into one step. */
  #pack(inputs: ReadonlyArray<ArrayLike<number>>, first: number): ArrayLike<number>[] {
    const pack: ArrayLike<number>[] = []
    let tokens = 0
    for (const input of inputs.slice(first, first + this.#backend.info.sequences)) {
      tokens += input.length
      if (tokens > this.inputTokens) break
      pack.push(input)
    }
    return pack
  }

  async #step(pack: readonly ArrayLike<number>[]): Promise<Float32Array[]> {
    const { arrays, info } = this.#backend
    const first = info.firstSequence
    let tokens = 0
    for (const [index, input] of pack.entries()) {
      for (let position = 0; position < input.length; position++) {
        arrays.token[tokens] = input[position] ?? 0
        arrays.position[tokens] = position
        arrays.sequence[tokens] = first + index
        tokens++
      }
    }
    this.#backend.submit(tokens, 0)
    const { code } = await this.#backend.wait()
    try {
      if (code === STEP_CODE.ok)
        return pack.map((_, index) => normalised(this.#backend.embedding(first + index)))
      throw new CriaError("internal", `Cannot embed: llama.cpp returned ${code}`)
    } finally {
      // However it went: what a sequence still held would be in the way of the next input.
      for (const index of pack.keys()) this.#backend.removeSequence(first + index, 0, -1)
    }
  }
}

function normalised(vector: Float32Array): Float32Array {
  const length = Math.sqrt(vector.reduce((sum, value) => sum + value * value, 0))
  if (!Number.isFinite(length)) {
    throw new CriaError("invalid-input", "embedding contains NaN or Inf values")
  }
  return length === 0 ? vector : vector.map((value) => value / length)
}
