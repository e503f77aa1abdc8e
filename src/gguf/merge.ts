/**
 * Writes a model of several files as one.
 *
 * @module
 */

import { createReadStream } from "node:fs"

import type { GgufHeader, GgufValue } from "./format.ts"
import { readArrayBytes } from "./read.ts"
import type { GgufModel } from "./split.ts"
import type { GgufContent, GgufInput, TensorSource } from "./write.ts"

/** Bytes read at a time. */
const CHUNK_BYTES = 2 ** 20

/** Keys that say how a model is split. */
const SPLIT_KEY = /^split\./

/** The content of a model's files as that of one file. Tensor data is read when its turn comes, a megabyte at a time. */
export function mergedContent({ paths, header, otherParts }: GgufModel): GgufContent {
  const [first = ""] = paths
  return {
    metadata: new Map(wholeMetadata(header).map(([key, value]) => [key, inputOf(first, value)])),
    tensors: [header, ...otherParts].flatMap((part, index) => tensorsOf(paths[index] ?? "", part)),
  }
}

/** The metadata without what says that the model is split. */
export function wholeMetadata({ metadata }: GgufHeader): [string, GgufValue][] {
  return [...metadata].filter(([key]) => !SPLIT_KEY.test(key))
}

/** A value of a file as one to write. */
export function inputOf(path: string, value: GgufValue): GgufInput {
  if (value.type !== "array") return value
  const { elementType, length } = value
  return { type: "array", elementType, length, bytes: readArrayBytes(path, value) }
}

/** The tensors of a file, to be written to another. */
export function tensorsOf(path: string, { tensors, dataOffset }: GgufHeader): TensorSource[] {
  return tensors.map(({ name, type, dims, offset, bytes }) => ({
    name,
    type: type.name,
    dims,
    chunks: readRange(path, dataOffset + offset, bytes),
  }))
}

/** Bytes of a file, a megabyte at a time. */
export async function* readRange(
  path: string,
  start: number,
  bytes: number,
): AsyncGenerator<Uint8Array> {
  if (bytes === 0) return
  const range = { start, end: start + bytes - 1, highWaterMark: CHUNK_BYTES }
  // Buffers, as no encoding was asked for.
  for await (const chunk of createReadStream(path, range)) yield chunk as Buffer
}
