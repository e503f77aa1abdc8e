/**
 * To which types a model can be quantised, and from which.
 *
 * @module
 */

import type { ModelFacts } from "../gguf/facts.ts"
import type { GgufHeader } from "../gguf/format.ts"
import { CriaError } from "../util/errors.ts"

/** What llama.cpp's quantiser writes, in the order of its size. */
export const QUANTIZATION_TYPES: readonly string[] = `
  F32 BF16 F16 Q8_0 Q6_K Q5_K_M Q5_K_S Q5_1 Q5_0 Q4_K_M Q4_K_S Q4_1 Q4_0 IQ4_NL IQ4_XS MXFP4_MOE
  Q3_K_L Q3_K_M Q3_K_S IQ3_M IQ3_S IQ3_XS IQ3_XXS Q2_K Q2_K_S IQ2_M IQ2_S IQ2_XS IQ2_XXS Q2_0 TQ2_0
  TQ1_0 IQ1_M IQ1_S Q1_0`
  .trim()
  .split(/\s+/)

/** Short names for the middle of a family. */
const ALIASES: Readonly<Record<string, string>> = {
  Q3_K: "Q3_K_M",
  Q4_K: "Q4_K_M",
  Q5_K: "Q5_K_M",
}

/** What can be quantised. */
const SOURCES = ["F32", "F16", "BF16"]

/**
 * The type that a user means, in any case.
 *
 * @throws {CriaError} `invalid-input` with all types.
 */
export function parseQuantization(text: string): string {
  const upper = text.toUpperCase()
  const type = ALIASES[upper] ?? upper
  if (QUANTIZATION_TYPES.includes(type)) return type
  throw new CriaError(
    "invalid-input",
    `unsupported quantization type ${upper.slice(0, 40)} - supported types are ${QUANTIZATION_TYPES.join(", ")}`,
  )
}

/** The file's type, from its tensors when it does not say: that of most of their bytes. */
export function fileTypeOf({ quantization }: ModelFacts, { tensors }: GgufHeader): string {
  if (quantization !== "unknown") return quantization
  const bytes = new Map<string, number>()
  for (const tensor of tensors) {
    bytes.set(tensor.type.name, (bytes.get(tensor.type.name) ?? 0) + tensor.bytes)
  }
  const [most] = [...bytes].toSorted(([, a], [, b]) => b - a)
  return most?.[0] ?? "unknown"
}

/**
 * Whether there is anything to do.
 *
 * @throws {CriaError} `invalid-input` when the source has lost precision already.
 */
export function checkQuantization(source: string, type: string): boolean {
  if (source === type) return false
  if (SOURCES.includes(source)) return true
  const text = "quantization is only supported for F16, BF16 and F32 models"
  throw new CriaError("invalid-input", text, { hint: `This model is ${source} already` })
}

/**
 * The least bytes that a model can take after it was quantised: the number in a type's name are the bits of a weight
 * without scales, and no tensor gets fewer.
 */
export function quantizedBytesMin({ tensors }: GgufHeader, type: string): number {
  const bits = Number(/\d+/.exec(type)?.[0] ?? 0)
  return Math.ceil((tensors.reduce((sum, { elements }) => sum + elements, 0) * bits) / 8)
}
