/**
 * Plays random arrivals, load failures, crashes and departures against the pool.
 *
 * @module
 */

import { describe, expect, test } from "bun:test"

import { FakeEffects, type FakeRunner, fakeSpec, settle } from "../../src/pool/fake-effects.ts"
import { type Lease, Pool } from "../../src/pool/pool.ts"
import { CriaError } from "../../src/util/errors.ts"
import { random } from "./random.ts"

const RUNS = Number(process.env["CRIA_SIMULATIONS"] ?? 300)
const STEPS = 120
const NAMES = ["a", "b", "c", "d", "e"]

interface Request {
  readonly name: string
  readonly controller: AbortController
  answers: number
  lease: Lease<FakeRunner> | undefined
}

/** One run. Every acquire has to be answered exactly once, whatever happens. */
async function simulate(seed: number): Promise<void> {
  const pick = random(seed)
  const effects = new FakeEffects()
  const loadedModelsMax = 1 + pick(3)
  const pool = new Pool<FakeRunner>(effects, { loadedModelsMax, queueMax: 6, keepAliveMs: 100 })
  const requests: Request[] = []
  for (let step = 0; step < STEPS; step++) {
    event({ pick, effects, pool, requests })
    // Each event is settled before the next.
    // oxlint-disable-next-line no-await-in-loop
    await settle()
    check(pool, effects, loadedModelsMax, requests)
  }
  for (const { lease } of requests) lease?.[Symbol.dispose]()
  await pool[Symbol.asyncDispose]()
  await settle()
  expect(requests.every(({ answers }) => answers === 1)).toBe(true)
  expect(pool.list()).toEqual([])
  expect(effects.loads).toEqual([])
  expect(effects.timers).toBe(0)
}

interface World {
  readonly pick: (max: number) => number
  readonly effects: FakeEffects
  readonly pool: Pool<FakeRunner>
  readonly requests: Request[]
}

function event({ pick, effects, pool, requests }: World): void {
  const [load] = effects.loads
  const leased = requests.filter(({ lease }) => lease !== undefined)
  switch (pick(8)) {
    case 0:
    case 1:
      requests.push(arrive(pool, NAMES[pick(NAMES.length)] ?? "a", pick))
      return
    case 2:
      load?.finish()
      return
    case 3:
      load?.fail(new CriaError(pick(2) === 0 ? "insufficient-memory" : "internal", "cannot load"))
      return
    case 4: {
      const request = leased[pick(Math.max(1, leased.length))]
      request?.lease?.[Symbol.dispose]()
      if (request !== undefined) request.lease = undefined
      return
    }
    case 5:
      effects.advance(pick(150))
      return
    case 6:
      effects.runners[pick(Math.max(1, effects.runners.length))]?.crash()
      return
    default:
      requests[pick(Math.max(1, requests.length))]?.controller.abort(new Error("gone"))
  }
}

function arrive(pool: Pool<FakeRunner>, name: string, pick: (max: number) => number): Request {
  const request: Request = { name, controller: new AbortController(), answers: 0, lease: undefined }
  const spec = fakeSpec(name, pick(5) === 0 ? { contextTokens: 1000 * (1 + pick(9)) } : {})
  const keepAliveMs = [undefined, 0, 50, Infinity][pick(4)]
  void pool
    .acquire(spec, { signal: request.controller.signal, keepAliveMs })
    .then((lease) => (request.lease = lease))
    .catch(() => {})
    .finally(() => request.answers++)
  return request
}

function check(
  pool: Pool<FakeRunner>,
  effects: FakeEffects,
  most: number,
  requests: readonly Request[],
): void {
  const entries = pool.list()
  expect(entries.length).toBeLessThanOrEqual(most)
  expect(new Set(entries.map(({ key }) => key)).size).toBe(entries.length)
  expect(effects.loads.length).toBeLessThanOrEqual(1)
  for (const { name, lease, answers } of requests) {
    expect(answers).toBeLessThanOrEqual(1)
    if (lease === undefined) continue
    // A leased model is of the right name, and the pool itself never stops it.
    expect(lease.runner.name).toBe(name)
    expect(lease.runner.isStopped).toBe(false)
  }
}

describe("pool under random events", () => {
  test(`keeps every invariant in ${RUNS} seeded runs`, async () => {
    for (let seed = 1; seed <= RUNS; seed++) {
      try {
        // One world after the other.
        // oxlint-disable-next-line no-await-in-loop
        await simulate(seed)
      } catch (error) {
        throw new Error(`seed ${seed}: ${String(error)}`, { cause: error })
      }
    }
  })
})
