/**
 * What the engine itself takes between two steps: planning, books, text. Native code is played by a fake, whose own work
 * does not count.
 *
 * @module
 */

import { Engine } from "../src/engine/engine.ts"
import { FakeBackend, fakeVocabulary } from "../src/engine/fake-backend.ts"
import { SAMPLING_DEFAULTS } from "../src/engine/sampling.ts"
import type { BenchOptions } from "./load.ts"
import { type Comparison, compare } from "./measure.ts"

const SEQUENCES = 32
const VOCABULARY = 100_000
const ANSWER_TOKENS = 200

/** Prefixes of earlier requests in the cache. */
const CACHED = 150

/** The goal of the design. */
const LIMIT_MICROS = 150

/** A step of 32 answers, alone and with 400 requests waiting. */
export async function overheadCase({ rounds }: BenchOptions): Promise<Comparison[]> {
  const results: Comparison[] = []
  for (const waiting of [0, 400]) {
    const beside = waiting === 0 ? "" : `, ${waiting} waiting`
    const what = {
      name: `between two steps of ${SEQUENCES} answers${beside}`,
      unit: "µs",
      better: "less",
      limit: LIMIT_MICROS,
    } as const
    const micros = await measure(waiting, rounds)
    console.error(
      `overhead, ${waiting} waiting: ${micros.map((each) => each.toFixed(0)).join(" ")}`,
    )
    results.push(compare(what, { name: "–" }, micros, []))
  }
  return results
}

async function measure(waiting: number, rounds: number): Promise<number[]> {
  const backend = new FakeBackend({
    cells: 65_536,
    batchTokens: 512,
    rows: SEQUENCES,
    sequences: SEQUENCES + CACHED,
    vocabularyTokens: VOCABULARY,
  })
  await using engine = new Engine(backend, fakeVocabulary(VOCABULARY), {
    now: () => performance.now(),
  })
  await Promise.all(Array.from({ length: CACHED }, (_, i) => ask(engine, 1000 + i, 3)))
  const micros: number[] = []
  // The first round is for the compiler.
  for (let round = 0; round <= rounds; round++) {
    const before = engine.status.counters
    const leaving = new AbortController()
    const answers = Array.from({ length: SEQUENCES }, (_, i) =>
      ask(engine, round * 100 + i, ANSWER_TOKENS),
    )
    const queue = Array.from({ length: waiting }, (_, i) => wait(engine, i, leaving.signal))
    await Promise.all(answers)
    leaving.abort(new Error("over"))
    await Promise.all(queue)
    const after = engine.status.counters
    const steps = after.steps - before.steps
    if (round > 0) micros.push(((after.betweenMs - before.betweenMs) / steps) * 1000)
  }
  return micros
}

async function ask(engine: Engine, seed: number, maxTokens: number): Promise<void> {
  const prompt = Array.from({ length: 60 }, (_, i) => (seed * 131 + i * 7) % 9973)
  const sampling = { ...SAMPLING_DEFAULTS, seed }
  for await (const _ of engine.submit({ prompt, sampling, maxTokens }));
}

/** A request that never gets its turn. */
async function wait(engine: Engine, seed: number, signal: AbortSignal): Promise<void> {
  const request = { prompt: [seed % 97, 1, 2], sampling: SAMPLING_DEFAULTS, maxTokens: 1 }
  try {
    for await (const _ of engine.submit({ ...request, priority: "batch" }, signal));
  } catch (error) {
    if (!signal.aborted) throw error
  }
}
