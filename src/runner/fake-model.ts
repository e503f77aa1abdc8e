/**
 * A runner's model without native code: a real engine over the fake backend, for tests of what is around it.
 *
 * @module
 */

import type { ChatEvent } from "../chat/message.ts"
import type { EngineStatus } from "../engine/engine-status.ts"
import { Engine, type EngineOptions } from "../engine/engine.ts"
import { FakeBackend, type FakeOptions, fakeVocabulary } from "../engine/fake-backend.ts"
import type { CriaError } from "../util/errors.ts"
import type { AnswerRequest, LoadedFacts } from "./protocol.ts"
import type { RunnerModel } from "./runner.ts"

/** Options of {@link FakeModel}. */
export type FakeModelOptions = FakeOptions & Partial<EngineOptions>

/** See the module. A prompt's tokens are its characters. */
export class FakeModel implements RunnerModel {
  readonly loaded: LoadedFacts
  readonly backend: FakeBackend
  readonly engine: Engine

  constructor(options: FakeModelOptions = {}) {
    this.backend = new FakeBackend(options)
    this.engine = new Engine(this.backend, fakeVocabulary(), {
      now: () => performance.now(),
      ...options,
    })
    const { contextTokens } = this.engine
    this.loaded = {
      contextTokens,
      parallel: 1,
      totalBytes: 0,
      gpuBytes: 0,
      llamaVersion: "fake",
      cacheType: "f16",
      flashAttention: "auto",
    }
  }

  get status(): EngineStatus {
    return this.engine.status
  }

  get broken(): Promise<CriaError> {
    return this.engine.broken
  }

  statuses(signal?: AbortSignal): AsyncGenerator<EngineStatus> {
    return this.engine.statuses(signal)
  }

  render(request: AnswerRequest): Promise<string> {
    return Promise.resolve(textOf(request))
  }

  async *answer(request: AnswerRequest, signal?: AbortSignal): AsyncGenerator<ChatEvent> {
    const { sampling, maxTokens, stop, terms } = request
    const prompt = Array.from(textOf(request), (character) => (character.codePointAt(0) ?? 0) % 255)
    const events = this.engine.submit(
      { prompt, sampling, maxTokens: maxTokens ?? Infinity, stop, ...terms },
      signal,
    )
    for await (const event of events) {
      if (event.kind === "text")
        yield { kind: "delta", content: event.text, thinking: "", logprobs: [] }
      else yield { kind: "done", reason: event.reason.kind, usage: event.usage, droppedMessages: 0 }
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.engine[Symbol.asyncDispose]()
  }
}

function textOf({ input }: AnswerRequest): string {
  if (input.kind === "chat") return input.messages.map(({ content }) => content).join("\n")
  return input.kind === "insert" ? input.prompt + input.suffix : input.text
}
