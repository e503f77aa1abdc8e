import { describe, expect, test } from "bun:test"

import type { EngineStatus } from "./engine-status.ts"
import { Engine } from "./engine.ts"
import { FakeBackend, fakeVocabulary } from "./fake-backend.ts"
import { SAMPLING_DEFAULTS } from "./sampling.ts"
import type { GenerateRequest } from "./sequence.ts"
import { collect, expected, Machine, PREFIX, run, SEED, VOCABULARY } from "./test-machine.ts"

/** Names in the order in which they are done. */
async function order(
  machine: Machine,
  requests: Readonly<Record<string, Partial<GenerateRequest>>>,
): Promise<string[]> {
  const done: string[] = []
  await Promise.all(
    Object.entries(requests).map(async ([name, more], i) => {
      await machine.ask(run(200 * i, 40), more)
      done.push(name)
    }),
  )
  return done
}

describe("Engine, who runs", () => {
  test("serves classes in their order when not all fit", async () => {
    await using machine = new Machine({ parallelMax: 1 })
    const done = await order(machine, {
      batch: { priority: "batch" },
      normal: {},
      interactive: { priority: "interactive" },
    })
    expect(done).toEqual(["interactive", "normal", "batch"])
  })

  test("lets a lower class give way at once, and go on later as if nothing had been", async () => {
    await using machine = new Machine({ parallelMax: 1 })
    const done: string[] = []
    const batch = machine.ask(run(0, 40), { priority: "batch", maxTokens: 50 })
    void batch.then(() => done.push("batch"))
    await machine.begun(5)
    const urgent = await machine.ask(run(500, 40), { priority: "interactive" })
    done.push("urgent")
    expect(urgent.tokens).toEqual(expected(run(500, 40)))
    const { tokens, usage } = await batch
    expect(tokens).toEqual(expected(run(0, 40), 50))
    expect(usage.preemptions).toBe(1)
    expect(done).toEqual(["urgent", "batch"])
  })

  test("lets nobody give way for an equal", async () => {
    await using machine = new Machine({ parallelMax: 1 })
    const first = machine.ask(run(0, 40), { maxTokens: 50 })
    await machine.begun(5)
    const second = machine.ask(run(500, 40))
    expect((await first).usage.preemptions).toBe(0)
    expect((await second).usage.preemptions).toBe(0)
  })

  test("takes the youngest away when cells run out", async () => {
    await using machine = new Machine({ cells: 200 })
    const old = machine.ask(run(0, 60), { maxTokens: 80 })
    await machine.begun(2)
    const young = machine.ask(run(500, 60), { maxTokens: 80 })
    expect((await old).usage.preemptions).toBe(0)
    expect((await young).usage.preemptions).toBeGreaterThan(0)
    expect((await young).tokens).toEqual(expected(run(500, 60), 80))
  })

  test("shares steps among clients, however many requests one of them has", async () => {
    await using machine = new Machine({ parallelMax: 1 })
    const requests: Record<string, Partial<GenerateRequest>> = {}
    for (let i = 0; i < 4; i++) requests[`greedy ${i}`] = { client: "greedy" }
    requests["modest"] = { client: "modest" }
    expect((await order(machine, requests)).indexOf("modest")).toBeLessThanOrEqual(1)
  })

  test("shares steps among groups, however many clients one of them has", async () => {
    await using machine = new Machine({ parallelMax: 1 })
    const requests: Record<string, Partial<GenerateRequest>> = {}
    for (let i = 0; i < 4; i++) requests[`greedy ${i}`] = { client: `greedy/${i}` }
    requests["modest"] = { client: "modest" }
    expect((await order(machine, requests)).indexOf("modest")).toBeLessThanOrEqual(1)
  })

  test("refuses with busy when too many wait, and takes more when they are done", async () => {
    await using machine = new Machine({ parallelMax: 1, queueMax: 2 })
    const running = machine.ask(run(0, 40), { maxTokens: 20 })
    await machine.begun(2)
    const waiting = [machine.ask(run(200, 40)), machine.ask(run(400, 40))]
    const refused = await machine.ask(run(600, 40)).catch((error: unknown) => error)
    expect(refused).toMatchObject({
      code: "busy",
      message: "Cannot queue the request: 2 wait already",
      retryAfterSeconds: 1,
    })
    expect(machine.backend.liveSamplers).toBe(3)
    await Promise.all([running, ...waiting])
    expect((await machine.ask(run(600, 40))).tokens).toEqual(expected(run(600, 40)))
  })

  test("frees a request that is aborted while its prompt is read, and shares what it computed", async () => {
    await using machine = new Machine({ batchTokens: 32 })
    const controller = new AbortController()
    const sampling = { ...SAMPLING_DEFAULTS, seed: SEED }
    const events = machine.engine.submit(
      { prompt: PREFIX, sampling, maxTokens: 4 },
      controller.signal,
    )
    await machine.begun(3)
    controller.abort(new Error("gone"))
    expect(await collect(events).catch((error: unknown) => error)).toEqual(new Error("gone"))
    const answer = await machine.ask(PREFIX)
    expect(answer.tokens).toEqual(expected(PREFIX))
    // Two steps were over; the third was cut short.
    expect(answer.usage.cachedTokens).toBe(64)
  })
})

/** A clock that the test moves. */
class Clock {
  ms = 0
  readonly now = () => this.ms
}

describe("Engine, classes under load", () => {
  test("does not push out again who waited longest and got a place", async () => {
    const clock = new Clock()
    await using machine = new Machine({ parallelMax: 1, now: clock.now })
    const first = machine.ask(run(0, 4), { priority: "interactive", maxTokens: 4 })
    await machine.begun(1)
    const batch = machine.ask(run(100, 4), { priority: "batch", maxTokens: 30 })
    clock.ms = 40_000
    // Each of them comes before the other has ended: there is always one that is more urgent.
    const urgent = run(0, 12).map((i) =>
      machine.ask(run(1000 + 10 * i, 4), { priority: "interactive", maxTokens: 4 }),
    )
    const { usage, tokens } = await batch
    expect(tokens).toEqual(expected(run(100, 4), 30))
    expect(usage.preemptions).toBe(0)
    await Promise.all([first, ...urgent])
  })

  test("lets who may push others out pass one that has to wait for room", async () => {
    await using machine = new Machine({ cells: 300, contextTokens: 300 })
    const done: string[] = []
    const ask = async (name: string, prompt: number[], more: Partial<GenerateRequest>) => {
      const { usage } = await machine.ask(prompt, more)
      done.push(name)
      return usage.preemptions
    }
    const batch = ask("batch", run(0, 100), { priority: "batch", maxTokens: 60 })
    const normal = ask("normal", run(500, 60), { maxTokens: 60 })
    await machine.begun(10)
    // It would fit only if normal gave way too, and that is its equal.
    const large = ask("large", run(1000, 250), { maxTokens: 4 })
    await machine.begun(12)
    const urgent = ask("urgent", run(2000, 60), { priority: "interactive", maxTokens: 4 })
    await urgent
    expect(done).toEqual(["urgent"])
    expect(await batch).toBe(1)
    expect([await normal, await large]).toEqual([0, 0])
  })

  test("makes nobody give way for what does not fit all the same", async () => {
    await using machine = new Machine({ cells: 300, contextTokens: 300 })
    const normal = machine.ask(run(0, 150), { maxTokens: 60 })
    const batch = machine.ask(run(500, 20), { priority: "batch", maxTokens: 60 })
    await machine.begun(10)
    const large = machine.ask(run(1000, 200), { maxTokens: 4 })
    const { usage } = await batch
    expect(usage.preemptions).toBe(0)
    await Promise.all([normal, large])
  })

  test("gives a client that comes new a place of one that has many", async () => {
    const clock = new Clock()
    await using machine = new Machine({ parallelMax: 3, now: clock.now })
    const many = run(0, 6).map((i) =>
      machine.ask(run(100 * i, 11), { client: "greedy", maxTokens: 60 }),
    )
    await machine.begun(5)
    const modest = machine.ask(run(1000, 10), { client: "modest", maxTokens: 4 })
    await machine.begun(10)
    expect(machine.engine.status.counters.preemptions).toBe(0)
    clock.ms = 2000
    await modest
    expect(machine.engine.status).toMatchObject({ running: 3, counters: { preemptions: 1 } })
    for (const [i, answer] of (await Promise.all(many)).entries())
      expect(answer.tokens).toEqual(expected(run(100 * i, 11), 60))
  })

  test("keeps what a request that had to give way will go on with, as long as other cache is left", async () => {
    await using machine = new Machine({ cells: 320, contextTokens: 300, parallelMax: 1 })
    const batch = machine.ask(run(0, 100), { priority: "batch", maxTokens: 40 })
    await machine.begun(10)
    for (const from of [500, 1000, 1500])
      await machine.ask(run(from, 100), { priority: "interactive", maxTokens: 1 })
    const before = machine.backend.computedTokens
    await batch
    // It went on where it was, and computed no token of its prompt again.
    expect(machine.backend.computedTokens - before).toBeLessThan(40)
  })

  test("keeps the place of a request whose context shifts", async () => {
    await using machine = new Machine({ contextTokens: 32, parallelMax: 1 })
    const done: string[] = []
    const shifting = machine.ask(run(0, 20), { maxTokens: 60, shift: { keepTokens: 4 } })
    void shifting.then(() => done.push("shifting"))
    await machine.begun(3)
    const other = machine.ask(run(500, 20), { client: "other" })
    void other.then(() => done.push("other"))
    expect((await shifting).usage.shiftedTokens).toBeGreaterThan(0)
    await other
    expect(done).toEqual(["shifting", "other"])
  })
})

describe("Engine, steps that cannot be computed", () => {
  test("fails the one whose fault it is, and nobody else", async () => {
    const rowsOf = { last: 0 }
    await using machine: Machine = new Machine({
      codeOf: () => {
        rowsOf.last = machine.steps.at(-1)?.rows ?? 0
        const { arrays } = machine.backend
        const tokens = machine.steps.at(-1)?.tokens ?? 0
        return arrays.token.subarray(0, tokens).includes(666) ? -3 : undefined
      },
    })
    const answers = [run(0, 10), [...run(100, 10), 666], run(200, 10)].map((prompt) =>
      machine.ask(prompt).catch((error: unknown) => error),
    )
    const [first, guilty, third] = await Promise.all(answers)
    expect(first).toMatchObject({ tokens: expected(run(0, 10)) })
    expect(guilty).toMatchObject({
      code: "internal",
      message: "Cannot compute a step: llama.cpp returned -3",
    })
    expect(third).toMatchObject({ tokens: expected(run(200, 10)) })
    expect(machine.engine.status.counters).toMatchObject({ finished: 2, failed: 1 })
  })

  test("goes on when it was nobody's fault", async () => {
    await using machine = new Machine({ codeOf: (step) => (step === 2 ? -2 : undefined) })
    const prompts = [run(0, 10), run(100, 10)]
    const answers = await Promise.all(prompts.map((prompt) => machine.ask(prompt)))
    expect(answers.map(({ tokens }) => tokens)).toEqual(prompts.map((p) => expected(p)))
  })

  test("says that the backend broke, whatever broke it", async () => {
    class Breaking extends FakeBackend {
      override removeSequence(): boolean {
        throw new Error("device lost")
      }
    }
    const backend = new Breaking({ cells: 64, vocabularyTokens: VOCABULARY })
    const engine = new Engine(backend, fakeVocabulary(VOCABULARY), { now: () => 0 })
    const sampling = { ...SAMPLING_DEFAULTS, seed: SEED }
    const ask = (prompt: number[]) => collect(engine.submit({ prompt, sampling, maxTokens: 4 }))
    await ask(run(0, 40))
    // There is no room without giving the first one up.
    expect(await ask(run(100, 40)).catch((error: unknown) => error)).toMatchObject({
      message: "device lost",
    })
    expect(await engine.broken).toMatchObject({ message: "device lost" })
    await engine[Symbol.asyncDispose]()
    expect(backend.isDisposed).toBe(true)
  })
})

describe("Engine, what it says about itself", () => {
  test("tells of each request what it does, and who comes next", async () => {
    await using machine = new Machine({ parallelMax: 2, batchTokens: 32 })
    const asked = [
      machine.ask(run(0, 10), { maxTokens: 30, client: "a" }),
      machine.ask(run(1000, 200)),
      machine.ask(run(2000, 5), { priority: "batch" }),
      machine.ask(run(3000, 6)),
    ]
    await machine.begun(3)
    const { requests, counters } = machine.engine.status
    expect(counters).toMatchObject({ accepted: 4, finished: 0, completionTokens: 2 })
    expect(requests.map(({ state, position }) => [state, position])).toEqual([
      ["answering", undefined],
      ["reading", undefined],
      ["waiting", 1],
      ["waiting", 2],
    ])
    expect(requests[0]).toMatchObject({ client: "a", promptTokens: 10, completionTokens: 2 })
    expect(requests[1]?.computedTokens).toBeWithin(1, 100)
    expect(requests[2]).toMatchObject({ priority: "normal", promptTokens: 6, computedTokens: 0 })
    await Promise.all(asked)
    expect(machine.engine.status).toMatchObject({
      requests: [],
      counters: { accepted: 4, finished: 4, aborted: 0, failed: 0 },
    })
  })

  test("counts what came from the cache, and describes the last step", async () => {
    await using machine = new Machine({
      decodeMicros: ({ tokens }) => tokens * 1000,
    })
    await machine.ask(PREFIX)
    await machine.ask([...PREFIX, 1])
    const { counters, step } = machine.engine.status
    expect(counters.cachedTokens).toBe(100)
    expect(counters.reusedGraphs).toBe(counters.steps)
    expect(step).toMatchObject({ tokens: 1, promptTokens: 0, rows: 1, decodeMs: 1, sampleMs: 0 })
  })

  test("gives its status after steps as long as somebody listens", async () => {
    const machine = new Machine()
    const seen: EngineStatus[] = []
    const listener = (async () => {
      for await (const status of machine.engine.statuses()) seen.push(status)
    })()
    await machine.ask(run(0, 10))
    const controller = new AbortController()
    const brief = machine.engine.statuses(controller.signal)
    expect((await brief.next()).value).toMatchObject({ running: 0 })
    const last = brief.next()
    controller.abort()
    expect((await last).done).toBe(true)
    await machine.engine[Symbol.asyncDispose]()
    await listener
    expect(seen.map(({ counters }) => counters.steps)).toContain(1)
    expect(seen.at(-1)?.counters.steps).toBe(4)
  })
  test("misses no last word, however seldom it is asked", async () => {
    await using machine = new Machine()
    const statuses = machine.engine.statuses()
    await statuses.next()
    await machine.ask(run(0, 10))
    expect((await statuses.next()).value).toMatchObject({ running: 0, counters: { steps: 4 } })
    await statuses.return(undefined)
  })

  test("says so when a request has gone without a step", async () => {
    const held = Promise.withResolvers<void>()
    await using machine = new Machine({ delay: () => held.promise })
    const statuses = machine.engine.statuses()
    const controller = new AbortController()
    const sampling = { ...SAMPLING_DEFAULTS, seed: SEED }
    machine.engine.submit({ prompt: [1, 2], sampling, maxTokens: 4 }, controller.signal)
    await machine.begun(1)
    expect((await statuses.next()).value).toMatchObject({ running: 1 })
    controller.abort()
    held.resolve()
    let running = 1
    while (running > 0) running = (await statuses.next()).value?.running ?? 0
    expect(machine.engine.status.counters.aborted).toBe(1)
    await statuses.return(undefined)
  })
})
