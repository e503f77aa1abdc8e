/**
 * Values of which only the newest counts: whoever is slow misses some, and none pile up.
 *
 * @module
 */

import { assert } from "./errors.ts"

/** An `AsyncIterable` fed by `set`, for one consumer. */
export class Latest<T extends object> implements AsyncIterableIterator<T, undefined> {
  #value: T | undefined
  #hasEnded = false
  #wake: (() => void) | undefined

  /** Replaces the value that nobody has taken yet; ignored after the end. */
  set(value: T): void {
    if (this.#hasEnded) return
    this.#value = value
    this.#wake?.()
  }

  /** The iteration ends after the value that is there. */
  end(): void {
    this.#hasEnded = true
    this.#wake?.()
  }

  async next(): Promise<IteratorResult<T, undefined>> {
    assert(this.#wake === undefined, "there is one consumer, which takes one value at a time")
    if (this.#value === undefined && !this.#hasEnded) {
      await new Promise<void>((resolve) => {
        this.#wake = resolve
      })
      this.#wake = undefined
    }
    const value = this.#value
    this.#value = undefined
    return value === undefined ? { done: true, value } : { done: false, value }
  }

  return(): Promise<IteratorResult<T, undefined>> {
    this.#value = undefined
    this.end()
    return Promise.resolve({ done: true, value: undefined })
  }

  [Symbol.asyncIterator](): this {
    return this
  }
}
