/**
 * Notices when something that should go on does not.
 *
 * @module
 */

/** Calls back once, when nothing has happened for too long. Dispose it to stop watching. */
export class StallWatch implements Disposable {
  readonly #onStall: () => void
  #limitMs: number
  #touchedAt = performance.now()
  #timer: ReturnType<typeof setTimeout>

  constructor(limitMs: number, onStall: () => void) {
    this.#limitMs = limitMs
    this.#onStall = onStall
    this.#timer = this.#wait(limitMs)
  }

  /** Something has happened; the next thing has `limitMs` to do so. */
  touch(limitMs: number = this.#limitMs): void {
    this.#touchedAt = performance.now()
    if (limitMs === this.#limitMs) return
    this.#limitMs = limitMs
    clearTimeout(this.#timer)
    this.#timer = this.#wait(limitMs)
  }

  [Symbol.dispose](): void {
    clearTimeout(this.#timer)
  }

  /** A timer for each byte would cost more than the byte: one looks when it ends what has happened meanwhile. */
  #wait(ms: number): ReturnType<typeof setTimeout> {
    return setTimeout(() => {
      const leftMs = this.#limitMs - (performance.now() - this.#touchedAt)
      if (leftMs > 0) this.#timer = this.#wait(leftMs)
      else this.#onStall()
    }, ms)
  }
}
