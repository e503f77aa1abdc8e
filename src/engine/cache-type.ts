/**
 * Types that the values of a KV cache can have, by ggml's names.
 *
 * @module
 */

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
