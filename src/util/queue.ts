/**
 * A queue that one side pushes to and the other iterates.
 *
 * The seam between code that must not wait (the engine loop, a pipe reader) and code that does. Bounded only by
 * what its producer does: the engine pushes at most one item per step, the pipe reader one per frame.
 *
 * @module
 */

import { assert } from "./errors.ts"

type Waiter<T> = {
  readonly resolve: (result: IteratorResult<T, undefined>) => void
  readonly reject: (error: unknown) => void
}

/** An `AsyncIterable` fed by `push`, for one consumer. Leaving it before its end calls `onReturn`, once. */
export class Queue<T> implements AsyncIterableIterator<T, undefined> {
  readonly #items: T[] = []
  readonly #onReturn: () => void
  #waiter: Waiter<T> | undefined
  #state: { kind: "open" } | { kind: "ended" } | { kind: "failed"; error: unknown } = {
    kind: "open",
  }

  constructor(onReturn: () => void = () => {}) {
    this.#onReturn = onReturn
  }

  /** Adds an item; ignored after `end` or `fail`. */
  push(item: T): void {
    if (this.#state.kind !== "open") return
    const waiter = this.#takeWaiter()
    if (waiter === undefined) this.#items.push(item)
    else waiter.resolve({ done: false, value: item })
  }

  /** No more items: the iteration ends after those that are queued. */
  end(): void {
    if (this.#state.kind !== "open") return
    this.#state = { kind: "ended" }
    this.#takeWaiter()?.resolve({ done: true, value: undefined })
  }

  /** The iteration throws `error` after the items that are queued. */
  fail(error: unknown): void {
    if (this.#state.kind !== "open") return
    this.#state = { kind: "failed", error }
    this.#takeWaiter()?.reject(error)
  }

  next(): Promise<IteratorResult<T, undefined>> {
    const item = this.#items.shift()
    if (item !== undefined) return Promise.resolve({ done: false, value: item })
    if (this.#state.kind === "ended") return Promise.resolve({ done: true, value: undefined })
    if (this.#state.kind === "failed") return Promise.reject(this.#state.error)
    assert(this.#waiter === undefined, "a queue has one consumer, which takes one item at a time")
    return new Promise((resolve, reject) => {
      this.#waiter = { resolve, reject }
    })
  }

  return(): Promise<IteratorResult<T, undefined>> {
    const wasOpen = this.#state.kind === "open"
    this.#items.length = 0
    this.end()
    this.#state = { kind: "ended" }
    if (wasOpen) this.#onReturn()
    return Promise.resolve({ done: true, value: undefined })
  }

  [Symbol.asyncIterator](): this {
    return this
  }

  #takeWaiter(): Waiter<T> | undefined {
    const waiter = this.#waiter
    this.#waiter = undefined
    return waiter
  }
}
