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
import { MemoryTier, type PrefixTier, type TierEntry } from "../../src/engine/prefix-tier.ts"
import { SAMPLING_DEFAULTS } from "../../src/engine/sampling.ts"
import type { EngineEvent, GenerateRequest } from "../../src/engine/sequence.ts"
import { CriaError } from "../../src/util/errors.ts"
import { random } from "./random.ts"

const RUNS = Number(process.env["CRIA_SIMULATIONS"] ?? 2000)
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

/** A tier as slow as a disk, from which now and then a state cannot be read. */
class SlowTier implements PrefixTier {
  readonly persists = true
  readonly #memory: MemoryTier
  readonly #pick: (max: number) => number

  constructor(bytesMax: number, pick: (max: number) => number) {
    this.#memory = new MemoryTier(bytesMax)
    this.#pick = pick
  }

  *entries(scope: string): Iterable<TierEntry> {
    for (const entry of this.#memory.entries(scope)) {
      const { tokens, from } = entry
      const forget = () => entry.forget()
      yield { tokens, from, isSlow: true, read: () => this.#read(entry), forget }
    }
  }

  accepts(bytes: number): boolean {
    return this.#memory.accepts(bytes)
  }

  hasRoom(bytes: number): boolean {
    return this.#memory.hasRoom(bytes)
  }

  put(...args: Parameters<MemoryTier["put"]>): void {
    this.#memory.put(...args)
  }

  async #read(entry: TierEntry): Promise<Uint8Array | undefined> {
    for (let turns = this.#pick(60); turns > 0; turns--) await Promise.resolve()
    return this.#pick(8) === 0 ? undefined : entry.read()
  }
}

function randomTier(pick: (max: number) => number): PrefixTier | undefined {
  const bytes = pick(4000)
  return [undefined, new MemoryTier(bytes), new SlowTier(bytes, pick)][pick(3)]
}

interface Outcome {
  readonly trace: string
  readonly steps: number
  readonly computedTokens: number
  readonly cachedTokens: number
  readonly preemptions: number
  readonly restoredTokens: number
  readonly refused: number
  readonly aborted: number
}

interface World {
  readonly pick: (max: number) => number
  readonly contextTokens: number
  /** Beginnings that requests have in common. */
  readonly prefixes: readonly (readonly number[])[]
  /** What was asked for, for the bound on the number of steps. */
  readonly asked: { tokens: number; cached: number; refused: number }
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
  const tier = randomTier(pick)
  let sampledRows = 0
  // On some machines a step takes seconds, so that waiting comes to count.
  const stepMs = [1, 1000, 10_000][pick(3)] ?? 1
  const backend: FakeBackend = new FakeBackend({
    ...sizes,
    vocabularyTokens: VOCABULARY,
    onStep: (step) => {
      trace.push(`${step.tokens}/${step.rows}`)
      sampledRows = step.rows
      checkInvariants(step)
    },
    // Now and then a step is cut short, as when an abort arrives; one of several requests finds no cells, or fails.
    codeOf: () => (pick(40) === 0 ? ([2, 1, -3][sampledRows > 1 ? pick(3) : 0] ?? 2) : undefined),
    decodeMicros: ({ tokens }) => 1000 + 300 * tokens,
  })
  const engine = new Engine(backend, fakeVocabulary(VOCABULARY), {
    contextTokens,
    ...(pick(2) === 0 ? { mixedPromptTokens: 1 + pick(sizes.batchTokens) } : {}),
    ...(tier === undefined ? {} : { tier }),
    ...(pick(3) === 0 ? { queueMax: 1 + pick(8) } : {}),
    ...(pick(3) === 0 ? { parallelMax: 1 + pick(rows) } : {}),
    now: () => trace.length * stepMs,
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
  const world: World = {
    pick,
    contextTokens,
    prefixes,
    asked: { tokens: 0, cached: 0, refused: 0 },
  }
  const visitors = 4 + pick(20)
  await Promise.all(Array.from({ length: visitors }, () => visitor(engine, world)))
  const { running, waiting, activeCells, cachedCells, counters, requests } = engine.status
  expect(requests).toEqual([])
  expect(counters.accepted + counters.refused).toBe(visitors)
  expect(counters.finished + counters.aborted).toBe(counters.accepted)
  expect({ refused: counters.refused, failed: counters.failed }).toEqual({
    refused: world.asked.refused,
    failed: 0,
  })
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
    refused: counters.refused,
    aborted: counters.aborted,
  }
}

function numbers(count: number, pick: (max: number) => number): number[] {
  // END too: turns of a chat end with it.
  return Array.from({ length: count }, () => pick(VOCABULARY))
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
    client: ["a", "b", "b/1", "b/2"][pick(4)] ?? "",
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
  const events = submit(engine, request, controller.signal)
  if (events === undefined) {
    asked.refused++
    return
  }
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

/** Undefined when too many wait. */
function submit(engine: Engine, request: GenerateRequest, signal: AbortSignal) {
  try {
    return engine.submit(request, signal)
  } catch (error) {
    if (error instanceof CriaError && error.code === "busy") return undefined
    throw error
  }
}

function check(event: Extract<EngineEvent, { kind: "done" }>, expected: readonly number[]): void {
  const { usage, completion } = event
  expect([...completion]).toEqual([...expected])
  expect(usage.completionTokens - expected.length).toBeOneOf([0, 1])
  expect(usage.cachedTokens).toBeGreaterThanOrEqual(0)
  expect(usage.cachedTokens).toBeLessThan(usage.promptTokens)
}

/** Seeds of one test, which has to end in the time that a test has. */
const BATCH = 250

describe("engine under random load", () => {
  const sums = {
    steps: 0,
    cachedTokens: 0,
    preemptions: 0,
    restoredTokens: 0,
    refused: 0,
    aborted: 0,
  }

  for (let first = 1; first <= RUNS; first += BATCH) {
    const last = Math.min(RUNS, first + BATCH - 1)
    test(`keeps every invariant with the seeds ${first} to ${last}`, async () => {
      for (let seed = first; seed <= last; seed++) {
        try {
          const outcome = await simulate(seed)
          sums.steps += outcome.steps
          sums.cachedTokens += outcome.cachedTokens
          sums.preemptions += outcome.preemptions
          sums.restoredTokens += outcome.restoredTokens
          sums.refused += outcome.refused
          sums.aborted += outcome.aborted
        } catch (error) {
          throw new Error(`seed ${seed}: ${String(error)}`, { cause: error })
        }
      }
    })
  }

  test("is heavy enough that all of this happens", () => {
    expect(sums.steps).toBeGreaterThan(RUNS * 10)
    expect(sums.cachedTokens).toBeGreaterThan(RUNS)
    expect(sums.preemptions).toBeGreaterThan(RUNS / 10)
    expect(sums.restoredTokens).toBeGreaterThan(RUNS / 10)
    expect(sums.refused).toBeGreaterThan(RUNS / 10)
    expect(sums.aborted).toBeGreaterThan(RUNS)
  })

  test("takes the same steps for the same seed", async () => {
    expect((await simulate(42)).trace).toBe((await simulate(42)).trace)
    expect((await simulate(42)).trace).not.toBe((await simulate(43)).trace)
  })
})
