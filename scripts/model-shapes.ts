/**
 * The shapes of models that `make-model.ts` can make: their metadata and the names and sizes of their tensors.
 *
 * Pure data and the arithmetic that expands it. How tensors are stored is decided in `make-model.ts`, what is
 * in them is made by `random-blocks.ts`. Names and sizes are those llama.cpp asks for (`src/models/*.cpp`).
 *
 * @module
 */

import { f32, flag, type GgufInput, packNumbers, u32 } from "../src/gguf/write.ts"
import { unreachable } from "../src/util/errors.ts"

/** The sizes of a model. */
export interface Shape {
  readonly architecture:
    | "bert"
    | "cohere2"
    | "gemma3"
    | "granitehybrid"
    | "lfm2"
    | "llama"
    | "mamba2"
    | "qwen2"
  /** Names `ggml-vocab-<vocabulary>.gguf`. */
  readonly vocabulary: string
  readonly blocks: number
  readonly width: number
  readonly feedForward: number
  readonly contextLength: number
  readonly heads: number
  /** One for all layers, or one for each; a layer with 0 is recurrent. */
  readonly headsKv: number | readonly number[]
  readonly headLength: number
  /** Further keys, relative to the architecture. */
  readonly keys: Readonly<Record<string, GgufInput>>
}

const RMS_EPSILON = "attention.layer_norm_rms_epsilon"

// Mamba layers: a state of 128 in one group, 8 heads of 64 channels, a convolution over 4 tokens.
const SSM = { state: 128, groups: 1, heads: 8, inner: 512, kernel: 4 }

const SSM_KEYS: Readonly<Record<string, GgufInput>> = {
  "ssm.conv_kernel": u32(SSM.kernel),
  "ssm.group_count": u32(SSM.groups),
  "ssm.inner_size": u32(SSM.inner),
  "ssm.state_size": u32(SSM.state),
  "ssm.time_step_rank": u32(SSM.heads),
}

// lfm2 only: a convolution over 3 tokens, as in the real ones.
const SHORT_CONV_TOKENS = 3

/** A shape that can be made. */
export type ShapeName =
  | "qwen2.5-0.5b"
  | "tiny-bert"
  | "tiny-cohere2"
  | "tiny-gemma3"
  | "tiny-granitehybrid"
  | "tiny-lfm2"
  | "tiny-llama"
  | "tiny-mamba2"

/** `qwen2.5-0.5b` is exact, for benchmarks; the tiny ones have one kind of memory each, for tests. */
export const SHAPES: Readonly<Record<ShapeName, Shape>> = {
  "qwen2.5-0.5b": {
    architecture: "qwen2",
    vocabulary: "qwen2",
    blocks: 24,
    width: 896,
    feedForward: 4864,
    contextLength: 32_768,
    heads: 14,
    headsKv: 2,
    headLength: 64,
    keys: { [RMS_EPSILON]: f32(1e-6), "rope.freq_base": f32(1e6) },
  },
  "tiny-llama": {
    architecture: "llama",
    vocabulary: "llama-spm",
    blocks: 4,
    width: 256,
    feedForward: 768,
    contextLength: 2048,
    heads: 4,
    headsKv: 2,
    headLength: 64,
    keys: { [RMS_EPSILON]: f32(1e-5), "rope.dimension_count": u32(64) },
  },
  // Five layers with a window of 64 tokens, then one without, as in the real ones.
  "tiny-gemma3": {
    architecture: "gemma3",
    vocabulary: "llama-spm",
    blocks: 6,
    width: 256,
    feedForward: 512,
    contextLength: 2048,
    heads: 4,
    headsKv: 1,
    headLength: 64,
    keys: {
      [RMS_EPSILON]: f32(1e-6),
      "attention.key_length": u32(64),
      "attention.value_length": u32(64),
      "attention.sliding_window": u32(64),
      "rope.freq_base": f32(1e6),
    },
  },
  // Three layers with a window of 128 tokens, then one without.
  "tiny-cohere2": {
    architecture: "cohere2",
    vocabulary: "llama-spm",
    blocks: 4,
    width: 256,
    feedForward: 512,
    contextLength: 2048,
    heads: 4,
    headsKv: 2,
    headLength: 64,
    keys: {
      "attention.layer_norm_epsilon": f32(1e-5),
      "attention.sliding_window": u32(128),
      logit_scale: f32(1),
      "rope.dimension_count": u32(64),
    },
  },
  "tiny-lfm2": {
    architecture: "lfm2",
    vocabulary: "llama-spm",
    blocks: 4,
    width: 256,
    feedForward: 512,
    contextLength: 2048,
    heads: 4,
    headsKv: [0, 2, 0, 2],
    headLength: 64,
    keys: {
      [RMS_EPSILON]: f32(1e-5),
      "rope.freq_base": f32(1e6),
      "shortconv.l_cache": u32(SHORT_CONV_TOKENS),
    },
  },
  // A state-space layer where tiny-lfm2 has a convolution: a state that all tokens of the past go into.
  "tiny-granitehybrid": {
    architecture: "granitehybrid",
    vocabulary: "llama-spm",
    blocks: 4,
    width: 256,
    feedForward: 512,
    contextLength: 2048,
    heads: 4,
    headsKv: [0, 2, 0, 2],
    headLength: 64,
    keys: {
      [RMS_EPSILON]: f32(1e-5),
      "rope.dimension_count": u32(64),
      ...SSM_KEYS,
    },
  },
  "tiny-mamba2": {
    architecture: "mamba2",
    vocabulary: "llama-spm",
    blocks: 4,
    width: 256,
    feedForward: 0,
    contextLength: 2048,
    heads: 0,
    headsKv: 0,
    headLength: 0,
    keys: {
      [RMS_EPSILON]: f32(1e-5),
      ...SSM_KEYS,
    },
  },
  "tiny-bert": {
    architecture: "bert",
    vocabulary: "bert-bge",
    blocks: 2,
    width: 256,
    feedForward: 512,
    contextLength: 512,
    heads: 4,
    headsKv: 4,
    headLength: 64,
    keys: {
      "attention.layer_norm_epsilon": f32(1e-12),
      "attention.causal": flag(false),
      pooling_type: u32(2),
    },
  },
}

/** A tensor and how its random values are distributed. */
export interface Plan {
  readonly name: string
  readonly dims: readonly number[]
  readonly mean: number
  readonly deviation: number
}

/** The metadata that belongs to the architecture. */
export function modelKeys(shape: Shape, vocabSize: number): [string, GgufInput][] {
  const headsKv =
    typeof shape.headsKv === "number" ? u32(shape.headsKv) : packNumbers("i32", shape.headsKv)
  const keys: [string, GgufInput][] = [
    ["block_count", u32(shape.blocks)],
    ["context_length", u32(shape.contextLength)],
    ["embedding_length", u32(shape.width)],
    ["feed_forward_length", u32(shape.feedForward)],
    ["attention.head_count", u32(shape.heads)],
    ["attention.head_count_kv", headsKv],
    ["vocab_size", u32(vocabSize)],
    ...Object.entries(shape.keys),
  ]
  return keys.map(([key, value]) => [`${shape.architecture}.${key}`, value])
}

/** The tensors of a model in the order of `llama-quantize`: by layer, then by name. */
export function tensorPlans(shape: Shape, vocabSize: number): readonly Plan[] {
  const layers = Array.from({ length: shape.blocks }, (_, layer) =>
    layerPlans(shape, layer)
      .map((plan) => ({ ...plan, name: `blk.${layer}.${plan.name}` }))
      .toSorted(byName),
  )
  return [...globalPlans(shape, vocabSize).toSorted(byName), ...layers.flat()]
}

function byName(a: Plan, b: Plan): number {
  return a.name < b.name ? -1 : 1
}

function globalPlans(shape: Shape, vocabSize: number): readonly Plan[] {
  const embedding = matrix("token_embd", shape.width, vocabSize)
  switch (shape.architecture) {
    case "bert":
      return [
        embedding,
        matrix("token_types", shape.width, 2),
        matrix("position_embd", shape.width, shape.contextLength),
        ...layerNorm("token_embd_norm", shape.width),
      ]
    case "lfm2":
      return [embedding, norm("token_embd_norm", shape.width)]
    case "cohere2":
    case "gemma3":
    case "granitehybrid":
    case "llama":
    case "mamba2":
    case "qwen2":
      return [embedding, norm("output_norm", shape.width)]
    default:
      return unreachable(shape.architecture)
  }
}

function layerPlans(shape: Shape, layer: number): readonly Plan[] {
  const { width } = shape
  switch (shape.architecture) {
    case "llama":
      return [
        norm("attn_norm", width),
        ...attention(shape, layer),
        norm("ffn_norm", width),
        ...gatedFeedForward(shape),
      ]
    case "qwen2":
      return [
        norm("attn_norm", width),
        ...attention(shape, layer),
        bias("attn_q", shape.heads * shape.headLength),
        bias("attn_k", headsKvOf(shape, layer) * shape.headLength),
        bias("attn_v", headsKvOf(shape, layer) * shape.headLength),
        norm("ffn_norm", width),
        ...gatedFeedForward(shape),
      ]
    case "cohere2":
      return [norm("attn_norm", width), ...attention(shape, layer), ...gatedFeedForward(shape)]
    case "gemma3":
      return [
        norm("attn_norm", width),
        ...attention(shape, layer),
        ...headNorms(shape),
        postNorm("post_attention_norm", width),
        norm("ffn_norm", width),
        ...gatedFeedForward(shape),
        postNorm("post_ffw_norm", width),
      ]
    case "lfm2":
      return [
        norm("attn_norm", width),
        ...(headsKvOf(shape, layer) === 0
          ? shortConvolution(width)
          : [...attention(shape, layer), ...headNorms(shape)]),
        norm("ffn_norm", width),
        ...gatedFeedForward(shape),
      ]
    case "granitehybrid":
      return [
        norm("attn_norm", width),
        ...(headsKvOf(shape, layer) === 0 ? stateSpace(width) : attention(shape, layer)),
        norm("ffn_norm", width),
        ...gatedFeedForward(shape),
      ]
    case "mamba2":
      return [norm("attn_norm", width), ...stateSpace(width)]
    case "bert":
      return [
        ...attention(shape, layer),
        ...["attn_q", "attn_k", "attn_v", "attn_output"].map((name) => bias(name, width)),
        ...layerNorm("attn_output_norm", width),
        matrix("ffn_up", width, shape.feedForward),
        bias("ffn_up", shape.feedForward),
        matrix("ffn_down", shape.feedForward, width),
        bias("ffn_down", width),
        ...layerNorm("layer_output_norm", width),
      ]
    default:
      return unreachable(shape.architecture)
  }
}

function headsKvOf(shape: Shape, layer: number): number {
  return typeof shape.headsKv === "number" ? shape.headsKv : (shape.headsKv[layer] ?? 0)
}

function attention(shape: Shape, layer: number): readonly Plan[] {
  const { width, headLength } = shape
  return [
    matrix("attn_q", width, shape.heads * headLength),
    matrix("attn_k", width, headsKvOf(shape, layer) * headLength),
    matrix("attn_v", width, headsKvOf(shape, layer) * headLength),
    matrix("attn_output", shape.heads * headLength, width),
  ]
}

function headNorms(shape: Shape): readonly Plan[] {
  return [norm("attn_q_norm", shape.headLength), norm("attn_k_norm", shape.headLength)]
}

function gatedFeedForward({ width, feedForward }: Shape): readonly Plan[] {
  return [
    matrix("ffn_gate", width, feedForward),
    matrix("ffn_up", width, feedForward),
    matrix("ffn_down", feedForward, width),
  ]
}

function shortConvolution(width: number): readonly Plan[] {
  return [
    matrix("shortconv.conv", SHORT_CONV_TOKENS, width),
    matrix("shortconv.in_proj", width, 3 * width),
    matrix("shortconv.out_proj", width, width),
  ]
}

function stateSpace(width: number): readonly Plan[] {
  const convolved = SSM.inner + 2 * SSM.groups * SSM.state
  return [
    matrix("ssm_in", width, SSM.inner + convolved + SSM.heads),
    matrix("ssm_conv1d", SSM.kernel, convolved),
    bias("ssm_conv1d", convolved),
    // Time steps of about softplus(-3) = 0.05, decay of about exp(-4 × 0.05) per token.
    { name: "ssm_dt.bias", dims: [SSM.heads], mean: -3, deviation: 0.5 },
    { name: "ssm_a", dims: [1, SSM.heads], mean: -4, deviation: 0.5 },
    { name: "ssm_d", dims: [1, SSM.heads], mean: 1, deviation: 0.1 },
    {
      name: "ssm_norm.weight",
      dims: [SSM.inner / SSM.groups, SSM.groups],
      mean: 1,
      deviation: 0.02,
    },
    matrix("ssm_out", SSM.inner, width),
  ]
}

/** Weights that keep the size of what goes through them. */
function matrix(name: string, columns: number, rows: number): Plan {
  return {
    name: `${name}.weight`,
    dims: [columns, rows],
    mean: 0,
    deviation: 1 / Math.sqrt(columns),
  }
}

function norm(name: string, size: number): Plan {
  return { name: `${name}.weight`, dims: [size], mean: 1, deviation: 0.02 }
}

/**
 * A norm on what a layer adds. Gemma scales embeddings up, and they are also the output: with additions of
 * the same size every token would predict itself, whatever came before.
 */
function postNorm(name: string, size: number): Plan {
  return { ...norm(name, size), mean: 3 }
}

function bias(name: string, size: number): Plan {
  return { name: `${name}.bias`, dims: [size], mean: 0, deviation: 0.02 }
}

function layerNorm(name: string, size: number): readonly Plan[] {
  return [norm(name, size), bias(name, size)]
}
