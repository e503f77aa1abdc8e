/**
 * Decides how large a context a model gets: what was asked for, or what fits.
 *
 * Pure. Sizes come from the GGUF header and from the devices; nothing is loaded yet.
 *
 * @module
 */

import { CriaError } from "../util/errors.ts"
import { formatGib } from "../util/units.ts"

/** What of a model decides how much memory it takes. */
export interface FitFacts {
  readonly name: string
  readonly weightsBytes: number
  /** Per token, in the chosen cache types. */
  readonly kvBytesPerToken: number
  /** Tokens that it was trained for; undefined when the file does not say. */
  readonly trainedTokens: number | undefined
}

/** What the user asked for; undefined leaves it to us. */
export interface FitWishes {
  readonly contextTokens: number | undefined
  readonly parallel: number | undefined
}

/** The sizes of a context. */
export interface Fit {
  /** Most tokens of prompt and answer of one request. */
  readonly contextTokens: number
  /** Requests that can have a full context each at the same time. */
  readonly parallel: number
  /** KV cells in total. */
  readonly cells: number
}

/** Enough for a long chat; more costs memory that most requests never use. */
const DEFAULT_CONTEXT_TOKENS = 8192

/** Below this a chat with tools does not work any more, so rather refuse than go there unasked. */
const SMALLEST_DEFAULT_TOKENS = 2048

const DEFAULT_PARALLEL = 4

/** Compute buffers, the vocabulary and the program itself: measured 150 to 400 MB for models up to 14B. */
const OVERHEAD_BYTES = 400 * 2 ** 20

/** The model was trained for no more than this when its file does not say. */
const UNKNOWN_TRAINED_TOKENS = 4096

/**
 * Chooses the sizes.
 *
 * @param availableBytes Memory of all devices that will hold weights and cache.
 * @throws {CriaError} `insufficient-memory` when what was asked for, or the smallest useful context, does not fit.
 */
export function fitContext(facts: FitFacts, wishes: FitWishes, availableBytes: number): Fit {
  const trained = facts.trainedTokens ?? UNKNOWN_TRAINED_TOKENS
  const needs = (contextTokens: number, parallel: number) =>
    facts.weightsBytes + OVERHEAD_BYTES + facts.kvBytesPerToken * contextTokens * parallel
  const contextTokens = Math.min(wishes.contextTokens ?? DEFAULT_CONTEXT_TOKENS, trained)
  const parallel = wishes.parallel ?? DEFAULT_PARALLEL
  for (const candidate of candidates(contextTokens, parallel, wishes)) {
    if (needs(candidate.contextTokens, candidate.parallel) <= availableBytes) {
      return { ...candidate, cells: candidate.contextTokens * candidate.parallel }
    }
  }
  const smallest = candidates(contextTokens, parallel, wishes).at(-1) ?? { contextTokens, parallel }
  const needed = needs(smallest.contextTokens, smallest.parallel)
  throw new CriaError(
    "insufficient-memory",
    `Cannot load "${facts.name}": needs ${formatGib(needed)} with ${smallest.contextTokens} tokens of context, ` +
      `${formatGib(Math.max(0, availableBytes))} available`,
    { hint: "Use a smaller model or quantisation, a smaller num_ctx, or stop other programs" },
  )
}

/** First fewer full contexts at once, then shorter ones; never less than what was asked for. */
function candidates(
  contextTokens: number,
  parallel: number,
  wishes: FitWishes,
): { contextTokens: number; parallel: number }[] {
  const list = [{ contextTokens, parallel }]
  let current = { contextTokens, parallel }
  while (wishes.parallel === undefined && current.parallel > 1) {
    current = { ...current, parallel: Math.floor(current.parallel / 2) }
    list.push(current)
  }
  while (wishes.contextTokens === undefined && current.contextTokens > SMALLEST_DEFAULT_TOKENS) {
    const contextHalf = Math.max(SMALLEST_DEFAULT_TOKENS, Math.floor(current.contextTokens / 2))
    current = { ...current, contextTokens: contextHalf }
    list.push(current)
  }
  return list
}
