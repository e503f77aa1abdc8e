/**
 * Helpers for async iterables.
 *
 * @module
 */

import { Queue } from "./queue.ts"

/** Runs a generator to its end; what it returns. */
export async function drain<T>(steps: AsyncGenerator<unknown, T>): Promise<T> {
  for (;;) {
    // Steps come one after the other.
    // oxlint-disable-next-line no-await-in-loop
    const { done, value } = await steps.next()
    // The value of the last step is what the generator returns.
    if (done === true) return value
  }
}

/**
 * Runs a cleanup exactly once: when the source ends or throws, or when the iteration is left, even before it began.
 * (A generator with `finally` does not run it when it was never started.)
 */
export function withCleanup<T>(
  source: AsyncIterable<T>,
  cleanup: () => void,
): AsyncIterableIterator<T, undefined> {
  const iterator = source[Symbol.asyncIterator]()
  let isClean = false
  const finish = () => {
    if (isClean) return
    isClean = true
    cleanup()
  }
  return {
    async next() {
      try {
        const result = await iterator.next()
        if (result.done !== true) return { done: false, value: result.value }
      } catch (error) {
        finish()
        throw error
      }
      finish()
      return { done: true, value: undefined }
    },
    async return() {
      try {
        await iterator.return?.()
      } finally {
        finish()
      }
      return { done: true, value: undefined }
    },
    [Symbol.asyncIterator]() {
      return this
    },
  }
}

/**
 * Passes items on until the signal is aborted, also while the next one is waited for.
 *
 * @throws The signal's reason.
 */
export async function* untilAborted<T>(
  source: AsyncIterable<T>,
  signal: AbortSignal,
): AsyncGenerator<T, void> {
  const iterator = source[Symbol.asyncIterator]()
  const aborted = Promise.withResolvers<never>()
  // Nobody waits for it when the source ends first.
  aborted.promise.catch(() => {})
  const onAbort = () => aborted.reject(signal.reason)
  signal.addEventListener("abort", onAbort)
  try {
    for (;;) {
      signal.throwIfAborted()
      // Items come one after the other.
      // oxlint-disable-next-line no-await-in-loop
      const { done, value } = await Promise.race([iterator.next(), aborted.promise])
      if (done === true) return
      yield value
    }
  } finally {
    signal.removeEventListener("abort", onAbort)
    // It may be in the middle of a wait that does not end: then nobody waits for it either.
    const left = iterator.return?.()
    if (!signal.aborted) await left
    else left?.catch(() => {})
  }
}

interface Arrival<T> {
  readonly source: AsyncIterator<T>
  readonly result: IteratorResult<T, unknown>
}

/**
 * Several iterations as one, in the order in which their items come. A source is asked for its next item when its last
 * one was taken, so nothing piles up. More sources may join while it is iterated. It ends when all have ended; when one
 * fails or the iteration is left, the others are aborted.
 */
export class Merged<T> implements AsyncIterableIterator<T, undefined> {
  readonly #arrivals = new Queue<Arrival<T>>()
  readonly #sources = new Set<AsyncIterator<T>>()
  readonly #controller = new AbortController()
  readonly #signal: AbortSignal
  #taken: AsyncIterator<T> | undefined

  constructor(signal?: AbortSignal) {
    const own = this.#controller.signal
    this.#signal = signal === undefined ? own : AbortSignal.any([signal, own])
  }

  /** @param open Gets a signal that says when nobody wants its items any more. */
  add(open: (signal: AbortSignal) => AsyncIterable<T>): void {
    const source = open(this.#signal)[Symbol.asyncIterator]()
    this.#sources.add(source)
    void this.#pull(source)
  }

  async next(): Promise<IteratorResult<T, undefined>> {
    if (this.#taken !== undefined) void this.#pull(this.#taken)
    this.#taken = undefined
    try {
      while (this.#sources.size > 0) {
        // oxlint-disable-next-line no-await-in-loop
        const { value: arrival } = await this.#arrivals.next()
        if (arrival === undefined) break
        const { source, result } = arrival
        if (result.done !== true) {
          this.#taken = source
          return { done: false, value: result.value }
        }
        this.#sources.delete(source)
      }
    } catch (error) {
      await this.return()
      throw error
    }
    return { done: true, value: undefined }
  }

  async return(): Promise<IteratorResult<T, undefined>> {
    this.#controller.abort()
    this.#arrivals.end()
    const sources = [...this.#sources]
    this.#sources.clear()
    // What they throw now is only that they were aborted.
    await Promise.allSettled(sources.map(async (source) => source.return?.()))
    return { done: true, value: undefined }
  }

  [Symbol.asyncIterator](): this {
    return this
  }

  async #pull(source: AsyncIterator<T>): Promise<void> {
    try {
      this.#arrivals.push({ source, result: await source.next() })
    } catch (error) {
      this.#sources.delete(source)
      this.#arrivals.fail(error)
    }
  }
}
