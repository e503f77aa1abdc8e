/**
 * Makes of a file that llama.cpp does not load one that it does, without copying it.
 *
 * The result is a view: a header of our own, and behind it the tensors where they lie. The original stays as it is: its
 * digest is what the registry knows.
 *
 * @module
 */

import { type Translation, TOKEN_ROWS, translationOf } from "./dialect.ts"
import { ELEMENT_BYTES, elementsBytes, type GgufHeader, type GgufTensor } from "./format.ts"
import { inputOf, readRange, wholeMetadata } from "./merge.ts"
import { readHeaderBytes } from "./read.ts"
import { type GgufModel, readModel } from "./split.ts"
import { encodeHeader, type GgufInput, type PackedArray, type TensorShape } from "./write.ts"

/** Bytes of a file at a place of a view. */
export interface ViewRange {
  readonly path: string
  /** From the start of the file. */
  readonly from: number
  /** From the start of the view. */
  readonly at: number
  readonly bytes: number
}

/** A GGUF file that is put together while it is read. What is neither header nor range is zero. */
export interface GgufView {
  readonly header: Uint8Array
  /** Of the whole. */
  readonly bytes: number
  /** In order, and apart from each other. */
  readonly ranges: readonly ViewRange[]
}

/** A model as llama.cpp loads it. */
export interface LoadableModel extends GgufModel {
  /** To be read instead of the files; the header is then that of the view. */
  readonly view: GgufView | undefined
}

/** Arrays with one element per token. */
const PER_TOKEN: ReadonlySet<string> = new Set(
  ["tokens", "scores", "token_type"].map((name) => `tokenizer.ggml.${name}`),
)

/**
 * Reads the headers of a model, and translates it when it has to be.
 *
 * @param path The only file, or the first part.
 * @param label What errors call the model.
 * @throws {CriaError} `unavailable` when it cannot be translated; what `readModel` throws.
 */
export function readLoadable(path: string, label: string): LoadableModel {
  const model = readModel(path, { label })
  const translation = translationOf(model, label)
  if (translation === undefined) return { ...model, view: undefined }
  const view = translatedView(model, translation)
  const header = readHeaderBytes(view.header, view.bytes, label)
  return { paths: model.paths, header, otherParts: [], view }
}

/** The file in llama.cpp's form. */
export function translatedView(model: GgufModel, translation: Translation): GgufView {
  const kept = partsOf(model).flatMap((part) => keptTensors(part, translation))
  const {
    bytes: header,
    offsets,
    fileBytes,
  } = encodeHeader(
    translatedMetadata(model, translation),
    kept.map(({ shape }) => shape),
  )
  const ranges = kept.map(({ path, from, bytes }, index) => ({
    path,
    from,
    at: offsets[index] ?? 0,
    bytes,
  }))
  return { header, bytes: fileBytes, ranges: joined(ranges) }
}

/** What a program sees that reads a view, from its start to its end, a megabyte at a time. */
export async function* viewChunks({ header, ranges, bytes }: GgufView): AsyncGenerator<Uint8Array> {
  yield header
  let at = header.length
  for (const range of ranges) {
    yield new Uint8Array(range.at - at)
    yield* readRange(range.path, range.from, range.bytes)
    at = range.at + range.bytes
  }
  yield new Uint8Array(bytes - at)
}

interface Part {
  readonly path: string
  readonly header: GgufHeader
}

interface KeptTensor {
  readonly shape: TensorShape
  readonly path: string
  readonly from: number
  readonly bytes: number
}

function partsOf({ paths, header, otherParts }: GgufModel): readonly Part[] {
  return [header, ...otherParts].map((part, index) => ({ path: paths[index] ?? "", header: part }))
}

function keptTensors({ path, header }: Part, translation: Translation): KeptTensor[] {
  return header.tensors.flatMap((tensor) => {
    const name = translation.tensorName(tensor.name)
    if (name === undefined) return []
    const dims = keptDims(tensor, translation.tokens)
    const elements = dims.reduce((product, length) => product * length, 1)
    const shape = { name, type: tensor.type.name, dims }
    const bytes = elementsBytes(tensor.type, elements)
    return [{ shape, path, from: header.dataOffset + tensor.offset, bytes }]
  })
}

/** Rows of tokens that are left out lie at the end of a tensor. */
function keptDims({ name, dims }: GgufTensor, tokens: number | undefined): readonly number[] {
  const [width = 1, rows = 1] = dims
  return tokens !== undefined && TOKEN_ROWS.has(name) ? [width, Math.min(rows, tokens)] : dims
}

/** Most tensors that follow each other do so in the original too, with the same padding between them. */
function joined(ranges: readonly ViewRange[]): ViewRange[] {
  const result: ViewRange[] = []
  for (const range of ranges) {
    const last = result.at(-1)
    const gap = last === undefined ? -1 : range.at - last.at - last.bytes
    if (
      last !== undefined &&
      last.path === range.path &&
      range.from === last.from + last.bytes + gap
    ) {
      result[result.length - 1] = { ...last, bytes: last.bytes + gap + range.bytes }
    } else {
      result.push(range)
    }
  }
  return result
}

function translatedMetadata(model: GgufModel, translation: Translation): Map<string, GgufInput> {
  const { keys, values, tokens } = translation
  const metadata = new Map<string, GgufInput>()
  for (const [key, value] of wholeMetadata(model.header)) {
    const name = keys.has(key) ? keys.get(key) : key
    if (name === undefined || name === null) continue
    metadata.set(name, values.get(name) ?? inputOf(model.paths[0] ?? "", value))
  }
  for (const [key, value] of values) metadata.set(key, value)
  for (const key of PER_TOKEN) {
    const array = metadata.get(key)
    if (tokens !== undefined && array?.type === "array") metadata.set(key, cut(array, tokens))
  }
  return metadata
}

/** The first elements of an array. */
function cut(array: PackedArray, length: number): PackedArray {
  if (array.length <= length) return array
  const { elementType, bytes } = array
  let end = length * ELEMENT_BYTES[elementType]
  if (elementType === "string") {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
    end = 0
    for (let index = 0; index < length; index++) end += 8 + Number(view.getBigUint64(end, true))
  }
  return { ...array, length, bytes: bytes.subarray(0, end) }
}
