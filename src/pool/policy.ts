/**
 * The pool's decisions, as pure functions.
 *
 * @module
 */

import type { LoadedFacts, LoadOptions } from "../runner/protocol.ts"

/** What a decision reads of a loaded model. */
export interface Resident {
  readonly key: string
  readonly leases: number
  readonly keepAliveMs: number
  readonly lastUsedMs: number
}

/**
 * The model to unload when room is needed: the least recently used of those that nobody uses, those that shall stay
 * for ever last. Undefined when all are in use.
 */
export function pickVictim<T extends Resident>(residents: readonly T[]): T | undefined {
  return residents
    .filter((resident) => resident.leases === 0)
    .toSorted(
      (a, b) =>
        Number(a.keepAliveMs === Infinity) - Number(b.keepAliveMs === Infinity) ||
        a.lastUsedMs - b.lastUsedMs,
    )[0]
}

/** As many layers on the GPU as the model has, which is also what loading does when it is not told. */
const ALL_LAYERS = -1

/** Options that change how a model is loaded, beside its context. */
const LOAD_KEYS = ["batchTokens", "threads", "mainGpu", "useMmap"] as const

/**
 * Whether a loaded model can serve a request as it is. What the request leaves open fits anything, and a larger
 * context serves a smaller one.
 */
export function canServe(loaded: LoadOptions, facts: LoadedFacts, wanted: LoadOptions): boolean {
  const isContextEnough =
    wanted.contextTokens === undefined ||
    wanted.contextTokens <= facts.contextTokens ||
    // It was loaded for at least as much and got all that the model was trained for.
    (loaded.contextTokens !== undefined && wanted.contextTokens <= loaded.contextTokens)
  const isPlacementEqual =
    wanted.gpuLayers === undefined || wanted.gpuLayers === (loaded.gpuLayers ?? ALL_LAYERS)
  const isRestEqual = LOAD_KEYS.every(
    (key) => wanted[key] === undefined || wanted[key] === loaded[key],
  )
  const isCacheEqual = wanted.cacheType === undefined || wanted.cacheType === facts.cacheType
  const isAttentionEqual =
    (wanted.flashAttention ?? "auto") === "auto" || wanted.flashAttention === facts.flashAttention
  return isContextEnough && isPlacementEqual && isRestEqual && isCacheEqual && isAttentionEqual
}
