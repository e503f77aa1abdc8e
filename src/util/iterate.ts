/**
 * Helpers for async iterables.
 *
 * @module
 */

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
