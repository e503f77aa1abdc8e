import { describe, expect, test } from "bun:test"

import { SAMPLING_DEFAULTS } from "../engine/sampling.ts"
import { CriaError } from "../util/errors.ts"
import { FakeTimers } from "../util/fake-timers.ts"
import { SILENT } from "../util/log.ts"
import { FakeModel, type FakeModelOptions } from "./fake-model.ts"
import {
  type AnswerRequest,
  type LoadOptions,
  parseFrame,
  type RunnerCommand,
  type RunnerFrame,
} from "./protocol.ts"
import { Runner, type RunnerParts } from "./runner.ts"

const LOAD: LoadOptions = { name: "m", path: "/m", flashAttention: "auto", cacheType: "f16" }

function ask(text: string, change: Partial<AnswerRequest> = {}): AnswerRequest {
  return {
    input: { kind: "text", text },
    sampling: { ...SAMPLING_DEFAULTS, seed: 1 },
    maxTokens: 4,
    stop: [],
    wantsContext: false,
    ...change,
  }
}

/** A runner whose frames are collected, and which ends nothing but itself. */
class Bench {
  readonly frames: RunnerFrame[] = []
  readonly timers = new FakeTimers()
  readonly runner: Runner
  readonly exit: Promise<number>
  readonly #exit = Promise.withResolvers<number>()
  #waits: { type: RunnerFrame["type"]; resolve: (frame: RunnerFrame) => void }[] = []

  constructor(model: RunnerParts["load"]) {
    this.exit = this.#exit.promise
    this.runner = new Runner({
      log: SILENT,
      load: model,
      write: (lines) => {
        for (const line of lines.split("\n")) this.#receive(parseFrame(line))
        return Promise.resolve()
      },
      drainLog() {},
      exit: (code) => this.#exit.resolve(code),
      timers: this.timers,
    })
  }

  static async loaded(options: FakeModelOptions = {}): Promise<Bench> {
    const bench = new Bench(() => Promise.resolve(new FakeModel(options)))
    const ready = bench.next("ready")
    bench.runner.handle({ type: "load", options: LOAD })
    await ready
    return bench
  }

  send(command: RunnerCommand): void {
    this.runner.handle(command)
  }

  /** The next frame of a type. */
  next(type: RunnerFrame["type"]): Promise<RunnerFrame> {
    return new Promise((resolve) => {
      this.#waits.push({ type, resolve })
    })
  }

  types(): string[] {
    return this.frames.map(({ type }) => type)
  }

  #receive(frame: RunnerFrame | undefined): void {
    if (frame === undefined) return
    this.frames.push(frame)
    const ready = this.#waits.filter(({ type }) => type === frame.type)
    this.#waits = this.#waits.filter(({ type }) => type !== frame.type)
    for (const { resolve } of ready) resolve(frame)
  }
}

describe("Runner", () => {
  test("greets, loads, answers and ends with 0", async () => {
    const bench = await Bench.loaded()
    bench.send({ type: "answer", id: 1, request: ask("Hello") })
    bench.send({ type: "render", id: 2, request: ask("Hello") })
    bench.send({ type: "status", id: 3 })
    while (!bench.frames.some((frame) => isDone(frame, 1))) await bench.next("event")
    bench.send({ type: "stop" })
    expect(await bench.exit).toBe(0)
    expect(bench.types().slice(0, 2)).toEqual(["hello", "ready"])
    expect(bench.types()).toEqual(expect.arrayContaining(["rendered", "status"]))
  })

  test("passes on what a model goes on without", async () => {
    const bench = new Bench((_, { warn }) => {
      warn("no disk")
      return Promise.resolve(new FakeModel())
    })
    const warning = bench.next("warning")
    bench.send({ type: "load", options: LOAD })
    expect(await warning).toEqual({ type: "warning", message: "no disk" })
  })

  test("says why a model cannot be loaded", async () => {
    const bench = new Bench(() => Promise.reject(new CriaError("invalid-input", "no model")))
    const failed = bench.next("load-failed")
    bench.runner.handle({ type: "load", options: LOAD })
    expect(await failed).toMatchObject({ failure: { code: "invalid-input", message: "no model" } })
  })

  test("a request that fails is alone in that", async () => {
    const bench = await Bench.loaded()
    const failed = bench.next("request-failed")
    bench.send({ type: "answer", id: 1, request: ask("") })
    expect(await failed).toMatchObject({ id: 1, failure: { code: "invalid-input" } })
    const rendered = bench.next("rendered")
    bench.send({ type: "render", id: 2, request: ask("x") })
    expect(await rendered).toMatchObject({ id: 2, prompt: "x" })
  })

  test("when the engine breaks, all requests fail with the reason, and the process ends", async () => {
    let steps = 0
    const bench = await Bench.loaded({
      delay: () => (++steps < 3 ? Promise.resolve() : Promise.reject(new Error("the GPU is gone"))),
    })
    for (const id of [1, 2])
      bench.send({ type: "answer", id, request: ask(`Hello ${id}`, { maxTokens: 100 }) })
    expect(await bench.exit).toBe(1)
    const failures = bench.frames.filter((frame) => frame.type === "request-failed")
    expect(failures.map(({ id, failure }) => [id, failure.message])).toEqual([
      [1, "the GPU is gone"],
      [2, "the GPU is gone"],
    ])
    expect(bench.frames.find((frame) => frame.type === "broken")?.failure.message).toBe(
      "the GPU is gone",
    )
  })

  test("ends once, with a status that says whether its model could be freed", async () => {
    const bench = await Bench.loaded()
    bench.send({ type: "stop" })
    bench.send({ type: "stop" })
    expect(await bench.exit).toBe(0)
    const model = new FakeModel()
    model[Symbol.asyncDispose] = () => Promise.reject(new Error("stuck"))
    const stubborn = new Bench(() => Promise.resolve(model))
    const ready = stubborn.next("ready")
    stubborn.send({ type: "load", options: LOAD })
    await ready
    stubborn.send({ type: "stop" })
    expect(await stubborn.exit).toBe(1)
  })

  test("is given time while it still writes what outlives it, and ended when it hangs", async () => {
    const disposal = Promise.withResolvers<void>()
    let hooks: Parameters<RunnerParts["load"]>[1] | undefined
    const bench = new Bench((_, given) => {
      hooks = given
      const model = new FakeModel()
      model[Symbol.asyncDispose] = () => disposal.promise
      return Promise.resolve(model)
    })
    const ready = bench.next("ready")
    bench.send({ type: "load", options: LOAD })
    await ready
    hooks?.onSaving()
    let code: number | undefined
    void bench.exit.then((status) => (code = status))
    bench.send({ type: "stop" })
    for (let pieces = 0; pieces < 10; pieces++) {
      bench.timers.advance(2000)
      const saving = bench.next("saving")
      hooks?.onSaving()
      await saving
    }
    expect(code).toBeUndefined()
    expect(bench.types().filter((type) => type === "saving")).toHaveLength(10)
    bench.timers.advance(3000)
    expect(await bench.exit).toBe(1)
  })

  test("ends as soon as everything is written", async () => {
    const disposal = Promise.withResolvers<void>()
    const model = new FakeModel()
    model[Symbol.asyncDispose] = () => disposal.promise
    const bench = new Bench(() => Promise.resolve(model))
    const ready = bench.next("ready")
    bench.send({ type: "load", options: LOAD })
    await ready
    bench.send({ type: "stop" })
    disposal.resolve()
    expect(await bench.exit).toBe(0)
    expect(bench.timers.pending).toBe(0)
  })

  test("tells who watches what the engine does, at most so often, until it is told to stop", async () => {
    const bench = await Bench.loaded()
    const steps = () =>
      bench.frames.flatMap((frame) =>
        frame.type === "status" ? [frame.status.counters.steps] : [],
      )
    let status = bench.next("status")
    bench.send({ type: "watch", id: 9, intervalMs: 1000 })
    await status
    for (const id of [1, 2]) {
      bench.send({ type: "answer", id, request: ask(`Hello ${id}`, { maxTokens: 20 }) })
      while (!bench.frames.some((frame) => isDone(frame, id))) await bench.next("event")
    }
    expect(steps()).toEqual([0])
    status = bench.next("status")
    bench.timers.advance(1000)
    await status
    expect(steps()).toHaveLength(2)
    expect(steps().at(-1)).toBeGreaterThanOrEqual(40)
    bench.send({ type: "abort", id: 9 })
    bench.send({ type: "stop" })
    await bench.exit
    expect(steps()).toHaveLength(2)
    expect(bench.types()).not.toContain("request-failed")
    expect(bench.timers.pending).toBe(0)
  })
})

function isDone(frame: RunnerFrame, id: number): boolean {
  return frame.type === "event" && frame.id === id && frame.event.kind === "done"
}
