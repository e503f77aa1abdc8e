/**
 * Rotary position embeddings: how a configuration says them, and what becomes of it in a GGUF file.
 *
 * Owns the two notations of Hugging Face (`rope_scaling` with `rope_theta` beside it, and `rope_parameters`, which may
 * have one part per kind of layer) and the tensors of factors that some models need.
 *
 * @module
 */

import { f32, type GgufInput, packNumbers, text, u32 } from "../gguf/write.ts"
import type { Hyperparameters } from "./hyperparameters.ts"
import { isObject, type JsonObject } from "./json.ts"

/** Of one kind of layer. */
interface RopePart {
  readonly type: string
  readonly theta: number | undefined
  /** Everything that was said. */
  readonly values: JsonObject
}

/** Of a model. */
export interface Rope {
  readonly full: RopePart
  /** Where layers with a sliding window have a base of their own. */
  readonly slidingTheta: number | undefined
  readonly sections: readonly number[] | undefined
}

/** Reads either notation. */
export function ropeOf(config: Hyperparameters): Rope {
  const given = config.object("rope_parameters") ?? config.object("rope_scaling") ?? {}
  const full = isObject(given["full_attention"]) ? given["full_attention"] : given
  const sliding = given["sliding_attention"]
  const sections = given["mrope_section"]
  const theta = numberIn(full, "rope_theta") ?? config.number("rope_theta")
  const type = full["rope_type"] ?? full["type"]
  return {
    full: { type: typeof type === "string" ? type : "default", theta, values: full },
    slidingTheta:
      (isObject(sliding) ? numberIn(sliding, "rope_theta") : undefined) ??
      config.number("rope_local_base_freq", "local_rope_theta"),
    sections: finiteNumbers(sections)?.map((size) => Math.trunc(size) | 0),
  }
}

/** A number among the values of a part; undefined when there is none. */
export function numberIn(values: JsonObject, key: string): number | undefined {
  const value = values[key]
  return typeof value === "number" ? value : undefined
}

/** A list of numbers; undefined for anything else. */
export function finiteNumbers(values: unknown): number[] | undefined {
  if (!Array.isArray(values)) return undefined
  const numbers = values.filter((value): value is number => Number.isFinite(value))
  return numbers.length === values.length ? numbers : undefined
}

/** The context that the model was trained with before it was stretched. */
export function originalContext(config: Hyperparameters, rope: Rope): number | undefined {
  return (
    numberIn(rope.full.values, "original_max_position_embeddings") ??
    config.count("original_max_position_embeddings")
  )
}

/** Writes the keys below `<architecture>.rope.`. */
export function addRope(
  metadata: Map<string, GgufInput>,
  architecture: string,
  config: Hyperparameters,
): void {
  const rope = ropeOf(config)
  const key = (name: string): string => `${architecture}.rope.${name}`
  const { type, values, theta } = rope.full
  const factor = numberIn(values, "factor")
  if (type === "linear" && factor !== undefined) {
    metadata.set(key("scaling.type"), text("linear"))
    metadata.set(key("scaling.factor"), f32(factor))
  } else if (type === "yarn" && factor !== undefined) {
    addYarn(metadata, key, { values, factor, context: originalContext(config, rope), config })
  } else if (type === "su" || type === "longrope") {
    metadata.set(key("scaling.type"), text("longrope"))
  }
  if (rope.sections !== undefined) {
    const sections = [...rope.sections, 0, 0, 0, 0].slice(0, 4)
    metadata.set(key("dimension_sections"), packNumbers("i32", sections))
  }
  if (theta !== undefined) metadata.set(key("freq_base"), f32(theta))
  if (rope.slidingTheta !== undefined) metadata.set(key("freq_base_swa"), f32(rope.slidingTheta))
}

function addYarn(
  metadata: Map<string, GgufInput>,
  key: (name: string) => string,
  yarn: {
    values: JsonObject
    factor: number
    context: number | undefined
    config: Hyperparameters
  },
): void {
  if (yarn.context === undefined) {
    throw yarn.config.problem('"original_max_position_embeddings" is missing, which YaRN needs')
  }
  metadata.set(key("scaling.type"), text("yarn"))
  metadata.set(key("scaling.factor"), f32(yarn.factor))
  metadata.set(key("scaling.original_context_length"), u32(yarn.context))
  const optional = [
    ["yarn_ext_factor", "extrapolation_factor"],
    ["yarn_attn_factor", "attn_factor"],
    ["yarn_attn_factor", "attention_factor"],
    ["yarn_beta_fast", "beta_fast"],
    ["yarn_beta_slow", "beta_slow"],
  ] as const
  for (const [name, source] of optional) {
    const value = numberIn(yarn.values, source)
    if (value !== undefined) metadata.set(key(`scaling.${name}`), f32(value))
  }
}

/**
 * The divisors of the frequencies of Llama 3.1, one per pair of a head's elements; undefined for other models. All
 * arithmetic is in 32 bits, and a number is divided as PyTorch does it, by its reciprocal.
 */
export function llama3Factors(config: Hyperparameters, headElements: number): number[] | undefined {
  const { full } = ropeOf(config)
  if (full.type.toLowerCase() !== "llama3") return undefined
  const base = full.theta ?? 10_000
  const factor = numberIn(full.values, "factor") ?? 8
  const low = numberIn(full.values, "low_freq_factor") ?? 1
  const high = numberIn(full.values, "high_freq_factor") ?? 4
  const context = numberIn(full.values, "original_max_position_embeddings") ?? 8192
  const { fround } = Math
  const divide = (number: number, by: number): number => fround(fround(1 / by) * fround(number))
  return Array.from({ length: Math.ceil(headElements / 2) }, (_, index) => {
    const exponent = fround((2 * index) / headElements)
    const frequency = divide(1, fround(base ** exponent))
    const wavelength = divide(2 * Math.PI, frequency)
    if (wavelength < context / high) return 1
    if (wavelength > context / low) return factor
    const smooth = fround(fround(divide(context, wavelength) - low) / (high - low))
    return divide(1, fround(fround(fround(1 - smooth) / factor) + smooth))
  })
}
