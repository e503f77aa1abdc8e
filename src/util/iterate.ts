/**
 * Helpers for async iterables.
 *
 * @module
 */

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
