/**
 * Reads planned tensors and turns them into what is written, a few megabytes at a time.
 *
 * Owns the buffers. A chunk is valid until the next one is asked for: what takes them must be done with one before it
 * takes the next. Memory does not grow with tensors, but for factors of quantised ones and for transposed ones.
 *
 * @module
 */

import { type FileHandle, open } from "node:fs/promises"

import { elementsBytes, tensorType } from "../gguf/format.ts"
import type { TensorSource } from "../gguf/write.ts"
import { assert, CriaError } from "../util/errors.ts"
import { decodeElements, encodeElements, type OutputType, roundToF16 } from "./elements.ts"
import { elementBytes, elementsOf, type StoredTensor } from "./safetensors.ts"
import type { Part, PlannedTensor, Scale } from "./tensors.ts"

/** Bytes read at once: enough that calls do not count, few enough that a server stays responsive meanwhile. */
const CHUNK_BYTES: number = 2 * 1024 * 1024

/** Bytes. The most that is read to reorder the rows of a head at once; larger heads are read row by row. */
const HEAD_BYTES_MAX: number = 16 * 1024 * 1024

/** Elements of the largest tensor that is transposed: embeddings of an adapter with rank 256 for 262k tokens. */
const TRANSPOSED_ELEMENTS_MAX: number = 2 ** 26

/** A tensor to write. The chunks are valid until the next is asked for. */
export function tensorSource(planned: PlannedTensor, type: OutputType): TensorSource {
  return {
    name: planned.name,
    type,
    dims: planned.shape.length === 0 ? [1] : planned.shape.toReversed(),
    chunks: encodedChunks(planned, type),
  }
}

/** Bytes of a tensor as it is written. */
export function plannedBytes(planned: PlannedTensor, type: OutputType): number {
  return elementsBytes(tensorType(type), elementsOf(planned.shape))
}

async function* encodedChunks(
  planned: PlannedTensor,
  type: OutputType,
): AsyncGenerator<Uint8Array> {
  if (planned.values !== undefined) {
    yield encodeElements(type, planned.values)
    return
  }
  for (const part of planned.parts) {
    await using file = await openPart(part.stored)
    if (planned.isTransposed === true) {
      yield encodeElements(type, await transposed(file, part.stored))
    } else {
      yield* partChunks(file, part, { planned, type })
    }
  }
}

async function* partChunks(
  file: FileHandle,
  part: Part,
  { planned, type }: { planned: PlannedTensor; type: OutputType },
): AsyncGenerator<Uint8Array> {
  const { stored } = part
  const shift = planned.shift ?? 0
  const isCopied = stored.type === type && shift === 0 && part.scale === undefined
  const scales = part.scale === undefined ? undefined : await readScales(part.scale)
  const values = new Float32Array(isCopied ? 0 : chunkElements(part, planned))
  for await (const { bytes, row, order } of rawChunks(file, part, planned)) {
    if (isCopied) {
      yield bytes
      continue
    }
    const decoded = decodeElements(stored.type, bytes, values)
    if (scales !== undefined && part.scale !== undefined) {
      multiply(decoded, {
        scale: part.scale,
        factors: scales,
        row,
        order,
        columns: columnsOf(stored),
      })
    }
    if (shift !== 0) {
      for (let index = 0; index < decoded.length; index += 1)
        decoded[index] = (decoded[index] ?? 0) + shift
      // PyTorch adds in the type of the tensor, and 16-bit floats stay what they are until they are written.
      if (stored.type === "F16") roundToF16(decoded)
    }
    yield encodeElements(type, decoded)
  }
}

/** Elements of one row. */
function columnsOf(stored: StoredTensor): number {
  return stored.shape.length === 1 ? 1 : (stored.shape.at(-1) ?? 1)
}

/** The most elements of one chunk. */
function chunkElements(part: Part, planned: PlannedTensor): number {
  const rowBytes = columnsOf(part.stored) * elementBytes(part.stored.type)
  const headBytes = (planned.headRows ?? 0) * rowBytes
  const hasWholeRows = part.scale !== undefined || planned.headRows !== undefined
  const bytes = Math.max(
    CHUNK_BYTES,
    hasWholeRows ? rowBytes : 0,
    headBytes <= HEAD_BYTES_MAX ? headBytes : 0,
  )
  if (rowBytes > HEAD_BYTES_MAX && hasWholeRows) {
    throw new CriaError(
      "invalid-input",
      `Cannot convert tensor "${part.stored.name}": a row has ${rowBytes} bytes, limit ${HEAD_BYTES_MAX}`,
    )
  }
  return bytes / elementBytes(part.stored.type)
}

/** Bytes as they are in the file, but for the order of rows. */
interface RawChunk {
  readonly bytes: Uint8Array
  /** The first row in the stored tensor; only right when rows are whole, which they are when there are factors. */
  readonly row: number
  /** Which row of the stored tensor comes at which place, counted from `row`. */
  readonly order: ((index: number) => number) | undefined
}

function rawChunks(file: FileHandle, part: Part, planned: PlannedTensor): AsyncGenerator<RawChunk> {
  const { headRows } = planned
  return headRows === undefined ? plainChunks(file, part) : interleavedChunks(file, part, headRows)
}

async function* plainChunks(file: FileHandle, part: Part): AsyncGenerator<RawChunk> {
  const { stored, firstRow } = part
  const rowBytes = columnsOf(stored) * elementBytes(stored.type)
  const start = stored.byteOffset + firstRow * rowBytes
  const total = part.rows * rowBytes
  const wholeRows = Math.max(1, Math.floor(CHUNK_BYTES / rowBytes)) * rowBytes
  const step = part.scale === undefined ? CHUNK_BYTES : wholeRows
  const buffer = new Uint8Array(Math.min(step, total))
  for (let done = 0; done < total; done += step) {
    const bytes = buffer.subarray(0, Math.min(step, total - done))
    await readFully(file, bytes, start + done, stored)
    yield { bytes, row: firstRow + done / rowBytes, order: undefined }
  }
}

async function* interleavedChunks(
  file: FileHandle,
  part: Part,
  headRows: number,
): AsyncGenerator<RawChunk> {
  const { stored, firstRow, rows } = part
  const rowBytes = columnsOf(stored) * elementBytes(stored.type)
  const start = stored.byteOffset + firstRow * rowBytes
  // Row 2i of a head is row i of its first half, row 2i + 1 of its second.
  const order = (index: number): number => (index >> 1) + (index & 1 ? headRows / 2 : 0)
  if (headRows * rowBytes > HEAD_BYTES_MAX) {
    const bytes = new Uint8Array(rowBytes)
    for (let index = 0; index < rows; index += 1) {
      const inHead = index % headRows
      const row = index - inHead + order(inHead)
      await readFully(file, bytes, start + row * rowBytes, stored)
      yield { bytes, row: firstRow + row, order: undefined }
    }
    return
  }
  const original = new Uint8Array(headRows * rowBytes)
  const bytes = new Uint8Array(headRows * rowBytes)
  for (let row = 0; row < rows; row += headRows) {
    await readFully(file, original, start + row * rowBytes, stored)
    for (let index = 0; index < headRows; index += 1) {
      const from = order(index) * rowBytes
      bytes.set(original.subarray(from, from + rowBytes), index * rowBytes)
    }
    yield { bytes, row: firstRow + row, order }
  }
}

/** Multiplies elements with the factor of their block, in place. */
function multiply(
  values: Float32Array,
  by: {
    scale: Scale
    factors: Float32Array
    row: number
    order: RawChunk["order"]
    columns: number
  },
): void {
  const { scale, factors, columns } = by
  for (let start = 0; start < values.length; start += columns) {
    const index = start / columns
    const row = by.row + (by.order?.(index) ?? index)
    const first = Math.floor(row / scale.blockRows) * scale.columns
    for (let column = 0; column < columns; column += scale.blockColumns) {
      const factor = factors[first + column / scale.blockColumns] ?? 1
      const end = start + Math.min(column + scale.blockColumns, columns)
      for (let at = start + column; at < end; at += 1) values[at] = (values[at] ?? 0) * factor
    }
  }
}

async function readScales(scale: Scale): Promise<Float32Array> {
  const { stored } = scale
  await using file = await openPart(stored)
  return readValues(file, stored)
}

async function transposed(file: FileHandle, stored: StoredTensor): Promise<Float32Array> {
  const [rows = 0, columns = 0] = stored.shape
  if (elementsOf(stored.shape) > TRANSPOSED_ELEMENTS_MAX) {
    throw new CriaError(
      "invalid-input",
      `Cannot transpose tensor "${stored.name}": it is too large`,
    )
  }
  const values = await readValues(file, stored)
  const out = new Float32Array(values.length)
  for (let row = 0; row < rows; row += 1) {
    for (let column = 0; column < columns; column += 1) {
      out[column * rows + row] = values[row * columns + column] ?? 0
    }
  }
  return out
}

async function readValues(file: FileHandle, stored: StoredTensor): Promise<Float32Array> {
  const bytes = new Uint8Array(stored.bytes)
  await readFully(file, bytes, stored.byteOffset, stored)
  return decodeElements(stored.type, bytes, new Float32Array(elementsOf(stored.shape)))
}

async function openPart(stored: StoredTensor): Promise<FileHandle> {
  try {
    return await open(stored.path)
  } catch (error) {
    throw new CriaError("unavailable", `Cannot read "${stored.path}"`, { cause: error })
  }
}

async function readFully(
  file: FileHandle,
  bytes: Uint8Array,
  position: number,
  stored: StoredTensor,
): Promise<void> {
  let length = 0
  while (length < bytes.length) {
    const { bytesRead } = await file.read(bytes, length, bytes.length - length, position + length)
    if (bytesRead === 0) {
      throw new CriaError(
        "invalid-input",
        `Cannot read tensor "${stored.name}": "${stored.path}" became shorter while it was read`,
      )
    }
    length += bytesRead
  }
  assert(length === bytes.length, "a chunk is read whole")
}
