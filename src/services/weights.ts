/**
 * The files of a model that is being created: what they are, merged when they are split, quantised when that is wanted.
 *
 * @module
 */

import { createReadStream, rmSync, statSync } from "node:fs"

import { integerOf } from "../gguf/check.ts"
import { type ModelFacts, modelFacts } from "../gguf/facts.ts"
import type { GgufHeader } from "../gguf/format.ts"
import { mergedContent } from "../gguf/merge.ts"
import { readModel } from "../gguf/split.ts"
import { encodeGguf } from "../gguf/write.ts"
import { quantize } from "../runner/quantize.ts"
import type { Digest } from "../store/digest.ts"
import { type Layer, MEDIA_TYPES } from "../store/manifest.ts"
import { placeFile } from "../store/place.ts"
import type { ModelStore } from "../store/store.ts"
import type { StoreWriter } from "../store/writer.ts"
import { CriaError, errorMessage } from "../util/errors.ts"
import { type Progress, watched } from "./progress.ts"
import { checkQuantization, fileTypeOf } from "./quantization.ts"
import { Workspace } from "./workspace.ts"

/** What creating a model works with. */
export interface CreateParts {
  /** Where models and blobs are looked up. */
  readonly store: ModelStore
  /** Where the new model goes. */
  readonly writer: StoreWriter
  /** Program and arguments that start this program again. */
  readonly command: readonly string[]
}

/** A file of the new model. It is in its store. */
export interface WeightsLayer extends Layer {
  readonly facts: ModelFacts
  readonly isNew: boolean
}

/** Names that belong to one split model. */
const PART_NAME = /^(?<prefix>.*)-\d{5}-of-\d{5}\.gguf$/s

/** Digest of progress that is about no blob. */
export const NO_DIGEST = "0000000000000000000"

/**
 * Turns GGUF blobs into layers; the parts of a split model become one.
 *
 * @param files Names as the client gave them, and the blobs.
 * @throws {CriaError} `invalid-input` for a file that is no GGUF or is damaged, `not-found` for a missing blob.
 */
export async function* ggufLayers(
  parts: CreateParts,
  files: ReadonlyMap<string, Digest>,
  signal: AbortSignal,
): AsyncGenerator<Progress, WeightsLayer[]> {
  yield { status: "parsing GGUF" }
  const layers: WeightsLayer[] = []
  for (const [name, names] of groupParts(files)) {
    const digest = files.get(names[0] ?? "")
    if (digest === undefined) continue
    if (names.length > 1) {
      layers.push(yield* mergeParts(parts, name, pick(files, names), signal))
    } else {
      const path = await ensureOwn(parts, digest, signal)
      layers.push(describeFile({ digest, path, label: name, isNew: false }))
    }
  }
  return layers
}

/** By the name they have in common, or their own. */
function groupParts(files: ReadonlyMap<string, Digest>): Map<string, string[]> {
  return Map.groupBy([...files.keys()].toSorted(), (name) => {
    return PART_NAME.exec(name)?.groups?.["prefix"] ?? name
  })
}

function pick(files: ReadonlyMap<string, Digest>, names: readonly string[]): Map<string, Digest> {
  return new Map([...files].filter(([name]) => names.includes(name)))
}

/**
 * Makes one file of the parts of a split model.
 *
 * @param prefix What errors call it.
 * @param files Names that end as the header of each part says, and the blobs.
 * @throws {CriaError} `invalid-input` when they do not belong together, `unavailable` when the result cannot be written.
 */
export async function* mergeParts(
  parts: CreateParts,
  prefix: string,
  files: ReadonlyMap<string, Digest>,
  signal: AbortSignal,
): AsyncGenerator<Progress, WeightsLayer> {
  const status = `merging ${files.size} parts`
  yield { status }
  using workspace = new Workspace(parts.writer.root)
  const paths: string[] = []
  for (const [name, digest] of files) {
    paths.push(workspace.add(name, await ensureOwn(parts, digest, signal)))
  }
  const total = paths.reduce((sum, path) => sum + statSync(path).size, 0)
  const stop = new AbortController()
  const both = AbortSignal.any([signal, stop.signal])
  try {
    const [first = ""] = paths.toSorted()
    const model = readModel(first, { label: prefix })
    if (model.paths.length !== files.size) {
      throw new Error(`it has ${model.paths.length} parts, ${files.size} given`)
    }
    const content = new Counted(encodeGguf(mergedContent(model)))
    const done = parts.writer.putStream(content, { signal: both })
    const work = {
      get completedBytes() {
        return content.bytes
      },
      done,
    }
    try {
      for await (const completed of watched(work, signal)) {
        yield { status, digest: NO_DIGEST, total, completed: Math.min(completed, total) }
      }
    } finally {
      stop.abort(new CriaError("unavailable", "the merge was cancelled"))
      await done.catch(() => {})
    }
    const { digest, isNew } = await done
    yield { status, digest: NO_DIGEST, total, completed: total }
    const path = await ensureOwn(parts, digest, signal)
    return describeFile({ digest, path, label: prefix, isNew })
  } catch (error) {
    signal.throwIfAborted()
    if (error instanceof CriaError && error.code === "unavailable") throw error
    const text = `split GGUF ${JSON.stringify(prefix)}: ${errorMessage(error)}`
    throw new CriaError("invalid-input", text, { cause: error })
  }
}

/** A stream that knows how much of it has been read. */
class Counted implements AsyncIterable<Uint8Array> {
  bytes = 0
  readonly #source: AsyncIterable<Uint8Array>

  constructor(source: AsyncIterable<Uint8Array>) {
    this.#source = source
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<Uint8Array, void> {
    for await (const chunk of this.#source) {
      this.bytes += chunk.length
      yield chunk
    }
  }
}

/** A GGUF file in the store. */
export interface BlobFile {
  readonly digest: Digest
  readonly path: string
  /** What errors call it. */
  readonly label: string
  readonly isNew: boolean
}

/** A file as a layer of the kind that its header says. */
export function describeFile({ digest, path, label, isNew }: BlobFile): WeightsLayer {
  const { header, otherParts } = readModel(path, { label })
  const facts = modelFacts(header, otherParts)
  const size = statSync(path).size
  return { mediaType: kindOf(header, facts), digest, size, facts, isNew }
}

/** What a GGUF file is to a model: its weights, an encoder for images and audio, or an adapter. */
function kindOf({ metadata }: GgufHeader, facts: ModelFacts): string {
  const { generalType, architecture, blockCount } = facts
  if (generalType === "adapter") return MEDIA_TYPES.adapter
  const hasVision = integerOf(metadata.get(`${architecture}.vision.block_count`)) !== undefined
  const isProjector =
    generalType === "projector" ||
    generalType === "mmproj" ||
    architecture === "clip" ||
    (blockCount === undefined && hasVision)
  return isProjector ? MEDIA_TYPES.projector : MEDIA_TYPES.model
}

/** Reads the facts of a layer that another model has. */
export function describeLayer(parts: CreateParts, layer: Layer): ModelFacts {
  const path = parts.store.blobPath(layer.digest)
  if (path === undefined) throw missingBlob(layer.digest)
  const { header, otherParts } = readModel(path, { label: layer.digest })
  return modelFacts(header, otherParts)
}

/**
 * Makes sure that the store that is written to has a blob: one of another store is linked, or copied.
 *
 * @returns Its path.
 * @throws {CriaError} `not-found` when no store has it.
 */
export async function ensureOwn(
  { store, writer }: CreateParts,
  digest: Digest,
  signal: AbortSignal,
): Promise<string> {
  if (writer.touchBlob(digest)) return writer.blobPath(digest)
  const path = store.blobPath(digest)
  if (path !== undefined) {
    const temporary = writer.temporaryPath()
    await placeFile(path, temporary, signal)
    writer.adoptBlob(temporary, digest)
    return writer.blobPath(digest)
  }
  // A store without files, such as the built-in one, has its texts in memory.
  const bytes = store.readBlob(digest, Number.MAX_SAFE_INTEGER)
  if (bytes === undefined) throw missingBlob(digest)
  await writer.putStream([bytes], { expected: digest })
  return writer.blobPath(digest)
}

function missingBlob(digest: Digest): CriaError {
  const hint = `Upload it first: POST /api/blobs/${digest}`
  return new CriaError("not-found", `blob "${digest}" not found`, { hint })
}

/** What {@link quantizeLayer} makes. */
export interface Quantization {
  readonly type: string
  /** Blob with an importance matrix. */
  readonly imatrix: Digest | undefined
}

/**
 * Quantises a layer of weights in a child process; one of the wanted type stays as it is.
 *
 * @throws {CriaError} `invalid-input` when the source is quantised already or the type cannot be made of it.
 */
export async function* quantizeLayer(
  parts: CreateParts,
  layer: WeightsLayer,
  { type, imatrix }: Quantization,
  signal: AbortSignal,
): AsyncGenerator<Progress, WeightsLayer> {
  const { writer, command } = parts
  const input = await ensureOwn(parts, layer.digest, signal)
  const source = fileTypeOf(layer.facts, readModel(input, { label: layer.digest }).header)
  if (!checkQuantization(source, type)) return layer
  const matrix = imatrix === undefined ? {} : { imatrix: await ensureOwn(parts, imatrix, signal) }
  const output = writer.temporaryPath()
  const status = `quantizing ${source} model to ${type}`
  const report = (fraction: number): Progress => {
    const completed = Math.round(fraction * layer.size)
    return { status, digest: NO_DIGEST, total: layer.size, completed }
  }
  try {
    yield report(0)
    for await (const fraction of quantize({ input, output, type, ...matrix }, command, signal)) {
      yield report(fraction)
    }
    yield { status: "verifying conversion" }
    const digest = await writer.adoptFile(output, signal)
    const quantized = describeFile({
      digest,
      path: writer.blobPath(digest),
      label: type,
      isNew: true,
    })
    return { ...quantized, mediaType: layer.mediaType }
  } finally {
    rmSync(output, { force: true })
  }
}

/** Whether a file begins as a GGUF file does. */
export async function isGguf(path: string): Promise<boolean> {
  for await (const chunk of createReadStream(path, { end: 3, encoding: "latin1" })) {
    return chunk === "GGUF"
  }
  return false
}
