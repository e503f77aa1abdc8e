/**
 * The model families that can be converted: how Hugging Face names their tensors, and what has to be done with them.
 *
 * Data, as far as possible. What a family writes into the metadata stands in `parameters.ts`; which tokenizer it has,
 * in `vocabulary.ts`. Names on the right are llama.cpp's (`LLM_TENSOR_NAMES`).
 *
 * @module
 */

import { CriaError } from "../util/errors.ts"
import { isObject, type JsonObject } from "./json.ts"

/** llama.cpp's names of the architectures. */
export type Architecture =
  | "llama"
  | "qwen2"
  | "qwen2moe"
  | "qwen3"
  | "qwen3moe"
  | "gemma"
  | "gemma2"
  | "gemma3"
  | "phi3"
  | "granite"
  | "olmo2"
  | "smollm3"
  | "bert"
  | "nomic-bert"

/** A model family. */
export interface Family {
  readonly architecture: Architecture
  /** Hugging Face's name to llama.cpp's, both without ".weight"; `{n}` is the number of the layer. */
  readonly names: Readonly<Record<string, string>>
  /** Left out: llama.cpp does not use them. */
  readonly dropped?: RegExp
  /** Taken off the front of names. */
  readonly prefix?: string
  /** Put before names: the model was saved without its head. */
  readonly missingPrefix?: string
  /** Queries and keys have the halves of a head one after the other; llama.cpp wants them interleaved. */
  readonly interleavesHeads?: boolean
  /** Norms are stored as their difference from 1. */
  readonly shiftsNorms?: boolean
  /** The projections of one expert, in the order in which they are written. */
  readonly experts?: readonly string[]
}

const DECODER = {
  "model.embed_tokens": "token_embd",
  "model.norm": "output_norm",
  lm_head: "output",
  "model.layers.{n}.self_attn.q_proj": "blk.{n}.attn_q",
  "model.layers.{n}.self_attn.k_proj": "blk.{n}.attn_k",
  "model.layers.{n}.self_attn.v_proj": "blk.{n}.attn_v",
  "model.layers.{n}.self_attn.o_proj": "blk.{n}.attn_output",
  "model.layers.{n}.mlp.gate_proj": "blk.{n}.ffn_gate",
  "model.layers.{n}.mlp.up_proj": "blk.{n}.ffn_up",
  "model.layers.{n}.mlp.down_proj": "blk.{n}.ffn_down",
}

const PRE_NORM = {
  ...DECODER,
  "model.layers.{n}.input_layernorm": "blk.{n}.attn_norm",
  "model.layers.{n}.post_attention_layernorm": "blk.{n}.ffn_norm",
}

const HEAD_NORMS = {
  "model.layers.{n}.self_attn.q_norm": "blk.{n}.attn_q_norm",
  "model.layers.{n}.self_attn.k_norm": "blk.{n}.attn_k_norm",
}

const EXPERTS = {
  "model.layers.{n}.mlp.gate": "blk.{n}.ffn_gate_inp",
  "model.layers.{n}.mlp.experts.down_proj": "blk.{n}.ffn_down_exps",
  "model.layers.{n}.mlp.experts.gate_proj": "blk.{n}.ffn_gate_exps",
  "model.layers.{n}.mlp.experts.up_proj": "blk.{n}.ffn_up_exps",
}

const SANDWICH_NORM = {
  ...DECODER,
  "model.layers.{n}.input_layernorm": "blk.{n}.attn_norm",
  "model.layers.{n}.post_attention_layernorm": "blk.{n}.post_attention_norm",
  "model.layers.{n}.pre_feedforward_layernorm": "blk.{n}.ffn_norm",
  "model.layers.{n}.post_feedforward_layernorm": "blk.{n}.post_ffw_norm",
}

const LLAMA: Family = {
  architecture: "llama",
  names: {
    ...PRE_NORM,
    "model.layers.{n}.block_sparse_moe.gate": "blk.{n}.ffn_gate_inp",
    "model.layers.{n}.block_sparse_moe.experts.w1": "blk.{n}.ffn_gate_exps",
    "model.layers.{n}.block_sparse_moe.experts.w2": "blk.{n}.ffn_down_exps",
    "model.layers.{n}.block_sparse_moe.experts.w3": "blk.{n}.ffn_up_exps",
  },
  interleavesHeads: true,
  experts: ["w1", "w2", "w3"],
}

const QWEN2: Family = { architecture: "qwen2", names: PRE_NORM }

const QWEN3: Family = { architecture: "qwen3", names: { ...PRE_NORM, ...HEAD_NORMS } }

const QWEN_EXPERTS = ["down_proj", "gate_proj", "up_proj"]

const GEMMA3: Family = {
  architecture: "gemma3",
  names: { ...SANDWICH_NORM, ...HEAD_NORMS },
  shiftsNorms: true,
}

const OLMO2: Family = {
  architecture: "olmo2",
  names: {
    ...DECODER,
    ...HEAD_NORMS,
    "model.layers.{n}.post_attention_layernorm": "blk.{n}.post_attention_norm",
    "model.layers.{n}.post_feedforward_layernorm": "blk.{n}.post_ffw_norm",
  },
}

const EMBEDDINGS = {
  "embeddings.word_embeddings": "token_embd",
  "embeddings.token_type_embeddings": "token_types",
}

const BERT: Family = {
  architecture: "bert",
  names: {
    ...EMBEDDINGS,
    "embeddings.position_embeddings": "position_embd",
    "embeddings.LayerNorm": "token_embd_norm",
    "encoder.layer.{n}.attention.self.query": "blk.{n}.attn_q",
    "encoder.layer.{n}.attention.self.key": "blk.{n}.attn_k",
    "encoder.layer.{n}.attention.self.value": "blk.{n}.attn_v",
    "encoder.layer.{n}.attention.output.dense": "blk.{n}.attn_output",
    "encoder.layer.{n}.attention.output.LayerNorm": "blk.{n}.attn_output_norm",
    "encoder.layer.{n}.intermediate.dense": "blk.{n}.ffn_up",
    "encoder.layer.{n}.output.dense": "blk.{n}.ffn_down",
    "encoder.layer.{n}.output.LayerNorm": "blk.{n}.layer_output_norm",
    "classifier.dense": "cls",
    "classifier.out_proj": "cls.output",
    classifier: "cls.output",
  },
  prefix: "bert.",
  dropped: /^(embeddings\.position_ids$|pooler\.dense\.|cls\.predictions|cls\.seq_relationship)/,
}

const NOMIC_BERT: Family = {
  architecture: "nomic-bert",
  names: {
    ...EMBEDDINGS,
    emb_ln: "token_embd_norm",
    "encoder.layers.{n}.attn.Wqkv": "blk.{n}.attn_qkv",
    "encoder.layers.{n}.attn.out_proj": "blk.{n}.attn_output",
    "encoder.layers.{n}.norm1": "blk.{n}.attn_output_norm",
    "encoder.layers.{n}.mlp.fc11": "blk.{n}.ffn_up",
    "encoder.layers.{n}.mlp.fc12": "blk.{n}.ffn_gate",
    "encoder.layers.{n}.mlp.fc2": "blk.{n}.ffn_down",
    "encoder.layers.{n}.norm2": "blk.{n}.layer_output_norm",
  },
  prefix: "bert.",
  dropped: /^(embeddings\.position_ids$|pooler\.dense\.|cls\.predictions|cls\.seq_relationship)/,
}

/** By the first of `architectures` in `config.json`. */
const FAMILIES: Readonly<Record<string, Family>> = {
  LlamaForCausalLM: LLAMA,
  LLaMAForCausalLM: LLAMA,
  LlamaModel: { ...LLAMA, missingPrefix: "model." },
  MistralForCausalLM: LLAMA,
  MixtralForCausalLM: LLAMA,
  SmolLM3ForCausalLM: { ...LLAMA, architecture: "smollm3" },
  GraniteForCausalLM: { ...LLAMA, architecture: "granite" },
  Qwen2ForCausalLM: QWEN2,
  Qwen2Model: { ...QWEN2, missingPrefix: "model." },
  Qwen2MoeForCausalLM: {
    architecture: "qwen2moe",
    names: {
      ...PRE_NORM,
      ...EXPERTS,
      "model.layers.{n}.mlp.shared_expert.gate_proj": "blk.{n}.ffn_gate_shexp",
      "model.layers.{n}.mlp.shared_expert.up_proj": "blk.{n}.ffn_up_shexp",
      "model.layers.{n}.mlp.shared_expert.down_proj": "blk.{n}.ffn_down_shexp",
      "model.layers.{n}.mlp.shared_expert_gate": "blk.{n}.ffn_gate_inp_shexp",
    },
    experts: QWEN_EXPERTS,
  },
  Qwen3ForCausalLM: QWEN3,
  Qwen3Model: { ...QWEN3, missingPrefix: "model." },
  Qwen3MoeForCausalLM: {
    architecture: "qwen3moe",
    names: { ...PRE_NORM, ...HEAD_NORMS, ...EXPERTS },
    experts: QWEN_EXPERTS,
  },
  GemmaForCausalLM: {
    architecture: "gemma",
    names: PRE_NORM,
    shiftsNorms: true,
    dropped: /^lm_head\./,
  },
  Gemma2ForCausalLM: {
    architecture: "gemma2",
    names: SANDWICH_NORM,
    shiftsNorms: true,
    dropped: /^lm_head\./,
  },
  Gemma3ForCausalLM: GEMMA3,
  Gemma3ForConditionalGeneration: GEMMA3,
  Phi3ForCausalLM: {
    architecture: "phi3",
    names: {
      ...PRE_NORM,
      "model.layers.{n}.self_attn.qkv_proj": "blk.{n}.attn_qkv",
      "model.layers.{n}.mlp.gate_up_proj": "blk.{n}.ffn_up",
    },
  },
  Olmo2ForCausalLM: OLMO2,
  Olmo3ForCausalLM: OLMO2,
  BertModel: BERT,
  BertForMaskedLM: BERT,
  BertForSequenceClassification: BERT,
  NomicBertModel: NOMIC_BERT,
}

/** What `config.json` calls the architectures that can be converted. */
export const KNOWN_ARCHITECTURES: readonly string[] = Object.keys(FAMILIES)

/** The name of the architecture in a configuration; undefined when it has none. */
export function architectureName(config: JsonObject): string | undefined {
  const text = config["text_config"]
  const named = isObject(text) && text["architectures"] !== undefined ? text : config
  const names = named["architectures"]
  const name: unknown = Array.isArray(names) ? names[0] : undefined
  return typeof name === "string" ? name : undefined
}

/**
 * The family of an architecture.
 *
 * @param label What errors call the model.
 * @throws {CriaError} `invalid-input` for one that is not known, with those that are.
 */
export function familyOf(name: string | undefined, label: string): Family {
  const family = name === undefined || !Object.hasOwn(FAMILIES, name) ? undefined : FAMILIES[name]
  if (family !== undefined) return family
  const what = name === undefined ? "without an architecture" : `of the architecture "${name}"`
  throw new CriaError("invalid-input", `Cannot convert "${label}", a model ${what}`, {
    hint: `known are ${KNOWN_ARCHITECTURES.join(", ")}; for others use a GGUF file`,
  })
}

/** A family by llama.cpp's name of it; undefined for one that cannot be converted. */
export function familyOfArchitecture(architecture: string): Family | undefined {
  return Object.values(FAMILIES).find((family) => family.architecture === architecture)
}
