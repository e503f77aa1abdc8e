/**
 * Reads the header of a GGUF file: bounded, strict, and before llama.cpp sees the file.
 *
 * Owns the layout of the file and the limits of its counts. What the values mean for a model is checked in
 * `check.ts`; bytes and bounds are owned by `cursor.ts`. Accepts what llama.cpp accepts of real models and
 * refuses everything that could make it read, divide or allocate out of bounds.
 *
 * @module
 */

import { checkMetadata } from "./check.ts"
import { type ByteSource, Cursor, quote } from "./cursor.ts"
import {
  alignUp,
  DEFAULT_ALIGNMENT,
  ELEMENT_BYTES,
  elementsBytes,
  GGUF_MAGIC,
  GGUF_VERSION,
  type GgufArray,
  type GgufElement,
  type GgufElementType,
  type GgufHeader,
  type GgufScalar,
  type GgufTensor,
  type GgufValue,
  type GgufValueType,
  tensorTypeById,
  VALUE_TYPES,
} from "./format.ts"
import { TokenChecker } from "./tokens.ts"

/** Magic, version, number of tensors, number of metadata pairs. */
const PREAMBLE_BYTES = 24

/**
 * The most metadata pairs. Real models have below 100; the number is limited because llama.cpp compares
 * every key with every other.
 */
export const MAX_PAIRS = 8192

/**
 * The most tensors in one file: the 512 layers that llama.cpp can load with 64 tensors each. It compares
 * every name with every other, so that a million would keep it busy for an hour.
 */
export const MAX_TENSORS: number = 512 * 64

/** The most bytes of a key, by the GGUF specification. */
export const MAX_KEY_BYTES = 65_535

/** The most bytes of a tensor name: ggml keeps 64 with the terminating NUL (`GGML_MAX_NAME`). */
export const MAX_TENSOR_NAME_BYTES = 63

/** The most bytes of one string value: twice the largest tokenizer in JSON (`tokenizer.huggingface.json`), 33 MB. */
const MAX_STRING_BYTES: number = 64 * 1024 * 1024

/** Arrays up to this length are kept in the header: twice the most layers, for the arrays with one value per layer. */
const INLINE_ELEMENTS = 1024

/** The dimensions a ggml tensor can have (`GGML_MAX_DIMS`). */
const MAX_DIMS = 4

/** Bytes. The GGUF specification wants a multiple of 8. */
const MIN_ALIGNMENT = 8

/** Bytes. The largest memory page in use; nothing aligns a file further. */
const MAX_ALIGNMENT = 65_536

/** The least a metadata pair takes: a key of one byte, the type, a value of one byte. */
const MIN_PAIR_BYTES = 8 + 1 + 4 + 1

/** The least a tensor info takes: a name of one byte, one dimension, the type, the offset. */
const MIN_TENSOR_BYTES = 8 + 1 + 4 + 8 + 4 + 8

const TOKENS_KEY = "tokenizer.ggml.tokens"

/** Options of {@link readGguf} and {@link readArray}. */
export interface ReadOptions {
  /** What error messages call the file; the path by default. A server passes a name, so that no path gets out. */
  readonly label?: string
}

/**
 * Reads and checks the header of one file.
 *
 * Synchronous: about 25 ms for a vocabulary of 150k tokens. Never reads tensor data. Holds a window of
 * 256 KiB and the header it returns, in which long arrays are not contained: see {@link readArray}.
 *
 * @throws {CriaError} `not-found` when there is no such file; `invalid-input` for everything else, with what
 *   was found and what was expected.
 */
export function readGguf(path: string, options: ReadOptions = {}): GgufHeader {
  return readHeader(path, options.label ?? path)
}

/**
 * Reads and checks a header that is in memory.
 *
 * @param header The beginning of a file, at least up to the tensor data.
 * @param fileBytes Of the whole file.
 * @param label What error messages call the file.
 * @throws {CriaError} `invalid-input` as {@link readGguf}.
 */
export function readHeaderBytes(header: Uint8Array, fileBytes: number, label: string): GgufHeader {
  // The cursor reads ahead, into tensor data that nobody looks at.
  const read = (target: Uint8Array, offset: number) => {
    target.fill(0)
    target.set(header.subarray(offset, offset + target.length))
    return target.length
  }
  return readHeader({ fileBytes, read, [Symbol.dispose]() {} }, label)
}

function readHeader(source: string | ByteSource, label: string): GgufHeader {
  using cursor = new Cursor(source, label)
  const { version, tensorCount, pairCount } = readPreamble(cursor)
  const metadata = readMetadata(cursor, pairCount)
  const alignment = readAlignment(cursor, metadata)
  const tensors = readTensors(cursor, tensorCount, alignment)
  const dataOffset = tensorCount === 0 ? cursor.offset : alignUp(cursor.offset, alignment)
  checkTensorData(cursor, tensors, dataOffset)
  checkMetadata(metadata, tensorCount, (problem) => cursor.error(problem))
  return { version, alignment, metadata, tensors, dataOffset, fileBytes: cursor.fileBytes }
}

/**
 * Reads the elements of an array that {@link readGguf} left in the file, all at once.
 *
 * @param array From the header of the same file.
 * @throws {CriaError} Like {@link readGguf}; the file may have changed since.
 */
export function readArray(
  path: string,
  array: GgufArray,
  options: ReadOptions = {},
): readonly GgufElement[] {
  if (array.values !== undefined) return array.values
  using cursor = new Cursor(path, options.label ?? path)
  cursor.seek(array.byteOffset)
  return readElements(cursor, array.elementType, array.length, "array")
}

/** Reads the encoded elements of an array, as they are in the file. The caller owns the result. */
export function readArrayBytes(
  path: string,
  array: GgufArray,
  options: ReadOptions = {},
): Uint8Array {
  using cursor = new Cursor(path, options.label ?? path)
  cursor.seek(array.byteOffset)
  return cursor.bytes(array.byteLength, "array").slice()
}

function readPreamble(cursor: Cursor): { version: number; tensorCount: number; pairCount: number } {
  if (cursor.fileBytes < PREAMBLE_BYTES) {
    throw cursor.error(
      `the file is ${cursor.fileBytes} bytes, a GGUF header has at least ${PREAMBLE_BYTES}`,
    )
  }
  const magic = String.fromCharCode(...cursor.bytes(GGUF_MAGIC.length, "magic"))
  if (magic !== GGUF_MAGIC) {
    throw cursor.error(`it starts with ${quote(magic)}, expected "${GGUF_MAGIC}"`)
  }
  const version = cursor.u32("version")
  // A big-endian file has its version in the upper bytes.
  if (version !== 0 && (version & 0xffff) === 0) {
    throw cursor.error("it is big-endian, expected little-endian")
  }
  if (version < 2 || version > GGUF_VERSION) {
    throw cursor.error(`it has GGUF version ${version}, expected 2 or ${GGUF_VERSION}`)
  }
  const tensorCount = cursor.length(MAX_TENSORS, "the number of tensors")
  const pairCount = cursor.length(MAX_PAIRS, "the number of metadata pairs")
  const least = pairCount * MIN_PAIR_BYTES + tensorCount * MIN_TENSOR_BYTES
  if (least > cursor.remaining) {
    throw cursor.error(
      `${pairCount} metadata pairs and ${tensorCount} tensors need at least ${least} bytes, ${cursor.remaining} are left`,
    )
  }
  return { version, tensorCount, pairCount }
}

function readMetadata(cursor: Cursor, pairCount: number): ReadonlyMap<string, GgufValue> {
  const metadata = new Map<string, GgufValue>()
  for (let index = 0; index < pairCount; index += 1) {
    const key = cursor.string(MAX_KEY_BYTES, `key ${index}`)
    if (key === "" || key.includes("\0")) {
      throw cursor.error(`key ${index} is ${quote(key)}, expected a name`)
    }
    if (metadata.has(key)) throw cursor.error(`key ${quote(key)} is there twice, expected once`)
    metadata.set(key, readValue(cursor, key))
  }
  return metadata
}

function readValue(cursor: Cursor, key: string): GgufValue {
  const type = readValueType(cursor, key)
  if (type === "array") return readArrayInfo(cursor, key)
  return readScalar(cursor, type, quote(key))
}

function readValueType(cursor: Cursor, key: string): GgufValueType {
  const id = cursor.u32(`type of ${quote(key)}`)
  const type = VALUE_TYPES[id]
  if (type === undefined) {
    throw cursor.error(
      `key ${quote(key)} has type ${id}, expected at most ${VALUE_TYPES.length - 1}`,
    )
  }
  return type
}

function readArrayInfo(cursor: Cursor, key: string): GgufArray {
  const elementType = readValueType(cursor, key)
  if (elementType === "array") {
    throw cursor.error(`key ${quote(key)} is an array of arrays, expected an array of values`)
  }
  const most = Math.floor(Math.max(0, cursor.remaining - 8) / ELEMENT_BYTES[elementType])
  const length = cursor.length(most, `the length of array ${quote(key)}`)
  const byteOffset = cursor.offset
  skipElements(cursor, elementType, length, key)
  const byteLength = cursor.offset - byteOffset
  let values: readonly GgufElement[] | undefined
  if (length <= INLINE_ELEMENTS) {
    cursor.seek(byteOffset)
    values = readElements(cursor, elementType, length, quote(key))
  }
  return { type: "array", elementType, length, byteOffset, byteLength, values }
}

function skipElements(cursor: Cursor, type: GgufElementType, length: number, key: string): void {
  if (type !== "string") {
    cursor.skip(length * ELEMENT_BYTES[type], quote(key))
  } else if (key === TOKENS_KEY) {
    const tokens = new TokenChecker(length, (problem) => cursor.error(problem))
    cursor.skipStrings(length, quote(key), (window, start, bytes) =>
      tokens.check(window, start, bytes),
    )
  } else {
    cursor.skipStrings(length, quote(key))
  }
}

function readElements(
  cursor: Cursor,
  type: GgufElementType,
  length: number,
  what: string,
): readonly GgufElement[] {
  return Array.from({ length }, () => readScalar(cursor, type, what).value)
}

function readScalar(cursor: Cursor, type: GgufElementType, what: string): GgufScalar {
  if (type === "bool") return { type, value: readBool(cursor, what) }
  if (type === "string") return { type, value: cursor.string(MAX_STRING_BYTES, what) }
  if (type === "u64" || type === "i64") return { type, value: cursor[type](what) }
  return { type, value: cursor[type](what) }
}

function readBool(cursor: Cursor, what: string): boolean {
  const byte = cursor.u8(what)
  if (byte > 1) throw cursor.error(`${what} is a boolean of ${byte}, expected 0 or 1`)
  return byte === 1
}

function readAlignment(cursor: Cursor, metadata: ReadonlyMap<string, GgufValue>): number {
  const value = metadata.get("general.alignment")
  if (value === undefined) return DEFAULT_ALIGNMENT
  if (value.type !== "u32") {
    throw cursor.error(`"general.alignment" has type ${value.type}, expected u32`)
  }
  const alignment = value.value
  const isPowerOfTwo = Number.isInteger(Math.log2(alignment))
  if (!isPowerOfTwo || alignment < MIN_ALIGNMENT || alignment > MAX_ALIGNMENT) {
    throw cursor.error(
      `"general.alignment" is ${alignment}, expected a power of two from ${MIN_ALIGNMENT} to ${MAX_ALIGNMENT}`,
    )
  }
  return alignment
}

function readTensors(cursor: Cursor, count: number, alignment: number): readonly GgufTensor[] {
  const tensors: GgufTensor[] = []
  const names = new Set<string>()
  let end = 0
  for (let index = 0; index < count; index += 1) {
    const tensor = readTensor(cursor, index)
    if (names.has(tensor.name)) {
      throw cursor.error(`tensor ${quote(tensor.name)} is there twice, expected once`)
    }
    // Like llama.cpp: the data follow each other without gap or overlap.
    const expected = alignUp(end, alignment)
    if (tensor.offset !== expected) {
      throw cursor.error(
        `tensor ${quote(tensor.name)} starts at offset ${tensor.offset}, expected ${expected}`,
      )
    }
    names.add(tensor.name)
    tensors.push(tensor)
    end = tensor.offset + tensor.bytes
  }
  return tensors
}

function readTensor(cursor: Cursor, index: number): GgufTensor {
  const name = cursor.string(MAX_TENSOR_NAME_BYTES, `name of tensor ${index}`)
  if (name === "" || name.includes("\0")) {
    throw cursor.error(`tensor ${index} is called ${quote(name)}, expected a name`)
  }
  const what = `tensor ${quote(name)}`
  const dims = readDims(cursor, what)
  const elements = dims.reduce((product, size) => product * size, 1)
  if (elements > Number.MAX_SAFE_INTEGER) {
    throw cursor.error(`${what} has the size ${dims.join(" × ")}, expected below 2^53 elements`)
  }
  const typeId = cursor.u32(what)
  const type = tensorTypeById(typeId)
  if (type === undefined) throw cursor.error(`${what} has type ${typeId}, which ggml does not know`)
  const [rowElements = 0] = dims
  if (rowElements % type.blockElements !== 0) {
    throw cursor.error(
      `${what} has rows of ${rowElements}, expected a multiple of ${type.blockElements} for ${type.name}`,
    )
  }
  const bytes = elementsBytes(type, elements)
  const offset = cursor.length(Number.MAX_SAFE_INTEGER, `the offset of ${what}`)
  return { name, type, dims, elements, bytes, offset }
}

function readDims(cursor: Cursor, what: string): readonly number[] {
  const count = cursor.u32(what)
  if (count < 1 || count > MAX_DIMS) {
    throw cursor.error(`${what} has ${count} dimensions, expected 1 to ${MAX_DIMS}`)
  }
  return Array.from({ length: count }, (_, axis) => {
    const size = cursor.length(Number.MAX_SAFE_INTEGER, `dimension ${axis} of ${what}`)
    if (size === 0) throw cursor.error(`dimension ${axis} of ${what} is 0, expected at least 1`)
    return size
  })
}

function checkTensorData(cursor: Cursor, tensors: readonly GgufTensor[], dataOffset: number): void {
  for (const tensor of tensors) {
    const end = dataOffset + tensor.offset + tensor.bytes
    if (end > cursor.fileBytes) {
      throw cursor.error(
        `tensor ${quote(tensor.name)} ends at byte ${end}, the file at ${cursor.fileBytes}: it may be incomplete`,
      )
    }
  }
}
