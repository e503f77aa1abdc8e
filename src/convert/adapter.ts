/**
 * Converts a LoRA adapter as PEFT saves it to a GGUF adapter.
 *
 * Owns the names of PEFT and the pairs of matrices. Names, order of rows and the file are those of the model the
 * adapter is for, which is why that has to be known: the weights of an adapter do not say it.
 *
 * @module
 */

import { statSync } from "node:fs"

import { integerOf } from "../gguf/check.ts"
import { readGguf } from "../gguf/read.ts"
import { f32, type GgufInput, packNumbers, text, u32 } from "../gguf/write.ts"
import { CriaError } from "../util/errors.ts"
import {
  type Conversion,
  type ConvertEvent,
  type ConvertOptions,
  outputType,
  readConfig,
  writeConversion,
} from "./convert.ts"
import { architectureName, type Family, familyOf, familyOfArchitecture } from "./families.ts"
import { ModelFolder, type ModelSource } from "./folder.ts"
import { Hyperparameters } from "./hyperparameters.ts"
import type { JsonObject } from "./json.ts"
import { generalMetadata } from "./model-card.ts"
import { rowsOf, type StoredTensor } from "./safetensors.ts"
import { isTokenId } from "./special-tokens.ts"
import {
  bareName,
  ExpertCollector,
  headRowsOf,
  mappedName,
  type PlannedTensor,
  planOne,
  type PlanOptions,
  wholePart,
} from "./tensors.ts"

/** What has to be known of the model that an adapter is for. */
export interface AdapterBase {
  readonly family: Family
  readonly heads: number
  readonly keyHeads: number
  readonly experts: number
  /** Sizes by name, the row length first; only of a GGUF file. An adapter is checked against them. */
  readonly tensors?: ReadonlyMap<string, readonly number[]>
}

type AdapterPlanOptions = PlanOptions & Pick<AdapterBase, "tensors">

/** Options of {@link convertAdapter}. "auto" and nothing said mean 32 bits, as adapters are small. */
export interface AdapterOptions extends ConvertOptions {
  readonly base: AdapterBase
}

const CONFIG = "adapter_config.json"
const PREFIX = "base_model.model."

/** The two matrices that are multiplied: A has the rank as rows, B as columns. */
interface Pair {
  a?: StoredTensor
  b?: StoredTensor
}

/**
 * Reads what has to be known of a model.
 *
 * @param path A folder with `config.json`, or a GGUF file.
 * @param label What errors call it.
 * @throws {CriaError} `invalid-input` when adapters for it cannot be converted.
 */
export function readAdapterBase(path: string, label: string = path): AdapterBase {
  const isFolder = statSync(path, { throwIfNoEntry: false })?.isDirectory() ?? false
  if (!isFolder) return baseOfFile(path, label)
  const folder = new ModelFolder(path)
  const raw = readConfig(folder)
  const config = new Hyperparameters(raw, folder.labelOf("config.json"))
  return {
    family: familyOf(architectureName(raw), label),
    heads: config.size("num_attention_heads"),
    keyHeads: config.size("num_key_value_heads", "num_attention_heads"),
    experts: config.count("num_local_experts", "num_experts") ?? 0,
  }
}

function baseOfFile(path: string, label: string): AdapterBase {
  const { metadata, tensors } = readGguf(path, { label })
  const architecture = metadata.get("general.architecture")
  const name = architecture?.type === "string" ? architecture.value : ""
  const family = familyOfArchitecture(name)
  const heads = integerOf(metadata.get(`${name}.attention.head_count`))
  if (family === undefined || heads === undefined) {
    throw new CriaError(
      "invalid-input",
      `Cannot convert an adapter for "${label}": a ${name} model`,
      {
        hint: "convert the adapter with llama.cpp, and use the GGUF file",
      },
    )
  }
  return {
    family,
    heads,
    keyHeads: integerOf(metadata.get(`${name}.attention.head_count_kv`)) ?? heads,
    experts: integerOf(metadata.get(`${name}.expert_count`)) ?? 0,
    tensors: new Map(tensors.map((tensor) => [tensor.name, tensor.dims])),
  }
}

/**
 * Converts an adapter.
 *
 * @param source `adapter_config.json` and `adapter_model.safetensors`.
 * @param target The GGUF file to write; one that is there is replaced when the new one is complete.
 * @throws {CriaError} Like `convertFolder`; also for adapters that are more than pairs of matrices.
 */
export async function* convertAdapter(
  source: ModelSource,
  target: string,
  { base, type = "f32", signal }: AdapterOptions,
): AsyncGenerator<ConvertEvent, void> {
  const folder = new ModelFolder(source)
  const stored = folder.tensors("adapter_model")
  const tensors = planAdapter(stored, {
    ...base,
    vocabularyRows: undefined,
    problem: (problem) => folder.wrong("", problem),
  })
  const { architecture } = base.family
  const conversion: Conversion = {
    label: folder.labelOf(),
    architecture,
    type: outputType(type, stored),
    tensors,
    metadata: adapterMetadata(folder, architecture, tensors),
  }
  yield* writeConversion(conversion, target, signal)
}

function adapterMetadata(
  folder: ModelFolder,
  architecture: string,
  tensors: readonly PlannedTensor[],
): Map<string, GgufInput> {
  const config = folder.object(CONFIG)
  if (config === undefined) throw folder.missing(`"${CONFIG}"`)
  const size = { parameters: -adaptedParameters(tensors), activeParameters: 0, experts: 0 }
  const metadata = new Map<string, GgufInput>([
    ["general.architecture", text(architecture)],
    ["general.type", text("adapter")],
    ["adapter.type", text("lora")],
    ...generalMetadata(folder, {}, size),
    ["adapter.lora.alpha", f32(alphaOf(folder, config, tensors))],
    ["general.quantization_version", u32(2)],
  ])
  const tokens = config["alora_invocation_tokens"]
  if (Array.isArray(tokens) && tokens.length > 0) {
    if (!tokens.every(isTokenId)) {
      throw folder.wrong(CONFIG, '"alora_invocation_tokens" are not numbers of tokens')
    }
    metadata.set("adapter.alora.invocation_tokens", packNumbers("u32", tokens))
  }
  return metadata
}

/**
 * What llama.cpp divides by the rank to get the strength.
 *
 * Adapters with stabilised rank divide by its root instead, which the factor makes up for.
 */
function alphaOf(
  folder: ModelFolder,
  config: JsonObject,
  tensors: readonly PlannedTensor[],
): number {
  const alpha = config["lora_alpha"]
  if (typeof alpha !== "number") throw folder.wrong(CONFIG, '"lora_alpha" is missing')
  if (config["use_dora"] === true) {
    throw folder.wrong(CONFIG, "it is a DoRA adapter, expected LoRA: merge it into its model")
  }
  const patterns = config["alpha_pattern"]
  if (typeof patterns === "object" && patterns !== null && Object.keys(patterns).length > 0) {
    throw folder.wrong(CONFIG, '"alpha_pattern" gives layers strengths of their own')
  }
  if (config["use_rslora"] !== true) return alpha
  const ranks = new Set(
    tensors.filter(({ name }) => name.endsWith(".lora_b")).map(({ shape }) => shape.at(-1) ?? 1),
  )
  const [rank = 1] = ranks
  if (ranks.size > 1) throw folder.wrong(CONFIG, "its ranks differ, and are stabilised")
  return alpha * Math.sqrt(rank)
}

/** Parameters of the matrices that are changed. */
function adaptedParameters(tensors: readonly PlannedTensor[]): number {
  let total = 0
  let columns = 1
  for (const { name, shape } of tensors) {
    if (name.endsWith(".lora_a")) columns = shape.at(-1) ?? 1
    else if (name.endsWith(".lora_b")) total += rowsOf(shape) * columns
    else total += rowsOf(shape)
  }
  return total
}

function planAdapter(
  stored: readonly StoredTensor[],
  options: AdapterPlanOptions,
): PlannedTensor[] {
  const pairs = new Map<string, Pair>()
  const planned: PlannedTensor[] = []
  for (const tensor of stored) {
    const match = /^(.*?)\.lora_(embedding_)?([AB])(\.default)?(\.weight)?$/.exec(tensor.name)
    const given = match === null ? tensor.name : `${match[1] ?? ""}.weight`
    const name = bareName(given.replace(PREFIX, ""), options.family)
    if (name === undefined || name.includes(".base_layer.")) continue
    if (match !== null) {
      const pair = pairs.get(name) ?? {}
      pairs.set(name, match[3] === "A" ? { ...pair, a: tensor } : { ...pair, b: tensor })
    } else if (/_layernorm|\.norm/.test(name)) {
      planned.push(planOne(name, wholePart(tensor), options))
    } else {
      throw options.problem(
        `it has a tensor "${tensor.name}", expected pairs of A and B: an adapter that replaces weights has to be merged into its model`,
      )
    }
  }
  const collector = new PairCollector(options)
  for (const [name, pair] of pairs) planned.push(...collector.add(name, pair))
  collector.checkComplete()
  if (planned.length === 0) throw options.problem("it has no tensors")
  return planned
}

/** Pairs for experts are written together, as the experts are. */
class PairCollector {
  readonly #options: AdapterPlanOptions
  readonly #a: ExpertCollector
  readonly #b: ExpertCollector

  constructor(options: AdapterPlanOptions) {
    this.#options = options
    this.#a = new ExpertCollector(options)
    this.#b = new ExpertCollector(options)
  }

  add(name: string, { a, b }: Pair): PlannedTensor[] {
    const { problem } = this.#options
    if (a === undefined || b === undefined) throw problem(`"${name}" has only one of A and B`)
    if (a.shape.length !== 2 || b.shape.length !== 2 || a.shape[0] !== b.shape[1]) {
      const shapes = [a, b].map(({ shape }) => `[${shape.join(", ")}]`).join(" and ")
      throw problem(`A and B of "${name}" are ${shapes}, expected rank × columns and rows × rank`)
    }
    if (!ExpertCollector.owns(name)) return planPair(name, { a, b }, this.#options)
    const ups = this.#b.add(name, wholePart(b))
    return this.#a
      .add(name, wholePart(a))
      .flatMap((down, index) => [down, ups[index]])
      .filter((tensor) => tensor !== undefined)
      .map((tensor, index) => ({
        ...tensor,
        name: `${tensor.name}.lora_${index % 2 === 0 ? "a" : "b"}`,
      }))
  }

  checkComplete(): void {
    this.#a.checkComplete()
  }
}

function planPair(
  name: string,
  { a, b }: Required<Pair>,
  options: AdapterPlanOptions,
): PlannedTensor[] {
  const mapped = mappedName(name, options)
  const headRows = headRowsOf(name, b.shape[0] ?? 0, options)
  const isTransposed = mapped === "token_embd.weight"
  const sizes = [a.shape[1], b.shape[0]]
  checkFits(mapped, isTransposed ? sizes.toReversed() : sizes, options)
  return [
    {
      name: `${mapped}.lora_a`,
      shape: isTransposed ? a.shape.toReversed() : a.shape,
      parts: [wholePart(a)],
      isTransposed,
    },
    {
      name: `${mapped}.lora_b`,
      shape: b.shape,
      parts: [wholePart(b)],
      ...(headRows === undefined ? {} : { headRows }),
    },
  ]
}

/** An adapter for another model would be found out only when it is loaded. */
function checkFits(
  name: string,
  sizes: readonly (number | undefined)[],
  { tensors, problem }: AdapterPlanOptions,
): void {
  if (tensors === undefined) return
  const expected = tensors.get(name)?.join(" × ") ?? "missing"
  const actual = sizes.join(" × ")
  if (actual === expected) return
  throw problem(`it is for another model: "${name}" is ${expected} there, ${actual} in the adapter`)
}
