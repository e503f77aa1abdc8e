/**
 * Which models are loaded.
 *
 * Requests lease a model; the pool loads it when it is not there, one load at a time, makes room by unloading models
 * that nobody uses, and unloads what was not used for its keep-alive. Every event ends in {@link Pool.#step}, which
 * looks at the waiting requests in order and does what can be done: no locks, no other place that decides. Side effects
 * go through {@link PoolEffects}, so that a simulation can play any order of events.
 *
 * @module
 */

import type { LoadedFacts, LoadOptions } from "../runner/protocol.ts"
import { CriaError, toCriaError } from "../util/errors.ts"
import type { Timers } from "../util/timers.ts"
import { canServe, pickVictim, type Resident } from "./policy.ts"

/** What the pool needs of a runner; `runner/handle.ts` is one. */
export interface PooledRunner {
  readonly facts: LoadedFacts
  readonly exited: Promise<void>
  /** False when it cannot take requests any more, although its process may not have ended yet. */
  readonly isUsable: boolean
  stop(): Promise<void>
}

/** The outside world. */
export interface PoolEffects<R extends PooledRunner> extends Timers {
  start(
    load: LoadOptions,
    hooks: { signal: AbortSignal; onProgress: (fraction: number) => void },
  ): Promise<R>
}

/** What to lease. */
export interface ModelSpec {
  /** Models with the same key share a runner: the path of the weights. */
  readonly key: string
  readonly load: LoadOptions
}

/** Options of one request. */
export interface AcquireOptions {
  /** Undefined keeps what the model has, or the default for a new one. Infinity: for ever. */
  readonly keepAliveMs?: number | undefined
  readonly signal?: AbortSignal | undefined
  readonly onProgress?: ((fraction: number) => void) | undefined
}

/** The right to use a loaded model. Dispose it when the request is over. */
export interface Lease<R> extends Disposable {
  readonly runner: R
}

/** A model in memory, or on its way, for `ps`. */
export interface PoolEntry<R extends PooledRunner> {
  readonly name: string
  readonly key: string
  readonly state: "loading" | "ready" | "stopping"
  readonly facts: LoadedFacts | undefined
  /** Undefined while it loads. */
  readonly runner: R | undefined
  readonly keepAliveMs: number
  /** On the pool's clock; Infinity for ever. */
  readonly expiresAtMs: number
}

/** Limits of a {@link Pool}. */
export interface PoolOptions {
  readonly loadedModelsMax: number
  /** Requests that may wait behind the one whose model is being loaded. */
  readonly queueMax: number
  readonly keepAliveMs: number
}

interface Entry<R> extends Resident {
  readonly spec: ModelSpec
  readonly abort: AbortController
  readonly progress: Set<(fraction: number) => void>
  state: "loading" | "ready" | "stopping"
  runner: R | undefined
  leases: number
  keepAliveMs: number
  lastUsedMs: number
  expiresAtMs: number
  cancelTimer: () => void
}

interface Waiter<R> {
  readonly spec: ModelSpec
  readonly options: AcquireOptions
  readonly resolve: (lease: Lease<R>) => void
  readonly reject: (error: unknown) => void
  /** Its load failed for lack of memory: others have to go before it is tried again. */
  needsRoom: boolean
}

/** See the module. */
export class Pool<R extends PooledRunner> implements AsyncDisposable {
  readonly #effects: PoolEffects<R>
  readonly #options: PoolOptions
  readonly #entries = new Map<string, Entry<R>>()
  #waiters: Waiter<R>[] = []
  #isClosed = false
  #change = Promise.withResolvers<void>()

  constructor(effects: PoolEffects<R>, options: PoolOptions) {
    this.#effects = effects
    this.#options = options
  }

  /**
   * Waits until a model is loaded and leases it.
   *
   * @throws {CriaError} `busy` when too many wait, what loading threw, `unavailable` after disposal; the signal's
   * reason when it was aborted.
   */
  acquire(spec: ModelSpec, options: AcquireOptions = {}): Promise<Lease<R>> {
    const { signal } = options
    if (this.#isClosed) return Promise.reject(closedError())
    if (signal?.aborted === true) return Promise.reject(toError(signal.reason))
    // The first is being worked on; the others are the queue.
    const isFull = this.#waiters.length > this.#options.queueMax
    if (isFull && !this.#isReadyFor(spec)) return Promise.reject(busyError())
    return new Promise((resolve, reject) => {
      const onAbort = () => {
        this.#forget(waiter)
        reject(toError(signal?.reason))
        this.#step()
      }
      const settle =
        <T>(done: (value: T) => void) =>
        (value: T) => {
          signal?.removeEventListener("abort", onAbort)
          done(value)
        }
      const waiter: Waiter<R> = {
        spec,
        options,
        resolve: settle(resolve),
        reject: settle(reject),
        needsRoom: false,
      }
      signal?.addEventListener("abort", onAbort)
      this.#waiters.push(waiter)
      this.#step()
    })
  }

  /** Unloads a model as soon as nobody uses it; false when it is not loaded. */
  unload(key: string): boolean {
    const entry = this.#entries.get(key)
    if (entry === undefined) return false
    entry.keepAliveMs = 0
    if (entry.leases === 0 && entry.state === "ready") void this.#stop(entry)
    return true
  }

  /** Resolves when the next model is ready, or gone. */
  get changed(): Promise<void> {
    return this.#change.promise
  }

  /** Models in memory or on their way. */
  list(): PoolEntry<R>[] {
    return [...this.#entries.values()].map((entry) => ({
      name: entry.spec.load.name,
      key: entry.key,
      state: entry.state,
      facts: entry.runner?.facts,
      runner: entry.runner,
      keepAliveMs: entry.keepAliveMs,
      expiresAtMs: entry.expiresAtMs,
    }))
  }

  /** Fails all that wait and ends all runners. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#isClosed = true
    for (const waiter of this.#waiters) waiter.reject(closedError())
    this.#waiters = []
    const entries = [...this.#entries.values()]
    for (const entry of entries) entry.abort.abort(closedError())
    await Promise.all(entries.map((entry) => this.#stop(entry)))
  }

  /** Whether a request gets its model at once: it does not have to queue. */
  #isReadyFor({ key, load }: ModelSpec): boolean {
    const entry = this.#entries.get(key)
    if (entry?.state !== "ready" || entry.runner?.isUsable !== true) return false
    if (this.#waiters.some(({ spec }) => spec.key === key)) return false
    return canServe(entry.spec.load, entry.runner.facts, load)
  }

  /** Looks at the waiting requests in order and does what can be done for them. */
  #step(): void {
    this.#abortUnwanted()
    const seen = new Set<string>()
    for (const waiter of this.#waiters) {
      const entry = this.#entries.get(waiter.spec.key)
      if (entry?.state === "loading") this.#follow(entry, waiter)
      // Behind another request for the same model: first come, first served.
      if (seen.has(waiter.spec.key)) continue
      if (entry === undefined) this.#tryLoad(waiter)
      else if (entry.state === "ready" && this.#tryGrant(entry, waiter)) continue
      seen.add(waiter.spec.key)
    }
  }

  /** Leases a ready model to a waiter. False when it has to be loaded anew, for which it is stopped once unused. */
  #tryGrant(entry: Entry<R>, waiter: Waiter<R>): boolean {
    const { runner } = entry
    if (runner === undefined) return false
    if (!runner.isUsable) {
      void this.#stop(entry)
      return false
    }
    if (!canServe(entry.spec.load, runner.facts, waiter.spec.load)) {
      if (entry.leases === 0) void this.#stop(entry)
      return false
    }
    this.#forget(waiter)
    entry.leases++
    entry.keepAliveMs = waiter.options.keepAliveMs ?? entry.keepAliveMs
    entry.lastUsedMs = this.#effects.now()
    entry.cancelTimer()
    let isReleased = false
    waiter.resolve({
      runner,
      [Symbol.dispose]: () => {
        if (isReleased) return
        isReleased = true
        this.#release(entry)
      },
    })
    return true
  }

  #release(entry: Entry<R>): void {
    entry.leases--
    entry.lastUsedMs = this.#effects.now()
    if (entry.leases === 0 && entry.state === "ready") this.#startKeepAlive(entry)
    this.#step()
  }

  #startKeepAlive(entry: Entry<R>): void {
    entry.expiresAtMs = this.#effects.now() + entry.keepAliveMs
    if (entry.keepAliveMs <= 0) void this.#stop(entry)
    else if (entry.keepAliveMs !== Infinity) {
      entry.cancelTimer = this.#effects.setTimer(entry.keepAliveMs, () => {
        if (entry.leases === 0) void this.#stop(entry)
      })
    }
  }

  #tryLoad(waiter: Waiter<R>): void {
    const entries = [...this.#entries.values()]
    // One at a time: two loads would both count on the same free memory.
    if (entries.some((entry) => entry.state !== "ready")) return
    const isFull = entries.length >= this.#options.loadedModelsMax
    if (isFull || (waiter.needsRoom && entries.length > 0)) {
      const victim = pickVictim(entries)
      if (victim !== undefined) void this.#stop(victim)
      return
    }
    void this.#load(waiter)
  }

  async #load(waiter: Waiter<R>): Promise<void> {
    const { spec, options } = waiter
    const entry: Entry<R> = {
      spec,
      key: spec.key,
      abort: new AbortController(),
      progress: new Set(),
      state: "loading",
      runner: undefined,
      leases: 0,
      keepAliveMs: options.keepAliveMs ?? this.#options.keepAliveMs,
      lastUsedMs: this.#effects.now(),
      expiresAtMs: this.#effects.now() + (options.keepAliveMs ?? this.#options.keepAliveMs),
      cancelTimer: () => {},
    }
    this.#entries.set(spec.key, entry)
    this.#follow(entry, waiter)
    try {
      const runner = await this.#effects.start(spec.load, {
        signal: entry.abort.signal,
        onProgress: (fraction) => {
          for (const report of entry.progress) report(fraction)
        },
      })
      entry.runner = runner
      entry.state = "ready"
      this.#tell()
      void runner.exited.then(() => this.#remove(entry))
      if (entry.abort.signal.aborted) void this.#stop(entry)
      this.#step()
      // Nobody may have taken it: whoever asked can have left meanwhile.
      if (entry.leases === 0 && entry.state === "ready") this.#startKeepAlive(entry)
    } catch (error) {
      this.#loadFailed(entry, toCriaError(error))
    }
  }

  #loadFailed(entry: Entry<R>, error: CriaError): void {
    this.#entries.delete(entry.key)
    const isCrowded = error.code === "insufficient-memory" && this.#entries.size > 0
    for (const waiter of this.#waiters.filter(({ spec }) => spec.key === entry.key)) {
      if (isCrowded) {
        waiter.needsRoom = true
      } else if (!entry.abort.signal.aborted) {
        this.#forget(waiter)
        waiter.reject(error)
      }
    }
    this.#step()
  }

  #follow(entry: Entry<R>, { options }: Waiter<R>): void {
    if (options.onProgress !== undefined) entry.progress.add(options.onProgress)
  }

  /** Loads that nobody waits for any more are given up. */
  #abortUnwanted(): void {
    for (const entry of this.#entries.values()) {
      const isWanted = this.#waiters.some(({ spec }) => spec.key === entry.key)
      if (entry.state === "loading" && !isWanted) entry.abort.abort(closedError())
    }
  }

  async #stop(entry: Entry<R>): Promise<void> {
    if (entry.state === "stopping") return
    const { runner } = entry
    if (runner === undefined) return
    entry.state = "stopping"
    entry.cancelTimer()
    await runner.stop()
    this.#remove(entry)
  }

  /** The process of an entry has ended, on request or by itself. */
  #remove(entry: Entry<R>): void {
    entry.state = "stopping"
    entry.cancelTimer()
    if (this.#entries.get(entry.key) === entry) this.#entries.delete(entry.key)
    for (const waiter of this.#waiters) waiter.needsRoom &&= this.#entries.size > 0
    this.#tell()
    this.#step()
  }

  #tell(): void {
    this.#change.resolve()
    this.#change = Promise.withResolvers()
  }

  #forget(waiter: Waiter<R>): void {
    this.#waiters = this.#waiters.filter((other) => other !== waiter)
  }
}

/** Ollama's words, two spaces included: clients look for them. */
function busyError(): CriaError {
  return new CriaError("busy", "server busy, please try again.  maximum pending requests exceeded")
}

function closedError(): CriaError {
  return new CriaError("unavailable", "The server is shutting down")
}

function toError(reason: unknown): Error {
  return reason instanceof Error ? reason : toCriaError(reason)
}
