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
import { SAMPLING_DEFAULTS } from "../../src/engine/sampling.ts"
import type { EngineEvent, GenerateRequest } from "../../src/engine/sequence.ts"
import { random } from "./random.ts"

const RUNS = Number(process.env["CRIA_SIMULATIONS"] ?? 300)
const VOCABULARY = 64
const END = VOCABULARY - 1

/** The answer that a request gets when it is alone, computed without the engine. */
function alone({ prompt, maxTokens, sampling }: GenerateRequest, contextTokens: number): number[] {
  const visible = Array.from(prompt)
  const most = Math.min(maxTokens, contextTokens - visible.length)
  const answer: number[] = []
  while (answer.length < most) {
    const token = fakeToken(visible, sampling.seed, VOCABULARY)
    if (token === END) break
    visible.push(token)
    answer.push(token)
  }
  return answer
}

interface Outcome {
  readonly trace: string
  readonly steps: number
}

/** One run: a machine of random size, requests that come, answer, and go away at random moments. */
async function simulate(seed: number): Promise<Outcome> {
  const pick = random(seed)
  const sizes = { cells: 64 + pick(400), batchTokens: 8 + pick(60), sequences: 2 + pick(7) }
  const contextTokens = 24 + pick(Math.min(sizes.cells - 24, 100))
  const trace: string[] = []
  const backend: FakeBackend = new FakeBackend({
    ...sizes,
    vocabularyTokens: VOCABULARY,
    onStep: (step) => {
      trace.push(`${step.tokens}/${step.rows}`)
      checkInvariants(step)
    },
    // Now and then a step is cut short, as when an abort arrives.
    codeOf: () => (pick(50) === 0 ? 2 : undefined),
  })
  const mixedPromptTokens = 1 + pick(sizes.batchTokens)
  const engine = new Engine(backend, fakeVocabulary(VOCABULARY), {
    contextTokens,
    mixedPromptTokens,
    now: () => trace.length,
  })

  function checkInvariants({ tokens, rows }: { tokens: number; rows: number }): void {
    const { freeCells, reservedCells, totalCells, running } = engine.status
    expect(tokens).toBeLessThanOrEqual(sizes.batchTokens)
    expect(rows).toBeLessThanOrEqual(sizes.sequences)
    expect(freeCells + reservedCells).toBe(totalCells)
    expect(backend.usedCells).toBeLessThanOrEqual(reservedCells)
    expect(running).toBeLessThanOrEqual(sizes.sequences)
    // Waiting ages faster than prompts are long here, so all get their turn in rotation.
    expect(backend.longestIdleSteps).toBeLessThanOrEqual(sizes.sequences)
  }

  await Promise.all(
    Array.from({ length: 4 + pick(20) }, () => visitor(engine, { pick, contextTokens })),
  )
  expect(engine.status).toMatchObject({
    running: 0,
    waiting: 0,
    freeCells: sizes.cells,
    reservedCells: 0,
  })
  expect({ cells: backend.usedCells, samplers: backend.liveSamplers }).toEqual({
    cells: 0,
    samplers: 0,
  })
  await engine[Symbol.asyncDispose]()
  return { trace: trace.join(" "), steps: trace.length }
}

interface World {
  readonly pick: (max: number) => number
  readonly contextTokens: number
}

/** Arrives some time, asks, and reads the answer to its end or goes away in the middle. */
async function visitor(engine: Engine, { pick, contextTokens }: World): Promise<void> {
  for (let turns = pick(40); turns > 0; turns--) await Promise.resolve()
  const promptTokens = 1 + pick(contextTokens - 2)
  const request: GenerateRequest = {
    prompt: Array.from({ length: promptTokens }, () => pick(END)),
    sampling: { ...SAMPLING_DEFAULTS, seed: pick(1000) },
    maxTokens: 1 + pick(40),
  }
  const leavesAfter = pick(4) === 0 ? pick(6) : Infinity
  const controller = new AbortController()
  const events = engine.submit(request, controller.signal)
  const expected = alone(request, contextTokens)
  let seen = 0
  try {
    for await (const event of events) {
      check(event, expected)
      seen++
      if (seen > leavesAfter && pick(2) === 0) return
      if (seen > leavesAfter) controller.abort(new Error("gone"))
    }
  } catch (error) {
    if (!controller.signal.aborted) throw error
  }
}

function check(event: EngineEvent, expected: readonly number[]): void {
  if (event.kind !== "done") return
  expect([...event.completion]).toEqual([...expected])
  expect(event.usage.completionTokens - expected.length).toBeOneOf([0, 1])
}

describe("engine under random load", () => {
  test(`keeps every invariant in ${RUNS} seeded runs`, async () => {
    let steps = 0
    for (let seed = 1; seed <= RUNS; seed++) {
      try {
        steps += (await simulate(seed)).steps
      } catch (error) {
        throw new Error(`seed ${seed}: ${String(error)}`, { cause: error })
      }
    }
    expect(steps).toBeGreaterThan(RUNS * 10)
  })

  test("takes the same steps for the same seed", async () => {
    expect((await simulate(42)).trace).toBe((await simulate(42)).trace)
    expect((await simulate(42)).trace).not.toBe((await simulate(43)).trace)
  })
})
