/**
 * Quantises files of a model that is being created.
 *
 * @module
 */

import { readModel } from "../gguf/split.ts"
import { type GgufView, readLoadable, viewChunks } from "../gguf/translate.ts"
import { quantize } from "../runner/quantize.ts"
import type { Digest } from "../store/digest.ts"
import { orFullDisk, requireRoom } from "../util/room.ts"
import { blobFile } from "./blobs.ts"
import { byteSteps, type Progress } from "./progress.ts"
import { checkQuantization, fileTypeOf, quantizedBytesMin } from "./quantization.ts"
import { type CreateParts, describeScratch, type WeightsFile } from "./weights.ts"

/** What {@link quantizeFile} makes. */
export interface Quantization {
  readonly type: string
  /** Blob with an importance matrix. */
  readonly imatrix: Digest | undefined
}

/**
 * Quantises a file of weights in a child process; one of the wanted type stays as it is. One in Ollama's own form becomes
 * one in llama.cpp's, with the part that takes text.
 *
 * @throws {CriaError} `invalid-input` when the source is quantised already or the type cannot be made of it;
 *   `unavailable` when there is no room for the result, or llama.cpp does not have such models.
 */
export async function* quantizeFile(
  parts: CreateParts,
  file: WeightsFile,
  { type, imatrix }: Quantization,
  signal: AbortSignal,
): AsyncGenerator<Progress, WeightsFile> {
  const source = fileTypeOf(file.facts, readModel(file.path, { label: file.label }).header)
  if (!checkQuantization(source, type)) return file
  const { header, view } = readLoadable(file.path, file.label)
  const input = view === undefined ? file.path : yield* translatedCopy(parts, view, signal)
  const matrix = imatrix === undefined ? {} : { imatrix: blobFile(parts, imatrix) }
  const scratch = parts.scratch.file()
  const action = `Cannot quantize to ${type}`
  requireRoom(parts.writer.root, quantizedBytesMin(header, type), action)
  const status = `quantizing ${source} model to ${type}`
  const report = (fraction: number): Progress => {
    const completed = Math.round(fraction * file.size)
    return { status, digest: scratch.id, total: file.size, completed }
  }
  yield report(0)
  const job = { input, output: scratch.path, type, ...matrix }
  try {
    for await (const fraction of quantize(job, parts.command, signal)) yield report(fraction)
  } catch (error) {
    signal.throwIfAborted()
    throw orFullDisk(error, scratch.path, action)
  }
  return { ...describeScratch(scratch, type), mediaType: file.mediaType }
}

/** llama.cpp's quantiser reads files only: the path of one in scratch. */
async function* translatedCopy(
  { writer, scratch }: CreateParts,
  view: GgufView,
  signal: AbortSignal,
): AsyncGenerator<Progress, string> {
  const { path, id } = scratch.file()
  const step = { status: "translating model to llama.cpp's form", digest: id, total: view.bytes }
  yield { ...step, completed: 0 }
  yield* byteSteps(writer.stage(path, viewChunks(view), { size: view.bytes, signal }), step)
  return path
}
