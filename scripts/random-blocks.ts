/**
 * Random tensor contents: valid blocks of ggml's types, made directly instead of by quantising.
 *
 * Scales are chosen so that the values have the wanted deviation. The same seed gives the same bytes.
 *
 * @module
 */

import { alignUp, elementsBytes, tensorType } from "../src/gguf/format.ts"
import { type Plan } from "./model-shapes.ts"

/** The tensor types that can be made. */
export type StorageType = "F32" | "F16" | "Q8_0" | "Q5_0" | "Q4_K" | "Q6_K"

/** Bytes of a tensor stored as a type. */
export function planBytes(plan: Plan, type: StorageType): number {
  return elementsBytes(
    tensorType(type),
    plan.dims.reduce((product, size) => product * size, 1),
  )
}

/** Bytes per chunk, about: large enough to make writing cheap, small enough to hold a few. */
const CHUNK_BYTES = 1024 * 1024

/** The contents of a tensor. */
export function* randomChunks(
  plan: Plan,
  type: StorageType,
  random: Random,
): Generator<Uint8Array> {
  const { blockBytes } = tensorType(type)
  const chunkBytes = Math.floor(CHUNK_BYTES / blockBytes) * blockBytes
  const fill = FILLERS[type](plan)
  for (let left = planBytes(plan, type); left > 0; left -= chunkBytes) {
    const bytes = Math.min(left, chunkBytes)
    const words = new Uint32Array(alignUp(bytes, 4) / 4)
    random.draw(words)
    fill(words.buffer, bytes)
    yield new Uint8Array(words.buffer, 0, bytes)
  }
}

/** Turns the first `bytes` of a buffer of random words into blocks of a type, in place. */
type Filler = (buffer: ArrayBuffer, bytes: number) => void

// Block layouts: `ggml-common.h`. What is not set here are quants, for which any bits are valid.
const FILLERS: Readonly<Record<StorageType, (plan: Plan) => Filler>> = {
  F32: (plan) => {
    const bits = new Uint32Array(Float32Array.from(samples(plan)).buffer)
    return (buffer) => select(new Uint32Array(buffer), bits)
  },
  F16: (plan) => {
    const bits = new Uint16Array(Float16Array.from(samples(plan)).buffer)
    return (buffer) => select(new Uint16Array(buffer), bits)
  },
  // The scale, then 32 quants of 8 bits.
  Q8_0: (plan) =>
    eachBlock(34, (view, at) => view.setFloat16(at, plan.deviation / deviationOf(256), true)),
  // The scale, then 32 quants of 5 bits.
  Q5_0: (plan) =>
    eachBlock(22, (view, at) => view.setFloat16(at, plan.deviation / deviationOf(32), true)),
  // Scale of scales, scale of minima, 8 of each in 6 bits, then 256 quants of 4 bits.
  Q4_K: (plan) => {
    const scale = plan.deviation / (SUB_SCALE * deviationOf(16))
    return eachBlock(144, (view, at) => {
      view.setFloat16(at, scale, true)
      view.setFloat16(at + 2, scale * 7.5, true) // a minimum in the middle of the quants, 0 to 15
      // All sixteen 6-bit values are 32: four bits of the last four of each are kept in the last word.
      view.setUint32(at + 4, 0xa0a0a0a0)
      view.setUint32(at + 8, 0xa0a0a0a0)
      view.setUint32(at + 12, 0)
    })
  },
  // 256 quants of 6 bits, 16 scales of 8 bits, scale of scales.
  Q6_K: (plan) => {
    const scale = plan.deviation / (SUB_SCALE * deviationOf(64))
    return eachBlock(210, (view, at) => {
      for (let index = 0; index < 16; index += 1) view.setInt8(at + 192 + index, SUB_SCALE)
      view.setFloat16(at + 208, scale, true)
    })
  },
}

/** The scale of every part of a super-block: the middle of what 6 bits hold. */
const SUB_SCALE = 32

/** Entries of a table of samples: a power of two, so that random bits select one. */
const SAMPLES = 4096

/** Normally distributed values (Box-Muller over evenly spread points). */
function samples(plan: Plan): readonly number[] {
  const goldenRatio = (Math.sqrt(5) - 1) / 2
  return Array.from({ length: SAMPLES }, (_, index) => {
    const radius = Math.sqrt(-2 * Math.log((index + 0.5) / SAMPLES))
    return plan.mean + plan.deviation * radius * Math.cos(2 * Math.PI * goldenRatio * index)
  })
}

/** Replaces each random word by an entry of a table. */
function select<T extends Uint16Array | Uint32Array>(words: T, table: T): void {
  for (let index = 0; index < words.length; index += 1) {
    words[index] = table[(words[index] ?? 0) & (SAMPLES - 1)] ?? 0
  }
}

function eachBlock(blockBytes: number, set: (view: DataView, at: number) => void): Filler {
  return (buffer, bytes) => {
    const view = new DataView(buffer)
    for (let at = 0; at < bytes; at += blockBytes) set(view, at)
  }
}

/** The standard deviation of a whole number drawn evenly from `count` neighbours. */
function deviationOf(count: number): number {
  return Math.sqrt((count * count - 1) / 12)
}

/** Seeded random bits: sfc32, by Chris Doty-Humphrey. */
export class Random {
  readonly #state: Uint32Array

  constructor(seed: number) {
    this.#state = Uint32Array.of(seed, 0x9e3779b9, 0x243f6a88, 1)
    this.draw(new Uint32Array(16)) // mixes the seed in
  }

  draw(words: Uint32Array): void {
    let [a = 0, b = 0, c = 0, counter = 0] = this.#state
    for (let index = 0; index < words.length; index += 1) {
      const word = (a + b + counter) | 0
      counter = (counter + 1) | 0
      a = b ^ (b >>> 9)
      b = (c + (c << 3)) | 0
      c = (((c << 21) | (c >>> 11)) + word) | 0
      words[index] = word
    }
    this.#state.set([a, b, c, counter])
  }
}
