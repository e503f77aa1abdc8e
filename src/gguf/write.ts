/**
 * Writes GGUF version 3, little-endian: metadata and tensor infos first, then tensor data as it comes.
 *
 * Owns the layout on the way out, as `read.ts` does on the way in. Holds the header and one chunk in memory.
 * What it is given comes from our own code, so a wrong size or a name that is too long is a broken invariant.
 *
 * @module
 */

import { createWriteStream } from "node:fs"
import { rm } from "node:fs/promises"
import { pipeline } from "node:stream/promises"

import { assert } from "../util/errors.ts"
import {
  alignUp,
  DEFAULT_ALIGNMENT,
  ELEMENT_BYTES,
  elementsBytes,
  GGUF_MAGIC,
  GGUF_VERSION,
  type GgufElementType,
  type GgufScalar,
  tensorType,
  type TensorTypeName,
  VALUE_TYPES,
} from "./format.ts"
import { MAX_TENSOR_NAME_BYTES } from "./read.ts"

/** An array with its elements as they are in a file; from {@link packNumbers} and the like, or `readArrayBytes`. */
export interface PackedArray {
  readonly type: "array"
  readonly elementType: GgufElementType
  readonly length: number
  readonly bytes: Uint8Array
}

/** A metadata value to write. */
export type GgufInput = GgufScalar | PackedArray

/** What a header says of a tensor. */
export interface TensorShape {
  readonly name: string
  readonly type: TensorTypeName
  /** 1 to 4 sizes, the row length first. */
  readonly dims: readonly number[]
}

/** A tensor to write. */
export interface TensorSource extends TensorShape {
  /** Exactly the bytes of the tensor, in chunks of any size; read once, when the tensor's turn comes. */
  readonly chunks: Iterable<Uint8Array> | AsyncIterable<Uint8Array>
}

/** All of a file before the tensor data. */
export interface EncodedHeader {
  /** With what fills it up to the data. */
  readonly bytes: Uint8Array
  /** Where the data of each tensor has to begin, from the start of the file. */
  readonly offsets: readonly number[]
  /** Of the whole file. */
  readonly fileBytes: number
}

/** A whole file to write. */
export interface GgufContent {
  /** Written in this order. A `general.alignment` in it is obeyed. */
  readonly metadata: ReadonlyMap<string, GgufInput>
  readonly tensors: readonly TensorSource[]
}

type NumberType = Exclude<GgufElementType, "string" | "bool" | "u64" | "i64">

/** A `u32` value, the usual type of sizes, counts and token ids. */
export function u32(value: number): GgufScalar {
  return { type: "u32", value }
}

/** An `f32` value; rounded to single precision when written. */
export function f32(value: number): GgufScalar {
  return { type: "f32", value }
}

/** A string value. */
export function text(value: string): GgufScalar {
  return { type: "string", value }
}

/** A boolean value. */
export function flag(value: boolean): GgufScalar {
  return { type: "bool", value }
}

/** An array of numbers of at most 32 bits, or of `f64`. */
export function packNumbers(elementType: NumberType, values: readonly number[]): PackedArray {
  const encoder = new Encoder()
  for (const value of values) encoder.number(elementType, value)
  return { type: "array", elementType, length: values.length, bytes: encoder.bytes() }
}

/** An array of strings. */
export function packStrings(values: readonly string[]): PackedArray {
  const encoder = new Encoder()
  for (const value of values) encoder.string(value)
  return { type: "array", elementType: "string", length: values.length, bytes: encoder.bytes() }
}

/** An array of booleans. */
export function packFlags(values: readonly boolean[]): PackedArray {
  return {
    type: "array",
    elementType: "bool",
    length: values.length,
    bytes: Uint8Array.from(values, Number),
  }
}

/**
 * Encodes a file as a stream of chunks.
 *
 * @throws {Error} Broken invariant: a tensor source gave more or fewer bytes than its type and size say.
 */
export async function* encodeGguf(content: GgufContent): AsyncGenerator<Uint8Array, void> {
  const { bytes: header } = encodeHeader(content.metadata, content.tensors)
  const alignment = alignmentOf(content.metadata)
  yield header
  for (const tensor of content.tensors) {
    const expectedBytes = tensorBytes(tensor)
    let bytes = 0
    for await (const chunk of tensor.chunks) {
      bytes += chunk.length
      assert(
        bytes <= expectedBytes,
        `tensor "${tensor.name}" has at most ${expectedBytes} bytes, ${bytes} given`,
      )
      yield chunk
    }
    assert(
      bytes === expectedBytes,
      `tensor "${tensor.name}" has ${expectedBytes} bytes, ${bytes} given`,
    )
    yield new Uint8Array(alignUp(bytes, alignment) - bytes)
  }
}

/**
 * Writes a file, replacing one that is there. Leaves none behind when it fails.
 *
 * @throws The error of the file system or of a tensor source.
 */
export async function writeGguf(path: string, content: GgufContent): Promise<void> {
  try {
    await pipeline(encodeGguf(content), createWriteStream(path))
  } catch (error) {
    await rm(path, { force: true })
    throw error
  }
}

/** Encodes the header of a file. A `general.alignment` in the metadata is obeyed. */
export function encodeHeader(
  metadata: ReadonlyMap<string, GgufInput>,
  tensors: readonly TensorShape[],
): EncodedHeader {
  const alignment = alignmentOf(metadata)
  const encoder = new Encoder()
  for (const character of GGUF_MAGIC) encoder.number("u8", character.charCodeAt(0))
  encoder.number("u32", GGUF_VERSION)
  encoder.size(tensors.length)
  encoder.size(metadata.size)
  for (const [key, value] of metadata) {
    encoder.string(key)
    encoder.value(value)
  }
  const offsets: number[] = []
  let end = 0
  for (const tensor of tensors) {
    encoder.tensor(tensor, end)
    offsets.push(end)
    end = alignUp(end + tensorBytes(tensor), alignment)
  }
  if (tensors.length > 0) encoder.align(alignment)
  const bytes = encoder.bytes()
  return {
    bytes,
    offsets: offsets.map((offset) => bytes.length + offset),
    fileBytes: bytes.length + end,
  }
}

function alignmentOf(metadata: ReadonlyMap<string, GgufInput>): number {
  const value = metadata.get("general.alignment")
  return value?.type === "u32" ? value.value : DEFAULT_ALIGNMENT
}

function tensorBytes(tensor: TensorShape): number {
  const type = tensorType(tensor.type)
  const [rowElements = 0] = tensor.dims
  assert(
    rowElements % type.blockElements === 0,
    `rows of tensor "${tensor.name}" are whole ${type.name} blocks`,
  )
  return elementsBytes(
    type,
    tensor.dims.reduce((product, size) => product * size, 1),
  )
}

/** Appends little-endian values to a buffer that grows. */
class Encoder {
  #buffer = new Uint8Array(1024)
  #view = new DataView(this.#buffer.buffer)
  #length = 0

  bytes(): Uint8Array {
    return this.#buffer.subarray(0, this.#length)
  }

  value(value: GgufInput): void {
    this.#valueType(value.type)
    if (value.type === "array") {
      this.#valueType(value.elementType)
      this.size(value.length)
      this.#raw(value.bytes)
    } else if (value.type === "string") {
      this.string(value.value)
    } else if (value.type === "bool") {
      this.number("u8", Number(value.value))
    } else if (value.type === "u64" || value.type === "i64") {
      this.#bigint(value.value)
    } else {
      this.number(value.type, value.value)
    }
  }

  tensor(tensor: TensorShape, offset: number): void {
    const nameBytes = new TextEncoder().encode(tensor.name).length
    assert(
      nameBytes <= MAX_TENSOR_NAME_BYTES,
      `tensor name "${tensor.name}" fits ${MAX_TENSOR_NAME_BYTES} bytes`,
    )
    this.string(tensor.name)
    this.number("u32", tensor.dims.length)
    for (const size of tensor.dims) this.size(size)
    this.number("u32", tensorType(tensor.type).id)
    this.size(offset)
  }

  string(value: string): void {
    const bytes = new TextEncoder().encode(value)
    this.size(bytes.length)
    this.#raw(bytes)
  }

  /** A count, length or offset: `u64`. */
  size(value: number): void {
    this.#bigint(BigInt(value))
  }

  number(type: NumberType, value: number): void {
    const bytes = ELEMENT_BYTES[type]
    const at = this.#grow(bytes)
    if (type === "f32") {
      this.#view.setFloat32(at, value, true)
    } else if (type === "f64") {
      this.#view.setFloat64(at, value, true)
    } else {
      const min = type.startsWith("i") ? -(2 ** (8 * bytes - 1)) : 0
      const isInRange = Number.isInteger(value) && value >= min && value < min + 2 ** (8 * bytes)
      assert(isInRange, `${value} is an integer that fits ${type}`)
      // Two's complement: signed and unsigned are written alike.
      for (let index = 0; index < bytes; index += 1) this.#buffer[at + index] = value >> (8 * index)
    }
  }

  /** Zeros up to the next multiple of `alignment`. */
  align(alignment: number): void {
    this.#grow(alignUp(this.#length, alignment) - this.#length)
  }

  /** Two's complement, so that this writes both `u64` and `i64`. */
  #bigint(value: bigint): void {
    const at = this.#grow(8)
    this.#view.setBigInt64(at, value, true)
  }

  #valueType(type: (typeof VALUE_TYPES)[number]): void {
    this.number("u32", VALUE_TYPES.indexOf(type))
  }

  #raw(bytes: Uint8Array): void {
    const at = this.#grow(bytes.length)
    this.#buffer.set(bytes, at)
  }

  /** Makes room for `bytes` more and returns where they go. */
  #grow(bytes: number): number {
    const start = this.#length
    this.#length += bytes
    if (this.#length > this.#buffer.length) {
      const larger = new Uint8Array(Math.max(this.#length, 2 * this.#buffer.length))
      larger.set(this.#buffer.subarray(0, start))
      this.#buffer = larger
      this.#view = new DataView(larger.buffer)
    }
    return start
  }
}
