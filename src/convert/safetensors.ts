/**
 * Reads the header of a safetensors file: bounded, strict, and without touching the tensor data.
 *
 * Owns the layout of one file: eight bytes of length, a JSON object, then the data. Refuses what the format's own
 * library refuses (gaps, overlaps, sizes that lie) and what JSON parsers let pass, such as a name that is there twice.
 * Which file holds which tensor of a model is the business of `folder.ts`.
 *
 * @module
 */

import { closeSync, constants, fstatSync, openSync, readSync } from "node:fs"

import { CriaError } from "../util/errors.ts"
import { isObject, type JsonObject } from "./json.ts"

/** Bytes of the length before the header. */
const LENGTH_BYTES = 8

/** Bytes. The limit of the format's own library. */
const HEADER_BYTES_MAX = 100_000_000

/**
 * Names in a header: those of tensors, and three for each. A million tensors is more than any model has: 512 layers of 256
 * experts with three matrices and their scales.
 */
const NAMES_MAX: number = 4 * 2 ** 20

/** Bytes of one element. A type that is not here cannot be converted. */
const ELEMENT_BYTES = {
  F64: 8,
  F32: 4,
  F16: 2,
  BF16: 2,
  F8_E4M3: 1,
  F8_E5M2: 1,
  I64: 8,
  I32: 4,
  I16: 2,
  I8: 1,
  U64: 8,
  U32: 4,
  U16: 2,
  U8: 1,
  BOOL: 1,
} as const

/** The element types of the format that have whole bytes. */
export type SafetensorsType = keyof typeof ELEMENT_BYTES

/** A tensor in a file. */
export interface StoredTensor {
  readonly name: string
  readonly type: SafetensorsType
  /** Row-major, the row length last (PyTorch's order). */
  readonly shape: readonly number[]
  readonly path: string
  /** From the start of the file. */
  readonly byteOffset: number
  readonly bytes: number
}

/** Dimensions of a tensor. No model has more than five. */
const DIMENSIONS_MAX = 8

/** Characters. */
const NAME_CHARS_MAX = 1024

/** Bytes of one element. */
export function elementBytes(type: SafetensorsType): number {
  return ELEMENT_BYTES[type]
}

/** The product of the sizes. */
export function elementsOf(shape: readonly number[]): number {
  return shape.reduce((product, size) => product * size, 1)
}

/** The product of all dimensions but the last; a vector has rows of one element. */
export function rowsOf(shape: readonly number[]): number {
  const rows = shape.length === 1 ? shape : shape.slice(0, -1)
  return rows.reduce((product, size) => product * size, 1)
}

/**
 * Reads and checks the header of one file.
 *
 * Synchronous. Holds the header, at most 100 MB.
 *
 * @param label What errors call the file.
 * @returns The tensors, ordered by name as Python orders strings.
 * @throws {CriaError} `not-found` when there is no such file; `invalid-input` for everything else.
 */
export function readSafetensors(path: string, label: string = path): StoredTensor[] {
  const { text, headerBytes, fileBytes } = readHeader(path, label)
  const dataBytes = fileBytes - LENGTH_BYTES - headerBytes
  const dataOffset = LENGTH_BYTES + headerBytes
  const tensors: StoredTensor[] = []
  for (const [name, value] of Object.entries(parseHeader(text, label))) {
    if (name === "__metadata__") continue
    const { type, shape, from, to } = entryOf(name, value, label)
    const bytes = to - from
    const expected = elementsOf(shape) * ELEMENT_BYTES[type]
    if (bytes !== expected) {
      throw wrong(
        label,
        `tensor "${name}" of ${type} [${shape.join(", ")}] has ${bytes} bytes, expected ${expected}`,
      )
    }
    tensors.push({ name, type, shape, path, byteOffset: dataOffset + from, bytes })
  }
  checkLayout(tensors, dataOffset, dataBytes, label)
  return tensors.toSorted((a, b) => compareCodePoints(a.name, b.name))
}

/** Compares as Python does. UTF-16, as JavaScript compares, differs above the basic plane. */
export function compareCodePoints(a: string, b: string): number {
  if (a === b) return 0
  const length = Math.min(a.length, b.length)
  let at = 0
  while (at < length && a.charCodeAt(at) === b.charCodeAt(at)) at += 1
  return at === length ? a.length - b.length : placeOf(a.charCodeAt(at)) - placeOf(b.charCodeAt(at))
}

/** Halves of characters above the basic plane come after all others. */
function placeOf(unit: number): number {
  return unit >= 0xd800 && unit < 0xe000 ? unit + 0x1_0000 : unit
}

function readHeader(
  path: string,
  label: string,
): { text: string; headerBytes: number; fileBytes: number } {
  const file = open(path, label)
  try {
    const stats = fstatSync(file)
    if (!stats.isFile()) throw wrong(label, "it is not a regular file")
    const prefix = read(file, LENGTH_BYTES, 0)
    if (prefix.length < LENGTH_BYTES) {
      throw wrong(label, `the file has ${stats.size} bytes, expected at least ${LENGTH_BYTES}`)
    }
    const length = prefix.readBigUInt64LE()
    if (length > BigInt(HEADER_BYTES_MAX)) {
      throw wrong(label, `the header has ${length} bytes, expected at most ${HEADER_BYTES_MAX}`)
    }
    const headerBytes = Number(length)
    if (LENGTH_BYTES + headerBytes > stats.size) {
      throw wrong(label, `the header has ${headerBytes} bytes, the file only ${stats.size}`)
    }
    const header = read(file, headerBytes, LENGTH_BYTES)
    if (header.length < headerBytes) throw wrong(label, "the file became shorter while it was read")
    return { text: decode(header, label), headerBytes, fileBytes: stats.size }
  } finally {
    closeSync(file)
  }
}

function open(path: string, label: string): number {
  try {
    // Without O_NONBLOCK, opening a FIFO waits for a writer. Windows lacks the flag.
    return openSync(path, constants.O_RDONLY | (constants.O_NONBLOCK ?? 0))
  } catch (error) {
    const code = error instanceof Error && "code" in error ? error.code : undefined
    throw new CriaError(
      code === "ENOENT" ? "not-found" : "unavailable",
      `Cannot open "${label}" (${String(code)})`,
      { cause: error },
    )
  }
}

function read(file: number, bytes: number, position: number): Buffer {
  const buffer = Buffer.allocUnsafe(bytes)
  let length = 0
  while (length < bytes) {
    const count = readSync(file, buffer, length, bytes - length, position + length)
    if (count === 0) break
    length += count
  }
  return buffer.subarray(0, length)
}

function decode(bytes: Uint8Array, label: string): string {
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes)
  } catch (error) {
    throw wrong(label, "the header is not UTF-8", error)
  }
}

function parseHeader(text: string, label: string): Readonly<Record<string, JsonObject>> {
  if (!text.startsWith("{")) throw wrong(label, 'the header does not start with "{"')
  const written = writtenNames(text)
  if (written > NAMES_MAX) throw wrong(label, `its header has ${written} names, limit ${NAMES_MAX}`)
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch (error) {
    throw wrong(label, "the header is not JSON", error)
  }
  if (!isObject(value)) throw wrong(label, "the header is not an object of tensors")
  const names = Object.keys(value)
  // JSON.parse keeps the last of several equal names, so that they are counted in the text.
  let kept = names.length
  for (const name of names) {
    const entry = value[name]
    if (!isObject(entry) || name.length > NAME_CHARS_MAX) {
      throw wrong(label, "the header is not an object of tensors")
    }
    kept += Object.keys(entry).length
  }
  if (written !== kept) throw wrong(label, "a name is there twice")
  // Every value was looked at above.
  return value as Readonly<Record<string, JsonObject>>
}

/** What the header says of a tensor. By hand, since a schema takes ten times as long, and there may be a million. */
function entryOf(
  name: string,
  { dtype: type, shape, data_offsets: offsets, ...others }: JsonObject,
  label: string,
): { type: SafetensorsType; shape: readonly number[]; from: number; to: number } {
  const [from, to] = isSizes(offsets) && offsets.length === 2 ? offsets : []
  if (
    typeof type !== "string" ||
    !isSizes(shape) ||
    shape.length > DIMENSIONS_MAX ||
    from === undefined ||
    to === undefined ||
    Object.keys(others).length > 0
  ) {
    throw wrong(label, `tensor "${name}" has a wrong entry`)
  }
  if (isKnownType(type)) return { type, shape, from, to }
  const known = Object.keys(ELEMENT_BYTES).join(", ")
  const shown = type.slice(0, 16)
  throw wrong(label, `tensor "${name}" has type "${shown}", expected one of ${known}`)
}

function isKnownType(type: string): type is SafetensorsType {
  return Object.hasOwn(ELEMENT_BYTES, type)
}

function isSizes(value: unknown): value is number[] {
  return Array.isArray(value) && value.every((size) => Number.isSafeInteger(size) && size >= 0)
}

/** Counts the names in all objects of a JSON text. */
function writtenNames(text: string): number {
  let count = 0
  for (let at = 0; at < text.length; at += 1) {
    if (text[at] === ":") count += 1
    else if (text[at] === '"') at = endOfString(text, at)
  }
  return count
}

/** @param start Of the opening quotation mark. @returns Where the closing one is. */
function endOfString(text: string, start: number): number {
  let at = start + 1
  while (at < text.length && text[at] !== '"') at += text[at] === "\\" ? 2 : 1
  return at
}

/** The data are one tensor after the other, without gaps, to the end of the file. */
function checkLayout(
  tensors: readonly StoredTensor[],
  dataOffset: number,
  dataBytes: number,
  label: string,
): void {
  let end = dataOffset
  for (const tensor of tensors.toSorted(
    (a, b) => a.byteOffset - b.byteOffset || a.bytes - b.bytes,
  )) {
    if (tensor.byteOffset !== end) {
      const what = tensor.byteOffset < end ? "overlaps the one before it" : "leaves a gap before it"
      throw wrong(label, `tensor "${tensor.name}" ${what}`)
    }
    end += tensor.bytes
  }
  if (end - dataOffset !== dataBytes) {
    throw wrong(label, `it has ${dataBytes} bytes of data, its header tells of ${end - dataOffset}`)
  }
}

function wrong(label: string, problem: string, cause?: unknown): CriaError {
  return new CriaError("invalid-input", `Cannot use "${label}": ${problem}`, {
    hint: "download the file again",
    cause,
  })
}
