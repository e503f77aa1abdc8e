import { describe, expect, test } from "bun:test"

import { Engine, type EngineOptions } from "./engine.ts"
import { FakeBackend, type FakeOptions, fakeToken, fakeVocabulary } from "./fake-backend.ts"
import type { FakeMemory } from "./fake-cells.ts"
import { MemoryTier, type PrefixTier } from "./prefix-tier.ts"
import { SAMPLING_DEFAULTS } from "./sampling.ts"
import type { EngineEvent, GenerateRequest, Usage } from "./sequence.ts"

const VOCABULARY = 4096
const SEED = 7

/** Tokens that follow each other from `from` on: others with another `from` have nothing in common with them. */
const run = (from: number, count: number) => Array.from({ length: count }, (_, i) => from + i)

const PREFIX = run(1000, 100)

/** A fake machine, an engine on it, and what happened at each step. */
class Machine implements AsyncDisposable {
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

interface Answer {
  readonly tokens: number[]
  readonly usage: Usage
}

async function collect(events: AsyncIterable<EngineEvent>): Promise<Answer> {
  for await (const event of events)
    if (event.kind === "done") return { tokens: [...event.completion], usage: event.usage }
  throw new Error("no done event")
}

/** What the fake answers to a prompt when it is alone. */
function expected(prompt: readonly number[], maxTokens = 4): number[] {
  const visible = [...prompt]
  while (visible.length < prompt.length + maxTokens)
    visible.push(fakeToken(visible, SEED, VOCABULARY))
  return visible.slice(prompt.length)
}

/** Tokens that a request computes: its prompt but for what it shares, and all of its answer but for the last. */
const computed = ({ tokens, usage }: Answer) =>
  usage.promptTokens - usage.cachedTokens + tokens.length - 1

const sum = (numbers: readonly number[]) => numbers.reduce((total, number) => total + number, 0)

describe.each([["dense"], ["window"], ["recurrent"]] satisfies [FakeMemory][])(
  "Engine, sharing: %s",
  (memory) => {
    test("computes once what requests that arrive together have in common", async () => {
      await using machine = new Machine({ memory })
      const prompts = [
        [...PREFIX, 1, 2, 3],
        [...PREFIX, 4, 5, 6, 7],
      ]
      const answers = await Promise.all(prompts.map((prompt) => machine.ask(prompt)))
      expect(answers.map(({ tokens }) => tokens)).toEqual(prompts.map((p) => expected(p)))
      expect(answers.map(({ usage }) => usage.cachedTokens)).toEqual([0, 100])
      expect(machine.backend.computedTokens).toBe(100 + 3 + 4 + 2 * 3)
    })

    test("computes identical prompts once but for their last token", async () => {
      await using machine = new Machine({ memory })
      const answers = await Promise.all(run(0, 6).map(() => machine.ask(PREFIX)))
      for (const { tokens } of answers) expect(tokens).toEqual(expected(PREFIX))
      expect(answers.map(({ usage }) => usage.cachedTokens).toSorted((a, b) => a - b)).toEqual([
        0,
        ...run(0, 5).map(() => 99),
      ])
      expect(machine.backend.computedTokens).toBe(99 + 6 + 6 * 3)
    })

    test("goes on from an earlier answer, and computes only what is new", async () => {
      await using machine = new Machine({ memory })
      const first = await machine.ask(PREFIX)
      const prompt = [...PREFIX, ...first.tokens, 1, 2, 3]
      const second = await machine.ask(prompt)
      expect(second.tokens).toEqual(expected(prompt))
      // The last token of an answer was never computed.
      expect(second.usage.cachedTokens).toBe(103)
      expect(machine.backend.computedTokens).toBe(computed(first) + computed(second))
    })

    test("shares the beginning of a request that runs", async () => {
      await using machine = new Machine({ memory })
      const long = machine.ask([...PREFIX, 1, 2, 3], { maxTokens: 60 })
      await machine.begun(6)
      const prompt =
        memory === "dense"
          ? [...PREFIX, 9]
          : [...PREFIX, 1, 2, 3, ...expected([...PREFIX, 1, 2, 3], 2), 9]
      const late = await machine.ask(prompt)
      expect(late.tokens).toEqual(expected(prompt))
      if (memory === "dense") expect(late.usage.cachedTokens).toBe(100)
      expect((await long).tokens).toEqual(expected([...PREFIX, 1, 2, 3], 60))
    })

    test("says exactly how much came from the cache", async () => {
      await using machine = new Machine({ memory })
      const asked: Answer[] = []
      for (const prompt of [
        PREFIX,
        [...PREFIX, 1],
        [...PREFIX, 2],
        run(3000, 40),
        [...PREFIX, 1, 8],
      ])
        asked.push(await machine.ask(prompt))
      expect(sum(asked.map((answer) => computed(answer)))).toBe(machine.backend.computedTokens)
      expect(asked.map(({ usage }) => usage.cachedTokens > 0)).toEqual(
        memory === "dense" ? [false, true, true, false, true] : [false, false, true, false, true],
      )
    })

    test("shares nothing for null, and nothing across scopes", async () => {
      await using machine = new Machine({ memory })
      const prompt = [...PREFIX, 1]
      const scopes = ["a", "b", null, null, undefined, "a"]
      const cached: number[] = []
      for (const scope of scopes) {
        const more = scope === undefined ? {} : { cacheScope: scope }
        // Longer each time, so that a whole state of an earlier one would do.
        const own = [...prompt, ...expected(prompt, 3), ...cached.map(() => 5)].slice(
          0,
          prompt.length + (cached.length === 0 ? 0 : 4),
        )
        const answer = await machine.ask(own, more)
        expect(answer.tokens).toEqual(expected(own))
        cached.push(answer.usage.cachedTokens)
      }
      expect(cached).toEqual([0, 0, 0, 0, 0, 104])
    })

    test("shares nothing for null with those that arrive together", async () => {
      await using machine = new Machine({ memory })
      const answers = await Promise.all(
        [null, null, "a", "b"].map((cacheScope) => machine.ask(PREFIX, { cacheScope })),
      )
      expect(answers.map(({ usage }) => usage.cachedTokens)).toEqual([0, 0, 0, 0])
      expect(machine.backend.computedTokens).toBe(4 * 103)
    })

    test("finishes everybody with half the cells that the load needs, as if each were alone", async () => {
      const prompts = run(0, 8).map((i) => run(i * 100, 40))
      await using machine = new Machine({ memory, cells: (8 * 80) / 2 })
      const answers = await Promise.all(prompts.map((p) => machine.ask(p, { maxTokens: 40 })))
      expect(answers.map(({ tokens }) => tokens)).toEqual(prompts.map((p) => expected(p, 40)))
      expect(machine.engine.status.counters.preemptions).toBeGreaterThan(0)
      expect(sum(answers.map(({ usage }) => usage.preemptions))).toBe(
        machine.engine.status.counters.preemptions,
      )
      expect(machine.engine.status).toMatchObject({ running: 0, waiting: 0, activeCells: 0 })
    })

    test("goes on after the context shifted, and says by how much", async () => {
      await using machine = new Machine({ memory, contextTokens: 32 })
      const prompt = run(0, 20)
      const { tokens, usage } = await machine.ask(prompt, {
        maxTokens: 30,
        shift: { keepTokens: 4 },
      })
      const visible = [...prompt]
      const all: number[] = []
      let shifted = 0
      while (all.length < 30) {
        const token = fakeToken(visible, SEED, VOCABULARY)
        all.push(token)
        visible.push(token)
        if (visible.length < 32 || all.length === 30) continue
        visible.splice(4, 14)
        shifted += 14
      }
      expect(tokens).toEqual(all)
      expect(usage).toMatchObject({ shiftedTokens: shifted, completionTokens: 30, cachedTokens: 0 })
      expect(shifted).toBe(28)
    })

    test("keeps prefixes in a tier beyond its own life", async () => {
      const tier = new MemoryTier(1e6)
      let first: Answer
      {
        await using machine = new Machine({ memory, tier })
        first = await machine.ask(PREFIX)
      }
      await using machine = new Machine({ memory, tier })
      const prompt = [...PREFIX, ...first.tokens, 1, 2]
      const answer = await machine.ask(prompt)
      expect(answer.tokens).toEqual(expected(prompt))
      expect(answer.usage.cachedTokens).toBe(103)
      expect(machine.backend.computedTokens).toBe(computed(answer))
      expect(machine.engine.status.counters.restoredTokens).toBe(103)
    })
  },
)

describe("Engine, at the limits", () => {
  test.each([
    ["dense", 99],
    ["recurrent", 0],
  ] satisfies [FakeMemory, number][])(
    "computes the last token of a prompt all of which a tier has: %s",
    async (memory, cachedTokens) => {
      const tier = new MemoryTier(1e6)
      {
        await using machine = new Machine({ memory, tier })
        await machine.ask(PREFIX, { maxTokens: 1 })
      }
      await using machine = new Machine({ memory, tier })
      const { tokens, usage } = await machine.ask(PREFIX)
      expect(tokens).toEqual(expected(PREFIX))
      expect(usage.cachedTokens).toBe(cachedTokens)
    },
  )

  test("lets nobody wait for what it may not share", async () => {
    await using machine = new Machine({ batchTokens: 512 })
    await Promise.all(["a", "b"].map((cacheScope) => machine.ask(PREFIX, { cacheScope })))
    expect(machine.steps[0]).toEqual({ tokens: 200, rows: 2 })
  })

  test("does not admit what would have to give way at once", async () => {
    await using machine = new Machine({ cells: 200 })
    const first = machine.ask(run(0, 60), { maxTokens: 50 })
    await machine.begun(30)
    // 88 cells and 90 are 178: they would fit for 11 steps.
    const second = await machine.ask(run(500, 90), { maxTokens: 50 })
    expect(second.tokens).toEqual(expected(run(500, 90), 50))
    expect([(await first).usage.preemptions, second.usage.preemptions]).toEqual([0, 0])
  })

  test("admits nobody to a backend that has less room than it says, until somebody is done", async () => {
    await using machine: Machine = new Machine({
      codeOf: () => ((machine.steps.at(-1)?.rows ?? 0) > 1 ? 1 : undefined),
    })
    const answers = await Promise.all([1, 2].map((i) => machine.ask(run(i * 100, 10))))
    for (const [i, { tokens }] of answers.entries())
      expect(tokens).toEqual(expected(run((i + 1) * 100, 10)))
    expect(machine.engine.status.counters.preemptions).toBe(1)
  })
})

describe("Engine, whole states", () => {
  test("leaves a state where prompts part, so that the third one shares", async () => {
    await using machine = new Machine({ memory: "recurrent" })
    const cached: number[] = []
    for (const tail of [1, 2, 3])
      cached.push((await machine.ask([...PREFIX, tail, tail])).usage.cachedTokens)
    expect(cached).toEqual([0, 0, 100])
  })

  test("takes no snapshot where too little is in common", async () => {
    await using machine = new Machine({ memory: "recurrent" })
    const cached: number[] = []
    for (const tail of [1, 2, 3])
      cached.push((await machine.ask([...run(0, 31), tail, tail])).usage.cachedTokens)
    expect(cached).toEqual([0, 0, 0])
  })
})

describe("Engine, counting", () => {
  test("counts what is shared once, though the tier could not give what it promised", async () => {
    const tier: PrefixTier = {
      find: (_, { tokens }) => ({
        tokens: Int32Array.from({ length: 150 }, (__, i) => tokens[i] ?? 0),
        agreeing: 150,
        read: () => new Uint8Array(8),
      }),
      has: () => true,
      put: () => {},
    }
    class Damaged extends FakeBackend {
      override restoreSequence(): boolean {
        return false
      }
    }
    const backend = new Damaged({ cells: 1024, vocabularyTokens: VOCABULARY })
    const options = { now: () => 0, tier }
    await using engine = new Engine(backend, fakeVocabulary(VOCABULARY), options)
    const sampling = { ...SAMPLING_DEFAULTS, seed: SEED }
    const ask = (prompt: number[]) => collect(engine.submit({ prompt, sampling, maxTokens: 4 }))
    const first = await ask([...run(0, 50), ...run(500, 150)])
    const second = await ask([...run(0, 50), ...run(900, 150)])
    expect([first.usage.cachedTokens, second.usage.cachedTokens]).toEqual([0, 50])
    expect(backend.computedTokens).toBe(computed(first) + computed(second))
  })

  test("does not count what a request takes over from itself after it gave way", async () => {
    await using machine = new Machine({ cells: 160 })
    const answers = await Promise.all(
      run(0, 4).map((i) => machine.ask(run(i * 100, 30), { maxTokens: 40 })),
    )
    expect(machine.engine.status.counters.preemptions).toBeGreaterThan(0)
    expect(answers.map(({ usage }) => usage.cachedTokens)).toEqual([0, 0, 0, 0])
  })
})

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

  test("refuses with busy when too many wait, and takes more when they are done", async () => {
    await using machine = new Machine({ parallelMax: 1, queueMax: 2 })
    const running = machine.ask(run(0, 40), { maxTokens: 20 })
    await machine.begun(2)
    const waiting = [machine.ask(run(200, 40)), machine.ask(run(400, 40))]
    const refused = await machine.ask(run(600, 40)).catch((error: unknown) => error)
    expect(refused).toMatchObject({
      code: "busy",
      message: "Cannot queue the request: 2 others wait already",
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

/** A step takes 1 ms for each answer and 0.1 ms for each token of a prompt. */
const decodeMicros = ({ tokens, rows }: { tokens: number; rows: number }) =>
  1000 * rows + 100 * Math.max(0, tokens - rows)

describe("Engine, a burst of prompts that do not fit together", () => {
  test("admits those that fit, and nobody has to give way", async () => {
    await using machine = new Machine({ cells: 256, rows: 8, batchTokens: 32 })
    const prompts = run(0, 6).map((i) => run(500 * i, 100))
    const answers = await Promise.all(
      prompts.map((prompt) => machine.ask(prompt, { maxTokens: 8 })),
    )
    expect(answers.map(({ tokens }) => tokens)).toEqual(prompts.map((p) => expected(p, 8)))
    expect(machine.engine.status.counters.preemptions).toBe(0)
  })

  test("counts what they have in common once", async () => {
    await using machine = new Machine({ cells: 256, rows: 8, batchTokens: 32 })
    const answers = run(0, 6).map((i) => machine.ask([...PREFIX, 2000 + i], { maxTokens: 4 }))
    await machine.begun(5)
    expect(machine.engine.status).toMatchObject({ running: 6, waiting: 0 })
    await Promise.all(answers)
  })
})

describe("Engine, a long prompt beside answers", () => {
  test("never makes a step more than three times as long, and comes to its end", async () => {
    await using machine = new Machine({ cells: 8192, batchTokens: 512, decodeMicros })
    const answers = run(0, 4).map((i) => machine.ask(run(10 * i, 5), { maxTokens: 400 }))
    await machine.begun(50)
    const before = machine.steps.length
    const long = await machine.ask(run(0, 2000).toReversed(), { maxTokens: 1 })
    const during = machine.steps.slice(before)
    const promptSteps = during.filter(({ tokens }) => tokens > 8)
    // 4 ms without: 8 ms more are 80 tokens.
    expect(Math.max(...during.map((step) => decodeMicros(step)))).toBeLessThanOrEqual(3 * 4000)
    expect(promptSteps.length).toBeGreaterThanOrEqual(2000 / 80)
    // In whole multiples of 16.
    expect(promptSteps.length).toBeLessThan(2000 / 64 + 10)
    expect(long.usage.completionTokens).toBe(1)
    for (const { rows } of promptSteps) expect(rows).toBeGreaterThanOrEqual(4)
    for (const [i, answer] of (await Promise.all(answers)).entries())
      expect(answer.tokens).toEqual(expected(run(10 * i, 5), 400))
  })

  test("is not starved by short prompts that keep coming", async () => {
    await using machine = new Machine({ cells: 8192, rows: 8, batchTokens: 64, decodeMicros })
    const end = new AbortController()
    const visitor = async (i: number) => {
      for (let turn = 0; !end.signal.aborted && turn < 200; turn++) {
        const from = (i * 1000 + turn * 61) % 4000
        await machine.ask(run(from, 50), { maxTokens: 2, cacheScope: null })
      }
    }
    const visitors = run(0, 5).map((i) => visitor(i))
    await machine.begun(10)
    const before = machine.steps.length
    const long = await machine.ask(run(0, 2000).toReversed(), { maxTokens: 1 })
    end.abort()
    await Promise.all(visitors)
    expect(long.tokens).toEqual(expected(run(0, 2000).toReversed(), 1))
    const steps = machine.steps.length - before
    // A quarter of each step's prompt tokens is its own, once it is the oldest.
    expect(steps).toBeLessThan(2000 / (64 / 4) + 60)
  })
})
