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
  /** Requests that can have a full context each at the same time; shorter ones run in greater number. */
  readonly parallel: number
  /** KV cells in total, shared by all requests as they need them. */
  readonly cells: number
}

/** So many full contexts at once, as long as that is no more than {@link SHARED_CELLS}. */
const DEFAULT_PARALLEL = 4

/** Enough for many chats at once; a single longer context gets more. */
const SHARED_CELLS = 32_768

/** Part of the memory beside the weights that a cache takes unasked: other programs want to live too. */
const UNASKED_SHARE = 0.25

/** Below this a chat with tools does not work any more: up to here a cache takes all that there is. */
const MODEST_TOKENS = 8192

/** Rather refuse than go below that unasked. */
const SMALLEST_TOKENS = 2048

/** llama.cpp's own caches are multiples of it. */
const CELLS_STEP = 256

/** Compute buffers, the vocabulary and the program itself: measured 150 to 400 MB for models up to 14B. */
const OVERHEAD_BYTES = 400 * 2 ** 20

/** The attention mask of a step: 512 tokens, 4 bytes each. */
const MASK_BYTES_PER_CELL = 2048

/** The model was trained for no more than this when its file does not say. */
const UNKNOWN_TRAINED_TOKENS = 4096

/**
 * Chooses the sizes: the context that was asked for or else the one that the model was trained for, as far as memory
 * goes; then cells for several of them.
 *
 * @param availableBytes Memory of all devices that will hold weights and cache.
 * @throws {CriaError} `insufficient-memory` when what was asked for, or the smallest useful context, does not fit.
 */
export function fitContext(facts: FitFacts, wishes: FitWishes, availableBytes: number): Fit {
  const trained = facts.trainedTokens ?? UNKNOWN_TRAINED_TOKENS
  const bytesPerCell = facts.kvBytesPerToken + MASK_BYTES_PER_CELL
  const fixedBytes = facts.weightsBytes + OVERHEAD_BYTES
  const cellsMost = Math.floor(Math.max(0, availableBytes - fixedBytes) / bytesPerCell)
  const smallest = Math.min(wishes.contextTokens ?? SMALLEST_TOKENS, trained)
  if (cellsMost < smallest) {
    const needed = fixedBytes + smallest * bytesPerCell
    throw new CriaError(
      "insufficient-memory",
      `Cannot load "${facts.name}": needs ${formatGib(needed)} with ${smallest} tokens of context, ` +
        `${formatGib(Math.max(0, availableBytes))} available`,
      { hint: "Use a smaller model or quantisation, a smaller num_ctx, or stop other programs" },
    )
  }
  const unasked = Math.max(Math.min(MODEST_TOKENS, cellsMost), stepDown(cellsMost * UNASKED_SHARE))
  const contextTokens = Math.min(wishes.contextTokens ?? unasked, trained)
  const wanted = Math.min((wishes.parallel ?? DEFAULT_PARALLEL) * contextTokens, SHARED_CELLS)
  const cells = Math.max(contextTokens, Math.min(wanted, stepDown(cellsMost)))
  return { contextTokens, parallel: Math.max(1, Math.floor(cells / contextTokens)), cells }
}

function stepDown(cells: number): number {
  return Math.floor(cells / CELLS_STEP) * CELLS_STEP
}
