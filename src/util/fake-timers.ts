/**
 * Time that passes when a test says so.
 *
 * @module
 */

import type { Timers } from "./timers.ts"

/** See the module. */
export class FakeTimers implements Timers {
  #now = 0
  #timers: { at: number; callback: () => void }[] = []

  now(): number {
    return this.#now
  }

  setTimer(delayMs: number, callback: () => void): () => void {
    const timer = { at: this.#now + delayMs, callback }
    this.#timers.push(timer)
    return () => {
      this.#timers = this.#timers.filter((other) => other !== timer)
    }
  }

  /** Timers that have not fired. */
  get pending(): number {
    return this.#timers.length
  }

  /** Lets time pass and timers fire. */
  advance(ms: number): void {
    this.#now += ms
    const due = this.#timers.filter(({ at }) => at <= this.#now)
    this.#timers = this.#timers.filter(({ at }) => at > this.#now)
    for (const { callback } of due) callback()
  }
}
