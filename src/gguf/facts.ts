/**
 * What the rest of the product wants to know about a model, as plain values.
 *
 * Pure: turns a checked header into {@link ModelFacts} and decides nothing. A key that is absent becomes
 * undefined; only a model without architecture is an error, since nothing else can be looked up then.
 *
 * @module
 */

import { formatCount } from "../util/units.ts"
import { type CacheShape, cacheShape } from "./cache-shape.ts"
import { integerOf } from "./check.ts"
import {
  elementsBytes,
  fileTypeLabel,
  type GgufHeader,
  tensorType,
  type TensorTypeName,
} from "./format.ts"
import { Keys } from "./keys.ts"

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
  /** Beyond it positions are computed in another way, in models that were made for longer contexts afterwards. */
  readonly originalContextLength: number | undefined
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
  /** What it keeps of tokens and sequences. See {@link kvBytesPerToken}. */
  readonly cache: CacheShape
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
    originalContextLength: keys.integer("rope.scaling.original_context_length"),
    vocabSize,
    slidingWindow: keys.integer("attention.sliding_window") || undefined,
    ...attentionFacts(keys),
    cache: cacheShape(keys),
    ...modalityFacts(keys),
    chatTemplate: keys.text("tokenizer.chat_template"),
    bosTokenId: token("bos"),
    eosTokenId: token("eos"),
    eotTokenId: token("eot"),
    sampling: samplingFacts(keys),
  }
}

/**
 * The bytes that one token takes in the KV cache, in all layers: what a cache without limits per layer has.
 *
 * @param keyType How the cache stores keys, for instance "F16" or "Q8_0".
 */
export function kvBytesPerToken(
  { cache }: Pick<ModelFacts, "cache">,
  keyType: TensorTypeName,
  valueType: TensorTypeName,
): number {
  return (
    elementsBytes(tensorType(keyType), cache.keyElements) +
    elementsBytes(tensorType(valueType), cache.valueElements)
  )
}

/** As {@link kvBytesPerToken}, of the layers with a sliding window. */
export function windowBytesPerToken(
  { cache }: Pick<ModelFacts, "cache">,
  keyType: TensorTypeName,
  valueType: TensorTypeName,
): number {
  return (
    elementsBytes(tensorType(keyType), cache.windowKeyElements) +
    elementsBytes(tensorType(valueType), cache.windowValueElements)
  )
}

function attentionFacts(
  keys: Keys,
): Pick<
  ModelFacts,
  "blockCount" | "embeddingLength" | "headCount" | "headCountKv" | "keyLength" | "valueLength"
> {
  const blockCount = keys.integer("block_count")
  const embeddingLength = keys.integer("embedding_length")
  const heads = keys.perLayer("attention.head_count", blockCount)
  const headsKv = keys.perLayer("attention.head_count_kv", blockCount) ?? heads
  const headCount = heads && max(heads)
  const headLength =
    embeddingLength && headCount ? Math.floor(embeddingLength / headCount) : undefined
  return {
    blockCount,
    embeddingLength,
    headCount,
    headCountKv: headsKv && max(headsKv),
    keyLength: keys.integer("attention.key_length") ?? headLength,
    valueLength: keys.integer("attention.value_length") ?? headLength,
  }
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

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0)
}

function max(values: readonly number[]): number | undefined {
  return values.length === 0 ? undefined : Math.max(...values)
}
