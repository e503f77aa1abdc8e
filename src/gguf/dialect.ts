/**
 * Files from Ollama's registry that llama.cpp does not load: what would have to be different in them.
 *
 * Some models there were made for Ollama's own engine. Names of keys and tensors differ, layers of an image encoder lie
 * in the same file, defaults are left out. Where that is all, the file can be translated; otherwise it is refused with
 * the reason. Pure: looks at a header and says what to do; `src/model/translate.ts` does it.
 *
 * @module
 */

import { CriaError } from "../util/errors.ts"
import { integerOf } from "./check.ts"
import type { GgufHeader, GgufScalar } from "./format.ts"

/** How a file has to be rewritten. */
export interface Translation {
  /** What it is now, and what it becomes. */
  readonly from: string
  readonly architecture: string
  /** Scalars to set; `undefined` keeps what is there. Keys are those of the result. */
  readonly defaults: ReadonlyMap<string, GgufScalar>
  /** New name of a tensor; undefined leaves it out. */
  readonly tensorName: (name: string) => string | undefined
  /** New name of a key. */
  readonly keyName: (key: string) => string
  /** Tokens of the vocabulary that have a row of the embedding; undefined keeps all. */
  readonly tokens: number | undefined
  /** Array of rope sections that has to be filled with zeros to four, by its new name. */
  readonly sections: string | undefined
}

/** What the translation of one architecture consists of. */
interface Rule {
  readonly architecture: string
  /** Whether a file of this name is of Ollama's kind; without it, always. */
  readonly applies?: (header: GgufHeader) => boolean
  readonly keys?: Readonly<Record<string, string>>
  readonly tensors?: readonly (readonly [pattern: RegExp, name: string])[]
  readonly defaults?: (header: GgufHeader) => Readonly<Record<string, GgufScalar>>
}

/** Image and audio encoders inside of a model's file. */
const ENCODER = /^(?:v|mm|a)\./

/** Gemma 3 with more than a billion parameters has its positions stretched by 8. */
const GEMMA3_STRETCHED = new Set([34, 48, 62])

const RULES: Readonly<Record<string, Rule>> = {
  gptoss: {
    architecture: "gpt-oss",
    tensors: [
      [/^(blk\.\d+)\.attn_out\./, "$1.attn_output."],
      [/^(blk\.\d+)\.attn_sinks$/, "$1.attn_sinks.weight"],
      [/^(blk\.\d+)\.ffn_norm\./, "$1.post_attention_norm."],
    ],
    defaults: gptOssDefaults,
  },
  gemma3: { architecture: "gemma3", applies: isOllamasGemma3, defaults: gemma3Defaults },
  qwen25vl: {
    architecture: "qwen2vl",
    keys: { "rope.mrope_section": "rope.dimension_sections" },
  },
}

/** Models that cannot be translated, and why. */
const REFUSED: Readonly<Record<string, string>> = {
  mllama: "llama.cpp has no Llama 3.2 Vision",
  deepseekocr: "its layers are laid out for Ollama's own engine",
  glmocr: "its layers are laid out for Ollama's own engine",
  glm4moelite: "its attention is laid out for Ollama's own engine",
  nemotron_h_omni: "its encoders are laid out for Ollama's own engine",
}

/**
 * What has to be done so that llama.cpp loads a file; undefined when nothing.
 *
 * @param label What errors call the file.
 * @throws {CriaError} `unavailable` for models that cannot be translated.
 */
export function translationOf(header: GgufHeader, label: string): Translation | undefined {
  const value = header.metadata.get("general.architecture")
  const from = value?.type === "string" ? value.value : ""
  if (Object.hasOwn(REFUSED, from)) throw refusal(label, REFUSED[from] ?? "")
  if (header.tensors.some(({ name }) => name.startsWith("dense.")) && from === "gemma3") {
    throw refusal(label, "an embedding model that Ollama's registry keeps as Gemma 3")
  }
  const rule = Object.hasOwn(RULES, from) ? RULES[from] : undefined
  if (rule === undefined || rule.applies?.(header) === false) return undefined
  const { architecture, keys = {}, tensors = [] } = rule
  const defaults = Object.entries(rule.defaults?.(header) ?? {})
  return {
    from,
    architecture,
    defaults: new Map(defaults.map(([key, scalar]) => [`${architecture}.${key}`, scalar])),
    tensorName: (name) => (ENCODER.test(name) ? undefined : renamed(name, tensors)),
    keyName(key) {
      if (!key.startsWith(`${from}.`)) return key
      const bare = key.slice(from.length + 1)
      return `${architecture}.${keys[bare] ?? bare}`
    },
    tokens: surplusTokens(header),
    sections: keys["rope.mrope_section"] && `${architecture}.${keys["rope.mrope_section"]}`,
  }
}

function renamed(name: string, rules: NonNullable<Rule["tensors"]>): string {
  const rule = rules.find(([pattern]) => pattern.test(name))
  return rule === undefined ? name : name.replace(...rule)
}

function refusal(label: string, reason: string): CriaError {
  return new CriaError("unavailable", `Cannot run ${JSON.stringify(label)}: ${reason}`, {
    hint: "Take a GGUF of the model that was made for llama.cpp: cria pull hf.co/<user>/<name>-GGUF",
  })
}

/** The number of rows of the embedding when the vocabulary has more tokens. */
function surplusTokens({ metadata, tensors }: GgufHeader): number | undefined {
  const tokens = metadata.get("tokenizer.ggml.tokens")
  const rows = tensors.find(({ name }) => name === "token_embd.weight")?.dims[1]
  if (tokens?.type !== "array" || rows === undefined) return undefined
  return tokens.length > rows ? rows : undefined
}

function gptOssDefaults({ metadata }: GgufHeader): Record<string, GgufScalar> {
  const width = integerOf(metadata.get("gptoss.feed_forward_length"))
  const factor = metadata.get("gptoss.rope.scaling.factor")
  return {
    ...(width === undefined ? {} : { expert_feed_forward_length: { type: "u32", value: width } }),
    ...(factor === undefined ? {} : { "rope.scaling.type": { type: "string", value: "yarn" } }),
  }
}

/** It has what the file for llama.cpp has in a file of its own, or lacks what that always has. */
function isOllamasGemma3(header: GgufHeader): boolean {
  return (
    !header.metadata.has("gemma3.attention.layer_norm_rms_epsilon") ||
    header.metadata.has("gemma3.rope.global.freq_base") ||
    header.tensors.some(({ name }) => ENCODER.test(name)) ||
    surplusTokens(header) !== undefined
  )
}

/** What Google's configurations say, and files for Ollama's engine leave out. */
function gemma3Defaults({ metadata }: GgufHeader): Record<string, GgufScalar> {
  const number = (key: string, fallback: number): GgufScalar => {
    const value = metadata.get(`gemma3.${key}`)
    const isNumber = value?.type === "f32" || value?.type === "f64"
    return { type: "f32", value: isNumber ? value.value : fallback }
  }
  const isStretched = GEMMA3_STRETCHED.has(integerOf(metadata.get("gemma3.block_count")) ?? 0)
  return {
    "attention.layer_norm_rms_epsilon": { type: "f32", value: 1e-6 },
    "rope.freq_base": number("rope.global.freq_base", 1_000_000),
    "rope.freq_base_swa": number("rope.local.freq_base", 10_000),
    ...(isStretched
      ? {
          "rope.scaling.type": { type: "string", value: "linear" },
          "rope.scaling.factor": { type: "f32", value: 8 },
        }
      : {}),
  }
}
