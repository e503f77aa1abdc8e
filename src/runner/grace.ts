/**
 * How long something that shall end may take: so long without a sign of life, and so long at most.
 *
 * @module
 */

import type { Timers } from "../util/timers.ts"

/** Milliseconds. */
export interface GraceLimits {
  readonly quietMsMax: number
  /** Default: none. */
  readonly totalMsMax?: number
}

/** See the module. Dispose it when the end has come by itself. */
export class Grace implements Disposable {
  readonly #limits: GraceLimits
  readonly #timers: Timers
  readonly #onOver: () => void
  readonly #deadline: number
  #cancel: () => void

  /** @param onOver Called once, unless it is disposed before. */
  constructor(limits: GraceLimits, timers: Timers, onOver: () => void) {
    this.#limits = limits
    this.#timers = timers
    this.#onOver = onOver
    this.#deadline = timers.now() + (limits.totalMsMax ?? Infinity)
    this.#cancel = this.#start()
  }

  /** There is a sign of life. */
  extend(): void {
    this.#cancel()
    this.#cancel = this.#start()
  }

  [Symbol.dispose](): void {
    this.#cancel()
  }

  #start(): () => void {
    const leftMs = Math.max(0, this.#deadline - this.#timers.now())
    return this.#timers.setTimer(Math.min(this.#limits.quietMsMax, leftMs), this.#onOver)
  }
}
