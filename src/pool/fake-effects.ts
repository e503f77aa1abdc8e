/**
 * A world for the pool without processes or clocks: loads end when the test says so.
 *
 * @module
 */

import type { LoadedFacts, LoadOptions } from "../runner/protocol.ts"
import { assert, CriaError } from "../util/errors.ts"
import { FakeTimers } from "../util/fake-timers.ts"
import type { ModelSpec, PooledRunner, PoolEffects } from "./pool.ts"

/** A runner that is only a record. */
export class FakeRunner implements PooledRunner {
  readonly name: string
  readonly facts: LoadedFacts
  readonly exited: Promise<void>
  isStopped = false
  isUsable = true
  readonly #exit = Promise.withResolvers<void>()

  constructor(load: LoadOptions) {
    const { name, contextTokens = 4096, cacheType = "f16", flashAttention = "auto" } = load
    this.name = name
    this.facts = {
      contextTokens,
      parallel: 1,
      totalBytes: 100,
      gpuBytes: 0,
      llamaVersion: "",
      cacheType,
      flashAttention,
    }
    this.exited = this.#exit.promise
  }

  stop(): Promise<void> {
    this.isStopped = true
    this.#exit.resolve()
    return Promise.resolve()
  }

  /** Cannot take requests any more; its process goes on until it is told to stop. */
  break(): void {
    this.isUsable = false
  }

  /** Ends as a process ends that crashes. */
  crash(): void {
    this.#exit.resolve()
  }
}

/** A load that has been started and not ended. */
export interface FakeLoad {
  readonly name: string
  readonly signal: AbortSignal
  readonly report: (fraction: number) => void
  finish(): FakeRunner
  fail(error: CriaError): void
}

/** See the module. */
export class FakeEffects implements PoolEffects<FakeRunner> {
  readonly loads: FakeLoad[] = []
  readonly runners: FakeRunner[] = []
  readonly #time = new FakeTimers()

  start(
    load: LoadOptions,
    { signal, onProgress }: { signal: AbortSignal; onProgress: (fraction: number) => void },
  ): Promise<FakeRunner> {
    const result = Promise.withResolvers<FakeRunner>()
    const end = () => {
      this.loads.splice(this.loads.indexOf(fake), 1)
    }
    const fake: FakeLoad = {
      name: load.name,
      signal,
      report: onProgress,
      finish: () => {
        end()
        const runner = new FakeRunner(load)
        this.runners.push(runner)
        result.resolve(runner)
        return runner
      },
      fail: (error) => {
        end()
        result.reject(error)
      },
    }
    signal.addEventListener("abort", () => {
      if (this.loads.includes(fake)) fake.fail(new CriaError("unavailable", "aborted"))
    })
    this.loads.push(fake)
    return result.promise
  }

  now(): number {
    return this.#time.now()
  }

  setTimer(delayMs: number, callback: () => void): () => void {
    return this.#time.setTimer(delayMs, callback)
  }

  /** Timers that have not fired. */
  get timers(): number {
    return this.#time.pending
  }

  /** Lets time pass and timers fire. */
  advance(ms: number): void {
    this.#time.advance(ms)
  }

  /** The load of a model that is going on. */
  load(name: string): FakeLoad {
    const load = this.loads.find((candidate) => candidate.name === name)
    assert(load !== undefined, `"${name}" is not being loaded`)
    return load
  }
}

/** A model to ask for. */
export function fakeSpec(name: string, change: Partial<LoadOptions> = {}): ModelSpec {
  return {
    key: `/${name}`,
    load: { name, path: `/${name}`, ...change },
  }
}

/** Lets everything run that waits for nothing outside. */
export async function settle(): Promise<void> {
  for (let turn = 0; turn < 20; turn++) await Promise.resolve()
}
