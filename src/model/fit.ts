/**
 * Decides how large a context a model gets: what was asked for, or what fits.
 *
 * Pure. Sizes come from the GGUF header and from the devices; nothing is loaded yet.
 *
 * @module
 */

import { CriaError } from "../util/errors.ts"
import { formatGib } from "../util/units.ts"
import { MODEST_TOKENS } from "./request.ts"

/** What of a model decides how much memory it takes. Bytes are those of the chosen cache types. */
export interface FitFacts {
  readonly name: string
  readonly weightsBytes: number
  /** Per token, over all layers. */
  readonly kvBytesPerToken: number
  /** Of those, what layers with a sliding window take. */
  readonly windowBytesPerToken: number
  /** How far such layers look back; 0 without. */
  readonly windowTokens: number
  /** Of the recurrent state that each sequence has; 0 without. */
  readonly stateBytes: number
  /** Tokens that it was trained for; undefined when the file does not say. */
  readonly trainedTokens: number | undefined
}

/** What the user asked for; undefined leaves it to us. */
export interface FitWishes {
  readonly contextTokens: number | undefined
  readonly parallel: number | undefined
  readonly isWindowFull: boolean | undefined
  /** Tokens in a step. */
  readonly batchTokens: number
}

/** The sizes of a context. */
export interface Fit {
  /** Most tokens of prompt and answer of one request. */
  readonly contextTokens: number
  /** Requests that can have a full context each at the same time; shorter ones run in greater number. */
  readonly parallel: number
  /** KV cells in total, shared by all requests as they need them. */
  readonly cells: number
  /**
   * Layers with a sliding window keep all tokens, so that any beginning can be shared; otherwise only those in the
   * window, in a fraction of the memory. True for models without one.
   */
  readonly isWindowFull: boolean
  /** Sequences with a state of their own: running ones and snapshots; 0 where everything is in cells. */
  readonly states: number
  /** Of those states, what running requests can have; no limit where there are none. */
  readonly runningMax: number
  /** Cells and states. */
  readonly cacheBytes: number
}

/** So many full contexts at once, as long as that is no more than {@link SHARED_CELLS}. */
const DEFAULT_PARALLEL = 4

/** Enough for many chats at once, unless somebody asked for more; a single longer context gets more. */
const SHARED_CELLS = 32_768

/** Part of the memory beside the weights that a cache takes unasked: other programs want to live too. */
const UNASKED_SHARE = 0.25

/** Of that, what states of sequences may take, the rest being for cells. */
const STATES_SHARE = 0.5

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

/** Requests at once that have states of their own: beyond it a step on a CPU gets no more done. */
const RUNNING_STATES = 16

/** One in so many states is a snapshot, for prefixes that come again. */
const SNAPSHOT_PART = 3

/** So many snapshots in any case, for chats in turn. */
const SNAPSHOTS_MIN = 4

/** One to run, one to keep. */
const STATES_MIN = 2

/** So many states even where memory is short, as long as half of it is left. */
const STATES_MODEST = 8

/** llama.cpp's sequence ids. */
const STATES_MAX = 256

/**
 * Chooses the sizes: the context that was asked for or else the one that the model was trained for, as far as memory
 * goes; then cells for several of them. Layers with a sliding window keep all of that context when it fits, since only
 * then can any beginning of a prompt be shared.
 *
 * @param availableBytes Memory of all devices that will hold weights and cache.
 * @throws {CriaError} `insufficient-memory` when what was asked for, or the smallest useful context, does not fit.
 */
export function fitContext(facts: FitFacts, wishes: FitWishes, availableBytes: number): Fit {
  const results = layoutsOf(facts, wishes).map((layout) =>
    fitLayout(layout, facts, wishes, availableBytes),
  )
  const fits = results.filter((result) => typeof result !== "number")
  const longest = Math.max(...fits.map(({ contextTokens }) => contextTokens))
  const chosen = fits.find(({ contextTokens }) => contextTokens === longest)
  if (chosen !== undefined) return chosen
  const neededBytes = Math.min(...results.filter((result) => typeof result === "number"))
  throw new CriaError(
    "insufficient-memory",
    `Cannot load "${facts.name}": needs ${formatGib(neededBytes)} with ${smallestTokens(facts, wishes)} tokens of context, ` +
      `${formatGib(Math.max(0, availableBytes))} available`,
    { hint: "Use a smaller model or quantisation, a smaller num_ctx, or stop other programs" },
  )
}

/** What is where: bytes for each cell, for each sequence, and once. */
interface Layout {
  readonly isWindowFull: boolean
  readonly cellBytes: number
  readonly sequenceBytes: number
  readonly onceBytes: number
}

/** What may be chosen from, the better ones first. */
function layoutsOf(facts: FitFacts, { isWindowFull, batchTokens }: FitWishes): readonly Layout[] {
  const { kvBytesPerToken, windowBytesPerToken, windowTokens, stateBytes } = facts
  const whole = {
    isWindowFull: true,
    cellBytes: kvBytesPerToken,
    sequenceBytes: stateBytes,
    onceBytes: 0,
  }
  // llama.cpp has room for the window of each sequence and for one step.
  const sliding = {
    isWindowFull: false,
    cellBytes: kvBytesPerToken - windowBytesPerToken,
    sequenceBytes: stateBytes + windowTokens * windowBytesPerToken,
    onceBytes: batchTokens * windowBytesPerToken,
  }
  if (windowBytesPerToken * windowTokens === 0) return [whole]
  if (isWindowFull !== undefined) return [isWindowFull ? whole : sliding]
  // What has a state cannot share beginnings anyway.
  return stateBytes > 0 ? [sliding] : [whole, sliding]
}

/** The sizes, or the bytes that are needed at the least. */
function fitLayout(
  layout: Layout,
  facts: FitFacts,
  wishes: FitWishes,
  availableBytes: number,
): Fit | number {
  const trained = trainedTokens(facts)
  const bytesPerCell = layout.cellBytes + MASK_BYTES_PER_CELL
  const fixedBytes = facts.weightsBytes + OVERHEAD_BYTES + layout.onceBytes
  const smallestBytes = smallestTokens(facts, wishes) * bytesPerCell
  const spareBytes = availableBytes - fixedBytes - smallestBytes
  const statesBytes = bytesOfStates(layout, wishes, spareBytes)
  if (spareBytes < statesBytes) return fixedBytes + smallestBytes + statesBytes
  const cellsMost = Math.floor((availableBytes - fixedBytes - statesBytes) / bytesPerCell)
  const unasked = Math.max(Math.min(MODEST_TOKENS, cellsMost), stepDown(cellsMost * UNASKED_SHARE))
  const contextTokens = Math.min(wishes.contextTokens ?? unasked, trained)
  const states = statesBytes === 0 ? 0 : Math.floor(statesBytes / layout.sequenceBytes)
  const runningMax = states === 0 ? Infinity : runningOf(states, wishes)
  const wanted = Math.min(wishes.parallel ?? DEFAULT_PARALLEL, runningMax) * contextTokens
  const isAsked = wishes.parallel !== undefined && wishes.contextTokens !== undefined
  const granted = isAsked ? wanted : Math.min(wanted, SHARED_CELLS)
  const cells = Math.max(contextTokens, Math.min(granted, stepDown(cellsMost)))
  return {
    contextTokens,
    parallel: Math.max(1, Math.floor(cells / contextTokens)),
    cells,
    isWindowFull: layout.isWindowFull,
    states,
    runningMax,
    cacheBytes: cells * layout.cellBytes + states * layout.sequenceBytes + layout.onceBytes,
  }
}

/** What sequences with states of their own take together; grows slower than the memory does. */
function bytesOfStates({ sequenceBytes }: Layout, wishes: FitWishes, spareBytes: number): number {
  if (sequenceBytes === 0) return 0
  const running = wishes.parallel ?? RUNNING_STATES
  const snapshots = Math.max(SNAPSHOTS_MIN, Math.ceil(running / (SNAPSHOT_PART - 1)))
  const wanted = Math.min(STATES_MAX, running + snapshots) * sequenceBytes
  const half = spareBytes / 2
  const unasked = Math.max(
    spareBytes * UNASKED_SHARE * STATES_SHARE,
    Math.min(half, STATES_MODEST * sequenceBytes),
  )
  const budget = wishes.parallel === undefined ? unasked : half
  return Math.min(wanted, Math.max(STATES_MIN * sequenceBytes, budget))
}

function runningOf(states: number, { parallel }: FitWishes): number {
  const snapshots = Math.max(1, Math.floor(states / SNAPSHOT_PART))
  return Math.min(parallel ?? RUNNING_STATES, states - snapshots)
}

function smallestTokens(facts: FitFacts, { contextTokens }: FitWishes): number {
  return Math.min(contextTokens ?? SMALLEST_TOKENS, trainedTokens(facts))
}

function trainedTokens(facts: FitFacts): number {
  return facts.trainedTokens ?? UNKNOWN_TRAINED_TOKENS
}

function stepDown(cells: number): number {
  return Math.floor(cells / CELLS_STEP) * CELLS_STEP
}
