/**
 * The files of a model that is being created: what they are, and merged when they are split.
 *
 * @module
 */

import { createReadStream, statSync } from "node:fs"

import { integerOf } from "../gguf/check.ts"
import { type ModelFacts, modelFacts } from "../gguf/facts.ts"
import type { GgufHeader } from "../gguf/format.ts"
import { mergedContent } from "../gguf/merge.ts"
import { readModel, readParts } from "../gguf/split.ts"
import { encodeGguf } from "../gguf/write.ts"
import type { Digest } from "../store/digest.ts"
import { type Layer, MEDIA_TYPES } from "../store/manifest.ts"
import { CriaError, errorMessage } from "../util/errors.ts"
import { type BlobParts, blobFile } from "./blobs.ts"
import { byteSteps, type Progress } from "./progress.ts"
import type { Scratch, ScratchFile } from "./scratch.ts"

/** What creating a model works with. */
export interface CreateParts extends BlobParts {
  /** Program and arguments that start this program again. */
  readonly command: readonly string[]
  /** Where files go that are made on the way. */
  readonly scratch: Scratch
}

/** A file of the new model: a blob of some store, or one that was made and lies in scratch. */
export interface WeightsFile {
  readonly mediaType: string
  readonly path: string
  /** What errors call it. */
  readonly label: string
  readonly size: number
  readonly facts: ModelFacts
  /** Undefined when nobody has computed it. */
  readonly digest: Digest | undefined
  /** That it is as long as it is no blob. */
  readonly scratch: ScratchFile | undefined
  /** Name of the model that it was taken from. */
  readonly from?: string | undefined
}

/** A file of the new model that is in its store. */
export interface WeightsLayer extends Layer {
  readonly facts: ModelFacts
  readonly isNew: boolean
}

/** Names that belong to one split model. */
const PART_NAME = /^(?<prefix>.*)-\d{5}-of-\d{5}\.gguf$/s

/**
 * Reads what GGUF blobs are; the parts of a split model become one file.
 *
 * @param files Names as the client gave them, and the blobs.
 * @throws {CriaError} `invalid-input` for a file that is no GGUF or is damaged, `not-found` for a missing blob.
 */
export async function* ggufFiles(
  parts: CreateParts,
  files: ReadonlyMap<string, Digest>,
  signal: AbortSignal,
): AsyncGenerator<Progress, WeightsFile[]> {
  yield { status: "parsing GGUF" }
  const found: WeightsFile[] = []
  for (const [label, names] of groupParts(files)) {
    const digests = names.flatMap((name) => files.get(name) ?? [])
    const [digest] = digests
    if (digest === undefined) continue
    found.push(
      digests.length > 1
        ? yield* mergeParts(parts, label, digests, signal)
        : describeBlob(parts, digest, label),
    )
  }
  return found
}

/** By the name they have in common, or their own. */
function groupParts(files: ReadonlyMap<string, Digest>): Map<string, string[]> {
  return Map.groupBy([...files.keys()].toSorted(), (name) => {
    return PART_NAME.exec(name)?.groups?.["prefix"] ?? name
  })
}

/**
 * Makes one file of the parts of a split model.
 *
 * @param prefix What errors call it.
 * @param digests Of the parts, in any order.
 * @throws {CriaError} `invalid-input` when they do not belong together, `unavailable` when the result cannot be written.
 */
export async function* mergeParts(
  parts: CreateParts,
  prefix: string,
  digests: readonly Digest[],
  signal: AbortSignal,
): AsyncGenerator<Progress, WeightsFile> {
  const scratch = parts.scratch.file()
  try {
    const model = readParts(
      digests.map((digest) => blobFile(parts, digest)),
      prefix,
    )
    const total = model.paths.reduce((sum, part) => sum + statSync(part).size, 0)
    const step = { status: `merging ${digests.length} parts`, digest: scratch.id, total }
    yield { ...step, completed: 0 }
    const content = encodeGguf(mergedContent(model))
    const options = { size: total, signal }
    const { digest } = yield* byteSteps(parts.writer.stage(scratch.path, content, options), step)
    return { ...describeScratch(scratch, prefix), digest }
  } catch (error) {
    signal.throwIfAborted()
    if (error instanceof CriaError && error.code === "unavailable") throw error
    const text = `split GGUF ${JSON.stringify(prefix)}: ${errorMessage(error)}`
    throw new CriaError("invalid-input", text, { cause: error })
  }
}

/** A blob as a file of the kind that its header says. */
export function describeBlob(parts: BlobParts, digest: Digest, label: string): WeightsFile {
  return { ...describeFile(blobFile(parts, digest), label), digest, scratch: undefined }
}

/** A file that was made, likewise. */
export function describeScratch(scratch: ScratchFile, label: string): WeightsFile {
  return { ...describeFile(scratch.path, label), digest: undefined, scratch }
}

function describeFile(path: string, label: string): Omit<WeightsFile, "digest" | "scratch"> {
  const { header, otherParts } = readModel(path, { label })
  const facts = modelFacts(header, otherParts)
  return { path, label, mediaType: kindOf(header, facts), size: statSync(path).size, facts }
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

/** A layer that another model has, as a file of the new one. */
export function fileOfLayer(
  parts: BlobParts,
  { mediaType, digest }: Layer,
  from: string,
): WeightsFile {
  return { ...describeBlob(parts, digest, digest), mediaType, from }
}

/**
 * Makes a file a layer: one in scratch becomes a blob. Blobs stay where they are until the model is installed.
 *
 * @throws {CriaError} `unavailable` when it cannot be moved; the signal's reason.
 */
export async function* layerOf(
  { writer }: CreateParts,
  file: WeightsFile,
  signal: AbortSignal,
): AsyncGenerator<Progress, WeightsLayer> {
  const { mediaType, path, size, facts, scratch } = file
  const layer = { mediaType, size, facts, ...(file.from === undefined ? {} : { from: file.from }) }
  if (file.digest === undefined) {
    const step = { status: "verifying conversion", digest: scratch?.id ?? "", total: size }
    return { ...layer, ...(yield* byteSteps(writer.adoptFile(path, signal), step)) }
  }
  const isNew = scratch !== undefined && writer.adoptBlob(path, file.digest)
  return { ...layer, digest: file.digest, isNew }
}

/** Whether a file begins as a GGUF file does. */
export async function isGguf(path: string): Promise<boolean> {
  for await (const chunk of createReadStream(path, { end: 3, encoding: "latin1" })) {
    return chunk === "GGUF"
  }
  return false
}
