/**
 * The parameters of a model, which are also the `options` of a request: names, types, Ollama's wording for wrong ones.
 *
 * @module
 */

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
} as const

type Types = typeof TYPES
type OptionValue<T> = T extends "boolean" ? boolean : T extends "array" ? readonly string[] : number

/** Options that were given. What is not here was not given, or was null. */
export type Options = { readonly [K in keyof Types]?: OptionValue<Types[K]> }

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
    default:
      expected satisfies never
  }
  throw new CriaError("internal", `option "${name}" must be of type ${expected}`)
}

function isOption(name: string): name is keyof Types {
  return Object.hasOwn(TYPES, name)
}
