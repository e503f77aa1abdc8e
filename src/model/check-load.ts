/**
 * Refuses what a model cannot be loaded with, before anything is loaded.
 *
 * Pure: says what is wrong, what was expected and what to do. llama.cpp would refuse some of it too, much later and in
 * its log, and hang or abort on the rest.
 *
 * @module
 */

import { type CacheType, splitCacheSetting } from "../engine/cache-type.ts"
import type { ModelFacts } from "../gguf/facts.ts"
import { tensorType, type TensorTypeName } from "../gguf/format.ts"
import { CriaError } from "../util/errors.ts"
import type { LoadOptions } from "./request.ts"

/** Whole numbers among the options, and the least and the most that they can be. */
const RANGES = {
  // llama.cpp tries out with two tokens what a memory can do; 4 is the smallest context of Ollama.
  contextTokens: [4, 2 ** 30],
  parallel: [1, 2 ** 30],
  batchTokens: [2, 65_536],
  threads: [1, 512],
  gpuLayers: [-1, 2 ** 30],
  mainGpu: [0, 255],
} as const satisfies Partial<Record<keyof LoadOptions, readonly [number, number]>>

/** Exact enough for every model. */
export const CACHE_DEFAULT = "f16"

/** Types that every head can have. */
const PLAIN_TYPES = "f16, bf16 or f32"

/** The types of keys and values in the cache. */
export function cacheTypesOf({ cacheType = CACHE_DEFAULT }: Pick<LoadOptions, "cacheType">): {
  readonly keys: CacheType
  readonly values: CacheType
} {
  return splitCacheSetting(cacheType)
}

/** A cache type as the tensor type that it is. */
export function tensorTypeOf(type: CacheType): TensorTypeName {
  // The cache types are names of tensor types in lower case.
  return type.toUpperCase() as TensorTypeName
}

/**
 * Checks the options of a load.
 *
 * @throws {CriaError} `invalid-input` for a number that makes no sense, or for types of the KV cache that this model
 * cannot have.
 */
export function checkLoad(options: LoadOptions, facts: ModelFacts): void {
  // Object.entries widens the keys; RANGES has exactly these.
  for (const key of Object.keys(RANGES) as (keyof typeof RANGES)[]) {
    const [min, max] = RANGES[key]
    const value = options[key]
    if (value === undefined || (Number.isInteger(value) && value >= min && value <= max)) continue
    throw new CriaError(
      "invalid-input",
      `Cannot load "${options.name}" with ${key} ${value}: expected a whole number from ${min} to ${max}`,
    )
  }
  checkCacheTypes(options, facts)
}

function checkCacheTypes(options: LoadOptions, facts: ModelFacts): void {
  const { keys, values } = cacheTypesOf(options)
  const usesFlash = options.flashAttention !== "off"
  if (!usesFlash && blockOf(values) > 1) {
    throw new CriaError(
      "invalid-input",
      `Cannot keep the values of "${options.name}" as ${values} without flash attention`,
      { hint: `Leave flash attention to be decided, or use ${PLAIN_TYPES}` },
    )
  }
  if (!usesFlash) return
  const lengths = [
    ["keys", keys, facts.keyLength],
    ["values", values, facts.valueLength],
  ] as const
  for (const [name, type, length = 0] of lengths) {
    if (length % blockOf(type) === 0) continue
    throw new CriaError(
      "invalid-input",
      `Cannot keep the ${name} of "${options.name}" as ${type}: a head has ${length} elements, expected a multiple of ${blockOf(type)}`,
      { hint: `Use ${PLAIN_TYPES}` },
    )
  }
}

function blockOf(type: CacheType): number {
  return tensorType(tensorTypeOf(type)).blockElements
}
