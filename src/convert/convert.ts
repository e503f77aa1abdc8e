/**
 * Converts a model as Hugging Face lays it out to a GGUF file, a chunk at a time.
 *
 * The way in: what a folder is, and its conversion with progress. Memory does not grow with the weights. The file
 * appears under its name when it is complete, and not at all when something fails.
 *
 * @module
 */

import { type FileHandle, open, rename, rm } from "node:fs/promises"
import { dirname } from "node:path"

import { readGguf } from "../gguf/read.ts"
import { encodeGguf, type GgufContent, type GgufInput, text, u32 } from "../gguf/write.ts"
import { CriaError, errorMessage } from "../util/errors.ts"
import { requireRoom } from "../util/room.ts"
import type { OutputType } from "./elements.ts"
import { architectureName, type Family, familyOf } from "./families.ts"
import { ModelFolder, type ModelSource } from "./folder.ts"
import { Hyperparameters } from "./hyperparameters.ts"
import type { JsonObject } from "./json.ts"
import { generalMetadata } from "./model-card.ts"
import { modelParameters } from "./parameters.ts"
import { partWeights } from "./quantised.ts"
import { finiteNumbers, llama3Factors, originalContext, ropeOf } from "./rope.ts"
import { elementBytes, elementsOf, type StoredTensor } from "./safetensors.ts"
import { plannedBytes, tensorSource } from "./stream.ts"
import { type PlannedTensor, planTensors, storedType } from "./tensors.ts"
import { embeddingRows, readVocabulary } from "./vocabulary.ts"

/** All of {@link ConvertType}. */
export const CONVERT_TYPES = ["auto", "source", "f32", "f16", "bf16", "q8_0"] as const

/**
 * What most tensors are written as; "auto" keeps the 16-bit type of the original, "source" also takes 8 bits for an
 * original in 8 bits.
 */
export type ConvertType = (typeof CONVERT_TYPES)[number]

const OUTPUT_TYPES: Readonly<Record<Exclude<ConvertType, "auto" | "source">, OutputType>> = {
  f32: "F32",
  f16: "F16",
  bf16: "BF16",
  q8_0: "Q8_0",
}

/** Options of a conversion. */
export interface ConvertOptions {
  readonly type?: ConvertType
  readonly signal?: AbortSignal
}

/** What was written. */
export interface Converted {
  /** llama.cpp's name of the architecture. */
  readonly architecture: string
  /** Such as "BF16". */
  readonly type: OutputType
  readonly tensors: number
  /** Of the file. */
  readonly bytes: number
}

/** What happens during a conversion; the last is `done`. */
export type ConvertEvent =
  | { readonly kind: "progress"; readonly completedBytes: number; readonly totalBytes: number }
  | { readonly kind: "done"; readonly converted: Converted }

/** What a folder has in it. */
export type FolderKind = "model" | "adapter"

/** `general.file_type`. */
const FILE_TYPES: Readonly<Record<OutputType, number>> = { F32: 0, F16: 1, Q8_0: 7, BF16: 32 }

/** `GGML_QNT_VERSION`. */
const QUANTISATION_VERSION = 2

/** What is to be written, and what will be said about it. */
export interface Conversion {
  /** What errors call it. */
  readonly label: string
  readonly architecture: string
  readonly type: OutputType
  readonly tensors: readonly PlannedTensor[]
  readonly metadata: ReadonlyMap<string, GgufInput>
}

/** What a folder has in it: a model, an adapter for one, or nothing that can be converted. */
export function folderKind(source: ModelSource): FolderKind | undefined {
  const names = new ModelFolder(source).names()
  if (names.includes("adapter_config.json")) return "adapter"
  const hasWeights = names.some((name) => name.endsWith(".safetensors"))
  return hasWeights && names.includes("config.json") ? "model" : undefined
}

/**
 * Converts a model.
 *
 * @param source `config.json`, `*.safetensors` and a tokenizer.
 * @param target The GGUF file to write; one that is there is replaced when the new one is complete.
 * @throws {CriaError} `not-found` when something is missing; `invalid-input` when a file is broken or the model of a
 *   kind that is not known; `unavailable` when the target cannot be written. The signal's reason when it is aborted.
 */
export async function* convertFolder(
  source: ModelSource,
  target: string,
  { type = "auto", signal }: ConvertOptions = {},
): AsyncGenerator<ConvertEvent, void> {
  yield* writeConversion(planModel(new ModelFolder(source), type), target, signal)
}

/** Reads everything but the weights. */
function planModel(folder: ModelFolder, asked: ConvertType): Conversion {
  const raw = readConfig(folder)
  const family = familyOf(architectureName(raw), folder.labelOf())
  const config = new Hyperparameters(raw, folder.labelOf("config.json"))
  const vocabulary = readVocabulary({ architecture: family.architecture, config, folder })
  const stored = folder.tensors("model")
  const weights = partWeights(stored, config)
  const tensors = [
    ...extraTensors(family, config),
    ...planTensors(weights.tensors, weights.scales, {
      family,
      heads: config.size("num_attention_heads"),
      keyHeads: config.size("num_key_value_heads", "num_attention_heads"),
      experts: config.count("num_local_experts", "num_experts") ?? 0,
      vocabularyRows: embeddingRows(
        { architecture: family.architecture, config, folder },
        vocabulary,
      ),
      problem: (problem) => folder.wrong("", problem),
    }),
  ]
  const type = outputType(asked, stored)
  const metadata = new Map<string, GgufInput>([
    ["general.architecture", text(family.architecture)],
    ["general.type", text("model")],
    ...generalMetadata(folder, raw, sizeFacts(tensors)),
    ...modelParameters(family, config, folder),
    ...attentionFactor(family, config),
    ["general.file_type", u32(FILE_TYPES[type])],
    ["general.quantization_version", u32(QUANTISATION_VERSION)],
    ...vocabulary.metadata,
  ])
  return { label: folder.labelOf(), architecture: family.architecture, type, tensors, metadata }
}

/** @throws {CriaError} `not-found` without `config.json`. */
export function readConfig(folder: ModelFolder): JsonObject {
  const config = folder.object("config.json")
  if (config !== undefined) return config
  throw folder.missing('"config.json"')
}

/** What "auto" means is decided by the first matrix in 16 bits; what "source" means, by what most weights have. */
export function outputType(asked: ConvertType, stored: readonly StoredTensor[]): OutputType {
  if (asked !== "auto" && asked !== "source") return OUTPUT_TYPES[asked]
  if (asked === "source" && isEightBit(stored)) return "Q8_0"
  const first = stored.find(
    ({ shape, type }) => shape.length > 1 && (type === "BF16" || type === "F16"),
  )
  return first?.type === "BF16" ? "BF16" : "F16"
}

function isEightBit(stored: readonly StoredTensor[]): boolean {
  const eight = stored.filter(({ type }) => elementBytes(type) === 1)
  return 2 * elementsIn(eight) > elementsIn(stored)
}

function elementsIn(tensors: readonly StoredTensor[]): number {
  return tensors.reduce((sum, { shape }) => sum + elementsOf(shape), 0)
}

/** Factors of rotary embeddings, which are tensors in a GGUF file. */
function extraTensors(family: Family, config: Hyperparameters): PlannedTensor[] {
  if (family.interleavesHeads === true) {
    const share = Math.floor(config.size("hidden_size") / config.size("num_attention_heads"))
    const factors = llama3Factors(config, config.count("head_dim") ?? share)
    return factors === undefined ? [] : [factorTensor("rope_freqs", factors)]
  }
  if (family.architecture !== "phi3") return []
  const { values } = ropeOf(config).full
  if (!Array.isArray(values["long_factor"])) return []
  const [long, short] = [values["long_factor"], values["short_factor"]].map(finiteNumbers)
  if (long === undefined || short?.length !== long.length) {
    throw config.problem('"long_factor" and "short_factor" are not numbers, as many of either')
  }
  return [factorTensor("rope_factors_long", long), factorTensor("rope_factors_short", short)]
}

function factorTensor(name: string, factors: readonly number[]): PlannedTensor {
  const values = Float32Array.from(factors)
  return { name: `${name}.weight`, shape: [factors.length], parts: [], values }
}

/** How much attention is sharpened when the context is stretched. */
function attentionFactor(family: Family, config: Hyperparameters): [string, GgufInput][] {
  const rope = ropeOf(config)
  if (family.architecture !== "phi3" || !Array.isArray(rope.full.values["long_factor"])) return []
  const original = originalContext(config, rope) ?? config.size("max_position_embeddings")
  const scale = config.size("max_position_embeddings") / original
  const isYarn = rope.full.type === "yarn"
  const stretched = isYarn
    ? 0.1 * Math.log(scale) + 1
    : Math.sqrt(1 + Math.log(scale) / Math.log(original))
  const value = scale > 1 ? stretched : 1
  return [["phi3.rope.scaling.attn_factor", { type: "f32", value }]]
}

function sizeFacts(tensors: readonly PlannedTensor[]): {
  parameters: number
  activeParameters: number
  experts: number
} {
  let parameters = 0
  let activeParameters = 0
  let experts = 0
  for (const { name, shape } of tensors) {
    const elements = elementsOf(shape)
    const count = name.includes("_exps.") && shape.length >= 3 ? (shape.at(-3) ?? 1) : 1
    if (count > 1) experts = count
    parameters += elements
    activeParameters += elements / count
  }
  return { parameters, activeParameters, experts }
}

/** Writes a planned file beside the target and renames it. */
export async function* writeConversion(
  conversion: Conversion,
  target: string,
  signal: AbortSignal | undefined,
): AsyncGenerator<ConvertEvent, void> {
  const types = conversion.tensors.map((tensor) => storedType(tensor, conversion.type))
  const totalBytes = conversion.tensors.reduce(
    (total, tensor, index) => total + plannedBytes(tensor, types[index] ?? conversion.type),
    0,
  )
  const content: GgufContent = {
    metadata: conversion.metadata,
    tensors: conversion.tensors.map((tensor, index) =>
      tensorSource(tensor, types[index] ?? conversion.type),
    ),
  }
  signal?.throwIfAborted()
  requireRoom(dirname(target), totalBytes, `Cannot convert "${conversion.label}"`)
  const partial = `${target}.${crypto.randomUUID()}.partial`
  let bytes = 0
  let isComplete = false
  try {
    const file = await openTarget(partial, target)
    try {
      let headerBytes = 0
      for await (const chunk of encodeGguf(content)) {
        signal?.throwIfAborted()
        await writeFully(file, chunk, target)
        bytes += chunk.length
        headerBytes ||= bytes
        const completedBytes = Math.min(bytes - headerBytes, totalBytes)
        yield { kind: "progress", completedBytes, totalBytes }
      }
      await file.sync()
    } finally {
      await file.close()
    }
    // What nobody could load, such as a vocabulary with a token twice, is no result.
    readGguf(partial, { label: target })
    await rename(partial, target)
    isComplete = true
  } finally {
    if (!isComplete) await rm(partial, { force: true })
  }
  const { architecture, type, tensors } = conversion
  yield { kind: "done", converted: { architecture, type, tensors: tensors.length, bytes } }
}

async function openTarget(path: string, target: string): Promise<FileHandle> {
  try {
    return await open(path, "wx")
  } catch (error) {
    throw cannotWrite(target, error)
  }
}

async function writeFully(file: FileHandle, chunk: Uint8Array, target: string): Promise<void> {
  try {
    let length = 0
    while (length < chunk.length) {
      const { bytesWritten } = await file.write(chunk, length, chunk.length - length)
      length += bytesWritten
    }
  } catch (error) {
    throw cannotWrite(target, error)
  }
}

function cannotWrite(target: string, cause: unknown): CriaError {
  return new CriaError("unavailable", `Cannot write "${target}": ${errorMessage(cause)}`, {
    hint: "free some space, or choose another folder",
    cause,
  })
}
