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
  /** Of the blob that the step is about. */
  readonly digest?: string
  /** Bytes. */
  readonly total?: number
  /** Bytes. */
  readonly completed?: number
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
