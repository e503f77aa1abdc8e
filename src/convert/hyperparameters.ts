/**
 * What `config.json` says about a model, with what its makers left to the library that reads it.
 *
 * Owns defaults and old spellings. Hugging Face's library fills what a configuration does not say, so that files in the
 * wild leave much out; the values here are those of transformers 5, which llama.cpp's converter reads through.
 *
 * @module
 */

import { CriaError } from "../util/errors.ts"
import { isObject, type JsonObject } from "./json.ts"

/** Stand for the number of attention heads, and for a head's share of the width. Symbols: no JSON file has them. */
const HEADS: unique symbol = Symbol("heads")
const HEAD_SIZE: unique symbol = Symbol("head size")

/** Values by `model_type`. */
const DEFAULTS: Readonly<Record<string, Readonly<Record<string, unknown>>>> = {
  llama: {
    vocab_size: 32_000,
    max_position_embeddings: 2048,
    num_key_value_heads: HEADS,
    head_dim: HEAD_SIZE,
    rms_norm_eps: 1e-6,
    rope_theta: 10_000,
  },
  mistral: {
    vocab_size: 32_000,
    max_position_embeddings: 131_072,
    num_key_value_heads: 8,
    head_dim: HEAD_SIZE,
    rms_norm_eps: 1e-6,
    rope_theta: 10_000,
  },
  mixtral: {
    vocab_size: 32_000,
    max_position_embeddings: 131_072,
    num_key_value_heads: 8,
    num_local_experts: 8,
    num_experts_per_tok: 2,
    rms_norm_eps: 1e-5,
    rope_theta: 1_000_000,
  },
  qwen2: {
    vocab_size: 151_936,
    max_position_embeddings: 32_768,
    num_key_value_heads: 32,
    rms_norm_eps: 1e-6,
    rope_theta: 10_000,
  },
  qwen2_moe: {
    vocab_size: 151_936,
    max_position_embeddings: 32_768,
    num_key_value_heads: 16,
    num_experts: 60,
    num_experts_per_tok: 4,
    moe_intermediate_size: 1408,
    shared_expert_intermediate_size: 5632,
    rms_norm_eps: 1e-6,
    rope_theta: 10_000,
  },
  qwen3: {
    vocab_size: 151_936,
    max_position_embeddings: 32_768,
    num_key_value_heads: 32,
    head_dim: 128,
    rms_norm_eps: 1e-6,
    rope_theta: 10_000,
  },
  qwen3_moe: {
    vocab_size: 151_936,
    max_position_embeddings: 32_768,
    num_key_value_heads: 4,
    num_experts: 128,
    num_experts_per_tok: 8,
    moe_intermediate_size: 768,
    rms_norm_eps: 1e-6,
    rope_theta: 10_000,
  },
  gemma: {
    vocab_size: 256_000,
    max_position_embeddings: 8192,
    num_attention_heads: 16,
    num_key_value_heads: 16,
    head_dim: 256,
    rms_norm_eps: 1e-6,
    rope_theta: 10_000,
  },
  gemma2: {
    vocab_size: 256_000,
    max_position_embeddings: 8192,
    num_attention_heads: 8,
    num_key_value_heads: 4,
    head_dim: 256,
    rms_norm_eps: 1e-6,
    rope_theta: 10_000,
    sliding_window: 4096,
    attn_logit_softcapping: 50,
    final_logit_softcapping: 30,
  },
  gemma3_text: {
    vocab_size: 262_208,
    num_hidden_layers: 26,
    hidden_size: 2304,
    intermediate_size: 9216,
    max_position_embeddings: 131_072,
    num_attention_heads: 8,
    num_key_value_heads: 4,
    head_dim: 256,
    rms_norm_eps: 1e-6,
    rope_theta: 1_000_000,
    rope_local_base_freq: 10_000,
    sliding_window: 4096,
  },
  phi3: {
    vocab_size: 32_064,
    max_position_embeddings: 4096,
    original_max_position_embeddings: 4096,
    num_key_value_heads: HEADS,
    rms_norm_eps: 1e-5,
    rope_theta: 10_000,
    partial_rotary_factor: 1,
    pad_token_id: 32_000,
  },
  granite: {
    vocab_size: 32_000,
    max_position_embeddings: 2048,
    num_key_value_heads: HEADS,
    rms_norm_eps: 1e-6,
    rope_theta: 10_000,
    attention_multiplier: 1,
    embedding_multiplier: 1,
    residual_multiplier: 1,
    logits_scaling: 1,
  },
  olmo2: {
    vocab_size: 50_304,
    max_position_embeddings: 2048,
    num_key_value_heads: HEADS,
    rms_norm_eps: 1e-5,
    rope_theta: 10_000,
  },
  olmo3: {
    vocab_size: 50_304,
    max_position_embeddings: 2048,
    num_key_value_heads: HEADS,
    rms_norm_eps: 1e-5,
    rope_theta: 500_000,
    rope_local_base_freq: 500_000,
    sliding_window: 4096,
  },
  smollm3: {
    vocab_size: 128_256,
    max_position_embeddings: 32_768,
    num_attention_heads: 16,
    num_key_value_heads: 4,
    rms_norm_eps: 1e-6,
    rope_theta: 2_000_000,
  },
  bert: {
    vocab_size: 30_522,
    max_position_embeddings: 512,
    type_vocab_size: 2,
    layer_norm_eps: 1e-12,
  },
  nomic_bert: {
    max_position_embeddings: 2048,
    head_dim: HEAD_SIZE,
    type_vocab_size: 2,
    layer_norm_eps: 1e-12,
  },
}

/** Names of GPT-2, which Nomic kept. The context it declares is longer than the one it was trained with. */
const OLD_NAMES: readonly (readonly [old: string, name: string])[] = [
  ["n_embd", "hidden_size"],
  ["n_head", "num_attention_heads"],
  ["n_layer", "num_hidden_layers"],
  ["n_inner", "intermediate_size"],
  ["layer_norm_epsilon", "layer_norm_eps"],
  ["rotary_emb_base", "rope_theta"],
]

/** The largest size that llama.cpp can count with. */
const INTEGER_MAX = 2 ** 31 - 1

/**
 * The largest sizes of what is counted to, where a number in a small file would else cost memory. Layers and experts are
 * those of llama.cpp (`LLAMA_MAX_LAYERS`, `LLAMA_MAX_EXPERTS`); the others are far above what models have: 262k tokens,
 * heads of 512 elements, a width of 53k.
 */
const SIZES_MAX: Readonly<Record<string, number>> = {
  vocab_size: 2 ** 21,
  num_hidden_layers: 512,
  num_local_experts: 1024,
  head_dim: 2 ** 16,
  hidden_size: 2 ** 20,
}

/** A configuration, for looking up values. */
export class Hyperparameters {
  readonly #values: JsonObject
  readonly #label: string

  /** @param label What errors call the file. */
  constructor(config: JsonObject, label: string) {
    this.#label = label
    const text = config["text_config"]
    const flat = isObject(text) ? { ...config, ...text } : config
    const type = typeof flat["model_type"] === "string" ? flat["model_type"] : ""
    const old = OLD_NAMES.map(([from, to]) => [to, flat[from] ?? null])
    this.#values = {
      ...(Object.hasOwn(DEFAULTS, type) ? DEFAULTS[type] : {}),
      ...withoutNulls(Object.fromEntries(old)),
      ...withoutNulls(flat),
    }
  }

  /** The first of these values that there is. */
  get(...keys: readonly string[]): unknown {
    return keys.map((key) => this.#values[key]).find((value) => value !== undefined)
  }

  /** A whole number, 0 or more; undefined when the configuration has none of the keys. */
  count(...keys: readonly string[]): number | undefined {
    const value = this.#resolve(this.get(...keys))
    if (value === undefined) return undefined
    if (typeof value !== "number" || !Number.isInteger(value) || value < 0) {
      throw this.#wrong(keys, value, "a whole number")
    }
    const most = SIZES_MAX[keys[0] ?? ""] ?? INTEGER_MAX
    if (value > most) throw this.#wrong(keys, value, `a whole number up to ${most}`)
    return value
  }

  /** Like {@link count}, for what every model has. */
  size(...keys: readonly string[]): number {
    const value = this.count(...keys)
    if (value !== undefined && value > 0) return value
    throw this.#wrong(keys, value, "a whole number above 0")
  }

  /** A number; undefined when the configuration has none of the keys. */
  number(...keys: readonly string[]): number | undefined {
    const value = this.get(...keys)
    if (value === undefined) return undefined
    if (typeof value === "number" && Number.isFinite(Math.fround(value))) return value
    throw this.#wrong(keys, value, "a number")
  }

  /** A string; undefined when the configuration has no such key. */
  text(key: string): string | undefined {
    const value = this.get(key)
    if (value === undefined || typeof value === "string") return value
    throw this.#wrong([key], value, "a string")
  }

  /** A list; undefined when the configuration has no such key. */
  list(key: string): readonly unknown[] | undefined {
    const value = this.get(key)
    if (value === undefined || Array.isArray(value)) return value
    throw this.#wrong([key], value, "a list")
  }

  /** An object; undefined when the configuration has no such key. */
  object(key: string): JsonObject | undefined {
    const value = this.get(key)
    if (value === undefined || isObject(value)) return value
    throw this.#wrong([key], value, "an object")
  }

  /** A copy with other values. */
  with(values: JsonObject): Hyperparameters {
    return new Hyperparameters({ ...this.#values, ...values }, this.#label)
  }

  /** The error for a value that cannot be. */
  problem(text: string): CriaError {
    return new CriaError("invalid-input", `Cannot use "${this.#label}": ${text}`)
  }

  #resolve(value: unknown): unknown {
    if (value === HEADS) return this.size("num_attention_heads")
    if (value === HEAD_SIZE) {
      return Math.floor(this.size("hidden_size") / this.size("num_attention_heads"))
    }
    return value
  }

  #wrong(keys: readonly string[], value: unknown, expected: string): CriaError {
    const text = value === undefined ? "missing" : (JSON.stringify(value) ?? "").slice(0, 80)
    return this.problem(`"${keys[0] ?? ""}" is ${text}, expected ${expected}`)
  }
}

/** A key with null is a key that is left out. */
function withoutNulls(values: JsonObject): JsonObject {
  return Object.fromEntries(Object.entries(values).filter(([, value]) => value !== null))
}
