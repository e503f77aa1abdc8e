/**
 * Models of random weights, one of each architecture that Ollama's registry has in a form of its own: what llama.cpp
 * wants of them, and what such a file has instead.
 *
 * Two layers where two kinds of them are enough, and the smallest sizes that llama.cpp takes.
 *
 * @module
 */

import {
  f32,
  flag,
  type GgufInput,
  packFlags,
  packNumbers,
  text,
  u32,
} from "../../src/gguf/write.ts"

/** Values by their key without the architecture. */
type Fields = Readonly<Record<string, GgufInput>>

/** Names and sizes of tensors. */
export type Shapes = readonly (readonly [name: string, ...dims: readonly number[]])[]

/** What a file for Ollama's engine has instead of what llama.cpp wants. */
interface Ollama {
  readonly architecture?: string
  /** Keys that it lacks. */
  readonly without?: readonly string[]
  readonly fields?: Fields
  /** By the whole key. */
  readonly tokenizer?: Fields
  readonly names?: readonly (readonly [pattern: RegExp, name: string])[]
  /** Tensors beside the others. */
  readonly extra?: Shapes
}

/** One model in both forms. */
export interface DialectModel {
  readonly architecture: string
  readonly fields: Fields
  readonly tokenizer?: Fields
  readonly tensors: Shapes
  readonly ollama: Ollama
}

/** Tokens of the demo model's vocabulary. */
export const VOCABULARY = 4096
export const WIDTH = 64
const HEAD = 32
const INNER = 32
const EXPERTS = 4

const EPSILON = "attention.layer_norm_rms_epsilon"

const BASE: Fields = {
  block_count: u32(2),
  context_length: u32(512),
  embedding_length: u32(WIDTH),
  feed_forward_length: u32(WIDTH),
  [EPSILON]: f32(1e-6),
}

const HEADS: Fields = {
  ...BASE,
  "attention.head_count": u32(2),
  "attention.head_count_kv": u32(1),
  "attention.key_length": u32(HEAD),
  "attention.value_length": u32(HEAD),
}

const WINDOW: Fields = { "attention.sliding_window": u32(128) }

const MIXTURE: Fields = {
  expert_count: u32(EXPERTS),
  expert_used_count: u32(2),
  expert_feed_forward_length: u32(INNER),
}

const SHARED: Fields = {
  expert_shared_count: u32(1),
  expert_shared_feed_forward_length: u32(INNER),
}

const ENDS: Shapes = [
  ["token_embd.weight", WIDTH, VOCABULARY],
  ["output_norm.weight", WIDTH],
]

const ATTENTION: Shapes = [
  ["attn_q.weight", WIDTH, 2 * HEAD],
  ["attn_k.weight", WIDTH, HEAD],
  ["attn_v.weight", WIDTH, HEAD],
  ["attn_output.weight", 2 * HEAD, WIDTH],
]

const HEAD_NORMS: Shapes = [
  ["attn_q_norm.weight", HEAD],
  ["attn_k_norm.weight", HEAD],
]

const BEFORE: Shapes = [["attn_norm.weight", WIDTH]]
const BETWEEN: Shapes = [["ffn_norm.weight", WIDTH]]
const AFTER: Shapes = [
  ["post_attention_norm.weight", WIDTH],
  ["post_ffw_norm.weight", WIDTH],
]

const FEED_FORWARD: Shapes = [
  ["ffn_gate.weight", WIDTH, WIDTH],
  ["ffn_up.weight", WIDTH, WIDTH],
  ["ffn_down.weight", WIDTH, WIDTH],
]

const ROUTER: Shapes = [["ffn_gate_inp.weight", WIDTH, EXPERTS]]

const EXPERT_LAYERS: Shapes = [
  ["ffn_gate_exps.weight", WIDTH, INNER, EXPERTS],
  ["ffn_up_exps.weight", WIDTH, INNER, EXPERTS],
  ["ffn_down_exps.weight", INNER, WIDTH, EXPERTS],
]

const SHARED_EXPERT: Shapes = [
  ["ffn_gate_shexp.weight", WIDTH, INNER],
  ["ffn_up_shexp.weight", WIDTH, INNER],
  ["ffn_down_shexp.weight", INNER, WIDTH],
]

/** Encoders of images and sounds. */
const ENCODERS: Shapes = [
  ["v.blk.0.attn_q.weight", 8, 8],
  ["mm.mm_input_projection.weight", 8, 8],
  ["a.blk.0.attn_q.weight", 8, 8],
]

const GUESSING: Shapes = [["mtp.layers.0.input_layernorm.weight", WIDTH]]

/** Tensors under the name of each of some layers. */
function layers(...shapes: readonly Shapes[]): Shapes {
  return shapes.flatMap((layer, index) =>
    layer.map(([name, ...dims]) => [`blk.${index}.${name}`, ...dims] as const),
  )
}

function twice(...parts: readonly Shapes[]): Shapes {
  return layers(parts.flat(), parts.flat())
}

const GEMMA3_LAYER: Shapes = [
  ...BEFORE,
  ...ATTENTION,
  ...HEAD_NORMS,
  ...BETWEEN,
  ...FEED_FORWARD,
  ...AFTER,
]

/** A layer whose attention is a state that is carried on: 2 heads for keys, 4 for values, of 16 each. */
const DELTA_NET: Shapes = [
  ...BEFORE,
  ["post_attention_norm.weight", WIDTH],
  ["attn_qkv.weight", WIDTH, 128],
  ["attn_gate.weight", WIDTH, 64],
  ["ssm_conv1d.weight", 4, 128],
  ["ssm_dt.bias", 4],
  ["ssm_a", 4],
  ["ssm_norm.weight", 16],
  ["ssm_out.weight", 64, WIDTH],
]

const DELTA_NET_FIELDS: Fields = {
  ...HEADS,
  "ssm.conv_kernel": u32(4),
  "ssm.inner_size": u32(64),
  "ssm.state_size": u32(16),
  "ssm.time_step_rank": u32(4),
  "ssm.group_count": u32(2),
  full_attention_interval: u32(2),
}

/** The queries come with gates. */
const GATED_ATTENTION: Shapes = [
  ...BEFORE,
  ["post_attention_norm.weight", WIDTH],
  ["attn_q.weight", WIDTH, 4 * HEAD],
  ...ATTENTION.slice(1),
  ...HEAD_NORMS,
]

const QWEN_EXPERTS: Shapes = [
  ...ROUTER,
  ...EXPERT_LAYERS,
  ["ffn_gate_inp_shexp.weight", WIDTH],
  ...SHARED_EXPERT,
]

const ALPHA_BETA: Shapes = [
  ["ssm_alpha.weight", WIDTH, 4],
  ["ssm_beta.weight", WIDTH, 4],
]

const SECTIONS = "rope.dimension_sections"

const QWEN35_OLLAMA: Ollama = {
  without: ["full_attention_interval"],
  fields: {
    "attention.head_count_kv": packNumbers("u32", [0, 1]),
    [SECTIONS]: packNumbers("i32", [4, 6, 6]),
    "vision.block_count": u32(1),
    "ssm.v_head_reordered": flag(true),
  },
  names: [[/\.ssm_dt\.bias$/, ".ssm_dt"]],
  extra: [...ENCODERS, ...GUESSING],
}

const QWEN3VL_FIELDS: Fields = {
  ...HEADS,
  "attention.head_count": u32(1),
  "attention.key_length": u32(128),
  "attention.value_length": u32(128),
  [SECTIONS]: packNumbers("i32", [24, 20, 20, 0]),
  n_deepstack_layers: u32(1),
}

const QWEN3VL_ATTENTION: Shapes = [
  ["attn_q.weight", WIDTH, 128],
  ["attn_k.weight", WIDTH, 128],
  ["attn_v.weight", WIDTH, 128],
  ["attn_output.weight", 128, WIDTH],
  ["attn_q_norm.weight", 128],
  ["attn_k_norm.weight", 128],
]

const QWEN3VL_OLLAMA: Ollama = {
  without: [SECTIONS, "n_deepstack_layers"],
  fields: { "vision.deepstack_visual_indexes": packNumbers("i32", [5]) },
  extra: ENCODERS,
}

const NEMOTRON_FIELDS: Fields = {
  ...HEADS,
  ...MIXTURE,
  ...SHARED,
  block_count: u32(3),
  "attention.head_count_kv": packNumbers("u32", [0, 1, 0]),
  feed_forward_length: packNumbers("u32", [0, 0, INNER]),
  "attention.layer_norm_epsilon": f32(1e-6),
  "ssm.conv_kernel": u32(4),
  "ssm.inner_size": u32(64),
  "ssm.state_size": u32(16),
  "ssm.time_step_rank": u32(4),
  "ssm.group_count": u32(1),
  expert_weights_norm: flag(true),
  expert_weights_scale: f32(1),
  moe_latent_size: u32(48),
}

const NEMOTRON_TENSORS: Shapes = [
  ...ENDS,
  ...layers(
    [
      ...BEFORE,
      ["ssm_in.weight", WIDTH, 164],
      ["ssm_conv1d.weight", 4, 96],
      ["ssm_conv1d.bias", 96],
      ["ssm_dt.bias", 4],
      ["ssm_a", 1, 4],
      ["ssm_d", 1, 4],
      ["ssm_norm.weight", 64, 1],
      ["ssm_out.weight", 64, WIDTH],
    ],
    [...BEFORE, ...ATTENTION],
    [
      ...BEFORE,
      ...ROUTER,
      ["exp_probs_b.bias", EXPERTS],
      ["ffn_latent_down.weight", WIDTH, 48],
      ["ffn_latent_up.weight", 48, WIDTH],
      ["ffn_up_exps.weight", 48, INNER, EXPERTS],
      ["ffn_down_exps.weight", INNER, 48, EXPERTS],
      ...SHARED_EXPERT.slice(1),
    ],
  ),
]

const NEMOTRON_OLLAMA: Ollama = {
  without: ["moe_latent_size"],
  names: [
    [/ffn_latent_down/, "ffn_latent_in"],
    [/ffn_latent_up/, "ffn_latent_out"],
  ],
  extra: GUESSING,
}

const LFM2_LAYERS: readonly Shapes[] = [
  [
    ...BEFORE,
    ...BETWEEN,
    ["shortconv.conv.weight", 3, WIDTH],
    ["shortconv.in_proj.weight", WIDTH, 3 * WIDTH],
    ["shortconv.out_proj.weight", WIDTH, WIDTH],
  ],
  [...BEFORE, ...BETWEEN, ...ATTENTION, ...HEAD_NORMS],
]

const LFM2_ENDS: Shapes = [
  ["token_embd.weight", WIDTH, VOCABULARY],
  ["token_embd_norm.weight", WIDTH],
]

const LFM2_FIELDS: Fields = {
  ...HEADS,
  "attention.head_count_kv": packNumbers("u32", [0, 1]),
  "shortconv.l_cache": u32(3),
}

const LFM2_NAMES: Ollama["names"] = [[/^token_embd_norm\./, "output_norm."]]

const LLAMA4_LAYER: Shapes = [
  ...BEFORE,
  ...ATTENTION,
  ...BETWEEN,
  ...ROUTER,
  ...EXPERT_LAYERS,
  ...SHARED_EXPERT,
]

function pre(name: string): Fields {
  return { "tokenizer.ggml.pre": text(name) }
}

/** By what a reader would call it. */
export const DIALECT_MODELS: Readonly<Record<string, DialectModel>> = {
  "gpt-oss": {
    architecture: "gpt-oss",
    fields: {
      ...HEADS,
      ...WINDOW,
      ...MIXTURE,
      "rope.freq_base": f32(150_000),
      "rope.scaling.type": text("yarn"),
      "rope.scaling.factor": f32(32),
      "rope.scaling.original_context_length": u32(128),
    },
    tokenizer: pre("gpt-4o"),
    tensors: [
      ...ENDS,
      ["output.weight", WIDTH, VOCABULARY],
      ...twice(
        BEFORE,
        ATTENTION,
        [
          ["attn_q.bias", 2 * HEAD],
          ["attn_k.bias", HEAD],
          ["attn_v.bias", HEAD],
          ["attn_output.bias", WIDTH],
          ["attn_sinks.weight", 2],
          ["post_attention_norm.weight", WIDTH],
        ],
        ROUTER,
        EXPERT_LAYERS,
        [
          ["ffn_gate_inp.bias", EXPERTS],
          ["ffn_gate_exps.bias", INNER, EXPERTS],
          ["ffn_up_exps.bias", INNER, EXPERTS],
          ["ffn_down_exps.bias", WIDTH, EXPERTS],
        ],
      ),
    ],
    ollama: {
      architecture: "gptoss",
      without: ["expert_feed_forward_length", "rope.scaling.type"],
      tokenizer: pre("default"),
      names: [
        [/attn_output\./, "attn_out."],
        [/attn_sinks\.weight$/, "attn_sinks"],
        [/post_attention_norm\./, "ffn_norm."],
      ],
    },
  },
  "Gemma 3": {
    architecture: "gemma3",
    fields: { ...HEADS, ...WINDOW, "rope.freq_base": f32(1e6), "rope.freq_base_swa": f32(5000) },
    tensors: [...ENDS, ...layers(GEMMA3_LAYER, GEMMA3_LAYER)],
    ollama: {
      without: [EPSILON, "rope.freq_base", "rope.freq_base_swa"],
      fields: { "rope.global.freq_base": f32(1e6), "rope.local.freq_base": f32(5000) },
      extra: ENCODERS,
    },
  },
  "Gemma 4": {
    architecture: "gemma4",
    fields: {
      ...HEADS,
      ...WINDOW,
      ...MIXTURE,
      "attention.key_length_swa": u32(HEAD),
      "attention.value_length_swa": u32(HEAD),
      "attention.sliding_window_pattern": packFlags([true, false]),
      embedding_length_per_layer_input: u32(0),
    },
    tokenizer: { "tokenizer.ggml.model": text("gemma4") },
    tensors: [
      ...ENDS,
      ["rope_freqs.weight", HEAD / 2],
      ...twice(BEFORE, ATTENTION, HEAD_NORMS, BETWEEN, FEED_FORWARD, AFTER, ROUTER, EXPERT_LAYERS, [
        ["ffn_gate_inp.scale", WIDTH],
        ["ffn_down_exps.scale", EXPERTS],
        ["pre_ffw_norm_2.weight", WIDTH],
        ["post_ffw_norm_1.weight", WIDTH],
        ["post_ffw_norm_2.weight", WIDTH],
      ]),
    ],
    ollama: {
      tokenizer: { "tokenizer.ggml.model": text("llama") },
      names: [[/ffn_down_exps\.scale$/, "ffn_gate_inp.per_expert_scale"]],
      extra: [...ENCODERS, ["model.vision_tower.std_bias", 8]],
    },
  },
  "GLM 4.7 Flash": {
    architecture: "deepseek2",
    fields: {
      ...HEADS,
      ...MIXTURE,
      ...SHARED,
      "attention.q_lora_rank": u32(32),
      "attention.kv_lora_rank": u32(32),
      "attention.key_length": u32(48),
      "attention.value_length": u32(32),
      "attention.key_length_mla": u32(32),
      "attention.value_length_mla": u32(24),
      "rope.dimension_count": u32(16),
      leading_dense_block_count: u32(1),
      expert_group_count: u32(1),
      expert_group_used_count: u32(1),
    },
    tokenizer: {
      ...pre("glm4"),
      "tokenizer.ggml.eot_token_id": u32(5),
      "tokenizer.ggml.eom_token_id": u32(6),
    },
    tensors: [
      ...ENDS,
      ...layers(
        [...BEFORE, ...latentAttention(), ...BETWEEN, ...FEED_FORWARD],
        [
          ...BEFORE,
          ...latentAttention(),
          ...BETWEEN,
          ...ROUTER,
          ...EXPERT_LAYERS,
          ...SHARED_EXPERT,
          ["exp_probs_b.bias", EXPERTS],
        ],
      ),
    ],
    ollama: {
      architecture: "glm4moelite",
      without: ["expert_group_count", "expert_group_used_count"],
      fields: {
        "attention.head_count_kv": u32(2),
        "attention.key_length": u32(32),
        "attention.value_length": u32(32),
        "attention.key_length_mla": u32(48),
        "attention.value_length_mla": u32(32),
      },
      tokenizer: {
        ...pre("llama-bpe"),
        "tokenizer.ggml.eos_token_ids": packNumbers("i32", [4086, 5, 6]),
      },
    },
  },
  Laguna: {
    architecture: "laguna",
    fields: {
      ...HEADS,
      ...WINDOW,
      ...MIXTURE,
      ...SHARED,
      "attention.sliding_window_pattern": packFlags([false, true]),
      leading_dense_block_count: u32(1),
      expert_weights_norm: flag(true),
      "rope.freq_base": f32(500_000),
      "rope.freq_base_swa": f32(20_000),
      "rope.dimension_count": u32(16),
      "rope.dimension_count_swa": u32(HEAD),
    },
    tensors: [
      ...ENDS,
      ...layers(
        [
          ...BEFORE,
          ...ATTENTION,
          ...HEAD_NORMS,
          ["attn_gate.weight", WIDTH, 2],
          ...BETWEEN,
          ...FEED_FORWARD,
        ],
        [
          ...BEFORE,
          ...ATTENTION,
          ...HEAD_NORMS,
          ["attn_gate.weight", WIDTH, 2],
          ...BETWEEN,
          ...ROUTER,
          ["exp_probs_b.bias", EXPERTS],
          ...EXPERT_LAYERS,
          ...SHARED_EXPERT,
        ],
      ),
    ],
    ollama: {
      without: ["rope.freq_base_swa", "rope.dimension_count_swa"],
      fields: { "rope.swa.freq_base": f32(20_000), "rope.swa.dimension_count": u32(HEAD) },
      names: [[/attn_gate\./, "attn_g."]],
    },
  },
  "LFM 2": {
    architecture: "lfm2",
    fields: LFM2_FIELDS,
    tokenizer: pre("lfm2"),
    tensors: [...LFM2_ENDS, ...layers(...LFM2_LAYERS.map((layer) => [...layer, ...FEED_FORWARD]))],
    ollama: {
      fields: { feed_forward_length: u32(96) },
      tokenizer: pre("default"),
      names: LFM2_NAMES,
    },
  },
  "LFM 2 with experts": {
    architecture: "lfm2moe",
    fields: {
      ...LFM2_FIELDS,
      ...MIXTURE,
      leading_dense_block_count: u32(1),
      expert_gating_func: u32(2),
    },
    tokenizer: pre("lfm2"),
    tensors: [
      ...LFM2_ENDS,
      ...layers(
        [...(LFM2_LAYERS[0] ?? []), ...FEED_FORWARD],
        [...(LFM2_LAYERS[1] ?? []), ...ROUTER, ...EXPERT_LAYERS, ["exp_probs_b.bias", EXPERTS]],
      ),
    ],
    ollama: { tokenizer: pre("default"), names: LFM2_NAMES },
  },
  "Llama 4": {
    architecture: "llama4",
    // Three layers that see the near past, one that sees all.
    fields: { ...HEADS, ...MIXTURE, block_count: u32(4), interleave_moe_layer_step: u32(1) },
    tensors: [...ENDS, ...layers(LLAMA4_LAYER, LLAMA4_LAYER, LLAMA4_LAYER, LLAMA4_LAYER)],
    ollama: { without: ["expert_feed_forward_length"], extra: ENCODERS },
  },
  "Mistral 3": {
    architecture: "mistral3",
    fields: {
      ...HEADS,
      "rope.scaling.type": text("yarn"),
      "rope.scaling.factor": f32(4),
      "rope.scaling.original_context_length": u32(128),
      "rope.scaling.yarn_beta_fast": f32(16),
      "rope.scaling.yarn_beta_slow": f32(2),
      "rope.scaling.yarn_log_multiplier": f32(0.5),
      "attention.temperature_scale": f32(0.1),
    },
    tokenizer: pre("tekken"),
    tensors: [...ENDS, ...twice(BEFORE, ATTENTION, BETWEEN, FEED_FORWARD)],
    ollama: {
      without: [
        "rope.scaling.yarn_beta_fast",
        "rope.scaling.yarn_beta_slow",
        "rope.scaling.yarn_log_multiplier",
        "attention.temperature_scale",
      ],
      fields: {
        "rope.scaling.beta_fast": f32(16),
        "rope.scaling.beta_slow": f32(2),
        "rope.scaling.mscale_all_dim": f32(0.5),
        "rope.scaling_beta": f32(0.1),
      },
      tokenizer: pre("default"),
      extra: ENCODERS,
    },
  },
  "Nemotron 3": {
    architecture: "nemotron_h_moe",
    fields: NEMOTRON_FIELDS,
    tensors: NEMOTRON_TENSORS,
    ollama: NEMOTRON_OLLAMA,
  },
  "Nemotron 3 with encoders": {
    architecture: "nemotron_h_moe",
    fields: NEMOTRON_FIELDS,
    tensors: NEMOTRON_TENSORS,
    ollama: {
      ...NEMOTRON_OLLAMA,
      architecture: "nemotron_h_omni",
      extra: [...ENCODERS, ...GUESSING],
    },
  },
  "OLMo 3": {
    architecture: "olmo2",
    fields: { ...HEADS, ...WINDOW, "attention.sliding_window_pattern": packFlags([true, false]) },
    tensors: [
      ...ENDS,
      ["output.weight", WIDTH, VOCABULARY],
      ...twice(
        ATTENTION,
        [
          ["attn_q_norm.weight", WIDTH],
          ["attn_k_norm.weight", HEAD],
        ],
        FEED_FORWARD,
        AFTER,
      ),
    ],
    ollama: { architecture: "olmo3" },
  },
  "Qwen 2.5 VL": {
    architecture: "qwen2vl",
    fields: { ...HEADS, [SECTIONS]: packNumbers("i32", [4, 6, 6, 0]) },
    tensors: [...ENDS, ...twice(BEFORE, ATTENTION, BETWEEN, FEED_FORWARD)],
    ollama: {
      architecture: "qwen25vl",
      without: [SECTIONS],
      fields: { "rope.mrope_section": packNumbers("i32", [4, 6, 6]) },
      extra: ENCODERS,
    },
  },
  "Qwen 3 VL": {
    architecture: "qwen3vl",
    fields: QWEN3VL_FIELDS,
    tensors: [...ENDS, ...twice(BEFORE, QWEN3VL_ATTENTION, BETWEEN, FEED_FORWARD)],
    ollama: QWEN3VL_OLLAMA,
  },
  "Qwen 3 VL with experts": {
    architecture: "qwen3vlmoe",
    fields: { ...QWEN3VL_FIELDS, ...MIXTURE },
    tensors: [...ENDS, ...twice(BEFORE, QWEN3VL_ATTENTION, BETWEEN, ROUTER, EXPERT_LAYERS)],
    ollama: QWEN3VL_OLLAMA,
  },
  "Qwen 3.5": {
    architecture: "qwen35",
    fields: { ...DELTA_NET_FIELDS, [SECTIONS]: packNumbers("i32", [4, 6, 6, 0]) },
    tensors: [
      ...ENDS,
      ...layers(
        [...DELTA_NET, ...ALPHA_BETA, ...FEED_FORWARD],
        [...GATED_ATTENTION, ...FEED_FORWARD],
      ),
    ],
    ollama: QWEN35_OLLAMA,
  },
  "Qwen 3.5 with experts": {
    architecture: "qwen35moe",
    fields: {
      ...DELTA_NET_FIELDS,
      ...MIXTURE,
      expert_shared_feed_forward_length: u32(INNER),
      [SECTIONS]: packNumbers("i32", [4, 6, 6, 0]),
    },
    tensors: [
      ...ENDS,
      ...layers(
        [...DELTA_NET, ...ALPHA_BETA, ...QWEN_EXPERTS],
        [...GATED_ATTENTION, ...QWEN_EXPERTS],
      ),
    ],
    ollama: QWEN35_OLLAMA,
  },
  "Qwen 3 Next": {
    architecture: "qwen3next",
    fields: {
      ...DELTA_NET_FIELDS,
      ...MIXTURE,
      expert_shared_feed_forward_length: u32(INNER),
    },
    tensors: [
      ...ENDS,
      ...layers(
        [...DELTA_NET, ["ssm_ba.weight", WIDTH, 8], ...QWEN_EXPERTS],
        [...GATED_ATTENTION, ...QWEN_EXPERTS],
      ),
    ],
    ollama: {
      without: ["full_attention_interval"],
      fields: { "attention.head_count_kv": packNumbers("u32", [0, 1]) },
      names: [[/\.ssm_dt\.bias$/, ".ssm_dt"]],
    },
  },
}

/** Keys and values of both heads are computed from 32 numbers, beside 16 for the position. */
function latentAttention(): Shapes {
  return [
    ["attn_q_a.weight", WIDTH, 32],
    ["attn_q_a_norm.weight", 32],
    ["attn_q_b.weight", 32, 64],
    ["attn_kv_a_mqa.weight", WIDTH, 48],
    ["attn_kv_a_norm.weight", 32],
    ["attn_k_b.weight", 16, 32, 2],
    ["attn_v_b.weight", 32, 24, 2],
    ["attn_output.weight", 48, WIDTH],
  ]
}

/** Embedding models, which answer with vectors. */
export const EMBEDDING_GEMMA: DialectModel = {
  architecture: "gemma-embedding",
  fields: {
    ...HEADS,
    ...WINDOW,
    // Five layers that see what is near, one that sees all.
    block_count: u32(6),
    "rope.freq_base": f32(1e6),
    "rope.freq_base_swa": f32(10_000),
    pooling_type: u32(1),
    dense_2_feat_in: u32(WIDTH),
    dense_2_feat_out: u32(96),
    dense_3_feat_in: u32(96),
    dense_3_feat_out: u32(WIDTH),
  },
  tensors: [
    ...ENDS,
    ...layers(...Array.from({ length: 6 }, () => GEMMA3_LAYER)),
    ["dense_2.weight", WIDTH, 96],
    ["dense_3.weight", 96, WIDTH],
  ],
  ollama: {
    architecture: "gemma3",
    without: [
      "rope.freq_base_swa",
      "dense_2_feat_in",
      "dense_2_feat_out",
      "dense_3_feat_in",
      "dense_3_feat_out",
    ],
    fields: {
      "attention.causal": flag(false),
      "attention.sliding_window_pattern": packFlags([true, true, true, true, true, false]),
    },
    names: [
      [/^dense_2\./, "dense.0."],
      [/^dense_3\./, "dense.1."],
      [/^output_norm\./, "norm."],
    ],
  },
}

const NORM_WITH_BIAS = (name: string): Shapes => [
  [`${name}.weight`, WIDTH],
  [`${name}.bias`, WIDTH],
]

/** BERT with the vocabulary of a SentencePiece model. */
export function bert(tokens: number): Omit<DialectModel, "ollama"> {
  return {
    architecture: "bert",
    fields: {
      ...BASE,
      context_length: u32(64),
      "attention.head_count": u32(2),
      "attention.layer_norm_epsilon": f32(1e-12),
      "attention.causal": flag(false),
      pooling_type: u32(2),
    },
    tensors: [
      ["token_embd.weight", WIDTH, tokens],
      ["token_types.weight", WIDTH, 1],
      ["position_embd.weight", WIDTH, 64],
      ...NORM_WITH_BIAS("token_embd_norm"),
      ...twice(
        [
          ["attn_q.weight", WIDTH, WIDTH],
          ["attn_k.weight", WIDTH, WIDTH],
          ["attn_v.weight", WIDTH, WIDTH],
          ["attn_output.weight", WIDTH, WIDTH],
        ],
        NORM_WITH_BIAS("attn_output_norm"),
        FEED_FORWARD.slice(1),
        NORM_WITH_BIAS("layer_output_norm"),
      ),
    ],
  }
}

/** Llama with a vocabulary of this size. */
export function llama(tokens: number): Omit<DialectModel, "ollama"> {
  return {
    architecture: "llama",
    fields: HEADS,
    tensors: [
      ["token_embd.weight", WIDTH, tokens],
      ["output_norm.weight", WIDTH],
      ...twice(BEFORE, ATTENTION, BETWEEN, FEED_FORWARD),
    ],
  }
}

/** Gemma 3n, whose embedding has more rows than that of its layers. */
export function gemma3n(tokens: number): Omit<DialectModel, "ollama"> {
  return {
    architecture: "gemma3n",
    fields: { ...HEADS, ...WINDOW },
    tensors: [
      ["token_embd.weight", WIDTH, tokens],
      ["output_norm.weight", WIDTH],
      ["altup_proj.weight", WIDTH, WIDTH, 3],
      ["altup_unembd_proj.weight", WIDTH, WIDTH, 3],
      ["per_layer_token_embd.weight", 512, tokens],
      ["per_layer_model_proj.weight", WIDTH, 512],
      ["per_layer_proj_norm.weight", 256],
      ...twice(BEFORE, ATTENTION, HEAD_NORMS, BETWEEN, FEED_FORWARD, AFTER, [
        ["inp_gate.weight", WIDTH, 256],
        ["proj.weight", 256, WIDTH],
        ["post_norm.weight", WIDTH],
        ["altup_correct_coef.weight", 4, 4],
        ["altup_correct_scale.weight", WIDTH],
        ["altup_predict_coef.weight", 4, 16],
        ["altup_router.weight", WIDTH, 4],
        ["altup_router_norm.weight", WIDTH],
        ["laurel_l.weight", WIDTH, 64],
        ["laurel_r.weight", 64, WIDTH],
        ["laurel_post_norm.weight", WIDTH],
      ]),
    ],
  }
}
