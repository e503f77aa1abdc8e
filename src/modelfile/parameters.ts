/**
 * The parameters of a model, which are also the `options` of a request: names, types, Ollama's wording for wrong ones.
 *
 * @module
 */

import { CACHE_SETTINGS, type CacheSetting, parseCacheSetting } from "../engine/cache-type.ts"
import { CriaError } from "../util/errors.ts"

const TYPES = {
  num_ctx: "integer",
  num_batch: "integer",
  num_gpu: "integer",
  main_gpu: "integer",
  use_mmap: "boolean",
  num_thread: "integer",
  draft_num_predict: "integer",
  num_keep: "integer",
  seed: "integer",
  num_predict: "integer",
  top_k: "integer",
  top_p: "float32",
  min_p: "float32",
  typical_p: "float32",
  repeat_last_n: "integer",
  temperature: "float32",
  repeat_penalty: "float32",
  presence_penalty: "float32",
  frequency_penalty: "float32",
  stop: "array",
  /** Not in Ollama, as the next: there they are settings of the server. */
  kv_cache_type: "cache type",
  flash_attention: "switch",
} as const

type Types = typeof TYPES

interface Values {
  readonly integer: number
  readonly float32: number
  readonly boolean: boolean
  readonly array: readonly string[]
  readonly "cache type": CacheSetting
  readonly switch: "auto" | "on" | "off"
}

/** Options that were given. What is not here was not given, or was null. */
export type Options = { readonly [K in keyof Types]?: Values[Types[K]] }

/**
 * Checks types. Integers may come as floats and are truncated; null counts as not given.
 *
 * @param onUnknown Gets the names that mean nothing to us.
 * @throws {CriaError} `internal`, which clients see as status 500: that is Ollama's answer to a wrong type.
 */
export function parseOptions(
  options: Readonly<Record<string, unknown>>,
  onUnknown: (name: string) => void = () => {},
): Options {
  const result: Record<string, unknown> = {}
  for (const [name, value] of Object.entries(options)) {
    if (value === null || value === undefined) continue
    if (!isOption(name)) onUnknown(name)
    else result[name] = parseOption(name, value)
  }
  return result
}

function parseOption(name: keyof Types, value: unknown): unknown {
  const expected = TYPES[name]
  switch (expected) {
    case "integer":
      if (typeof value === "number" && Number.isFinite(value)) return Math.trunc(value)
      break
    case "float32":
      if (typeof value === "number" && Number.isFinite(value)) return value
      break
    case "boolean":
      if (typeof value === "boolean") return value
      break
    case "array":
      if (!Array.isArray(value)) break
      if (value.every((item) => typeof item === "string")) return value
      throw new CriaError("internal", `option "${name}" must be of an array of strings`)
    case "cache type":
      if (typeof value === "string") return cacheSetting(name, value)
      throw new CriaError("internal", `option "${name}" must be of type string`)
    case "switch":
      if (typeof value === "boolean") return value ? "on" : "off"
      if (typeof value === "string") return switchValue(name, value)
      throw new CriaError("internal", `option "${name}" must be of type string or boolean`)
    default:
      expected satisfies never
  }
  throw new CriaError("internal", `option "${name}" must be of type ${expected}`)
}

/** Parameters of older Modelfiles that mean nothing any more. */
const DEPRECATED = new Set([
  "penalize_newline",
  "low_vram",
  "f16_kv",
  "logits_all",
  "vocab_only",
  "use_mlock",
  "mirostat",
  "mirostat_tau",
  "mirostat_eta",
])

const TRUE = new Set(["1", "t", "T", "TRUE", "true", "True"])
const FALSE = new Set(["0", "f", "F", "FALSE", "false", "False"])

/** Beyond it a 32-bit float is infinite. */
const FLOAT32_MAX = 3.4028234663852886e38

/**
 * Reads parameters as they stand in a Modelfile. `stop` may come several times; of others the last one counts.
 *
 * @param warn Gets a line for each parameter that is left out because it means nothing any more.
 * @throws {CriaError} `invalid-input` in Ollama's words.
 */
export function parseParameters(
  parameters: readonly { readonly name: string; readonly value: string }[],
  warn: (message: string) => void,
): Record<string, unknown> {
  const result: Record<string, unknown> = {}
  const stops: string[] = []
  for (const { name, value } of parameters) {
    if (DEPRECATED.has(name)) warn(`warning: parameter ${name} is deprecated`)
    else if (!isOption(name)) throw new CriaError("invalid-input", `unknown parameter '${name}'`)
    else if (TYPES[name] === "array") stops.push(value)
    else result[name] = parseValue(name, value)
  }
  return stops.length === 0 ? result : { ...result, stop: stops }
}

function parseValue(name: keyof Types, value: string): unknown {
  const type = TYPES[name]
  switch (type) {
    case "integer": {
      const number = Number(value)
      if (/^[+-]?\d+$/.test(value) && Number.isSafeInteger(number)) return number
      throw new CriaError("invalid-input", `invalid int value [${value}]`)
    }
    case "float32": {
      const number = Number(value)
      const isDecimal = /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(value)
      if (isDecimal && Math.abs(number) <= FLOAT32_MAX) return number
      throw new CriaError("invalid-input", `invalid float value [${value}]`)
    }
    case "boolean":
      if (TRUE.has(value)) return true
      if (FALSE.has(value)) return false
      throw new CriaError("invalid-input", `invalid bool value [${value}]`)
    case "array":
      return [value]
    case "cache type":
      return cacheSetting(name, value)
    case "switch":
      return switchValue(name, value)
    default:
      return type satisfies never
  }
}

function cacheSetting(name: string, text: string): CacheSetting {
  const setting = parseCacheSetting(text)
  if (setting !== undefined) return setting
  throw new CriaError("invalid-input", `Cannot use ${name} "${text}": expected ${CACHE_SETTINGS}`)
}

function switchValue(name: string, text: string): "auto" | "on" | "off" {
  const lower = text.toLowerCase()
  if (lower === "auto") return "auto"
  if (lower === "on" || TRUE.has(text)) return "on"
  if (lower === "off" || FALSE.has(text)) return "off"
  throw new CriaError("invalid-input", `Cannot use ${name} "${text}": expected on, off or auto`)
}

function isOption(name: string): name is keyof Types {
  return Object.hasOwn(TYPES, name)
}
