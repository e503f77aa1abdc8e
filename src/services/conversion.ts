/**
 * Files in safetensors as GGUF files.
 *
 * @module
 */

import type { ConvertType } from "../convert/convert.ts"
import { convert } from "../runner/convert.ts"
import type { Digest } from "../store/digest.ts"
import { CriaError } from "../util/errors.ts"
import { blobFile } from "./blobs.ts"
import type { Progress } from "./progress.ts"
import { type CreateParts, describeScratch, type WeightsFile } from "./weights.ts"

/** What is to be converted. */
export interface ConversionJob {
  readonly files: ReadonlyMap<string, Digest>
  /** What the file will call the model when the model does not say it, and errors do. */
  readonly name: string
  /** A type that the converter writes itself. */
  readonly type: ConvertType
  /** Of an adapter: the model that it is for. */
  readonly base?: WeightsFile | undefined
}

/** Whether files are to be converted. */
export function isConvertible(files: ReadonlyMap<string, Digest>): boolean {
  return [...files.keys()].some((name) => name.endsWith(".safetensors"))
}

/**
 * Converts a model, or an adapter for `job.base`, in a child process.
 *
 * @throws {CriaError} What `src/convert` throws, `not-found` for a missing blob.
 */
export async function* convertFiles(
  parts: CreateParts,
  { files, name, type, base }: ConversionJob,
  signal: AbortSignal,
): AsyncGenerator<Progress, WeightsFile> {
  const status = base === undefined ? "converting model" : "converting adapter"
  yield { status }
  const scratch = parts.scratch.file()
  const label = base === undefined ? name : `the adapter of ${name}`
  const paths = [...files].map(([file, digest]) => [file, blobFile(parts, digest)] as const)
  const job = {
    source: { name, label, paths: Object.fromEntries(paths) },
    target: scratch.path,
    // An adapter is small: it keeps all its bits.
    type: base === undefined ? type : "f32",
    ...(base === undefined ? {} : { base: { path: base.path, label: base.label } }),
  }
  for await (const { completed, total } of convert(job, parts.command, signal)) {
    yield { status, digest: scratch.id, total, completed }
  }
  return describeScratch(scratch, name)
}

/** Types that are written without the quantiser. */
const TYPES: Readonly<Record<string, ConvertType>> = { F32: "f32", F16: "f16", BF16: "bf16" }

/**
 * The type to convert to: what is wanted, when the converter can write it without loss of its own; the source of a
 * quantisation; as many bits as the original has when nothing is wanted.
 */
export function convertType(quantization = ""): ConvertType {
  return quantization === "" ? "source" : (TYPES[quantization] ?? "auto")
}

/** The error for files of which none is a model. */
export function noModelFiles(names: Iterable<string>): CriaError {
  const [name = ""] = names
  return new CriaError("invalid-input", "supplied file was not in GGUF format", {
    hint: `"${name}" does not begin with "GGUF", and there are no *.safetensors`,
  })
}
