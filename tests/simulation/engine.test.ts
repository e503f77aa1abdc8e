/**
 * Plays random loads against the engine and checks every invariant of the design at every step.
 *
 * One number, the seed, decides everything; a failure prints it. `CRIA_SIMULATIONS` runs more of them.
 *
 * @module
 */

import { describe, expect, test } from "bun:test"

import { Engine } from "../../src/engine/engine.ts"
import { FakeBackend, fakeToken, fakeVocabulary } from "../../src/engine/fake-backend.ts"
import type { FakeMemory } from "../../src/engine/fake-cells.ts"
import { MemoryTier } from "../../src/engine/prefix-tier.ts"
import { SAMPLING_DEFAULTS } from "../../src/engine/sampling.ts"
import type { EngineEvent, GenerateRequest } from "../../src/engine/sequence.ts"
import { random } from "./random.ts"

const RUNS = Number(process.env["CRIA_SIMULATIONS"] ?? 300)
const VOCABULARY = 64
const END = VOCABULARY - 1

/** The answer that a request gets when it is alone, computed without the engine. */
function alone({ prompt, maxTokens, sampling, shift }: GenerateRequest, context: number): number[] {
  const visible = Array.from(prompt)
  const answer: number[] = []
  while (answer.length < maxTokens) {
    const token = fakeToken(visible, sampling.seed, VOCABULARY)
    if (token === END) break
    visible.push(token)
    answer.push(token)
    if (visible.length < context) continue
    const dropped = shift === undefined ? 0 : Math.floor((visible.length - shift.keepTokens) / 2)
    if (shift === undefined || dropped <= 0) break
    visible.splice(shift.keepTokens, dropped)
  }
  return answer
}

interface Outcome {
  readonly trace: string
  readonly steps: number
  readonly computedTokens: number
  readonly cachedTokens: number
  readonly preemptions: number
  readonly restoredTokens: number
}

interface World {
  readonly pick: (max: number) => number
  readonly contextTokens: number
  /** Beginnings that requests have in common. */
  readonly prefixes: readonly (readonly number[])[]
  /** What was asked for, for the bound on the number of steps. */
  readonly asked: { tokens: number; cached: number }
}

const MEMORIES: readonly FakeMemory[] = ["dense", "dense", "window", "recurrent"]

/** One run: a machine of random size and kind, requests that come, answer, and go away at random moments. */
async function simulate(seed: number): Promise<Outcome> {
  const pick = random(seed)
  const rows = 2 + pick(7)
  const sizes = {
    cells: 64 + pick(400),
    batchTokens: 8 + pick(60),
    rows,
    sequences: rows + 1 + pick(12),
    memory: MEMORIES[pick(MEMORIES.length)] ?? "dense",
    isSlowedByCells: pick(2) === 0,
  }
  const contextTokens = 24 + pick(Math.min(sizes.cells - 24, 160))
  const trace: string[] = []
  const tier = pick(3) === 0 ? new MemoryTier(pick(4000)) : undefined
  const backend: FakeBackend = new FakeBackend({
    ...sizes,
    vocabularyTokens: VOCABULARY,
    onStep: (step) => {
      trace.push(`${step.tokens}/${step.rows}`)
      checkInvariants(step)
    },
    // Now and then a step is cut short, as when an abort arrives.
    codeOf: () => (pick(50) === 0 ? 2 : undefined),
    decodeMicros: ({ tokens }) => 1000 + 300 * tokens,
  })
  const engine = new Engine(backend, fakeVocabulary(VOCABULARY), {
    contextTokens,
    ...(pick(2) === 0 ? { mixedPromptTokens: 1 + pick(sizes.batchTokens) } : {}),
    ...(tier === undefined ? {} : { tier }),
    now: () => trace.length,
  })

  function checkInvariants({ tokens, rows: sampled }: { tokens: number; rows: number }): void {
    const { freeCells, activeCells, cachedCells, totalCells, running } = engine.status
    expect(tokens).toBeLessThanOrEqual(sizes.batchTokens)
    expect(sampled).toBeLessThanOrEqual(rows)
    expect(freeCells + activeCells + cachedCells).toBe(totalCells)
    expect(activeCells + cachedCells).toBe(backend.usedCells)
    expect(freeCells).toBeGreaterThanOrEqual(tokens)
    expect(running).toBeLessThanOrEqual(rows)
  }

  const prefixes = Array.from({ length: 1 + pick(3) }, () => numbers(pick(contextTokens), pick))
  const world: World = { pick, contextTokens, prefixes, asked: { tokens: 0, cached: 0 } }
  await Promise.all(Array.from({ length: 4 + pick(20) }, () => visitor(engine, world)))
  const { running, waiting, activeCells, cachedCells, counters } = engine.status
  expect({ running, waiting, activeCells }).toEqual({ running: 0, waiting: 0, activeCells: 0 })
  expect(backend.usedCells).toBe(cachedCells)
  expect(backend.liveSamplers).toBe(0)
  // Nobody is made to compute the same over and over: what gave way is mostly still there.
  expect(trace.length).toBeLessThanOrEqual(40 + 4 * world.asked.tokens)
  await engine[Symbol.asyncDispose]()
  return {
    trace: trace.join(" "),
    steps: trace.length,
    computedTokens: backend.computedTokens,
    cachedTokens: world.asked.cached,
    preemptions: counters.preemptions,
    restoredTokens: counters.restoredTokens,
  }
}

function numbers(count: number, pick: (max: number) => number): number[] {
  return Array.from({ length: count }, () => pick(END))
}

function randomRequest({ pick, contextTokens, prefixes }: World): GenerateRequest {
  const prefix = prefixes[pick(prefixes.length)] ?? []
  const prompt = [
    ...prefix.slice(0, pick(prefix.length + 1)),
    ...numbers(pick(contextTokens), pick),
  ]
  return {
    prompt: [...prompt, 0].slice(0, 1 + pick(contextTokens - 2)),
    sampling: { ...SAMPLING_DEFAULTS, seed: pick(3) },
    maxTokens: 1 + pick(40),
    ...(pick(6) === 0 ? { cacheScope: pick(2) === 0 ? null : "other" } : {}),
    ...(pick(6) === 0 ? { shift: { keepTokens: pick(8) } } : {}),
    priority: PRIORITIES[pick(PRIORITIES.length)] ?? "normal",
    client: `client ${pick(3)}`,
  }
}

const PRIORITIES = ["interactive", "normal", "normal", "batch"] as const

/** Arrives some time, asks, and reads the answer to its end or goes away in the middle. */
async function visitor(engine: Engine, world: World): Promise<void> {
  const { pick, contextTokens, asked } = world
  for (let turns = pick(40); turns > 0; turns--) await Promise.resolve()
  const request = randomRequest(world)
  asked.tokens += request.prompt.length + request.maxTokens
  const leavesAfter = pick(4) === 0 ? pick(6) : Infinity
  const controller = new AbortController()
  const events = engine.submit(request, controller.signal)
  const expected = alone(request, contextTokens)
  let seen = 0
  try {
    for await (const event of events) {
      if (event.kind === "done") {
        asked.cached += event.usage.cachedTokens
        check(event, expected)
      }
      seen++
      if (seen > leavesAfter && pick(2) === 0) return
      if (seen > leavesAfter) controller.abort(new Error("gone"))
    }
  } catch (error) {
    if (!controller.signal.aborted) throw error
  }
}

function check(event: Extract<EngineEvent, { kind: "done" }>, expected: readonly number[]): void {
  const { usage, completion } = event
  expect([...completion]).toEqual([...expected])
  expect(usage.completionTokens - expected.length).toBeOneOf([0, 1])
  expect(usage.cachedTokens).toBeGreaterThanOrEqual(0)
  expect(usage.cachedTokens).toBeLessThan(usage.promptTokens)
}

describe("engine under random load", () => {
  test(`keeps every invariant in ${RUNS} seeded runs`, async () => {
    const sums = { steps: 0, cachedTokens: 0, preemptions: 0, restoredTokens: 0 }
    for (let seed = 1; seed <= RUNS; seed++) {
      try {
        const outcome = await simulate(seed)
        sums.steps += outcome.steps
        sums.cachedTokens += outcome.cachedTokens
        sums.preemptions += outcome.preemptions
        sums.restoredTokens += outcome.restoredTokens
      } catch (error) {
        throw new Error(`seed ${seed}: ${String(error)}`, { cause: error })
      }
    }
    // The load is heavy enough that all of this happens.
    expect(sums.steps).toBeGreaterThan(RUNS * 10)
    expect(sums.cachedTokens).toBeGreaterThan(RUNS)
    expect(sums.preemptions).toBeGreaterThan(RUNS / 10)
    expect(sums.restoredTokens).toBeGreaterThan(RUNS / 10)
  })

  test("takes the same steps for the same seed", async () => {
    expect((await simulate(42)).trace).toBe((await simulate(42)).trace)
    expect((await simulate(42)).trace).not.toBe((await simulate(43)).trace)
  })
})
