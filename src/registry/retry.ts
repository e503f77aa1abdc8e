/**
 * Trying again: how often, and how long to wait in between.
 *
 * @module
 */

import { setTimeout as delay } from "node:timers/promises"

import { faultOf, isPassing } from "./http.ts"

/** How patient transfers are. Times in milliseconds. */
export interface Patience {
  /** Attempts in a row that may fail. */
  readonly tries: number
  /** Before attempt n comes a pause of this times 2^n, up to {@link pauseMsMax}. */
  readonly pauseMs: number
  readonly pauseMsMax: number
  /** Without a byte for so long a connection is given up. */
  readonly stallMs: number
  /** A part that would take longer is shared with connections that have nothing else to do. */
  readonly stealMs: number
}

/** Ollama's: six tries, pauses of 1, 2, 4, … seconds, 30 seconds without a byte. */
export const PATIENCE: Patience = {
  tries: 6,
  pauseMs: 1000,
  pauseMsMax: 30_000,
  stallMs: 30_000,
  stealMs: 2000,
}

/** Runs `attempt` until it succeeds, fails for good, or has failed too often. */
export async function retrying<T>(
  attempt: () => Promise<T>,
  patience: Patience,
  signal?: AbortSignal,
): Promise<T> {
  for (let failures = 1; ; failures++) {
    try {
      // Attempts come one after the other.
      // oxlint-disable-next-line no-await-in-loop
      return await attempt()
    } catch (error) {
      if (!isPassing(error) || failures >= patience.tries) throw error
      // oxlint-disable-next-line no-await-in-loop
      await pauseAfter(error, failures, patience, signal)
    }
  }
}

/**
 * Waits after a failure: what the server asked for, else twice as long as the last time, give or take a half.
 *
 * @throws The signal's reason when it is aborted.
 */
export async function pauseAfter(
  error: unknown,
  failures: number,
  { pauseMs, pauseMsMax }: Patience,
  signal?: AbortSignal,
): Promise<void> {
  const jitter = 0.5 + Math.random()
  const grown = Math.min(pauseMsMax, pauseMs * 2 ** (failures - 1)) * jitter
  try {
    await delay(Math.max(grown, faultOf(error)?.retryAfterMs ?? 0), undefined, { signal })
  } catch (aborted) {
    signal?.throwIfAborted()
    throw aborted
  }
}
