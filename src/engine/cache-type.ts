/**
 * Types that the values of a KV cache can have, by ggml's names.
 *
 * @module
 */

import { assert } from "../util/errors.ts"

/** Largest first. */
export const CACHE_TYPES = [
  "f32",
  "f16",
  "bf16",
  "q8_0",
  "q5_1",
  "q5_0",
  "q4_1",
  "q4_0",
  "iq4_nl",
] as const

/** One of {@link CACHE_TYPES}. */
export type CacheType = (typeof CACHE_TYPES)[number]

/** What a KV cache is made of: one type for keys and values, or `keys/values`. */
export type CacheSetting = CacheType | `${CacheType}/${CacheType}`

/** Names what {@link parseCacheSetting} takes, for complaints. */
export const CACHE_SETTINGS: string = `${CACHE_TYPES.join(", ")}, or one for keys and one for values, such as q8_0/f16`

/** Reads a setting, in any case; undefined when it is none. Two types that are the same are one. */
export function parseCacheSetting(text: string): CacheSetting | undefined {
  const [first = "", second = first, ...rest] = text.trim().toLowerCase().split("/")
  const [keys, values] = [cacheTypeOf(first), cacheTypeOf(second)]
  if (keys === undefined || values === undefined || rest.length > 0) return undefined
  return keys === values ? keys : `${keys}/${values}`
}

/** The types of a setting. */
export function splitCacheSetting(setting: CacheSetting): { keys: CacheType; values: CacheType } {
  const [keys, values = keys] = setting.split("/").map(cacheTypeOf)
  assert(keys !== undefined && values !== undefined, "a setting has types")
  return { keys, values }
}

function cacheTypeOf(name: string): CacheType | undefined {
  return CACHE_TYPES.find((type) => type === name)
}
