/**
 * The runner's side of the protocol: commands in, frames out, one model.
 *
 * Knows neither where its model comes from nor what its process is made of: `main.ts` gives it both.
 *
 * @module
 */

import type { ChatEvent } from "../chat/message.ts"
import { assert, CriaError, toCriaError } from "../util/errors.ts"
import type { Logger } from "../util/log.ts"
import type { Timers } from "../util/timers.ts"
import { Grace } from "./grace.ts"
import {
  type AnswerRequest,
  type EngineStatus,
  type LoadedFacts,
  type LoadOptions,
  PROTOCOL_VERSION,
  type RunnerCommand,
  type RunnerFrame,
  toFailure,
} from "./protocol.ts"

/** Progress frames during a load, at most so often. */
const PROGRESS_INTERVAL_MS = 50

/** When it shall end, code that hangs in native calls is given this long. Nothing hangs that still writes. */
const STOP_GRACE_MS = 3000

/** What a runner needs of its model; `model/local-model.ts` is one. */
export interface RunnerModel extends AsyncDisposable {
  readonly loaded: LoadedFacts
  readonly status: EngineStatus
  /** The status after each change; see the engine. */
  statuses(signal: AbortSignal): AsyncIterable<EngineStatus>
  /** Resolves with the reason when nothing can be computed any more. */
  readonly broken: Promise<CriaError>
  render(request: AnswerRequest): Promise<string>
  answer(request: AnswerRequest, signal: AbortSignal): AsyncIterable<ChatEvent>
}

/** What a runner wants to know of its model. */
export interface RunnerHooks {
  /** Fractions from 0 to 1. */
  readonly onProgress: (fraction: number) => void
  /** What outlives the process is being written. */
  readonly onSaving: () => void
  /** Gets a sentence when something goes on without a part of it. */
  readonly warn: (message: string) => void
  readonly signal: AbortSignal
}

/** The process around a runner. */
export interface RunnerParts {
  readonly log: Logger
  load(options: LoadOptions, hooks: RunnerHooks): Promise<RunnerModel>
  /** Sends frames, one a line. Never fails: when nobody reads any more, the end of the input says so. */
  write(lines: string): Promise<void>
  /** Moves what native code logged to the log. */
  drainLog(): void
  exit(code: number): void
  readonly timers: Timers
}

/** See the module. */
export class Runner {
  readonly #parts: RunnerParts
  readonly #requests = new Map<number, AbortController>()
  readonly #work = new Set<Promise<void>>()
  readonly #loading = new AbortController()
  #frames = ""
  #model: RunnerModel | undefined
  #load: Promise<void> = Promise.resolve()
  #ending: Promise<void> | undefined
  #grace: Grace | undefined

  /** Greets the server. */
  constructor(parts: RunnerParts) {
    this.#parts = parts
    this.#send({ type: "hello", protocol: PROTOCOL_VERSION })
  }

  /** Acts on a command. Long ones go on in the background and report by frames. */
  handle(command: RunnerCommand): void {
    switch (command.type) {
      case "load":
        this.#load = this.#loadModel(command.options)
        return
      case "answer":
        this.#begin(command.id, (signal) => this.#answer(command, signal))
        return
      case "render":
        this.#begin(command.id, async () => {
          const prompt = await this.#loadedModel().render(command.request)
          this.#send({ type: "rendered", id: command.id, prompt })
        })
        return
      case "status":
        this.#begin(command.id, () => {
          this.#send({ type: "status", id: command.id, status: this.#loadedModel().status })
          return Promise.resolve()
        })
        return
      case "watch":
        // Nobody waits for its end.
        void this.#guard(command.id, (signal) => this.#watch(command, signal))
        return
      case "abort":
        this.#requests.get(command.id)?.abort()
        return
      case "stop":
        void this.stop()
    }
  }

  /** Frees the model and ends the process. */
  stop(): Promise<void> {
    this.#ending ??= this.#end(0, async () => {
      this.#loading.abort()
      await this.#load
      await this.#model?.[Symbol.asyncDispose]()
    })
    return this.#ending
  }

  /**
   * The model can compute nothing any more: its requests fail with the reason, and the process ends, so that another
   * one can take its place. What is broken is not touched any more.
   */
  #giveUp(reason: CriaError): void {
    this.#parts.log.error("engine broke", { error: reason.message })
    this.#send({ type: "broken", failure: toFailure(reason) })
    this.#ending ??= this.#end(1, async () => {
      while (this.#work.size > 0) await Promise.all(this.#work)
    })
  }

  async #end(code: number, work: () => Promise<void>): Promise<void> {
    const parts = this.#parts
    this.#grace = new Grace({ quietMsMax: STOP_GRACE_MS }, parts.timers, () => parts.exit(1))
    let status = code
    try {
      await work()
    } catch (error) {
      status = 1
      parts.log.error("runner ends badly", { error: toCriaError(error).message })
    }
    await this.#flush()
    this.#grace[Symbol.dispose]()
    parts.exit(status)
  }

  /** Queues a frame. All frames of one turn of the event loop, such as a step's, leave in one write. */
  #send(frame: RunnerFrame): void {
    if (this.#frames === "") setImmediate(() => void this.#flush())
    this.#frames += `${JSON.stringify(frame)}\n`
  }

  async #flush(): Promise<void> {
    const frames = this.#frames
    this.#frames = ""
    await this.#parts.write(frames)
  }

  async #loadModel(options: LoadOptions): Promise<void> {
    let lastProgress = 0
    const onProgress = (fraction: number) => {
      const now = performance.now()
      if (now - lastProgress < PROGRESS_INTERVAL_MS) return
      lastProgress = now
      this.#send({ type: "progress", fraction })
    }
    try {
      const { signal } = this.#loading
      const onSaving = () => this.#isSaving()
      const warn = (message: string) => this.#send({ type: "warning", message })
      const model = await this.#parts.load(options, { onProgress, onSaving, warn, signal })
      this.#model = model
      this.#send({ type: "ready", facts: model.loaded })
      void model.broken.then((reason) => this.#giveUp(reason))
    } catch (error) {
      this.#send({ type: "load-failed", failure: toFailure(toCriaError(error)) })
    } finally {
      this.#parts.drainLog()
    }
  }

  async #answer(
    { id, request }: Extract<RunnerCommand, { type: "answer" }>,
    signal: AbortSignal,
  ): Promise<void> {
    for await (const event of this.#loadedModel().answer(request, signal)) {
      this.#send({ type: "event", id, event })
    }
  }

  /** What outlives this process is being written. Before the end nobody waits for it. */
  #isSaving(): void {
    if (this.#grace === undefined) return
    this.#grace.extend()
    this.#send({ type: "saving" })
  }

  async #watch(
    { id, intervalMs }: Extract<RunnerCommand, { type: "watch" }>,
    signal: AbortSignal,
  ): Promise<void> {
    for await (const status of this.#loadedModel().statuses(signal)) {
      this.#send({ type: "status", id, status })
      await this.#pause(intervalMs, signal)
    }
  }

  /** Lets time pass; less when the signal is aborted. */
  async #pause(ms: number, signal: AbortSignal): Promise<void> {
    const over = Promise.withResolvers<void>()
    const onAbort = () => over.resolve()
    const cancel = this.#parts.timers.setTimer(ms, onAbort)
    signal.addEventListener("abort", onAbort)
    await over.promise
    cancel()
    signal.removeEventListener("abort", onAbort)
  }

  #begin(id: number, work: (signal: AbortSignal) => Promise<void>): void {
    const guarded = this.#guard(id, work).finally(() => this.#work.delete(guarded))
    this.#work.add(guarded)
  }

  /** Runs a request so that whatever it throws becomes its own failure and nobody else's. */
  async #guard(id: number, work: (signal: AbortSignal) => Promise<void>): Promise<void> {
    const controller = new AbortController()
    this.#requests.set(id, controller)
    try {
      await work(controller.signal)
    } catch (error) {
      const failure = controller.signal.aborted
        ? new CriaError("unavailable", "The request was aborted")
        : toCriaError(error)
      if (failure.code === "internal")
        this.#parts.log.error("request failed", { error: failure.message })
      this.#send({ type: "request-failed", id, failure: toFailure(failure) })
    } finally {
      this.#requests.delete(id)
      this.#parts.drainLog()
    }
  }

  #loadedModel(): RunnerModel {
    assert(this.#model !== undefined, "the server sends requests only after ready")
    return this.#model
  }
}
