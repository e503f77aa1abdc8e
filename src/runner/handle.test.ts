/** The server's side and the runner's, with a process and two pipes between them; only the model is a fake. */

import { describe, expect, test } from "bun:test"

import type { ChatEvent } from "../chat/message.ts"
import { SAMPLING_DEFAULTS } from "../engine/sampling.ts"
import { fakeSpec } from "../pool/fake-effects.ts"
import { Pool } from "../pool/pool.ts"
import { FakeTimers } from "../util/fake-timers.ts"
import { type Logger, SILENT } from "../util/log.ts"
import { RunnerHandle } from "./handle.ts"
import type { AnswerRequest, LoadOptions } from "./protocol.ts"

/** A runner process with a fake model, whose engine breaks at step `BREAK_AT`. */
const RUNNER = `
import { FakeModel } from "${import.meta.dir}/fake-model.ts"
import { parseCommand } from "${import.meta.dir}/protocol.ts"
import { Runner } from "${import.meta.dir}/runner.ts"
import { linesOf } from "${import.meta.dir}/../util/lines.ts"
import { SYSTEM_TIMERS } from "${import.meta.dir}/../util/timers.ts"
import { createLogger } from "${import.meta.dir}/../util/log.ts"
let steps = 0
const delay = async () => {
  if (++steps === Number(process.env.BREAK_AT)) throw new Error("the GPU is gone")
}
const runner = new Runner({
  log: createLogger((line) => process.stderr.write(line + "\\n"), "info"),
  load: async (_, { onSaving, warn }) => {
    if (process.env.WARNING) warn(process.env.WARNING)
    const model = new FakeModel({ delay })
    if (process.env.AT_THE_END !== "hang") return model
    model[Symbol.asyncDispose] = () => (onSaving(), new Promise(() => {}))
    return model
  },
  write: async (lines) => void (await Bun.write(Bun.stdout, lines)),
  drainLog() {},
  exit: (code) => process.exit(code),
  timers: SYSTEM_TIMERS,
})
for await (const line of linesOf(Bun.stdin.stream())) runner.handle(parseCommand(line))
await runner.stop()
`

const LOAD: LoadOptions = { name: "m", path: "/m", flashAttention: "auto", cacheType: "f16" }

interface StartOptions {
  readonly breakAt?: number
  /** What it does when it is told to stop: nothing, after one sign of life. */
  readonly hangs?: boolean
  readonly timers?: FakeTimers
  /** What it says while it loads. */
  readonly warning?: string
  readonly log?: Logger
}

function start({
  breakAt = 0,
  log = SILENT,
  hangs = false,
  timers,
  warning = "",
}: StartOptions = {}): Promise<RunnerHandle> {
  const variables = { BREAK_AT: String(breakAt), AT_THE_END: hangs ? "hang" : "", WARNING: warning }
  return RunnerHandle.start(LOAD, {
    command: [process.execPath, "-e", RUNNER],
    env: { ...process.env, ...variables },
    ...(timers === undefined ? {} : { timers }),
    log,
    loadTimeoutMs: Infinity,
  })
}

function ask(text: string): AnswerRequest {
  return {
    input: { kind: "text", text },
    sampling: { ...SAMPLING_DEFAULTS, seed: 1 },
    maxTokens: 4,
    stop: [],
    wantsContext: false,
  }
}

function collect(events: AsyncIterable<ChatEvent>): Promise<ChatEvent[]> {
  return Array.fromAsync(events)
}

const reason = (error: unknown) => String(error)

describe("RunnerHandle", () => {
  test("answers, and ends when it is told to", async () => {
    const handle = await start()
    expect((await collect(handle.answer(ask("Hello")))).at(-1)?.kind).toBe("done")
    expect(await handle.render(ask("Hello"))).toBe("Hello")
    expect((await handle.status()).counters.finished).toBe(1)
    await handle.stop()
    expect(handle.isUsable).toBe(false)
    expect(await collect(handle.answer(ask("Hello"))).catch(reason)).toContain("was unloaded")
  })

  test("passes on what the engine does, until nobody watches or there is no engine", async () => {
    const handle = await start()
    const controller = new AbortController()
    const short = handle.statuses(0, controller.signal)
    expect((await short.next()).value).toMatchObject({ running: 0, counters: { finished: 0 } })
    const long = handle.statuses(0)
    await collect(handle.answer(ask("Hello")))
    for await (const { counters } of short) if (counters.finished === 1) controller.abort()
    await collect(handle.answer(ask("Hello again")))
    let finished = 0
    while (finished < 2) finished = (await long.next()).value?.counters.finished ?? 2
    expect(finished).toBe(2)
    await handle.stop()
    expect(await Array.fromAsync(long)).toBeArray()
    expect(await Array.fromAsync(handle.statuses(0))).toEqual([])
  })

  test("logs what a model goes on without, where people see it", async () => {
    const warnings: unknown[] = []
    const warn: Logger["warn"] = (message, fields) => warnings.push([message, fields?.["reason"]])
    const handle = await start({ warning: "Cannot keep prefixes", log: { ...SILENT, warn } })
    await handle.stop()
    expect(warnings).toEqual([["runner warns", "Cannot keep prefixes"]])
  })

  test("waits for a runner that says that it is still saving, and kills one that says nothing", async () => {
    const saving = Promise.withResolvers<void>()
    class Alarms extends FakeTimers {
      #count = 0

      override setTimer(delayMs: number, callback: () => void): () => void {
        if (++this.#count === 2) saving.resolve()
        return super.setTimer(delayMs, callback)
      }
    }
    const timers = new Alarms()
    const handle = await start({ hangs: true, timers })
    const stopped = handle.stop()
    timers.advance(4000)
    await saving.promise
    timers.advance(4000)
    expect(timers.pending).toBe(1)
    timers.advance(1000)
    await stopped
    expect(timers.pending).toBe(0)
  })

  test("an engine that breaks fails its requests with the reason, and its process ends", async () => {
    const complaints: string[] = []
    const keep = (message: string) => void complaints.push(message)
    const handle = await start({ breakAt: 2, log: { ...SILENT, error: keep } })
    const answers = [1, 2].map((i) => collect(handle.answer(ask(`Hello ${i}`))).catch(reason))
    expect(await Promise.all(answers)).toEqual(Array(2).fill("CriaError: the GPU is gone"))
    await handle.exited
    expect(handle.isUsable).toBe(false)
    expect(complaints).toEqual(["runner broke"])
  })

  test("the pool starts another runner for the next request", async () => {
    let starts = 0
    const pool = new Pool<RunnerHandle>(
      {
        start: () => start(++starts === 1 ? { breakAt: 1 } : {}),
        now: () => 0,
        setTimer: () => () => {},
      },
      { loadedModelsMax: 1, queueMax: 1, keepAliveMs: Infinity },
    )
    const asked = async () => {
      using lease = await pool.acquire(fakeSpec("m"))
      return await collect(lease.runner.answer(ask("Hello")))
    }
    expect(await asked().catch(reason)).toBe("CriaError: the GPU is gone")
    // At once: the process of the first may not have ended yet.
    expect((await asked()).at(-1)?.kind).toBe("done")
    expect(starts).toBe(2)
    await pool[Symbol.asyncDispose]()
  })
})
