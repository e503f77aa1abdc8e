/**
 * The architectures of Ollama's registry that llama.cpp knows in another form, as a table.
 *
 * What llama.cpp expects is in its `src/models/*.cpp`; what the files have is known from the files. Only what makes the
 * same model of it stands here: names, missing values that follow from others or are fixed for the family, layers that
 * text does not need. `dialect.ts` applies it.
 *
 * @module
 */

import { CriaError, errorMessage } from "../util/errors.ts"
import type { DialectFile } from "./dialect-file.ts"
import { f32, type GgufInput, packNumbers, text, u32 } from "./write.ts"

/** Makes a value from what the file has; undefined where that says nothing. */
type ValueOf = (file: DialectFile) => GgufInput | undefined

/** How files of one architecture are translated. Keys are without the architecture's prefix. */
export interface Rule {
  /** llama.cpp's name of the architecture; without, it is the same. */
  readonly becomes?: string | ((file: DialectFile) => string)
  /** Whether a file is of Ollama's kind; without, all of this architecture are. */
  readonly marks?: (file: DialectFile) => boolean
  readonly renames?: Readonly<Record<string, string>>
  readonly drops?: readonly string[]
  /** Values whether or not there are others. */
  readonly sets?: Readonly<Record<string, ValueOf>>
  /** Values of keys that the file lacks. */
  readonly defaults?: Readonly<Record<string, ValueOf>>
  /** New names of tensors; the first pattern that fits counts. */
  readonly tensors?: readonly (readonly [pattern: RegExp, name: string])[]
  /** Tensors that are left out, beside those of encoders. */
  readonly without?: RegExp
  /** The tensor whose rows say how many tokens there are; without, the embedding. */
  readonly rows?: string
}

/** Tensors of encoders, which a file for llama.cpp has in a file of its own. */
const hasEncoder = (file: DialectFile): boolean => file.hasTensor(/^(?:v|mm|a)\./)

/** Layers that guess further tokens, in the form of the files that they were converted from. */
const GUESSING = /^mtp\./

/** The token that ends a turn of Llama 3. */
const LLAMA3_TURN_END = 128_009

const PRE = "tokenizer.ggml.pre"

// Gemma 3 with more than a billion parameters has its positions stretched by 8.
const GEMMA3_STRETCHED: ReadonlySet<number> = new Set([34, 48, 62])

const isStretched = (file: DialectFile) => GEMMA3_STRETCHED.has(file.integer("block_count") ?? 0)

const QWEN35: Rule = {
  marks: (file) =>
    file.has("vision.block_count") ||
    file.has("image_token_id") ||
    file.has("ssm.v_head_reordered") ||
    file.has("rope.mrope_interleaved") ||
    file.hasTensor(/\.ssm_dt$/) ||
    file.hasTensor(GUESSING) ||
    hasEncoder(file),
  sets: {
    "attention.head_count_kv": largest("attention.head_count_kv"),
    // What llama.cpp's converter writes for models that take text only.
    "rope.dimension_sections": (file) =>
      sections("rope.dimension_sections", "rope.mrope_section")(file) ??
      packNumbers("i32", [11, 11, 10, 0]),
  },
  defaults: { full_attention_interval: interval },
  tensors: [[/\.ssm_dt$/, ".ssm_dt.bias"]],
  without: GUESSING,
}

const QWEN3VL: Rule = {
  marks: (file) => !file.has("rope.dimension_sections") || hasEncoder(file),
  defaults: {
    // For heads of 128, which all of them have.
    "rope.dimension_sections": (file) =>
      sections("rope.mrope_section")(file) ?? packNumbers("i32", [24, 20, 20, 0]),
    n_deepstack_layers: (file) =>
      u32(file.elements("vision.deepstack_visual_indexes")?.length ?? 0),
  },
}

const NEMOTRON_TENSORS: Rule["tensors"] = [
  [/\.ffn_latent_in\./, ".ffn_latent_down."],
  [/\.ffn_latent_out\./, ".ffn_latent_up."],
]

const NEMOTRON_DEFAULTS: Rule["defaults"] = {
  moe_latent_size: size(/\.ffn_latent_in\.weight$/, 1),
}

/** By the name that the file has for its architecture. The first rule whose marks are there counts. */
export const RULES: Readonly<Record<string, readonly Rule[]>> = {
  bert: [
    {
      marks: hasEncodedCharsmap,
      sets: { "tokenizer.ggml.precompiled_charsmap": charsmap },
    },
  ],
  gemma3: [
    {
      becomes: "gemma-embedding",
      marks: (file) => file.hasTensor("dense.0.weight"),
      renames: {
        "rope.global.freq_base": "rope.freq_base",
        "rope.local.freq_base": "rope.freq_base_swa",
      },
      drops: ["attention.causal", "attention.sliding_window_pattern"],
      defaults: {
        "attention.layer_norm_rms_epsilon": number(1e-6),
        "rope.freq_base": number(1e6),
        "rope.freq_base_swa": number(1e4),
        dense_2_feat_in: size("dense.0.weight", 0),
        dense_2_feat_out: size("dense.0.weight", 1),
        dense_3_feat_in: size("dense.1.weight", 0),
        dense_3_feat_out: size("dense.1.weight", 1),
      },
      tensors: [
        [/^dense\.0\./, "dense_2."],
        [/^dense\.1\./, "dense_3."],
        [/^norm\./, "output_norm."],
      ],
    },
    {
      marks: (file) =>
        !file.has("attention.layer_norm_rms_epsilon") ||
        !file.has("rope.freq_base") ||
        file.has("rope.local.freq_base") ||
        file.has("mm.tokens_per_image") ||
        hasEncoder(file) ||
        file.tokenCount > (file.rowsOf("token_embd.weight") ?? Infinity),
      renames: {
        "rope.global.freq_base": "rope.freq_base",
        "rope.local.freq_base": "rope.freq_base_swa",
      },
      defaults: {
        "attention.layer_norm_rms_epsilon": number(1e-6),
        "rope.freq_base": number(1e6),
        "rope.freq_base_swa": number(1e4),
        "rope.scaling.type": (file) => (isStretched(file) ? text("linear") : undefined),
        "rope.scaling.factor": (file) => (isStretched(file) ? f32(8) : undefined),
      },
    },
  ],
  gemma3n: [
    {
      // It has tokens for images and sounds that layers do not know.
      marks: (file) =>
        hasEncoder(file) ||
        file.rowsOf("token_embd.weight") !== file.rowsOf("per_layer_token_embd.weight"),
      sets: { "tokenizer.ggml.model": () => text("llama"), "tokenizer.ggml.token_type": byteTypes },
      rows: "per_layer_token_embd.weight",
    },
  ],
  gemma4: [
    {
      marks: (file) =>
        file.text("tokenizer.ggml.model") === "llama" ||
        file.hasTensor(/^model\.vision_tower\./) ||
        hasEncoder(file),
      sets: {
        // Its tokens are joined in the order of merges, not by scores.
        "tokenizer.ggml.model": (file) =>
          file.text("tokenizer.ggml.model") === "llama" ? text("gemma4") : undefined,
      },
      tensors: [[/\.ffn_gate_inp\.per_expert_scale$/, ".ffn_down_exps.scale"]],
      without: /^model\.vision_tower\./,
    },
  ],
  glm4moelite: [
    {
      becomes: "deepseek2",
      // Keys and values of all heads are computed from one that is cached.
      sets: {
        "attention.head_count_kv": () => u32(1),
        "attention.key_length": sum("attention.kv_lora_rank", "rope.dimension_count"),
        "attention.value_length": sum("attention.kv_lora_rank"),
        "attention.key_length_mla": sum("attention.key_length"),
        "attention.value_length_mla": (file) =>
          size(/\.attn_v_b\.weight$/, 1)(file) ?? sum("attention.value_length")(file),
        [PRE]: () => text("glm4"),
      },
      defaults: {
        expert_group_count: () => u32(1),
        expert_group_used_count: () => u32(1),
        "tokenizer.ggml.eot_token_id": element("tokenizer.ggml.eos_token_ids", 1),
        "tokenizer.ggml.eom_token_id": element("tokenizer.ggml.eos_token_ids", 2),
      },
    },
  ],
  gptoss: [
    {
      becomes: "gpt-oss",
      sets: { [PRE]: () => text("gpt-4o") },
      defaults: {
        expert_feed_forward_length: (file) =>
          size("blk.0.ffn_gate_exps.weight", 1)(file) ?? sum("feed_forward_length")(file),
        "rope.scaling.type": () => text("yarn"),
      },
      tensors: [
        [/^(blk\.\d+)\.attn_out\./, "$1.attn_output."],
        [/^(blk\.\d+)\.attn_sinks$/, "$1.attn_sinks.weight"],
        [/^(blk\.\d+)\.ffn_norm\./, "$1.post_attention_norm."],
      ],
    },
  ],
  laguna: [
    {
      marks: (file) =>
        file.has("rope.swa.dimension_count") ||
        file.has("rope.swa.freq_base") ||
        file.hasTensor("blk.0.attn_g.weight"),
      renames: {
        "rope.swa.dimension_count": "rope.dimension_count_swa",
        "rope.swa.freq_base": "rope.freq_base_swa",
      },
      tensors: [[/\.attn_g\.weight$/, ".attn_gate.weight"]],
    },
  ],
  lfm2: [lfm2({ feed_forward_length: size("blk.0.ffn_gate.weight", 1) })],
  lfm2moe: [lfm2({})],
  llama: [
    {
      // Llama 3 without the name of the rules by which it cuts text.
      marks: (file) =>
        isDefault(file.text(PRE)) &&
        file.tokenCount > LLAMA3_TURN_END &&
        file.elements("tokenizer.ggml.tokens")?.[LLAMA3_TURN_END] === "<|eot_id|>",
      sets: { [PRE]: () => text("llama-bpe") },
    },
  ],
  llama4: [
    {
      marks: hasEncoder,
      defaults: { expert_feed_forward_length: size(/\.ffn_gate_exps\.weight$/, 1) },
    },
  ],
  mistral3: [
    {
      marks: (file) =>
        hasEncoder(file) ||
        file.has("rope.scaling.beta_fast") ||
        file.has("rope.scaling.mscale_all_dim") ||
        file.has("rope.scaling_beta"),
      renames: {
        "rope.scaling.beta_fast": "rope.scaling.yarn_beta_fast",
        "rope.scaling.beta_slow": "rope.scaling.yarn_beta_slow",
        "rope.scaling.mscale_all_dim": "rope.scaling.yarn_log_multiplier",
        "rope.scaling_beta": "attention.temperature_scale",
      },
      sets: { [PRE]: (file) => (isDefault(file.text(PRE)) ? text("tekken") : undefined) },
    },
  ],
  nemotron_h_moe: [
    {
      marks: (file) => file.hasTensor(/\.ffn_latent_in\./) || file.hasTensor(GUESSING),
      defaults: NEMOTRON_DEFAULTS,
      tensors: NEMOTRON_TENSORS,
      without: GUESSING,
    },
  ],
  nemotron_h_omni: [
    {
      becomes: (file) =>
        (file.integer("expert_count") ?? 0) > 0 ? "nemotron_h_moe" : "nemotron_h",
      defaults: NEMOTRON_DEFAULTS,
      tensors: NEMOTRON_TENSORS,
      without: GUESSING,
    },
  ],
  olmo3: [{ becomes: "olmo2" }],
  qwen25vl: [
    {
      becomes: "qwen2vl",
      defaults: {
        // For heads of 128, which all of them have.
        "rope.dimension_sections": (file) =>
          sections("rope.mrope_section")(file) ?? packNumbers("i32", [16, 24, 24, 0]),
      },
    },
  ],
  qwen35: [QWEN35],
  qwen35moe: [QWEN35],
  qwen3next: [
    {
      marks: (file) => file.hasTensor(/\.ssm_dt$/),
      sets: { "attention.head_count_kv": largest("attention.head_count_kv") },
      defaults: { full_attention_interval: interval },
      tensors: [[/\.ssm_dt$/, ".ssm_dt.bias"]],
    },
  ],
  qwen3vl: [QWEN3VL],
  qwen3vlmoe: [QWEN3VL],
}

/** Models that cannot be translated: why, and what to take. */
export const REFUSED: Readonly<Record<string, { readonly reason: string; readonly hint: string }>> =
  {
    mllama: {
      reason: "llama.cpp has no Llama 3.2 Vision",
      hint: "For text take the model that it was made of: cria pull llama3.1",
    },
    deepseekocr: {
      reason: "it reads what is in images, and cria takes text only",
      hint: "For text take another model, such as: cria pull qwen3",
    },
    glmocr: {
      reason: "it reads what is in images, and cria takes text only",
      hint: "For text take another model, such as: cria pull qwen3",
    },
  }

function lfm2(sets: Rule["sets"]): Rule {
  return {
    marks: (file) =>
      file.hasTensor("output_norm.weight") && !file.hasTensor("token_embd_norm.weight"),
    sets: { ...sets, [PRE]: () => text("lfm2") },
    tensors: [[/^output_norm\./, "token_embd_norm."]],
  }
}

function isDefault(pre: string | undefined): boolean {
  return pre === undefined || pre === "" || pre === "default"
}

function number(value: number): ValueOf {
  return () => f32(value)
}

/** What is out of range says nothing. */
function count(value: number | undefined): GgufInput | undefined {
  return isInt32(value) && value >= 0 ? u32(value) : undefined
}

function isInt32(value: unknown): value is number {
  return typeof value === "number" && Number.isInteger(value) && Math.abs(value) < 2 ** 31
}

/** A size of a tensor. */
function size(tensor: string | RegExp, axis: number): ValueOf {
  return (file) => count(file.tensor(tensor)?.dims[axis])
}

/** The sum of integers of the file, all of which have to be there. */
function sum(...keys: readonly string[]): ValueOf {
  return (file) => count(keys.reduce((total, key) => total + (file.integer(key) ?? NaN), 0))
}

/** The largest of an array of integers. */
function largest(key: string): ValueOf {
  return (file) => count(Math.max(...(file.elements(key)?.map(Number) ?? [NaN])))
}

/** Every how many layers one has attention: the others have no heads for it. */
function interval(file: DialectFile): GgufInput | undefined {
  const heads = file.elements("attention.head_count_kv") ?? []
  const first = heads.findIndex((ofLayer) => Number(ofLayer) > 0)
  return first < 0 ? undefined : count(first + 1)
}

/** One token id of a list of them. */
function element(key: string, index: number): ValueOf {
  return (file) => count(Number(file.elements(key)?.[index] ?? NaN))
}

/** Parts of a head that turn with time, height and width, of the first key that there is; llama.cpp wants a fourth. */
function sections(...keys: readonly string[]): ValueOf {
  return (file) => {
    const found = keys.map((key) => file.elements(key)).find((values) => values !== undefined)
    const four = found && [...found.map(Number), 0, 0, 0, 0].slice(0, 4)
    return four?.every(isInt32) === true ? packNumbers("i32", four) : undefined
  }
}

/** Marks tokens that stand for a byte as such, and unused ones as ordinary text. */
function byteTypes(file: DialectFile): GgufInput | undefined {
  const types = file.elements("tokenizer.ggml.token_type")
  const tokens = file.elements("tokenizer.ggml.tokens")
  if (types === undefined || tokens === undefined) return undefined
  const corrected = types.map((type, index) => {
    const token = String(tokens[index])
    if (/^<0x[\dA-Fa-f]{2}>$/.test(token)) return 6
    return token.startsWith("<unused") ? 1 : Number(type)
  })
  return packNumbers("i32", corrected)
}

/** The map of characters of a SentencePiece model as base64, a string for each character. */
function hasEncodedCharsmap(file: DialectFile): boolean {
  const value = file.value("tokenizer.ggml.precompiled_charsmap")
  return value?.type === "array" && value.elementType === "string"
}

function charsmap(file: DialectFile): GgufInput {
  const characters = file.elements("tokenizer.ggml.precompiled_charsmap") ?? []
  try {
    const bytes = Uint8Array.fromBase64(characters.join(""))
    return { type: "array", elementType: "u8", length: bytes.length, bytes }
  } catch (cause) {
    const problem = `the map of characters in its tokenizer is not base64: ${errorMessage(cause)}`
    throw new CriaError("invalid-input", `Cannot translate the model: ${problem}`, { cause })
  }
}
