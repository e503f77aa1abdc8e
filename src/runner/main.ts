/**
 * The runner process: holds one model for the server, which talks to it over stdin and stdout.
 *
 * It ends when told to, and when stdin closes: then the server is gone, however it went.
 *
 * @module
 */

import { openLibrary } from "../../ffi/library.ts"
import type { NativeLibrary } from "../../ffi/native.ts"
import { readConfig } from "../config.ts"
import { LocalModel } from "../model/local-model.ts"
import { assert, CriaError, toCriaError } from "../util/errors.ts"
import { linesOf } from "../util/lines.ts"
import { createLogger, type Logger } from "../util/log.ts"
import { unpackNative } from "../util/unpack.ts"
import {
  type LoadOptions,
  parseCommand,
  PROTOCOL_VERSION,
  type RunnerCommand,
  type RunnerFrame,
  toFailure,
} from "./protocol.ts"

/** Progress frames during a load, at most so often. */
const PROGRESS_INTERVAL_MS = 50

/** A runner waits for its model, for requests that join at the next step, and for aborts of long steps. */
export const WAIT_SLICE_MS = 50

/** After stdin closed, code that hangs in native calls is given this long. */
const ORPHAN_GRACE_MS = 3000

/** Runs until the parent says stop or goes away. */
export async function runnerMain(): Promise<void> {
  // A Ctrl-C in the terminal is for the server, which ends its runners itself.
  process.on("SIGINT", () => {})
  // A log that nobody reads any more must not end a runner.
  process.stderr.on("error", () => {})
  const config = readConfig(process.env)
  const log = createLogger((line) => process.stderr.write(`${line}\n`), config.logLevel)
  const runner = new Runner(log, config)
  process.on("SIGTERM", () => void runner.stop())
  runner.send({ type: "hello", protocol: PROTOCOL_VERSION })
  for await (const line of linesOf(Bun.stdin.stream())) runner.handle(parseCommand(line))
  await runner.stop()
}

class Runner {
  readonly #log: Logger
  readonly #config: ReturnType<typeof readConfig>
  readonly #out = Bun.stdout.writer()
  readonly #requests = new Map<number, AbortController>()
  readonly #loading = new AbortController()
  #frames = ""
  #library: NativeLibrary | undefined
  #model: LocalModel | undefined
  #load: Promise<void> = Promise.resolve()

  constructor(log: Logger, config: ReturnType<typeof readConfig>) {
    this.#log = log
    this.#config = config
  }

  /** Queues a frame. All frames of one turn of the event loop, such as a step's, leave in one write. */
  send(frame: RunnerFrame): void {
    if (this.#frames === "") setImmediate(() => void this.#flush())
    this.#frames += `${JSON.stringify(frame)}\n`
  }

  /** Acts on a command. Long ones go on in the background and report by frames. */
  handle(command: RunnerCommand): void {
    switch (command.type) {
      case "load":
        this.#load = this.#loadModel(command.options)
        return
      case "answer":
        void this.#guard(command.id, (signal) => this.#answer(command, signal))
        return
      case "render":
        void this.#guard(command.id, () => {
          const prompt = this.#loadedModel().render(command.request)
          this.send({ type: "rendered", id: command.id, prompt })
          return Promise.resolve()
        })
        return
      case "status":
        void this.#guard(command.id, () => {
          this.send({ type: "status", id: command.id, status: this.#loadedModel().status })
          return Promise.resolve()
        })
        return
      case "abort":
        this.#requests.get(command.id)?.abort()
        return
      case "stop":
        void this.stop()
    }
  }

  /** Frees the model and ends the process. */
  async stop(): Promise<never> {
    setTimeout(() => process.exit(1), ORPHAN_GRACE_MS).unref()
    this.#loading.abort()
    await this.#load
    await this.#model?.[Symbol.asyncDispose]()
    await this.#flush()
    process.exit(0)
  }

  async #flush(): Promise<void> {
    const frames = this.#frames
    this.#frames = ""
    try {
      await this.#out.write(frames)
      await this.#out.flush()
    } catch {
      // A broken pipe means that the server is gone; the end of stdin says so too and ends this process.
    }
  }

  async #loadModel(options: LoadOptions): Promise<void> {
    let lastProgress = 0
    const onProgress = (fraction: number) => {
      const now = performance.now()
      if (now - lastProgress < PROGRESS_INTERVAL_MS) return
      lastProgress = now
      this.send({ type: "progress", fraction })
    }
    try {
      const library = this.#openLibrary()
      const { signal } = this.#loading
      this.#model = await LocalModel.load(library, options, { onProgress, signal })
      for (const note of this.#model.loaded.notes ?? [])
        this.#log.warn("loaded with less than was asked for", { note })
      this.send({ type: "ready", facts: this.#model.loaded })
    } catch (error) {
      this.send({ type: "load-failed", failure: toFailure(toCriaError(error)) })
    } finally {
      this.#library?.drainLog(this.#log)
    }
  }

  #openLibrary(): NativeLibrary {
    this.#library ??= openLibrary({
      folder: this.#config.nativeFolder,
      unpack: () => unpackNative(this.#config.cache),
      logLevel: this.#config.logLevel === "debug" ? "info" : "warn",
      waitSliceMs: WAIT_SLICE_MS,
    })
    this.#library.functions.cria_exit_with_input(ORPHAN_GRACE_MS)
    return this.#library
  }

  async #answer(
    { id, request }: Extract<RunnerCommand, { type: "answer" }>,
    signal: AbortSignal,
  ): Promise<void> {
    for await (const event of this.#loadedModel().answer(request, signal)) {
      this.send({ type: "event", id, event })
    }
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
      if (failure.code === "internal") this.#log.error("request failed", { error: failure.message })
      this.send({ type: "request-failed", id, failure: toFailure(failure) })
    } finally {
      this.#requests.delete(id)
      this.#library?.drainLog(this.#log)
    }
  }

  #loadedModel(): LocalModel {
    assert(this.#model !== undefined, "the server sends requests only after ready")
    return this.#model
  }
}
