/**
 * The server's side of a runner: starts the process, loads the model into it, streams answers out of it.
 *
 * A runner that dies fails its own requests and nothing else. It never outlives this process: its stdin closes with us.
 *
 * @module
 */

import type { Subprocess } from "bun"

import type { ChatEvent } from "../chat/message.ts"
import { assert, CriaError, toCriaError } from "../util/errors.ts"
import { Latest } from "../util/latest.ts"
import { linesOf } from "../util/lines.ts"
import type { Logger } from "../util/log.ts"
import { Queue } from "../util/queue.ts"
import { SYSTEM_TIMERS, type Timers } from "../util/timers.ts"
import { Grace } from "./grace.ts"
import { Load } from "./load.ts"
import {
  type AnswerRequest,
  fromFailure,
  type EngineStatus,
  type LoadedFacts,
  type LoadOptions,
  parseFrame,
  type RunnerCommand,
  type RunnerFrame,
} from "./protocol.ts"

/** How to start runners. */
export interface RunnerOptions {
  /** Program and arguments. */
  readonly command: readonly string[]
  readonly env: Readonly<Record<string, string | undefined>>
  readonly log: Logger
  /** Milliseconds without progress after which a load is given up. */
  readonly loadTimeoutMs: number
  /** Default: the machine's. */
  readonly timers?: Timers
}

type RunnerProcess = Subprocess<"pipe", "pipe", "pipe">

/**
 * After it was asked to stop, a runner is killed when it said nothing for so long, and when it still writes what
 * outlives it after so long: whoever wants the model again is waiting.
 */
const STOP_LIMITS = { quietMsMax: 5000, totalMsMax: 60_000 }

/**
 * What a runner's C library has to know before the process starts: memory for weights and KV cache shall have large
 * pages where the system leaves the choice to programs. Measured: decoding gets some 5 % faster.
 */
export const RUNNER_ENVIRONMENT = { GLIBC_TUNABLES: "glibc.malloc.hugetlb=1" }

/** Lines of stderr kept to explain a crash. */
const LAST_LINES = 8

type Pending =
  | { readonly kind: "answer"; readonly events: Queue<ChatEvent> }
  | { readonly kind: "watch"; readonly statuses: Latest<EngineStatus> }
  | {
      readonly kind: "question"
      readonly resolve: (frame: RunnerFrame) => void
      readonly reject: (error: CriaError) => void
    }

/** A running runner with its model loaded. */
export class RunnerHandle {
  /** Resolves when the process has ended, however it ended. */
  readonly exited: Promise<void>
  readonly #process: RunnerProcess
  readonly #options: RunnerOptions
  readonly #pending = new Map<number, Pending>()
  readonly #lastLines: string[] = []
  #nextId = 1
  #facts: LoadedFacts | undefined
  #ended: CriaError | undefined
  #load: Load | undefined
  #grace: Grace | undefined

  /** Starts the process; use {@link RunnerHandle.start}. */
  constructor(options: RunnerOptions) {
    this.#options = options
    this.#process = Bun.spawn([...options.command, "runner"], {
      stdin: "pipe",
      stdout: "pipe",
      stderr: "pipe",
      env: { ...RUNNER_ENVIRONMENT, ...options.env },
      // A group of its own: Ctrl-C in the terminal is for the server.
      detached: true,
    })
    this.exited = this.#watch()
  }

  /**
   * Starts a process and loads a model.
   *
   * @throws {CriaError} What went wrong; the process has ended then. The signal's reason when it was aborted.
   */
  static async start(
    load: LoadOptions,
    options: RunnerOptions & { onProgress?: (fraction: number) => void; signal?: AbortSignal },
  ): Promise<RunnerHandle> {
    options.signal?.throwIfAborted()
    const handle = new RunnerHandle(options)
    try {
      await handle.#loadModel(load, options)
      return handle
    } catch (error) {
      await handle.#kill()
      throw error
    }
  }

  /** False from the moment on that it cannot take requests any more, which is before its process has ended. */
  get isUsable(): boolean {
    return this.#ended === undefined
  }

  get pid(): number {
    return this.#process.pid
  }

  /** What the model was loaded with. */
  get facts(): LoadedFacts {
    if (this.#facts === undefined)
      throw new Error("Broken invariant: a handle is given out after ready")
    return this.#facts
  }

  /**
   * Answers a request; leaving the iteration early frees it in the runner.
   *
   * @throws {CriaError} The request's own failure, or that of the process when it dies.
   */
  async *answer(request: AnswerRequest, signal?: AbortSignal): AsyncGenerator<ChatEvent> {
    this.#throwIfEnded()
    signal?.throwIfAborted()
    const id = this.#nextId++
    const events = new Queue<ChatEvent>()
    const onAbort = () => events.fail(signal?.reason)
    this.#pending.set(id, { kind: "answer", events })
    signal?.addEventListener("abort", onAbort)
    let isDone = false
    try {
      this.#send({ type: "answer", id, request })
      for await (const event of events) {
        isDone = event.kind === "done"
        yield event
      }
    } finally {
      signal?.removeEventListener("abort", onAbort)
      if (this.#pending.delete(id) && !isDone) this.#send({ type: "abort", id })
    }
  }

  /** Renders the prompt of a request. */
  async render(request: AnswerRequest): Promise<string> {
    const frame = await this.#question((id) => ({ type: "render", id, request }))
    assert(frame.type === "rendered", "a rendered prompt answers render")
    return frame.prompt
  }

  /** What the engine does now, and did so far. */
  async status(): Promise<EngineStatus> {
    const frame = await this.#question((id) => ({ type: "status", id }))
    assert(frame.type === "status", "a status answers status")
    return frame.status
  }

  /**
   * The status of the engine now and after each change, at most so often; a slow consumer misses some. Ends with the
   * process, and when the signal is aborted.
   */
  async *statuses(intervalMs: number, signal?: AbortSignal): AsyncGenerator<EngineStatus> {
    if (!this.isUsable || signal?.aborted === true) return
    const id = this.#nextId++
    const statuses = new Latest<EngineStatus>()
    const onAbort = () => void statuses.return()
    this.#pending.set(id, { kind: "watch", statuses })
    signal?.addEventListener("abort", onAbort)
    try {
      this.#send({ type: "watch", id, intervalMs })
      yield* statuses
    } finally {
      signal?.removeEventListener("abort", onAbort)
      if (this.#pending.delete(id)) this.#send({ type: "abort", id })
    }
  }

  /** Ends the process: asks, then kills. Resolves when it is gone. */
  async stop(): Promise<void> {
    this.#ended ??= new CriaError("unavailable", "The model was unloaded")
    this.#grace ??= new Grace(STOP_LIMITS, this.#options.timers ?? SYSTEM_TIMERS, () =>
      this.#tooLate(),
    )
    this.#send({ type: "stop" })
    await this.exited
    this.#grace[Symbol.dispose]()
  }

  #question(command: (id: number) => RunnerCommand): Promise<RunnerFrame> {
    this.#throwIfEnded()
    const id = this.#nextId++
    return new Promise((resolve, reject) => {
      this.#pending.set(id, { kind: "question", resolve, reject })
      this.#send(command(id))
    })
  }

  #tooLate(): void {
    this.#options.log.warn("runner killed: it did not end", { pid: this.pid })
    this.#process.kill("SIGKILL")
  }

  async #kill(): Promise<void> {
    this.#process.kill("SIGKILL")
    await this.exited
  }

  async #loadModel(
    options: LoadOptions,
    hooks: { onProgress?: (fraction: number) => void; signal?: AbortSignal },
  ): Promise<void> {
    const load = new Load(this.#options.loadTimeoutMs, hooks)
    this.#load = load
    try {
      await load.greeted
      this.#send({ type: "load", options })
      this.#facts = await load.ready
    } finally {
      load[Symbol.dispose]()
      this.#load = undefined
    }
  }

  /** Reads both outputs to their ends, waits for the exit, then fails whatever still waits. */
  async #watch(): Promise<void> {
    try {
      await Promise.all([this.#readFrames(), this.#readLog()])
    } catch (error) {
      this.#ended ??= toCriaError(error)
      this.#process.kill("SIGKILL")
    }
    await this.#process.exited
    this.#ended ??= this.#crash()
    this.#load?.fail(this.#ended)
    for (const pending of this.#pending.values()) fail(pending, this.#ended)
    this.#pending.clear()
  }

  async #readFrames(): Promise<void> {
    for await (const line of linesOf(this.#process.stdout)) {
      const frame = parseFrame(line)
      if (frame === undefined) this.#options.log.debug("runner", { pid: this.pid, line })
      else this.#receive(frame)
    }
  }

  async #readLog(): Promise<void> {
    for await (const line of linesOf(this.#process.stderr)) {
      this.#lastLines.push(line)
      if (this.#lastLines.length > LAST_LINES) this.#lastLines.shift()
      this.#options.log.debug("runner", { pid: this.pid, line })
    }
  }

  #receive(frame: RunnerFrame): void {
    switch (frame.type) {
      case "hello":
      case "progress":
      case "ready":
      case "load-failed":
        this.#load?.receive(frame)
        return
      case "event": {
        const pending = this.#pending.get(frame.id)
        if (pending?.kind !== "answer") return
        pending.events.push(frame.event)
        if (frame.event.kind === "done") pending.events.end()
        return
      }
      case "rendered":
      case "status": {
        const pending = this.#pending.get(frame.id)
        if (pending?.kind === "watch" && frame.type === "status") {
          pending.statuses.set(frame.status)
          return
        }
        this.#pending.delete(frame.id)
        if (pending?.kind === "question") pending.resolve(frame)
        return
      }
      case "request-failed": {
        const pending = this.#pending.get(frame.id)
        if (pending === undefined) return
        this.#pending.delete(frame.id)
        fail(pending, fromFailure(frame.failure))
        return
      }
      case "warning":
        this.#options.log.warn("runner warns", { pid: this.pid, reason: frame.message })
        return
      case "saving":
        this.#grace?.extend()
        return
      case "broken":
        this.#ended ??= fromFailure(frame.failure)
        this.#options.log.error("runner broke", { pid: this.pid, reason: frame.failure.message })
    }
  }

  #send(command: RunnerCommand): void {
    if (this.#process.exitCode !== null || this.#process.signalCode !== null) return
    // A broken pipe means that the process is ending; #watch fails what waits.
    void this.#write(`${JSON.stringify(command)}\n`).catch(() => {})
  }

  /** Both calls fail at once or later, as it comes. */
  async #write(line: string): Promise<void> {
    const { stdin } = this.#process
    await stdin.write(line)
    await stdin.flush()
  }

  #throwIfEnded(): void {
    if (this.#ended !== undefined) throw this.#ended
  }

  #crash(): CriaError {
    const { exitCode, signalCode } = this.#process
    const how = signalCode === null ? `exit code ${exitCode}` : signalCode
    const abort = this.#lastLines.find((line) => line.startsWith("cria: native abort: "))
    const reason =
      abort === undefined ? how : `${abort.slice("cria: native abort: ".length)} (${how})`
    this.#options.log.error("runner died", { pid: this.pid, reason })
    return new CriaError("internal", `${CRASH_TEXT}: ${reason}`)
  }
}

/** Ollama's words for an engine that died, which its clients know. */
const CRASH_TEXT =
  "model runner has unexpectedly stopped, this may be due to resource limitations or an internal error, " +
  "check ollama server logs for details"

function fail(pending: Pending, error: CriaError): void {
  switch (pending.kind) {
    case "answer":
      pending.events.fail(error)
      return
    case "watch":
      pending.statuses.end()
      return
    case "question":
      pending.reject(error)
  }
}
