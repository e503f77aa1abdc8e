/**
 * Decides which sequence ids a context gets, and how many requests run in it at once.
 *
 * Pure. What a model remembers comes from llama.cpp, after it was loaded.
 *
 * @module
 */

import type { Fit } from "./fit.ts"

/** What llama.cpp says about a loaded model. */
export interface MemoryFacts {
  readonly recurrent: boolean
  readonly hybrid: boolean
  /** Tokens of its sliding window, 0 without. */
  readonly window: number
}

/** See {@link planSequences}. */
export interface SequencePlan {
  /** Ids with a state of their own, or with a row of logits each. */
  readonly sequences: number
  /** Ids beyond them, for cached prefixes. */
  readonly pins: number
  /** Most requests at once. */
  readonly runningMax: number
}

/** llama.cpp's limit of sequence ids. */
const SEQUENCE_IDS = 256

/** Where a window is kept whole, each sequence takes two of them. */
const WINDOW_SEQUENCE_IDS = 128

/** Of the ids, so many are left for cached prefixes however many requests shall run. */
const CACHE_IDS_MIN = 16

/** Sequences at once, whatever the cells allow, unless more were asked for: each takes a row of logits. */
const RUNNING_DEFAULT = 64

/** States, where llama.cpp has some and the file does not tell how large they are. */
const UNKNOWN_STATES = 8
const UNKNOWN_RUNNING = 6

/**
 * Where cells can be shared, each running request takes an id, and all that llama.cpp has beyond hold cached prefixes.
 * Where sequences have states of their own (recurrent models, windows that slide), there are as many ids as states.
 *
 * @param parallel How many requests shall run at once; undefined leaves it to us.
 */
export function planSequences(
  { recurrent, hybrid, window }: MemoryFacts,
  fit: Pick<Fit, "isWindowFull" | "states" | "runningMax">,
  parallel: number | undefined,
): SequencePlan {
  const isSliding = window > 0 && !fit.isWindowFull
  if (recurrent || hybrid || isSliding) {
    const { states, runningMax } = fit
    if (states > 0) return { sequences: states, pins: 0, runningMax }
    const most = Math.min(parallel ?? UNKNOWN_RUNNING, UNKNOWN_RUNNING)
    return { sequences: UNKNOWN_STATES, pins: 0, runningMax: most }
  }
  const ids = window > 0 ? WINDOW_SEQUENCE_IDS : SEQUENCE_IDS
  const runningMax = Math.min(parallel ?? RUNNING_DEFAULT, ids - CACHE_IDS_MIN)
  const sequences = Math.max(runningMax, RUNNING_DEFAULT)
  return { sequences, pins: ids - sequences, runningMax }
}
