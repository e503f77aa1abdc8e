import { describe, expect, test } from "bun:test"

import type { TierEntry } from "./prefix-tier.ts"
import { SAMPLING_DEFAULTS } from "./sampling.ts"
import type { Priority } from "./scheduler.ts"
import { collect, expected, KeptTier, Machine, PREFIX, run, SEED } from "./test-machine.ts"

describe("Engine, a tier that has to be read first", () => {
  /** States come when the test says so. */
  class Disk extends KeptTier {
    readonly reading = Promise.withResolvers<void>()
    /** Begun and not over. */
    reads = 0;

    override *entries(scope: string): Iterable<TierEntry> {
      for (const entry of super.entries(scope)) {
        const read = async () => {
          this.reads++
          await this.reading.promise
          this.reads--
          return entry.read()
        }
        const { tokens, from } = entry
        yield { tokens, from, isSlow: true, read, forget: () => entry.forget() }
      }
    }
  }

  async function filled(): Promise<Disk> {
    const tier = new Disk(1e6)
    await using machine = new Machine({ tier })
    await machine.ask(PREFIX)
    return tier
  }

  test("keeps only those waiting that it is read for", async () => {
    const tier = await filled()
    await using machine = new Machine({ tier })
    const prompt = [...PREFIX, 1, 2, 3]
    const late = machine.ask(prompt)
    const other = await machine.ask(run(500, 20))
    expect(other.tokens).toEqual(expected(run(500, 20)))
    expect(machine.engine.status).toMatchObject({ running: 0, waiting: 1 })
    tier.reading.resolve()
    const { tokens, usage } = await late
    expect(tokens).toEqual(expected(prompt))
    expect(usage.cachedTokens).toBe(100)
  })

  test("reads for a few at a time: what is read lies in memory until its request starts", async () => {
    const tier = await filled()
    await using machine = new Machine({ tier })
    const prompts = [1, 2, 3, 4, 5, 6].map((tail) => [...PREFIX, tail])
    const late = prompts.map((prompt) => machine.ask(prompt))
    await machine.ask(run(500, 20))
    expect(tier.reads).toBe(2)
    tier.reading.resolve()
    const answers = await Promise.all(late)
    expect(answers.map(({ tokens }) => tokens)).toEqual(prompts.map((prompt) => expected(prompt)))
    expect(answers.map(({ usage }) => usage.cachedTokens)).toEqual(prompts.map(() => 100))
  })

  test("reads first for whom it is the turn of, whoever it has read for", async () => {
    const tier = await filled()
    tier.reading.resolve()
    await using machine = new Machine({ tier, parallelMax: 1 })
    const running = machine.ask(run(500, 20), { maxTokens: 30, priority: "interactive" })
    await machine.begun(1)
    const done: string[] = []
    const ask = (name: string, priority: Priority, tail: number) =>
      machine.ask([...PREFIX, tail], { priority }).then(() => done.push(name))
    const late = ["a", "b", "c"].map((name, i) => ask(name, "batch", i))
    await machine.begun(10)
    late.push(ask("urgent", "interactive", 9))
    await Promise.all([running, ...late])
    expect(done[0]).toBe("urgent")
  })

  test("computes what cannot be read", async () => {
    const tier = await filled()
    await using machine = new Machine({ tier })
    const late = machine.ask([...PREFIX, 1])
    tier.reading.reject(new Error("the disk is gone"))
    const { tokens, usage } = await late
    expect(tokens).toEqual(expected([...PREFIX, 1]))
    expect(usage.cachedTokens).toBe(0)
  })

  test("lets a request go that leaves meanwhile", async () => {
    const tier = await filled()
    await using machine = new Machine({ tier })
    const controller = new AbortController()
    const sampling = { ...SAMPLING_DEFAULTS, seed: SEED }
    const events = machine.engine.submit(
      { prompt: [...PREFIX, 1], sampling, maxTokens: 4 },
      controller.signal,
    )
    const left = collect(events).catch((error: unknown) => error)
    controller.abort(new Error("gone"))
    expect(await left).toEqual(new Error("gone"))
    await machine.ask(run(0, 5))
    expect(machine.engine.status).toMatchObject({ running: 0, waiting: 0 })
    expect(machine.backend.liveSamplers).toBe(0)
    tier.reading.resolve()
  })

  test("puts a long prefix back piece by piece, and others go on meanwhile", async () => {
    const tier = new KeptTier(1e6)
    const sizes = { tier, cells: 8192, contextTokens: 8192 }
    {
      await using machine = new Machine(sizes)
      await machine.ask(run(0, 4000))
    }
    expect([...tier.entries("")].length).toBe(4)
    await using machine = new Machine(sizes)
    const other = machine.ask(run(500, 20), { maxTokens: 20 })
    await machine.begun(2)
    const restored: number[] = []
    const late = machine.ask(run(0, 4010))
    for (const steps of [3, 4, 5, 6]) {
      await machine.begun(steps)
      restored.push(machine.engine.status.counters.restoredTokens)
    }
    expect(restored).toEqual([1024, 2048, 3072, 4000])
    expect((await late).usage.cachedTokens).toBe(4000)
    expect((await late).tokens).toEqual(expected(run(0, 4010)))
    expect((await other).tokens).toEqual(expected(run(500, 20), 20))
    // Nobody is there to wait for: all at once.
    await using alone = new Machine(sizes)
    expect((await alone.ask([...run(0, 4000), 9, 9, 9])).usage.cachedTokens).toBe(4000)
    expect(alone.steps[0]).toEqual({ tokens: 3, rows: 1 })
  })

  test("copies what is cached as soon as there is nothing else to do", async () => {
    const tier = new KeptTier(1e6)
    await using machine = new Machine({ tier, cells: 4096, contextTokens: 4096 })
    await machine.ask(run(0, 3000))
    while (machine.engine.status.counters.savedTokens < 3003) await Bun.sleep(0)
    expect([...tier.entries("")].map(({ from, tokens }) => [from, tokens.length])).toEqual([
      [0, 1024],
      [1024, 2048],
      [2048, 3003],
    ])
  })
})
