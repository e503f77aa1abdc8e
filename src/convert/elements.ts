/**
 * Numbers as files hold them: decodes to 32-bit floats and encodes to the types a converted model can have.
 *
 * Pure. Rounds exactly as llama.cpp's converter does, which is why one of its files and one of ours are the same
 * bytes. Works on chunks; 16-bit floats go through typed arrays, whose bulk conversion is native code.
 *
 * @module
 */

import type { TensorTypeName } from "../gguf/format.ts"
import { unreachable } from "../util/errors.ts"
import type { SafetensorsType } from "./safetensors.ts"

/** The types that tensors are written in. */
export type OutputType = Extract<TensorTypeName, "F32" | "F16" | "BF16" | "Q8_0">

/** Elements of a Q8_0 block, which has a 16-bit scale and one byte each (`QK8_0`). */
const Q8_0_ELEMENTS = 32

/** Bytes of such a block. */
const Q8_0_BYTES: number = Q8_0_ELEMENTS + 2

/**
 * Decodes elements.
 *
 * @param bytes Aligned to the size of an element.
 * @param into At least as long as there are elements.
 * @returns The part of `into` that was filled.
 */
export function decodeElements(
  type: SafetensorsType,
  bytes: Uint8Array,
  into: Float32Array,
): Float32Array {
  const values = typed(type, bytes)
  const out = into.subarray(0, values.length)
  if (type === "BF16") widen(values, out)
  else if (type === "F8_E4M3") lookUp(values, E4M3, out)
  else if (type === "F8_E5M2") lookUp(values, E5M2, out)
  else if (values instanceof BigInt64Array || values instanceof BigUint64Array)
    for (let index = 0; index < out.length; index += 1) out[index] = Number(values[index])
  else out.set(values)
  return out
}

/**
 * Encodes elements.
 *
 * @param values For Q8_0 whole blocks. May be overwritten.
 */
export function encodeElements(type: OutputType, values: Float32Array): Uint8Array {
  switch (type) {
    case "F32":
      return bytesOf(values)
    case "F16":
      return bytesOf(new Float16Array(values))
    case "BF16":
      return bytesOf(narrow(values))
    case "Q8_0":
      return quantise(values)
    default:
      return unreachable(type)
  }
}

/** Rounds to 16-bit floats and back, in place: arithmetic of a model in 16 bits is done in 16 bits. */
export function roundToF16(values: Float32Array): void {
  values.set(new Float16Array(values))
}

type Numbers =
  | Float64Array
  | Float32Array
  | Float16Array
  | Int32Array
  | Int16Array
  | Int8Array
  | Uint32Array
  | Uint16Array
  | Uint8Array

function typed(type: SafetensorsType, bytes: Uint8Array): Numbers | BigInt64Array | BigUint64Array {
  const { buffer, byteOffset, byteLength } = bytes
  switch (type) {
    case "F64":
      return new Float64Array(buffer, byteOffset, byteLength / 8)
    case "F32":
      return new Float32Array(buffer, byteOffset, byteLength / 4)
    case "F16":
      return new Float16Array(buffer, byteOffset, byteLength / 2)
    case "I64":
      return new BigInt64Array(buffer, byteOffset, byteLength / 8)
    case "U64":
      return new BigUint64Array(buffer, byteOffset, byteLength / 8)
    case "I32":
      return new Int32Array(buffer, byteOffset, byteLength / 4)
    case "U32":
      return new Uint32Array(buffer, byteOffset, byteLength / 4)
    case "I16":
      return new Int16Array(buffer, byteOffset, byteLength / 2)
    case "U16":
    case "BF16":
      return new Uint16Array(buffer, byteOffset, byteLength / 2)
    case "I8":
      return new Int8Array(buffer, byteOffset, byteLength)
    case "U8":
    case "BOOL":
    case "F8_E4M3":
    case "F8_E5M2":
      return bytes
    default:
      return unreachable(type)
  }
}

function bytesOf(values: Float32Array | Float16Array | Uint16Array): Uint8Array {
  return new Uint8Array(values.buffer, values.byteOffset, values.byteLength)
}

/** A bfloat16 is the upper half of a 32-bit float. */
function widen(values: ArrayLike<number | bigint>, out: Float32Array): void {
  const halves = values as Uint16Array // What `typed` gives for BF16.
  const words = new Uint32Array(out.buffer, out.byteOffset, out.length)
  for (let index = 0; index < words.length; index += 1) words[index] = (halves[index] ?? 0) << 16
}

/** Rounds to the nearest, ties to even; what is not a number stays one (`ggml_compute_fp32_to_bf16`). */
function narrow(values: Float32Array): Uint16Array {
  const words = new Uint32Array(values.buffer, values.byteOffset, values.length)
  const out = new Uint16Array(words.length)
  for (let index = 0; index < out.length; index += 1) {
    const word = words[index] ?? 0
    out[index] =
      (word & 0x7fff_ffff) > 0x7f80_0000
        ? (word >>> 16) | 64
        : (word + 0x7fff + ((word >>> 16) & 1)) >>> 16
  }
  return out
}

function lookUp(values: ArrayLike<number | bigint>, table: Float32Array, out: Float32Array): void {
  const bytes = values as Uint8Array // What `typed` gives for 8-bit floats.
  for (let index = 0; index < out.length; index += 1) out[index] = table[bytes[index] ?? 0] ?? 0
}

const E4M3 = eightBitFloats(3, 7)
const E5M2 = eightBitFloats(2, 15)

/**
 * The values of an 8-bit float type.
 *
 * @param mantissaBits 3 for E4M3, whose only special value is NaN (the "fn" variant); 2 for E5M2, which is IEEE.
 */
function eightBitFloats(mantissaBits: 2 | 3, bias: number): Float32Array {
  const steps = 2 ** mantissaBits
  const exponentMax = 2 ** (7 - mantissaBits) - 1
  return Float32Array.from({ length: 256 }, (_, byte) => {
    const sign = byte & 0x80 ? -1 : 1
    const exponent = (byte & 0x7f) >> mantissaBits
    const mantissa = byte & (steps - 1)
    if (mantissaBits === 3 && (byte & 0x7f) === 0x7f) return Number.NaN
    if (mantissaBits === 2 && exponent === exponentMax) {
      return mantissa === 0 ? sign * Number.POSITIVE_INFINITY : Number.NaN
    }
    const power = 2 ** (Math.max(exponent, 1) - bias)
    return sign * power * ((exponent === 0 ? 0 : 1) + mantissa / steps)
  })
}

/**
 * `quantize_row_q8_0_ref`: a scale of the largest value / 127, values rounded away from zero on ties.
 *
 * Works on the bits where it can: half of all weights are negative, and branches on that would be guessed wrong half of
 * the time, which takes four times as long.
 */
function quantise(values: Float32Array): Uint8Array {
  const words = new Int32Array(values.buffer, values.byteOffset, values.length)
  const blocks = values.length / Q8_0_ELEMENTS
  const out = new Int8Array(blocks * Q8_0_BYTES)
  const scales = new Float32Array(blocks)
  const scaleWords = new Int32Array(scales.buffer)
  for (let block = 0; block < blocks; block += 1) {
    const start = block * Q8_0_ELEMENTS
    let largest = 0
    for (let index = start; index < start + Q8_0_ELEMENTS; index += 1) {
      // Without their signs, floats are ordered as their bits.
      const size = (words[index] ?? 0) & 0x7fff_ffff
      if (size > largest) largest = size
    }
    scaleWords[block] = largest
    const scale = Math.fround((scales[block] ?? 0) / 127)
    scales[block] = scale
    const inverse = scale === 0 ? 0 : Math.fround(1 / scale)
    let at = block * Q8_0_BYTES + 2
    for (let index = start; index < start + Q8_0_ELEMENTS; index += 1) {
      const size = Math.abs(Math.fround((values[index] ?? 0) * inverse))
      const sign = (words[index] ?? 0) >> 31
      // The sum is exact in 64 bits, so that adding a half cannot round up what is just below it.
      out[at] = (((size + 0.5) | 0) ^ sign) - sign
      at += 1
    }
  }
  const bytes = new Uint8Array(out.buffer)
  const halves = new Uint8Array(new Float16Array(scales).buffer)
  for (let block = 0; block < blocks; block += 1) {
    const at = block * Q8_0_BYTES
    bytes[at] = halves[2 * block] ?? 0
    bytes[at + 1] = halves[2 * block + 1] ?? 0
  }
  return bytes
}
