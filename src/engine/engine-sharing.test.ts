import { describe, expect, test } from "bun:test"
import { rejects } from "node:assert/strict"

import { Engine } from "./engine.ts"
import { FakeBackend, fakeToken, fakeVocabulary } from "./fake-backend.ts"
import type { FakeMemory } from "./fake-cells.ts"
import type { PrefixTier, TierEntry } from "./prefix-tier.ts"
import { SAMPLING_DEFAULTS } from "./sampling.ts"
import {
  type Answer,
  collect,
  computed,
  expected,
  KeptTier,
  Machine,
  PREFIX,
  run,
  SEED,
  VOCABULARY,
} from "./test-machine.ts"

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

    test("ends after ten contexts when it may shift for ever", async () => {
      await using machine = new Machine({ memory, contextTokens: 32 })
      const { usage } = await machine.ask(run(0, 20), {
        maxTokens: Infinity,
        shift: { keepTokens: 4 },
      })
      expect(usage.completionTokens).toBe(320)
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
      const tier = new KeptTier(1e6)
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
      const tier = new KeptTier(1e6)
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

  test("leaves states where turns end: the second request with a system prompt shares, and a question again", async () => {
    await using machine = new Machine({ memory: "recurrent" })
    const end = VOCABULARY - 1
    const question = (from: number) => [...PREFIX, end, ...run(from, 40), end, 1, 2, 3]
    const cached: number[] = []
    for (const from of [2000, 3000, 2000])
      cached.push((await machine.ask(question(from))).usage.cachedTokens)
    expect(cached).toEqual([0, 101, 142])
  })

  test("several that leave in one step cost nobody a state", async () => {
    await using machine = new Machine({ memory: "recurrent" })
    await machine.ask(PREFIX)
    const leaving = new AbortController()
    const sampling = { ...SAMPLING_DEFAULTS, seed: SEED }
    const streams = [1, 2].map((tail) =>
      machine.engine.submit({ prompt: run(tail, 20), sampling, maxTokens: 50 }, leaving.signal),
    )
    await machine.begun(machine.steps.length + 3)
    leaving.abort(new Error("gone"))
    await Promise.all(streams.map((stream) => rejects(collect(stream), { message: "gone" })))
    const { tokens, usage } = await machine.ask([...PREFIX, ...expected(PREFIX), 5])
    expect(usage.cachedTokens).toBeGreaterThanOrEqual(PREFIX.length)
    expect(tokens).toEqual(expected([...PREFIX, ...expected(PREFIX), 5]))
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
    const forgotten: string[] = []
    const entry = (tokens: Int32Array): TierEntry => ({
      tokens,
      from: 0,
      read: () => new Uint8Array(8),
      forget: () => void forgotten.push(tokens.join()),
    })
    const tier: PrefixTier = {
      persists: false,
      entries: () => [entry(Int32Array.from([...run(0, 50), ...run(500, 100)]))],
      accepts: () => false,
      hasRoom: () => false,
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
    // What was of no use to the first is not read again: a real tier has it no more.
    expect(forgotten).toHaveLength(1)
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
  test("makes answers come at most three and a half times as late, and comes to its end", async () => {
    await using machine = new Machine({ cells: 8192, batchTokens: 512, decodeMicros })
    const answers = run(0, 4).map((i) => machine.ask(run(10 * i, 5), { maxTokens: 400 }))
    await machine.begun(50)
    const before = machine.steps.length
    const long = await machine.ask(run(0, 2000).toReversed(), { maxTokens: 1 })
    const during = machine.steps.slice(before)
    const promptSteps = during.filter(({ tokens }) => tokens > 8)
    // 4 ms without: 10 ms more are 100 tokens.
    expect(Math.max(...during.map((step) => decodeMicros(step)))).toBeLessThanOrEqual(3.5 * 4000)
    expect(promptSteps.length).toBeGreaterThanOrEqual(2000 / 100)
    // In whole multiples of 4, and carefully as long as nothing is known.
    expect(promptSteps.length).toBeLessThan(2000 / 88 + 10)
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
