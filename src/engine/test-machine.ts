/**
 * A fake machine with an engine on it, for tests: what happened at each step, and what answers have to be.
 *
 * @module
 */

import { Engine, type EngineOptions } from "./engine.ts"
import { FakeBackend, type FakeOptions, fakeToken, fakeVocabulary } from "./fake-backend.ts"
import { MemoryTier } from "./prefix-tier.ts"
import { SAMPLING_DEFAULTS } from "./sampling.ts"
import type { EngineEvent, GenerateRequest, Usage } from "./sequence.ts"

/** Tokens of the fake's vocabulary. */
export const VOCABULARY = 4096

/** Of all requests. */
export const SEED = 7

/** Tokens that follow each other from `from` on: others with another `from` have nothing in common with them. */
export function run(from: number, count: number): number[] {
  return Array.from({ length: count }, (_, i) => from + i)
}

/** What requests have in common. */
export const PREFIX: readonly number[] = run(1000, 100)

/** A fake machine, an engine on it, and what happened at each step. */
export class Machine implements AsyncDisposable {
  readonly backend: FakeBackend
  readonly engine: Engine
  readonly steps: { tokens: number; rows: number }[] = []
  #waits: { steps: number; resolve: () => void }[] = []

  constructor(options: FakeOptions & Partial<EngineOptions> = {}) {
    this.backend = new FakeBackend({
      cells: 1024,
      batchTokens: 64,
      vocabularyTokens: VOCABULARY,
      ...options,
      onStep: (step) => {
        this.steps.push(step)
        for (const { steps, resolve } of this.#waits) if (this.steps.length >= steps) resolve()
      },
    })
    let clock = 0
    this.engine = new Engine(this.backend, fakeVocabulary(VOCABULARY), {
      now: () => clock++,
      ...options,
    })
  }

  /** Resolves when so many steps have begun. */
  begun(steps: number): Promise<void> {
    return new Promise((resolve) => {
      this.#waits.push({ steps, resolve })
    })
  }

  async ask(prompt: readonly number[], more: Partial<GenerateRequest> = {}): Promise<Answer> {
    const request = { prompt, sampling: { ...SAMPLING_DEFAULTS, seed: SEED }, maxTokens: 4 }
    return collect(this.engine.submit({ ...request, ...more }))
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.engine[Symbol.asyncDispose]()
  }
}

/** A tier that is still there for the next engine. */
export class KeptTier extends MemoryTier {
  override readonly persists = true
}

/** How a request ended. */
export interface Answer {
  readonly tokens: number[]
  readonly usage: Usage
}

/** Reads a request to its end. */
export async function collect(events: AsyncIterable<EngineEvent>): Promise<Answer> {
  for await (const event of events)
    if (event.kind === "done") return { tokens: [...event.completion], usage: event.usage }
  throw new Error("no done event")
}

/** What the fake answers to a prompt when it is alone. */
export function expected(prompt: readonly number[], maxTokens = 4): number[] {
  const visible = [...prompt]
  while (visible.length < prompt.length + maxTokens)
    visible.push(fakeToken(visible, SEED, VOCABULARY))
  return visible.slice(prompt.length)
}

/** Tokens that a request computes: its prompt but for what it shares, and all of its answer but for the last. */
export function computed({ tokens, usage }: Answer): number {
  return usage.promptTokens - usage.cachedTokens + tokens.length - 1
}
