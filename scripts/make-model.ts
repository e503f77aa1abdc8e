/**
 * Makes a GGUF of a real or a tiny shape with random weights and a real vocabulary.
 *
 *     bun scripts/make-model.ts --shape qwen2.5-0.5b --type Q4_K_M --out /tmp/m.gguf [--seed 1] [--vocab-dir DIR]
 *
 * For benchmarks and load tests that need the sizes of a model but not its answers. Quantised blocks are
 * made directly, with scales that keep activations near 1; the mix of types is the one of `llama-quantize`.
 * The same shape, type and seed give the same bytes.
 *
 * @module
 */

import { join } from "node:path"
import { parseArgs } from "node:util"

import { type GgufValue } from "../src/gguf/format.ts"
import { readArrayBytes, readGguf } from "../src/gguf/read.ts"
import { type GgufInput, type TensorSource, text, u32, writeGguf } from "../src/gguf/write.ts"
import { CriaError, errorMessage } from "../src/util/errors.ts"
import { modelKeys, type Plan, type ShapeName, SHAPES, tensorPlans } from "./model-shapes.ts"
import { planBytes, Random, randomChunks, type StorageType } from "./random-blocks.ts"

/** A file type that can be made. */
export type FileType = "F32" | "F16" | "Q8_0" | "Q4_K_M"

// With their `general.file_type`.
const FILE_TYPES: Readonly<Record<FileType, number>> = { F32: 0, F16: 1, Q8_0: 7, Q4_K_M: 15 }

/** What to make, and where. */
export interface ModelRequest {
  readonly shape: ShapeName
  readonly type: FileType
  readonly out: string
  readonly seed: number
  /** Holds `ggml-vocab-*.gguf`. */
  readonly vocabDir: string
}

/**
 * Writes the model. Holds the vocabulary and one chunk in memory.
 *
 * @param report Called with the part that is written, 0 to 1, after each tensor.
 */
export async function makeModel(
  request: ModelRequest,
  report: (part: number) => void = () => {},
): Promise<void> {
  const shape = SHAPES[request.shape]
  const vocabulary = readVocabulary(join(request.vocabDir, `ggml-vocab-${shape.vocabulary}.gguf`))
  const tokens = vocabulary.get("tokenizer.ggml.tokens")
  if (tokens?.type !== "array") {
    throw new CriaError(
      "invalid-input",
      `Cannot use vocabulary "${shape.vocabulary}": it has no tokens`,
    )
  }
  const metadata = new Map<string, GgufInput>([
    ["general.architecture", text(shape.architecture)],
    ["general.type", text("model")],
    ["general.name", text(`${request.shape} with random weights`)],
    ["general.file_type", u32(FILE_TYPES[request.type])],
    ["general.quantization_version", u32(2)],
    ...modelKeys(shape, tokens.length),
    ...vocabulary,
  ])
  const stored = withTypes(tensorPlans(shape, tokens.length), request.type, shape.blocks)
  const totalBytes = stored.reduce((total, [plan, type]) => total + planBytes(plan, type), 0)
  const random = new Random(request.seed)
  let writtenBytes = 0
  async function* chunks(plan: Plan, type: StorageType): AsyncGenerator<Uint8Array> {
    yield* randomChunks(plan, type, random)
    writtenBytes += planBytes(plan, type)
    report(writtenBytes / totalBytes)
  }
  const tensors = stored.map(([plan, type]): TensorSource => ({
    name: plan.name,
    type,
    dims: plan.dims,
    chunks: chunks(plan, type),
  }))
  await writeGguf(request.out, { metadata, tensors })
}

/** All `tokenizer.*` pairs of a vocabulary file, arrays as they are. */
function readVocabulary(path: string): ReadonlyMap<string, GgufInput> {
  const pairs = [...readGguf(path).metadata].filter(([key]) => key.startsWith("tokenizer."))
  return new Map(pairs.map(([key, value]) => [key, packed(path, value)]))
}

function packed(path: string, value: GgufValue): GgufInput {
  if (value.type !== "array") return value
  const { type, elementType, length } = value
  return { type, elementType, length, bytes: readArrayBytes(path, value) }
}

/** Chooses how each tensor is stored, as `llama-quantize` does (`llama-quant.cpp`). */
export function withTypes(
  tensors: readonly Plan[],
  fileType: FileType,
  blocks: number,
): readonly (readonly [Plan, StorageType])[] {
  const values = tensors.filter((plan) => plan.name.endsWith("attn_v.weight"))
  return tensors.map((plan) => {
    if (fileType === "F32" || !isQuantised(plan)) return [plan, "F32"]
    if (fileType !== "Q4_K_M") return [plan, fileType]
    // Attention values count by themselves: a hybrid model has fewer than layers.
    const layer = Number(/^blk\.(\d+)\./.exec(plan.name)?.[1])
    const hasMoreBits =
      (plan.name.endsWith("attn_v.weight") && takesMoreBits(values.indexOf(plan), values.length)) ||
      (plan.name.endsWith("ffn_down.weight") && takesMoreBits(layer, blocks))
    const [columns = 0] = plan.dims
    // Super-blocks have 256 elements; shorter rows fall back to the next larger type in blocks of 32. The
    // embedding is also the output, for which the larger of both is used.
    if (hasMoreBits || plan.name === "token_embd.weight") {
      return [plan, columns % 256 === 0 ? "Q6_K" : "Q8_0"]
    }
    return [plan, columns % 256 === 0 ? "Q4_K" : "Q5_0"]
  })
}

/** The first and last eighth of the layers, and every third between. */
function takesMoreBits(layer: number, layers: number): boolean {
  const eighth = Math.floor(layers / 8)
  return layer < eighth || layer >= Math.floor((7 * layers) / 8) || (layer - eighth) % 3 === 2
}

/** Vectors, norms, small convolutions and positions stay as they are. */
function isQuantised(plan: Plan): boolean {
  return (
    plan.dims.length > 1 &&
    plan.name.endsWith(".weight") &&
    !/_norm\.weight$|^position_embd|^token_types|ssm_conv1d|shortconv\.conv\./.test(plan.name)
  )
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      shape: { type: "string" },
      type: { type: "string", default: "Q4_K_M" },
      out: { type: "string" },
      seed: { type: "string", default: "1" },
      "vocab-dir": { type: "string", default: "vendor/llama.cpp/src/models" },
    },
  })
  const { shape = "", type, out } = values
  const seed = Number(values.seed)
  if (!isKeyOf(SHAPES, shape)) throw usageError("--shape", shape, Object.keys(SHAPES))
  if (!isKeyOf(FILE_TYPES, type)) throw usageError("--type", type, Object.keys(FILE_TYPES))
  if (!Number.isSafeInteger(seed)) throw usageError("--seed", values.seed, ["a whole number"])
  if (out === undefined) {
    throw new CriaError("invalid-input", "Cannot make a model: --out is missing, expected a path")
  }
  const request = { shape, type, out, seed, vocabDir: values["vocab-dir"] }
  let shown = -1
  await makeModel(request, (part) => {
    const percent = Math.floor(100 * part)
    if (percent > shown) process.stderr.write(`\r${out} ${percent} %`)
    shown = percent
  })
  process.stderr.write("\n")
}

function isKeyOf<T extends object>(table: T, key: PropertyKey): key is keyof T {
  return Object.hasOwn(table, key)
}

function usageError(option: string, value: string, choices: readonly string[]): CriaError {
  return new CriaError(
    "invalid-input",
    `Cannot make a model: ${option} is "${value}", expected ${choices.join(", ")}`,
  )
}

if (import.meta.main) {
  try {
    await main()
  } catch (error) {
    console.error(errorMessage(error))
    process.exitCode = 1
  }
}
