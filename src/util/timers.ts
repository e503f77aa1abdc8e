/**
 * Time as an argument: whoever waits takes these, so that a test can let it pass.
 *
 * @module
 */

/** A clock that does not jump, and its alarms. */
export interface Timers {
  /** Milliseconds. */
  now(): number
  /** Calls back once; the result cancels. */
  setTimer(delayMs: number, callback: () => void): () => void
}

/** Longer than a timer can run. */
const DELAY_MS_MAX = 2 ** 31 - 1

/** The machine's own. */
export const SYSTEM_TIMERS: Timers = {
  now: () => performance.now(),
  setTimer(delayMs, callback) {
    if (delayMs > DELAY_MS_MAX) return () => {}
    const timer = setTimeout(callback, delayMs)
    return () => clearTimeout(timer)
  },
}
