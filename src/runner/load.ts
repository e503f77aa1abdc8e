/**
 * A load that is going on in a runner: what arrives, and when to give it up.
 *
 * @module
 */

import { CriaError } from "../util/errors.ts"
import { fromFailure, type LoadedFacts, PROTOCOL_VERSION, type RunnerFrame } from "./protocol.ts"

/** What a runner says while it loads. */
type LoadFrame = Extract<RunnerFrame, { type: "hello" | "progress" | "ready" | "load-failed" }>

/** See the module. */
export class Load implements Disposable {
  readonly greeted: Promise<void>
  readonly ready: Promise<LoadedFacts>
  readonly #timeoutMs: number
  readonly #hooks: { onProgress?: (fraction: number) => void; signal?: AbortSignal }
  readonly #greeting = Promise.withResolvers<void>()
  readonly #readiness = Promise.withResolvers<LoadedFacts>()
  readonly #onAbort: () => void
  #timer: ReturnType<typeof setTimeout> | undefined

  constructor(
    timeoutMs: number,
    hooks: { onProgress?: (fraction: number) => void; signal?: AbortSignal },
  ) {
    this.#timeoutMs = timeoutMs
    this.#hooks = hooks
    this.greeted = this.#greeting.promise
    this.ready = this.#readiness.promise
    // Whoever waits for one of the two must not leave the other unhandled.
    this.greeted.catch(() => {})
    this.ready.catch(() => {})
    this.#onAbort = () => this.fail(hooks.signal?.reason)
    hooks.signal?.addEventListener("abort", this.#onAbort)
    this.#restartTimer()
  }

  receive(frame: LoadFrame): void {
    this.#restartTimer()
    switch (frame.type) {
      case "hello":
        if (frame.protocol === PROTOCOL_VERSION) this.#greeting.resolve()
        else this.fail(versionError(frame.protocol))
        return
      case "progress":
        this.#hooks.onProgress?.(frame.fraction)
        return
      case "ready":
        this.#readiness.resolve(frame.facts)
        return
      case "load-failed":
        this.fail(fromFailure(frame.failure))
    }
  }

  fail(error: unknown): void {
    this.#greeting.reject(error)
    this.#readiness.reject(error)
  }

  [Symbol.dispose](): void {
    clearTimeout(this.#timer)
    this.#hooks.signal?.removeEventListener("abort", this.#onAbort)
  }

  #restartTimer(): void {
    clearTimeout(this.#timer)
    if (this.#timeoutMs === Infinity) return
    this.#timer = setTimeout(() => {
      this.fail(
        new CriaError(
          "unavailable",
          `timed out waiting for the model to load: no progress for ${this.#timeoutMs / 1000} s`,
        ),
      )
    }, this.#timeoutMs)
  }
}

function versionError(actual: number): CriaError {
  return new CriaError(
    "internal",
    `Cannot talk to the runner: it speaks protocol ${actual}, expected ${PROTOCOL_VERSION}`,
  )
}
