import assert from "node:assert/strict"

import type { Engine } from "../../src/engine/engine.ts"
import { MemoryTier, type PrefixTier } from "../../src/engine/prefix-tier.ts"
import {
  type Answer,
  assertSame,
  begun,
  check,
  collect,
  KINDS,
  Laboratory,
  type Question,
} from "./differential.ts"
import { describe, GREEDY, test } from "./support.ts"

const TIER_BYTES = 512 * 2 ** 20

/** A tier that is still there for the next engine. */
class KeptTier extends MemoryTier {
  override readonly persists = true
}

/** What follows a question and its answer, as the next turn of a chat does. */
function turn(laboratory: Laboratory, { prompt, cold }: Question): Promise<Question> {
  return laboratory.question([...prompt, ...cold.tokens], 5)
}

async function questions(
  laboratory: Laboratory,
  beginnings: readonly (readonly number[])[],
  count: number,
  maxTokens?: number,
): Promise<Question[]> {
  const made: Question[] = []
  for (const beginning of beginnings)
    made.push(await laboratory.question(beginning, count, maxTokens))
  return made
}

/** Cells that a question and its answer take. */
const cellsOf = ({ prompt, maxTokens }: Question) => prompt.length + maxTokens - 1

/** A question whose answer shifts its context, put together from cold runs: each shift begins a new prompt. */
async function shiftingQuestion(
  laboratory: Laboratory,
  beginning: readonly number[],
  { context, keep, maxTokens }: { context: number; keep: number; maxTokens: number },
): Promise<Question> {
  const prompt = [...beginning, ...laboratory.tokens(8)]
  const visible = [...prompt]
  const tokens: number[] = []
  const logprobs: Answer["logprobs"][number][] = []
  while (tokens.length < maxTokens) {
    const room = Math.min(context - visible.length, maxTokens - tokens.length)
    const part = await laboratory.cold(visible, room)
    if (!laboratory.isClear(part, room))
      return shiftingQuestion(laboratory, beginning, { context, keep, maxTokens })
    tokens.push(...part.tokens)
    logprobs.push(...part.logprobs)
    visible.push(...part.tokens)
    visible.splice(keep, Math.floor((visible.length - keep) / 2))
  }
  const { tolerance } = laboratory.kind
  return { prompt, maxTokens, cold: { tokens, logprobs }, tolerance }
}

for (const kind of KINDS) {
  const isPrefix = kind.sharing === "prefix"

  describe(`sharing equals a cold run: ${kind.name}`, () => {
    test("detects a mix-up: what is shared decides the answer", async () => {
      await using laboratory = await Laboratory.open(kind)
      const tail = laboratory.tokens(5)
      const [one, other] = [laboratory.tokens(60), laboratory.tokens(60)]
      const [first, second] = [
        await laboratory.cold([...one, ...tail], 4),
        await laboratory.cold([...other, ...tail], 4),
      ]
      const { tolerance } = kind
      assert.throws(() => assertSame(first, { cold: second, tolerance }))
      // Not only the tokens: the first log-probability alone tells.
      const distance = (first.logprobs[0]?.logprob ?? 0) - (second.logprobs[0]?.logprob ?? 0)
      assert.ok(Math.abs(distance) > 2 * tolerance)
    })

    test("with requests that are over", async () => {
      await using laboratory = await Laboratory.open(kind)
      await using engine = await laboratory.engine()
      const first = await laboratory.question([], 100)
      const second = await turn(laboratory, first)
      const third = await turn(laboratory, second)
      assert.equal((await check(engine, first)).cachedTokens, 0)
      assert.equal((await check(engine, second)).cachedTokens, cellsOf(first))
      assert.equal((await check(engine, third)).cachedTokens, cellsOf(second))
    })

    test("where prompts part, with a snapshot where states have no parts", async () => {
      await using laboratory = await Laboratory.open(kind)
      await using engine = await laboratory.engine()
      const common = laboratory.tokens(90)
      const cached: number[] = []
      for (const question of await questions(laboratory, [common, common, common], 7))
        cached.push((await check(engine, question)).cachedTokens)
      assert.deepEqual(cached, isPrefix ? [0, 90, 90] : [0, 0, 90])
    })

    test("with a request that runs", async () => {
      await using laboratory = await Laboratory.open(kind)
      await using engine = await laboratory.engine()
      const long = await laboratory.question([], 80, 24)
      // Whatever part of its answer the first has when the second comes, the second begins with it.
      const late = await turn(laboratory, long)
      const running = check(engine, long)
      await begun(engine, 4)
      assert.ok((await check(engine, late)).cachedTokens >= 80)
      await running
    })

    test("among requests that arrive together", async () => {
      await using laboratory = await Laboratory.open(kind)
      await using engine = await laboratory.engine({ batchTokens: 32 })
      const common = laboratory.tokens(100)
      const parted = [...common, ...laboratory.tokens(40)]
      const all = await questions(laboratory, [common, parted, parted, []], 6)
      const usages = await Promise.all([...all, ...all.slice(0, 1)].map((q) => check(engine, q)))
      const prompts = usages.reduce((sum, { promptTokens }) => sum + promptTokens, 0)
      const cached = usages.reduce((sum, { cachedTokens }) => sum + cachedTokens, 0)
      // The common beginning, the part that two have, and what each has for itself; the last is a repetition. For
      // the last 32 tokens of what they have in common nobody waits. Without sharing it would be 510.
      const once = 100 + 40 + 4 * 6 + 1
      assert.ok(prompts - cached >= once && prompts - cached < once + 64, `${prompts - cached}`)
    })

    test("in the middle of what others crowded", async () => {
      await using laboratory = await Laboratory.open(kind)
      await using engine = await laboratory.engine()
      const common = laboratory.tokens(60)
      const [gone] = await questions(laboratory, [[]], 100, 24)
      const [long] = await questions(laboratory, [common], kind.window + 140)
      const [crowd] = await questions(laboratory, [[]], 150)
      assert.ok(gone !== undefined && long !== undefined && crowd !== undefined)
      // What goes leaves fewer cells than the third needs. In a window llama.cpp then looks for cells that have left
      // it, before it comes to empty ones.
      await Promise.all([check(engine, gone, { cacheScope: null }), check(engine, long)])
      await check(engine, crowd)
      for (const length of [60, kind.window + 70]) {
        const fork = await laboratory.question(long.prompt.slice(0, length), 5)
        const { cachedTokens } = await check(engine, fork)
        assert.ok(!isPrefix || cachedTokens >= length)
      }
    })

    test("after what was kept had to go", async () => {
      await using laboratory = await Laboratory.open(kind)
      await using engine = await laboratory.engine({ cells: 256 })
      const first = await laboratory.question([], 120)
      const next = await turn(laboratory, first)
      const others = await questions(laboratory, [[], []], 100)
      await check(engine, first)
      for (const other of others) await check(engine, other)
      const { counters } = engine.status
      assert.ok(counters.evictedTokens > 0)
      const { cachedTokens } = await check(engine, next)
      assert.ok(cachedTokens < cellsOf(first))
      await check(engine, await turn(laboratory, next))
    })

    test("when requests give way and go on", async () => {
      await using laboratory = await Laboratory.open(kind)
      await using engine = await laboratory.engine({ cells: 256 })
      const common = laboratory.tokens(40)
      const all = await questions(laboratory, [common, common, laboratory.tokens(40)], 40, 24)
      const usages = await Promise.all(all.map((question) => check(engine, question)))
      assert.ok(usages.some(({ preemptions }) => preemptions > 0))
      assert.equal(engine.status.activeCells, 0)
    })

    test("after a request was aborted while its prompt was read", async () => {
      await using laboratory = await Laboratory.open(kind)
      await using engine = await laboratory.engine({ batchTokens: 16 })
      const question = await laboratory.question([], 300)
      for (const steps of [3, 9]) {
        const controller = new AbortController()
        const request = { prompt: question.prompt, maxTokens: 8, sampling: GREEDY }
        const answer = collect(engine.submit(request, controller.signal))
        await begun(engine, engine.status.counters.steps + steps)
        controller.abort(new Error("gone"))
        await assert.rejects(answer, /gone/)
      }
      const { cachedTokens } = await check(engine, question)
      if (isPrefix) assert.ok(cachedTokens >= 16)
      await check(engine, await turn(laboratory, question))
    })

    test("after states were saved and restored, in another context and beside others", async () => {
      await using laboratory = await Laboratory.open(kind)
      const tier = new KeptTier(TIER_BYTES)
      const firsts = await questions(
        laboratory,
        Array.from({ length: 8 }, () => []),
        100,
      )
      const nexts: Question[] = []
      for (const first of firsts) nexts.push(await turn(laboratory, first))
      {
        // So many cached prefixes have ids that llama.cpp can save only under another.
        await using engine = await laboratory.engine({ tier })
        for (const first of firsts) await check(engine, first)
      }
      await using engine = await laboratory.engine({ tier })
      const usages = await Promise.all(nexts.map((next) => check(engine, next)))
      for (const [i, { cachedTokens }] of usages.entries())
        assert.equal(cachedTokens, cellsOf(firsts[i] ?? assert.fail()))
      assert.equal(engine.status.counters.restoredTokens, 8 * 107)
    })

    test("after states were saved, given up and restored in one context", async () => {
      await using laboratory = await Laboratory.open(kind)
      await using engine = await laboratory.engine({
        cells: 256,
        tier: new MemoryTier(TIER_BYTES),
      })
      const firsts = await questions(laboratory, [[], [], []], 150)
      for (const first of firsts) await check(engine, first)
      for (const first of firsts) {
        const { cachedTokens } = await check(engine, await turn(laboratory, first))
        assert.equal(cachedTokens, cellsOf(first))
      }
      assert.ok(engine.status.counters.restoredTokens > 0)
    })

    test("when the context shifts, alone and beside others", async () => {
      await using laboratory = await Laboratory.open(kind)
      const sizes = { context: 48, keep: 8, maxTokens: 24 }
      await using engine = await laboratory.engine({ contextTokens: sizes.context })
      const common = laboratory.tokens(30)
      const shift = { keepTokens: sizes.keep }
      const asked: Question[] = []
      for (const _ of [1, 2]) asked.push(await shiftingQuestion(laboratory, common, sizes))
      for (const more of [{}, {}, { cacheScope: null }]) {
        const usages = await Promise.all(
          asked.map((question) => check(engine, question, { shift, ...more })),
        )
        assert.deepEqual(
          usages.map(({ shiftedTokens }) => shiftedTokens),
          [20, 20],
        )
      }
    })

    test("refuses a state that is damaged, and loses nothing", async () => {
      await using laboratory = await Laboratory.open(kind)
      const question = await laboratory.question([], 100)
      const next = await turn(laboratory, question)
      const entries: { tokens: Int32Array; from: number; state: Uint8Array }[] = []
      const damage = [
        (state: Uint8Array) => state.slice(0, state.length / 2),
        (state: Uint8Array) => state.map((byte, i) => (i < 64 ? 255 : byte)),
        () => new Uint8Array(0),
      ]
      for (const harm of damage) {
        const damaged: PrefixTier = {
          persists: true,
          entries: () =>
            entries.map((entry) => ({
              ...entry,
              read: () => harm(entry.state),
              forget: () => void entries.splice(entries.indexOf(entry), 1),
            })),
          accepts: () => true,
          hasRoom: () => true,
          put: (_, entry, state) => void entries.push({ ...entry, state }),
        }
        entries.length = 0
        {
          await using engine = await laboratory.engine({ tier: damaged })
          await check(engine, question)
        }
        assert.equal(entries.length, 1)
        await using engine = await laboratory.engine({ tier: damaged })
        assert.equal((await check(engine, next)).cachedTokens, 0)
        assertCellsAreFree(engine, cellsOf(next))
        await check(engine, await turn(laboratory, next))
      }
    })
  })
}

function assertCellsAreFree({ status }: Engine, used: number): void {
  assert.deepEqual(
    { active: status.activeCells, cached: status.cachedCells, free: status.freeCells },
    { active: 0, cached: used, free: status.totalCells - used },
  )
}
