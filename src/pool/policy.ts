/**
 * The pool's decisions, as pure functions.
 *
 * @module
 */

import { type LoadedFacts, type LoadOptions, MODEST_TOKENS } from "../runner/protocol.ts"

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
 * Whether a loaded model can serve a request as it is. What the request leaves open fits anything, but for a context
 * that somebody else wanted to be small.
 */
export function canServe(loaded: LoadOptions, facts: LoadedFacts, wanted: LoadOptions): boolean {
  const isPlacementEqual =
    wanted.gpuLayers === undefined || wanted.gpuLayers === (loaded.gpuLayers ?? ALL_LAYERS)
  const isRestEqual = LOAD_KEYS.every(
    (key) => wanted[key] === undefined || wanted[key] === loaded[key],
  )
  const isCacheEqual = wanted.cacheType === undefined || wanted.cacheType === facts.cacheType
  const isAttentionEqual =
    (wanted.flashAttention ?? "auto") === "auto" || wanted.flashAttention === facts.flashAttention
  const isContextEnough = hasContext(
    loaded.contextTokens,
    facts.contextTokens,
    wanted.contextTokens,
  )
  return isContextEnough && isPlacementEqual && isRestEqual && isCacheEqual && isAttentionEqual
}

/**
 * A larger context serves a smaller one. Without a wish a model gets at least {@link MODEST_TOKENS} where they fit: that
 * much is enough for a request without one, and what is loaded for it serves those for less too. So clients with and
 * without wishes never make each other's models load again and again.
 */
function hasContext(asked: number | undefined, got: number, wanted: number | undefined): boolean {
  // Then it got all that the model was trained for.
  const isWhole = asked !== undefined && asked > got
  if (wanted === undefined) return asked === undefined || got >= MODEST_TOKENS || isWhole
  return wanted <= got || (isWhole && wanted <= asked)
}
