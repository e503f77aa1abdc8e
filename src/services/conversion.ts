/**
 * Uploaded files in safetensors as layers: put together to the folder that they were, and converted.
 *
 * @module
 */

import { rmSync } from "node:fs"
import { join } from "node:path"

import { convertAdapter, readAdapterBase } from "../convert/adapter.ts"
import { convertFolder, type ConvertEvent, type ConvertType } from "../convert/convert.ts"
import type { Digest } from "../store/digest.ts"
import { CriaError } from "../util/errors.ts"
import type { Progress } from "./progress.ts"
import {
  type CreateParts,
  describeFile,
  ensureOwn,
  NO_DIGEST,
  type WeightsLayer,
} from "./weights.ts"
import { Workspace } from "./workspace.ts"

/** What is to be converted. */
export interface ConversionJob {
  readonly files: ReadonlyMap<string, Digest>
  /** Name of the folder, which the file will say when the model does not. */
  readonly name: string
  /** A type that the converter writes itself. */
  readonly type: ConvertType
  /** Of an adapter: the model that it is for. */
  readonly base?: WeightsLayer | undefined
}

/** Whether files are to be converted. */
export function isConvertible(files: ReadonlyMap<string, Digest>): boolean {
  return [...files.keys()].some((name) => name.endsWith(".safetensors"))
}

/**
 * Converts a model, or an adapter for `job.base`.
 *
 * @throws {CriaError} What `src/convert` throws, `not-found` for a missing blob.
 */
export async function* convertedLayers(
  parts: CreateParts,
  job: ConversionJob,
  signal: AbortSignal,
): AsyncGenerator<Progress, WeightsLayer[]> {
  const { writer } = parts
  const status = job.base === undefined ? "converting model" : "converting adapter"
  yield { status }
  using workspace = new Workspace(writer.root)
  for (const [name, digest] of job.files) {
    workspace.add(`${job.name}/${name}`, await ensureOwn(parts, digest, signal))
  }
  const folder = join(workspace.path, job.name)
  const target = writer.temporaryPath()
  try {
    for await (const event of await events(parts, job, { folder, target, signal })) {
      if (event.kind !== "progress") continue
      const { completedBytes: completed, totalBytes: total } = event
      yield { status, digest: NO_DIGEST, total, completed }
    }
    const digest = await writer.adoptFile(target, signal)
    const path = writer.blobPath(digest)
    return [describeFile({ digest, path, label: job.name, isNew: true })]
  } finally {
    rmSync(target, { force: true })
  }
}

async function events(
  parts: CreateParts,
  { type, base }: ConversionJob,
  { folder, target, signal }: { folder: string; target: string; signal: AbortSignal },
): Promise<AsyncGenerator<ConvertEvent, void>> {
  if (base === undefined) return convertFolder(folder, target, { type, signal })
  const path = await ensureOwn(parts, base.digest, signal)
  return convertAdapter(folder, target, { base: readAdapterBase(path), signal })
}

/** Types that are written without the quantiser. */
const TYPES: Readonly<Record<string, ConvertType>> = { F32: "f32", F16: "f16", BF16: "bf16" }

/** The type to convert to: what is wanted, when the converter can write it without loss of its own. */
export function convertType(quantization = ""): ConvertType {
  return TYPES[quantization] ?? "auto"
}

/** The error for files of which none is a model. */
export function noModelFiles(names: Iterable<string>): CriaError {
  const [name = ""] = names
  return new CriaError("invalid-input", "supplied file was not in GGUF format", {
    hint: `"${name}" does not begin with "GGUF", and there are no *.safetensors`,
  })
}
