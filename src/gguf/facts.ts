/**
 * What the rest of the product wants to know about a model, as plain values.
 *
 * Pure: turns a checked header into {@link ModelFacts} and decides nothing. A key that is absent becomes
 * undefined; only a model without architecture is an error, since nothing else can be looked up then.
 *
 * @module
 */

import { CriaError } from "../util/errors.ts"
import { formatCount } from "../util/units.ts"
import { integerOf, integersOf, RECURRENT_ARCHITECTURES } from "./check.ts"
import {
  elementsBytes,
  fileTypeLabel,
  type GgufHeader,
  type GgufValue,
  tensorType,
  type TensorTypeName,
} from "./format.ts"

/** How an embedding model turns token vectors into one; the position is the number in the file. */
const POOLING_TYPES = ["none", "mean", "cls", "last", "rank"] as const

/** How an embedding model turns token vectors into one; "rank" models score pairs of texts. */
export type PoolingType = (typeof POOLING_TYPES)[number]

/** The sampling parameters that the makers of a model recommend (`general.sampling.*`). */
export interface SamplingFacts {
  /** Order of the samplers, in llama.cpp's notation. */
  readonly sequence: string | undefined
  readonly temperature: number | undefined
  readonly topK: number | undefined
  readonly topP: number | undefined
  readonly minP: number | undefined
  readonly xtcProbability: number | undefined
  readonly xtcThreshold: number | undefined
  readonly repeatLastN: number | undefined
  readonly repeatPenalty: number | undefined
  readonly mirostat: number | undefined
  readonly mirostatTau: number | undefined
  readonly mirostatEta: number | undefined
}

/** Facts about a model; undefined where the file does not say. */
export interface ModelFacts {
  /** llama.cpp's name of the model family, such as "qwen2"; "clip" for projectors. */
  readonly architecture: string
  readonly name: string | undefined
  /** "model", "adapter", "mmproj", … */
  readonly generalType: string | undefined
  readonly parameterCount: number
  /** Such as "494.03M". */
  readonly parameterLabel: string
  /** Such as "Q4_K_M"; "unknown" when the file does not say. */
  readonly quantization: string
  /** Of all files of the model. */
  readonly fileBytes: number
  /** Tensor data without padding. */
  readonly weightsBytes: number
  readonly blockCount: number | undefined
  /** Tokens the model was trained for. */
  readonly contextLength: number | undefined
  readonly embeddingLength: number | undefined
  /** The most of any layer. */
  readonly headCount: number | undefined
  /** The most of any layer. */
  readonly headCountKv: number | undefined
  /** Elements per head. */
  readonly keyLength: number | undefined
  /** Elements per head. */
  readonly valueLength: number | undefined
  /** Tokens in the vocabulary. */
  readonly vocabSize: number | undefined
  /** Tokens that the layers with a sliding window look back; undefined when no layer has one. */
  readonly slidingWindow: number | undefined
  /** Keys in the cache for one token, over all layers. See {@link kvBytesPerToken}. */
  readonly keyElementsPerToken: number
  /** Values in the cache for one token, over all layers. */
  readonly valueElementsPerToken: number
  /** No attention at all: a state of fixed size instead of a KV cache. */
  readonly isRecurrent: boolean
  /** Attention in some layers or beside a recurrent state. */
  readonly isHybrid: boolean
  readonly hasVision: boolean
  readonly hasAudio: boolean
  /** Set for embedding and reranking models only. */
  readonly poolingType: PoolingType | undefined
  /** A Jinja template. */
  readonly chatTemplate: string | undefined
  readonly bosTokenId: number | undefined
  readonly eosTokenId: number | undefined
  readonly eotTokenId: number | undefined
  readonly sampling: SamplingFacts
}

// `llm_arch_is_hybrid` in llama.cpp.
const HYBRID_ARCHITECTURES: ReadonlySet<string> = new Set([
  "bailingmoe3",
  "deepseek4",
  "falcon-h1",
  "granitehybrid",
  "jamba",
  "kimi-k3",
  "kimi-linear",
  "lfm2",
  "lfm2moe",
  "minimax-01",
  "nemotron_h",
  "nemotron_h_moe",
  "plamo2",
  "qwen35",
  "qwen35moe",
  "qwen3next",
  "qwen4exp",
])

/**
 * Collects the facts of a model.
 *
 * @param header From `readGguf`, which has checked it. Of a split model, the first part.
 * @param otherParts The headers of the other parts of a split model.
 * @throws {CriaError} `invalid-input` when the file does not name an architecture.
 */
export function modelFacts(header: GgufHeader, otherParts: readonly GgufHeader[] = []): ModelFacts {
  const keys = new Keys(header.metadata)
  const parts = [header, ...otherParts]
  const tensors = parts.flatMap((part) => part.tensors)
  const parameterCount = sum(tensors.map((tensor) => tensor.elements))
  const vocabSize = keys.arrayLength("tokenizer.ggml.tokens") ?? keys.integer("vocab_size")
  const token = (name: string) => keys.tokenId(`tokenizer.ggml.${name}_token_id`, vocabSize)
  return {
    architecture: keys.architecture,
    name: keys.text("general.name"),
    generalType: keys.text("general.type"),
    parameterCount,
    parameterLabel: formatCount(parameterCount),
    quantization: fileTypeLabel(integerOf(header.metadata.get("general.file_type"))),
    fileBytes: sum(parts.map((part) => part.fileBytes)),
    weightsBytes: sum(tensors.map((tensor) => tensor.bytes)),
    contextLength: keys.integer("context_length"),
    vocabSize,
    slidingWindow: keys.integer("attention.sliding_window") || undefined,
    ...attentionFacts(keys),
    ...memoryFacts(keys),
    ...modalityFacts(keys),
    chatTemplate: keys.text("tokenizer.chat_template"),
    bosTokenId: token("bos"),
    eosTokenId: token("eos"),
    eotTokenId: token("eot"),
    sampling: samplingFacts(keys),
  }
}

/**
 * Estimates the bytes that one token takes in the KV cache.
 *
 * An upper bound: layers with a sliding window keep no more than the window, and a recurrent state, which
 * does not grow with tokens, is not counted.
 *
 * @param keyType How the cache stores keys, for instance "F16" or "Q8_0".
 */
export function kvBytesPerToken(
  facts: Pick<ModelFacts, "keyElementsPerToken" | "valueElementsPerToken">,
  keyType: TensorTypeName,
  valueType: TensorTypeName,
): number {
  return (
    elementsBytes(tensorType(keyType), facts.keyElementsPerToken) +
    elementsBytes(tensorType(valueType), facts.valueElementsPerToken)
  )
}

function attentionFacts(
  keys: Keys,
): Pick<
  ModelFacts,
  | "blockCount"
  | "embeddingLength"
  | "headCount"
  | "headCountKv"
  | "keyLength"
  | "valueLength"
  | "keyElementsPerToken"
  | "valueElementsPerToken"
> {
  const blockCount = keys.integer("block_count")
  const embeddingLength = keys.integer("embedding_length")
  const heads = keys.perLayer("attention.head_count", blockCount)
  const headsKv = keys.perLayer("attention.head_count_kv", blockCount) ?? heads
  const headCount = heads && max(heads)
  const headLength =
    embeddingLength && headCount ? Math.floor(embeddingLength / headCount) : undefined
  const keyLength = keys.integer("attention.key_length") ?? headLength
  const valueLength = keys.integer("attention.value_length") ?? headLength
  const cachedHeads = sum(cachedHeadsKv(keys, headsKv ?? []))
  // With multi-head latent attention the values are a part of the cached keys.
  const hasLatentValues = keys.integer("attention.value_length_mla") !== undefined
  return {
    blockCount,
    embeddingLength,
    headCount,
    headCountKv: headsKv && max(headsKv),
    keyLength,
    valueLength,
    keyElementsPerToken: cachedHeads * (keyLength ?? 0),
    valueElementsPerToken: hasLatentValues ? 0 : cachedHeads * (valueLength ?? 0),
  }
}

/** KV heads of the layers that have a KV cache of their own. */
function cachedHeadsKv(keys: Keys, headsKv: readonly number[]): readonly number[] {
  // Encoders such as BERT see a text at once and keep nothing.
  if (keys.flag("attention.causal") === false) return []
  const interval = keys.integer("full_attention_interval") ?? 1
  const cachedLayers = headsKv.length - (keys.integer("attention.shared_kv_layers") ?? 0)
  return headsKv.filter((_, layer) => layer < cachedLayers && (layer + 1) % interval === 0)
}

function memoryFacts(keys: Keys): Pick<ModelFacts, "isRecurrent" | "isHybrid"> {
  const isRecurrent = RECURRENT_ARCHITECTURES.has(keys.architecture)
  const hasState =
    HYBRID_ARCHITECTURES.has(keys.architecture) || keys.integer("ssm.conv_kernel") !== undefined
  return { isRecurrent, isHybrid: !isRecurrent && hasState }
}

function modalityFacts(keys: Keys): Pick<ModelFacts, "hasVision" | "hasAudio" | "poolingType"> {
  // Two projectors carry an audio encoder that cannot be used.
  const hasUsableAudio =
    keys.ownText("projector_type") !== "gemma3nv" && keys.architecture !== "nemotron_h_omni"
  const pooling = keys.integer("pooling_type")
  return {
    hasVision:
      keys.integer("vision.block_count") !== undefined || keys.flag("has_vision_encoder") === true,
    hasAudio:
      keys.integer("audio.block_count") !== undefined ||
      (keys.flag("has_audio_encoder") === true && hasUsableAudio),
    poolingType: pooling === undefined ? undefined : POOLING_TYPES[pooling],
  }
}

function samplingFacts(keys: Keys): SamplingFacts {
  const number = (name: string) => keys.number(`general.sampling.${name}`)
  return {
    sequence: keys.text("general.sampling.sequence"),
    temperature: number("temp"),
    topK: number("top_k"),
    topP: number("top_p"),
    minP: number("min_p"),
    xtcProbability: number("xtc_probability"),
    xtcThreshold: number("xtc_threshold"),
    repeatLastN: number("penalty_last_n"),
    repeatPenalty: number("penalty_repeat"),
    mirostat: number("mirostat"),
    mirostatTau: number("mirostat_tau"),
    mirostatEta: number("mirostat_eta"),
  }
}

/** Typed access to metadata. `name` is relative to the architecture, `key` is whole. */
class Keys {
  readonly architecture: string
  readonly #metadata: ReadonlyMap<string, GgufValue>

  constructor(metadata: ReadonlyMap<string, GgufValue>) {
    const value = metadata.get("general.architecture")
    if (value?.type !== "string") {
      throw new CriaError(
        "invalid-input",
        'Cannot tell what model this is: "general.architecture" is missing',
      )
    }
    this.architecture = value.value
    this.#metadata = metadata
  }

  /** An integer of this architecture. */
  integer(name: string): number | undefined {
    return integerOf(this.#own(name))
  }

  /** One integer for each layer of this architecture; a single value goes for all. */
  perLayer(name: string, blockCount: number | undefined): readonly number[] | undefined {
    const value = this.#own(name)
    const single = integerOf(value)
    if (single !== undefined) return Array.from({ length: blockCount ?? 1 }, () => single)
    return integersOf(value)
  }

  /** A boolean of this architecture. */
  flag(name: string): boolean | undefined {
    const value = this.#own(name)
    return value?.type === "bool" ? value.value : undefined
  }

  /** A string of this architecture. */
  ownText(name: string): string | undefined {
    return this.text(`${this.architecture}.${name}`)
  }

  text(key: string): string | undefined {
    const value = this.#metadata.get(key)
    return value?.type === "string" ? value.value : undefined
  }

  number(key: string): number | undefined {
    const value = this.#metadata.get(key)
    return value?.type === "f32" || value?.type === "f64" ? value.value : integerOf(value)
  }

  arrayLength(key: string): number | undefined {
    const value = this.#metadata.get(key)
    return value?.type === "array" ? value.length : undefined
  }

  /** A token id; undefined outside the vocabulary, where llama.cpp ignores it too. */
  tokenId(key: string, vocabSize: number | undefined): number | undefined {
    const id = integerOf(this.#metadata.get(key))
    return id !== undefined && id >= 0 && id < (vocabSize ?? Infinity) ? id : undefined
  }

  #own(name: string): GgufValue | undefined {
    return this.#metadata.get(`${this.architecture}.${name}`)
  }
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0)
}

function max(values: readonly number[]): number | undefined {
  return values.length === 0 ? undefined : Math.max(...values)
}
