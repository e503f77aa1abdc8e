/**
 * Progress of long operations on models, in the words of Ollama's API.
 *
 * @module
 */

import { setTimeout as delay } from "node:timers/promises"

/** Between two lines of progress, as in Ollama. */
const PROGRESS_MS = 60

/** A step of an operation. The last one of an operation that went well is `success`. */
export interface Progress {
  readonly status: string
  /** Of the blob that the step is about; of a file that is no blob yet, a number that tells it from others. */
  readonly digest?: string
  /** Bytes. */
  readonly total?: number
  /** Bytes. */
  readonly completed?: number
}

/** A step with a size. */
export interface SizedProgress extends Progress {
  readonly digest: string
  readonly total: number
}

/** Steps of the same operation are so far apart: a hundredth, but not less than bytes that take no time. */
const STEP_PART = 0.01
const STEP_BYTES_MIN = 2 ** 20

/** Turns counted bytes into steps: some on the way, and one for the end. Returns what the count returns. */
export async function* byteSteps<T>(
  counts: AsyncGenerator<number, T>,
  step: SizedProgress,
): AsyncGenerator<Progress, T> {
  // Left early, what is counted still has files open.
  await using steps = counts
  const apart = Math.max(STEP_BYTES_MIN, step.total * STEP_PART)
  let shown = 0
  for (;;) {
    // Counts come one after the other.
    // oxlint-disable-next-line no-await-in-loop
    const { done, value } = await steps.next()
    if (done === true) {
      if (shown > 0) yield { ...step, completed: step.total }
      return value
    }
    if (value - shown < apart) continue
    shown = value
    yield { ...step, completed: value }
  }
}

/** Something that proceeds and ends. */
export interface Proceeding {
  readonly completedBytes: number
  readonly done: Promise<unknown>
}

/**
 * How far something is, in bytes, whenever that has changed, until it ends.
 *
 * @throws What it fails with; the signal's reason.
 */
export async function* watched(
  work: Proceeding,
  signal: AbortSignal | undefined,
): AsyncGenerator<number, void> {
  let shown = -1
  const ended = work.done.then(() => true)
  // It is awaited below, but perhaps not before it fails.
  ended.catch(() => {})
  for (;;) {
    signal?.throwIfAborted()
    const { completedBytes } = work
    if (completedBytes !== shown) yield completedBytes
    shown = completedBytes
    // Watching is the point of the loop.
    // oxlint-disable-next-line no-await-in-loop
    if ((await Promise.race([ended, delay(PROGRESS_MS)])) === true) return
  }
}
