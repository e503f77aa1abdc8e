/**
 * The metadata that llama.cpp loads a model by: sizes, norms, attention, experts.
 *
 * Owns the keys below `<architecture>.`, but for `rope.` and for the vocabulary. Which keys a family has, and where it
 * takes them from, is as in llama.cpp's converter.
 *
 * @module
 */

import { f32, flag, type GgufInput, packFlags, packStrings, u32 } from "../gguf/write.ts"
import type { Family } from "./families.ts"
import type { ModelFolder } from "./folder.ts"
import type { Hyperparameters } from "./hyperparameters.ts"
import { isObject, shown } from "./json.ts"
import { addRope, originalContext, ropeOf } from "./rope.ts"

type Metadata = Map<string, GgufInput>

/** How token vectors become one; numbers of `enum llama_pooling_type`. */
const POOLING = [
  ["pooling_mode_mean_tokens", "mean", 1],
  ["pooling_mode_cls_token", "cls", 2],
  ["pooling_mode_lasttoken", "lasttoken", 3],
] as const

/** `enum llama_expert_gating_func_type`. */
const GATING: Readonly<Record<string, number>> = { softmax: 1, sigmoid: 2 }

/** Everything about a model that its tensors do not say. */
export function modelParameters(
  family: Family,
  config: Hyperparameters,
  folder: ModelFolder,
): Metadata {
  const metadata: Metadata = new Map()
  const { architecture } = family
  const put = (key: string, value: GgufInput | undefined): void => {
    if (value !== undefined) metadata.set(`${architecture}.${key}`, value)
  }
  addCommon(put, config)
  if (architecture !== "gemma" && architecture !== "gemma2" && architecture !== "phi3") {
    addRope(metadata, architecture, config)
  }
  switch (architecture) {
    case "llama":
    case "smollm3":
    case "granite":
      addLlama(put, config, architecture === "granite")
      break
    case "qwen2":
    case "qwen3":
      put("pooling_type", poolingType(folder))
      break
    case "qwen2moe":
    case "qwen3moe":
      put("expert_feed_forward_length", optional(config.count("moe_intermediate_size")))
      put(
        "expert_shared_feed_forward_length",
        optional(config.count("shared_expert_intermediate_size")),
      )
      break
    case "gemma":
      break
    case "gemma2":
      put("attn_logit_softcapping", optionalFloat(config.number("attn_logit_softcapping")))
      put("final_logit_softcapping", optionalFloat(config.number("final_logit_softcapping")))
      put("attention.sliding_window", u32(config.size("sliding_window")))
      break
    case "gemma3":
      addGemma3(put, config)
      break
    case "phi3":
      addPhi3(put, config)
      break
    case "olmo2":
      addOlmo2(put, config)
      break
    case "bert":
    case "nomic-bert":
      addBert(put, config, folder)
      break
  }
  return metadata
}

type Put = (key: string, value: GgufInput | undefined) => void

function optional(value: number | undefined): GgufInput | undefined {
  return value === undefined ? undefined : u32(value)
}

function optionalFloat(value: number | undefined): GgufInput | undefined {
  return value === undefined ? undefined : f32(value)
}

function addCommon(put: Put, config: Hyperparameters): void {
  put("block_count", u32(config.size("num_hidden_layers")))
  put("context_length", u32(config.size("max_position_embeddings")))
  put("embedding_length", u32(config.size("hidden_size")))
  put("feed_forward_length", u32(config.size("intermediate_size")))
  put("attention.head_count", u32(config.size("num_attention_heads")))
  put("attention.head_count_kv", optional(config.count("num_key_value_heads")))
  if (config.get("is_causal") === false) put("attention.causal", flag(false))
  put("attention.layer_norm_rms_epsilon", optionalFloat(config.number("rms_norm_eps")))
  put("attention.layer_norm_epsilon", optionalFloat(config.number("layer_norm_eps")))
  put("expert_count", optional(config.count("num_local_experts", "num_experts")))
  put("expert_used_count", optional(config.count("num_experts_per_tok")))
  const gating = config.text("scoring_func")
  if (gating !== undefined) {
    const number = Object.hasOwn(GATING, gating) ? GATING[gating] : undefined
    if (number === undefined) throw config.problem(`"scoring_func" is "${gating}"`)
    put("expert_gating_func", u32(number))
  }
  const headElements = config.count("head_dim")
  put("attention.key_length", optional(headElements))
  put("attention.value_length", optional(headElements))
}

function addLlama(put: Put, config: Hyperparameters, isGranite: boolean): void {
  put("vocab_size", u32(config.size("vocab_size")))
  const share = Math.floor(config.size("hidden_size") / config.size("num_attention_heads"))
  put("rope.dimension_count", u32(isGranite ? share : (config.count("head_dim") ?? share)))
  if (!isGranite) return
  const scales = [
    ["attention.scale", "attention_multiplier"],
    ["embedding_scale", "embedding_multiplier"],
    ["residual_scale", "residual_multiplier"],
    ["logit_scale", "logits_scaling"],
  ] as const
  for (const [key, source] of scales) {
    const value = config.number(source)
    if (value !== undefined && value !== 0) put(key, f32(value))
  }
}

function addGemma3(put: Put, config: Hyperparameters): void {
  put("final_logit_softcapping", optionalFloat(config.number("final_logit_softcapping")))
  if (config.get("sliding_window_pattern") !== 1) {
    put("attention.sliding_window", u32(config.size("sliding_window")))
  }
}

function addPhi3(put: Put, config: Hyperparameters): void {
  const rope = ropeOf(config)
  const partial = config.number("partial_rotary_factor") ?? 1
  const elements = Math.trunc(partial * config.size("hidden_size"))
  put("rope.scaling.original_context_length", optional(originalContext(config, rope)))
  put("rope.dimension_count", u32(Math.floor(elements / config.size("num_attention_heads"))))
  put("rope.freq_base", optionalFloat(rope.full.theta))
  // 0 tells Phi-4, which has no window, from the other models of the family.
  put("attention.sliding_window", u32(config.count("sliding_window") ?? 0))
}

/** Olmo 3 is Olmo 2 with windows in all but every fourth layer. */
function addOlmo2(put: Put, config: Hyperparameters): void {
  const window = config.count("sliding_window")
  if (window === undefined) return
  put("attention.sliding_window", u32(window))
  const kinds = config.list("layer_types")
  const layers = Array.from({ length: config.size("num_hidden_layers") }, (_, index) => index)
  const slides =
    kinds?.map((kind) => kind === "sliding_attention") ?? layers.map((n) => (n + 1) % 4 !== 0)
  put("attention.sliding_window_pattern", packFlags(slides))
}

function addBert(put: Put, config: Hyperparameters, folder: ModelFolder): void {
  put("attention.causal", flag(false))
  put("pooling_type", poolingType(folder))
  const labels = classifierLabels(config)
  if (labels !== undefined) put("classifier.output_labels", packStrings(labels))
}

/** The classes of a model that judges texts; undefined for others. */
export function classifierLabels(config: Hyperparameters): string[] | undefined {
  const labels = config.object("id2label")
  if (labels === undefined) return undefined
  const names = Object.values(labels).map(shown)
  // What Hugging Face's library writes when there are none.
  return names.length === 2 && names[0] === "LABEL_0" ? undefined : names
}

/** Of a model in the layout of sentence-transformers. */
function poolingType(folder: ModelFolder): GgufInput | undefined {
  const modules = folder.has("modules.json") ? folder.json("modules.json") : undefined
  if (!Array.isArray(modules)) return undefined
  const pooling: unknown = modules.find(
    (module) => isObject(module) && shown(module["type"]).endsWith("Pooling"),
  )
  if (!isObject(pooling)) return undefined
  const name = `${shown(pooling["path"])}/config.json`
  const settings = folder.object(name)
  const match = POOLING.find(
    ([key, mode]) => settings?.[key] === true || settings?.["pooling_mode"] === mode,
  )
  if (match === undefined) throw folder.wrong(name, "it asks for none of mean, cls and last token")
  return u32(match[2])
}
