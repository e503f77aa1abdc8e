import { describe, expect, test } from "bun:test"

import { FakeBackend, type FakeOptions } from "./fake-backend.ts"
import { PrefixMemory, TIER_TOKENS_MIN } from "./prefix-memory.ts"
import { MemoryTier, type PrefixTier, type TierEntry } from "./prefix-tier.ts"
import type { Branch } from "./token-tree.ts"

const SCOPE = "s"

/** A tier that is still there for the next memory. */
class KeptTier extends MemoryTier {
  override readonly persists = true
}

/** Tokens `from` … `from + count` − 1, so that a sequence with another `from` shares nothing. */
const run = (from: number, count: number) => Int32Array.from({ length: count }, (_, i) => from + i)

const join = (...parts: readonly Int32Array[]) =>
  Int32Array.from(parts.flatMap((part) => [...part]))

/** A memory over a fake backend, with what a request does to it. */
class Bench {
  readonly backend: FakeBackend
  readonly memory: PrefixMemory

  constructor(options: FakeOptions & { tier?: PrefixTier } = {}) {
    this.backend = new FakeBackend({ cells: 256, batchTokens: 256, sequences: 8, ...options })
    this.memory = new PrefixMemory(this.backend, options.tier)
  }

  /** Null shares nothing. */
  open(scope: string | null = SCOPE): Branch {
    const branch = this.memory.open(scope ?? undefined)
    if (branch === undefined) throw new Error("no sequence id is free")
    return branch
  }

  /** Computes tokens at the end of a branch, without telling the memory. */
  async compute(branch: Branch, tokens: Int32Array): Promise<void> {
    const { arrays } = this.backend
    arrays.token.set(tokens)
    arrays.sequence.fill(branch.id, 0, tokens.length)
    for (let i = 0; i < tokens.length; i++) arrays.position[i] = branch.end + i
    this.backend.submit(tokens.length, 0)
    expect(await this.backend.wait()).toMatchObject({ code: 0 })
  }

  /** What a request with these tokens does: share, compute the rest. @returns The branch, and what it shared. */
  async ask(
    tokens: Int32Array,
    scope: string | null = SCOPE,
  ): Promise<{ branch: Branch; shared: number }> {
    const branch = this.open(scope)
    this.memory.reuse(branch, tokens, tokens.length - 1)
    const shared = branch.end
    const rest = tokens.subarray(shared)
    this.memory.makeRoom(rest.length)
    await this.compute(branch, rest)
    this.memory.extend(branch, rest)
    this.check(branch, tokens)
    return { branch, shared }
  }

  /** A request from its beginning to its end. @returns What it shared. */
  async answer(tokens: Int32Array, scope = SCOPE): Promise<number> {
    const { branch, shared } = await this.ask(tokens, scope)
    this.memory.retire(branch)
    return shared
  }

  /** Takes over what the tier has, as a request does that starts. */
  restore(branch: Branch, tokens: Int32Array, limit: number): void {
    const parts = this.memory.inTier(branch.scope, { tokens, limit }, branch.end)
    for (const part of parts) {
      const state = part.entry.read()
      this.memory.restore(branch, part, state instanceof Promise ? undefined : state)
    }
  }

  /** The backend holds what the books say. */
  check(branch: Branch, tokens: ArrayLike<number>): void {
    const [, ...held] = new Int32Array(this.backend.saveSequence(branch.id).slice().buffer)
    expect(held).toEqual(Array.from(tokens))
    expect(this.backend.usedCells).toBe(this.memory.totalCells - this.memory.freeCells)
  }
}

describe("PrefixMemory, any beginning can be shared", () => {
  test("shares the longest beginning of a request that is over", async () => {
    const bench = new Bench()
    await bench.answer(run(0, 50))
    expect(await bench.answer(join(run(0, 30), run(200, 20)))).toBe(30)
    expect(bench.backend.computedTokens).toBe(50 + 20)
    expect(bench.memory.cachedCells).toBe(70)
  })

  test("shares the beginning of a request that runs", async () => {
    const bench = new Bench()
    const first = await bench.ask(run(0, 50))
    const second = await bench.ask(join(run(0, 40), run(200, 10)))
    expect(second.shared).toBe(40)
    expect(bench.memory.activeCells).toBe(60)
    bench.memory.discard(first.branch)
    bench.check(second.branch, join(run(0, 40), run(200, 10)))
    expect(bench.memory.activeCells).toBe(50)
  })

  test("never takes over more than the limit: the last token has to be computed", async () => {
    const bench = new Bench()
    await bench.answer(run(0, 50))
    const branch = bench.open()
    bench.memory.reuse(branch, run(0, 50), 49)
    expect(branch.end).toBe(49)
    bench.memory.reuse(branch, run(0, 50), 20)
    expect(branch.end).toBe(49)
  })

  test("takes over what became longer while it waited", async () => {
    const bench = new Bench()
    const tokens = run(0, 60)
    const leader = await bench.ask(run(0, 20))
    const follower = bench.open()
    bench.memory.reuse(follower, tokens, 59)
    expect(follower.end).toBe(20)
    await bench.compute(leader.branch, run(20, 30))
    bench.memory.extend(leader.branch, run(20, 30))
    bench.memory.reuse(follower, tokens, 59)
    expect(follower.end).toBe(50)
    bench.check(follower, run(0, 50))
  })

  test("keeps once what two computed at the same time", async () => {
    const bench = new Bench()
    const branches = [bench.open(), bench.open()]
    const tokens = [join(run(0, 30), run(100, 5)), join(run(0, 30), run(200, 5))]
    for (const [i, branch] of branches.entries())
      await bench.compute(branch, tokens[i] ?? run(0, 0))
    expect(bench.backend.usedCells).toBe(70)
    for (const [i, branch] of branches.entries())
      bench.memory.extend(branch, tokens[i] ?? run(0, 0))
    expect(bench.backend.usedCells).toBe(40)
    for (const [i, branch] of branches.entries()) bench.check(branch, tokens[i] ?? run(0, 0))
  })

  test("joins answers that said the same when one of them is over", async () => {
    const bench = new Bench()
    const pair = [await bench.ask(run(0, 31)), await bench.ask(run(0, 31))]
    for (const { branch } of pair) {
      for (const token of run(100, 20)) {
        await bench.compute(branch, Int32Array.of(token))
        bench.memory.extend(branch, Int32Array.of(token), true)
      }
    }
    expect(bench.backend.usedCells).toBe(31 + 2 * 20)
    const [first, second] = pair
    if (first === undefined || second === undefined) throw new Error("there are two")
    bench.memory.retire(first.branch)
    expect(bench.backend.usedCells).toBe(51)
    bench.check(second.branch, join(run(0, 31), run(100, 20)))
    bench.memory.retire(second.branch)
    expect(bench.memory.cachedCells).toBe(51)
    expect(await bench.answer(join(run(0, 31), run(100, 20), run(900, 3)))).toBe(51)
  })

  test("frees what nobody else can use, and keeps nothing twice", async () => {
    const bench = new Bench()
    await bench.answer(run(0, 40))
    const beginning = await bench.ask(run(0, 20))
    expect(beginning.shared).toBe(19)
    bench.memory.retire(beginning.branch)
    const alone = await bench.ask(run(0, 10), null)
    expect(alone.shared).toBe(0)
    bench.memory.retire(alone.branch)
    bench.memory.retire(bench.open())
    expect([bench.memory.cachedCells, bench.memory.activeCells]).toEqual([40, 0])
    expect(bench.backend.usedCells).toBe(40)
  })

  test("keeps scopes apart", async () => {
    const bench = new Bench()
    await bench.answer(run(0, 40), "a")
    expect(await bench.answer(run(0, 40), "b")).toBe(0)
    expect(await bench.answer(run(0, 40), "a")).toBe(39)
    expect(bench.memory.agreeing("c", run(0, 40))).toBe(0)
    expect(bench.memory.agreeing("a", run(0, 40))).toBe(39)
  })

  test("counts what a request would take beside what runs", async () => {
    const bench = new Bench()
    await bench.answer(run(0, 40))
    const wanted = join(run(0, 40), run(100, 10))
    // What is only cached may be given up: sharing it makes it active.
    expect(bench.memory.cost(SCOPE, wanted)).toBe(50)
    const running = await bench.ask(run(0, 30))
    expect(bench.memory.cost(SCOPE, wanted)).toBe(20)
    expect(bench.memory.cost("other", wanted)).toBe(50)
    expect(bench.memory.cost(undefined, wanted)).toBe(50)
    bench.memory.retire(running.branch)
    expect(bench.memory.cost(SCOPE, wanted)).toBe(50)
  })

  test("gives up first what was used longest ago; sharing is use", async () => {
    const bench = new Bench()
    for (const from of [0, 100, 200]) await bench.answer(run(from, 40))
    expect(await bench.answer(run(0, 41))).toBe(40)
    bench.memory.evict(40)
    const left = [0, 100, 200].map((from) => bench.memory.agreeing(SCOPE, run(from, 41)))
    expect(left).toEqual([40, 0, 40])
  })

  test("lends out a branch and so keeps it, though the borrower leaves no trace", async () => {
    const bench = new Bench()
    for (const from of [0, 100]) await bench.answer(run(from, 40))
    expect(await bench.answer(run(0, 30))).toBe(29)
    bench.memory.evict(40)
    const left = [0, 100].map((from) => bench.memory.agreeing(SCOPE, run(from, 41)))
    expect(left).toEqual([40, 0])
  })

  test("gives up the end of a branch only as far as it must", async () => {
    const bench = new Bench({ cells: 128 })
    await bench.answer(run(0, 100))
    expect(bench.memory.makeRoom(60)).toBe(true)
    expect(bench.memory.freeCells).toBe(60)
    expect(bench.memory.agreeing(SCOPE, run(0, 101))).toBe(68)
    expect(bench.backend.usedCells).toBe(68)
    expect(bench.memory.counters.evictedTokens).toBe(32)
    expect(await bench.answer(run(0, 100))).toBe(68)
  })

  test("gives up at least 32 cells at once", async () => {
    const bench = new Bench()
    await bench.answer(run(0, 100))
    expect(bench.memory.evict(1)).toBe(true)
    expect(bench.memory.cachedCells).toBe(68)
  })

  test("gives up the leaves before what they have in common", async () => {
    const bench = new Bench({ cells: 128 })
    await bench.answer(join(run(0, 40), run(100, 30)))
    await bench.answer(join(run(0, 40), run(200, 30)))
    expect(bench.memory.makeRoom(128 - 40)).toBe(true)
    // One of them gave up its own 30; of the other there is no less than 32 to be had.
    expect(bench.memory.agreeing(SCOPE, run(0, 50))).toBe(38)
    expect(bench.memory.makeRoom(128)).toBe(true)
    expect(bench.backend.usedCells).toBe(0)
  })

  test("never gives up what a running request needs", async () => {
    const bench = new Bench({ cells: 128 })
    await bench.answer(join(run(0, 40), run(100, 40)))
    const running = await bench.ask(join(run(0, 40), run(200, 20)))
    expect(bench.memory.makeRoom(128 - 60)).toBe(true)
    expect(bench.memory.makeRoom(128 - 59)).toBe(false)
    bench.check(running.branch, join(run(0, 40), run(200, 20)))
    expect([bench.memory.activeCells, bench.memory.cachedCells]).toEqual([60, 0])
  })

  test("gives up the oldest branch when sequence ids run out", async () => {
    const bench = new Bench({ sequences: 3 })
    for (const from of [0, 100, 200]) await bench.answer(run(from, 10))
    const running = await bench.ask(run(50, 10))
    expect(bench.memory.agreeing(SCOPE, run(0, 11))).toBe(0)
    expect(bench.memory.agreeing(SCOPE, run(100, 11))).toBe(10)
    bench.memory.retire(running.branch)
  })

  test("has no branch to give when all sequence ids are of running requests", async () => {
    const bench = new Bench({ sequences: 2 })
    const first = await bench.ask(run(0, 10))
    await bench.ask(run(100, 10))
    expect(bench.memory.open(SCOPE)).toBeUndefined()
    bench.memory.retire(first.branch)
    expect(bench.memory.open(SCOPE)).toBeDefined()
  })

  test("forgets what a step that was cut short may have left", async () => {
    const bench = new Bench()
    const { branch } = await bench.ask(run(0, 30))
    await bench.compute(branch, run(30, 20))
    expect(bench.backend.usedCells).toBe(50)
    bench.memory.repair(branch)
    bench.check(branch, run(0, 30))
    bench.memory.repair(branch)
    bench.check(branch, run(0, 30))
  })
})

describe.each(["window", "recurrent"] as const)("PrefixMemory, whole states only: %s", (kind) => {
  const make = (options: FakeOptions & { tier?: PrefixTier } = {}) =>
    new Bench({ memory: kind, ...options })

  test("takes over the longest state that the request begins with", async () => {
    const bench = make()
    await bench.answer(run(0, 30))
    expect(await bench.answer(run(0, 50))).toBe(30)
    expect(await bench.answer(run(0, 60))).toBe(50)
    expect(bench.memory.cachedCells).toBe(60)
  })

  test("takes nothing over where a state goes on differently, or is the whole request", async () => {
    const bench = make()
    await bench.answer(run(0, 30))
    const other = join(run(0, 20), run(100, 20))
    expect(bench.memory.agreeing(SCOPE, other)).toBe(20)
    expect(await bench.answer(other)).toBe(0)
    expect(await bench.answer(run(0, 30))).toBe(0)
  })

  test("replaces what a branch has by a longer state", async () => {
    const bench = make()
    const tokens = run(0, 60)
    const { branch } = await bench.ask(run(0, 10))
    await bench.answer(run(0, 40))
    bench.memory.reuse(branch, tokens, 59)
    expect(branch.end).toBe(40)
    bench.check(branch, run(0, 40))
    bench.memory.reuse(branch, tokens, 59)
    expect(branch.end).toBe(40)
  })

  test("leaves a state for others where a snapshot is taken", async () => {
    const bench = make()
    const { branch } = await bench.ask(run(0, 30))
    bench.memory.snapshot(branch)
    await bench.compute(branch, run(100, 10))
    bench.memory.extend(branch, run(100, 10))
    expect(bench.memory.activeCells).toBe(40)
    expect(await bench.answer(join(run(0, 30), run(200, 5)))).toBe(30)
    bench.check(branch, join(run(0, 30), run(100, 10)))
  })

  test("takes no snapshot of nothing, of what is not shared, or without a free id", async () => {
    const bench = make({ sequences: 2 })
    const empty = bench.open()
    bench.memory.snapshot(empty)
    const alone = await bench.ask(run(0, 10), null)
    bench.memory.snapshot(alone.branch)
    bench.memory.discard(empty)
    expect(bench.memory.cachedCells).toBe(0)
    bench.memory.discard(alone.branch)
    const first = await bench.ask(run(0, 10))
    await bench.ask(run(100, 10))
    bench.memory.snapshot(first.branch)
    expect(bench.memory.cachedCells).toBe(0)
  })

  test("counts only states that a running request holds as there already", async () => {
    const bench = make()
    const wanted = run(0, 40)
    await bench.answer(run(0, 20))
    expect(bench.memory.cost(SCOPE, wanted)).toBe(40)
    await bench.ask(run(0, 30))
    expect(bench.memory.cost(SCOPE, wanted)).toBe(10)
    expect(bench.memory.cost(undefined, wanted)).toBe(40)
  })

  test("gives up whole states, the oldest first", async () => {
    const bench = make()
    await bench.answer(run(0, 30))
    await bench.answer(run(100, 30))
    expect(await bench.answer(run(0, 31))).toBe(30)
    expect(bench.memory.evict(1)).toBe(true)
    expect([0, 100].map((from) => bench.memory.agreeing(SCOPE, run(from, 40)))).toEqual([31, 0])
    expect(bench.memory.counters.evictedTokens).toBe(30)
  })

  test("loses all of a branch whose step was cut short", async () => {
    const bench = make()
    const { branch } = await bench.ask(run(0, 30))
    bench.memory.snapshot(branch)
    await bench.compute(branch, run(30, 10))
    bench.memory.repair(branch)
    expect(branch.end).toBe(0)
    expect(bench.backend.usedCells).toBe(30)
    bench.memory.reuse(branch, run(0, 41), 40)
    expect(branch.end).toBe(30)
  })

  test("brings a state back from the tier only as a whole", async () => {
    const tier = new MemoryTier(1e6)
    const bench = make({ tier })
    await bench.answer(run(0, 100))
    bench.memory.evict(1)
    expect(bench.memory.counters.savedTokens).toBe(100)
    const other = bench.open()
    const tokens = join(run(0, 90), run(150, 20))
    bench.restore(other, tokens, tokens.length - 1)
    expect(other.end).toBe(0)
    bench.restore(other, run(0, 120), 119)
    bench.check(other, run(0, 100))
  })

  test("brings the beginning back from the tier that others went on from", async () => {
    const tier = new MemoryTier(1e6)
    const bench = make({ tier })
    const { branch } = await bench.ask(run(0, 80))
    bench.memory.snapshot(branch)
    await bench.compute(branch, run(100, 20))
    bench.memory.extend(branch, run(100, 20))
    bench.memory.retire(branch)
    while (bench.memory.evict(1));
    expect(bench.backend.usedCells).toBe(0)
    const next = bench.open()
    const tokens = join(run(0, 80), run(200, 20))
    bench.restore(next, tokens, tokens.length - 1)
    bench.check(next, run(0, 80))
  })
})

describe("PrefixMemory with a slower tier", () => {
  const LONG = TIER_TOKENS_MIN + 36

  test("saves what it gives up and brings it back, once", async () => {
    const tier = new MemoryTier(1e6)
    const bench = new Bench({ tier })
    await bench.answer(run(0, LONG))
    while (bench.memory.evict(1));
    expect(bench.memory.counters).toMatchObject({ evictedTokens: LONG, savedTokens: LONG })
    const branch = bench.open()
    const tokens = join(run(0, LONG), run(150, 5))
    bench.restore(branch, tokens, tokens.length - 1)
    bench.check(branch, run(0, LONG))
    expect(bench.memory.counters.restoredTokens).toBe(LONG)
    bench.memory.retire(branch)
    while (bench.memory.evict(1));
    expect(bench.memory.counters.savedTokens).toBe(LONG)
  })

  test("brings back the part that agrees", async () => {
    const bench = new Bench({ tier: new MemoryTier(1e6) })
    await bench.answer(run(0, LONG))
    while (bench.memory.evict(1));
    const branch = bench.open()
    const tokens = join(run(0, LONG - 10), run(150, 5))
    bench.restore(branch, tokens, tokens.length - 1)
    bench.check(branch, run(0, LONG - 10))
  })

  test("does not bother with short prefixes, other scopes, or less than is there already", async () => {
    const bench = new Bench({ tier: new MemoryTier(1e6) })
    await bench.answer(run(0, TIER_TOKENS_MIN - 1))
    while (bench.memory.evict(1));
    expect(bench.memory.counters.savedTokens).toBe(0)
    await bench.answer(run(0, LONG))
    while (bench.memory.evict(1));
    await bench.answer(run(0, LONG))
    const here = bench.open()
    bench.memory.reuse(here, run(0, LONG + 1), LONG)
    bench.restore(here, run(0, LONG + 1), LONG)
    const elsewhere = bench.open("elsewhere")
    bench.restore(elsewhere, run(0, LONG + 1), LONG)
    const short = bench.open()
    bench.restore(short, run(0, 20), 19)
    expect([here.end, elsewhere.end, short.end]).toEqual([LONG, 0, 0])
    expect(bench.memory.counters.restoredTokens).toBe(0)
  })

  test("shares what it brings back with those that hold the same", async () => {
    const bench = new Bench({ tier: new MemoryTier(1e6) })
    await bench.answer(run(0, LONG))
    while (bench.memory.evict(1));
    const running = await bench.ask(run(0, 30))
    const branch = bench.open()
    bench.restore(branch, run(0, LONG + 1), LONG)
    bench.check(branch, run(0, LONG))
    bench.check(running.branch, run(0, 30))
    expect(bench.memory.activeCells).toBe(LONG)
  })

  test("makes room for what comes back, but never at the cost of what runs", async () => {
    const bench = new Bench({ tier: new MemoryTier(1e6), cells: 160 })
    await bench.answer(run(0, LONG))
    while (bench.memory.evict(1));
    await bench.answer(run(120, 100))
    const branch = bench.open()
    bench.restore(branch, run(0, LONG + 1), LONG)
    bench.check(branch, run(0, LONG))
    bench.memory.retire(branch)
    const running = await bench.ask(run(120, 100))
    const late = bench.open()
    bench.restore(late, run(0, LONG + 1), LONG)
    expect(late.end).toBe(0)
    bench.check(running.branch, run(120, 100))
  })

  test("saves in pieces that the tier has room for", async () => {
    class Narrow extends MemoryTier {
      override readonly persists = true
      override accepts(bytes: number): boolean {
        return bytes <= 1200
      }
    }
    const tier = new Narrow(1e6)
    const bench = new Bench({ cells: 1024, batchTokens: 1024, tier })
    await bench.answer(run(0, 1000))
    while (bench.memory.saveNext());
    expect([...tier.entries(SCOPE)].map(({ from, tokens }) => [from, tokens.length])).toEqual([
      [0, 250],
      [250, 437],
      [437, 718],
      [718, 1000],
    ])
  })

  test("keeps what a branch shares when the tier's state cannot be read or does not fit", async () => {
    class Full extends FakeBackend {
      override restoreSequence(): boolean {
        return false
      }
    }
    for (const state of [undefined, new Uint8Array(4)]) {
      let isForgotten = false
      const entry: TierEntry = {
        tokens: run(0, LONG),
        from: 0,
        read: () => state,
        forget: () => {
          isForgotten = true
        },
      }
      const tier: PrefixTier = {
        persists: false,
        entries: () => [entry],
        accepts: () => false,
        hasRoom: () => false,
        put: () => {},
      }
      const backend = new Full({ cells: 256, batchTokens: 256 })
      const memory = new PrefixMemory(backend, tier)
      const branch = memory.open(SCOPE)
      if (branch === undefined) throw new Error("no sequence id is free")
      const parts = memory.inTier(SCOPE, { tokens: run(0, LONG + 1), limit: LONG }, 0)
      for (const part of parts) memory.restore(branch, part, state)
      expect([branch.end, memory.freeCells, backend.usedCells]).toEqual([0, 256, 0])
      expect(memory.counters.restoredTokens).toBe(0)
      expect(isForgotten).toBe(state !== undefined)
    }
  })

  test("keeps each stretch once that branches have in common", async () => {
    const tier = new MemoryTier(1e6)
    const bench = new Bench({ tier, cells: 1024, batchTokens: 1024 })
    await bench.answer(join(run(0, 300), run(2000, 80)))
    await bench.answer(join(run(0, 300), run(3000, 90)))
    while (bench.memory.evict(1));
    expect(bench.backend.usedCells).toBe(0)
    expect(bench.memory.counters.savedTokens).toBe(300 + 80 + 90)
    for (const [from, count] of [
      [2000, 80],
      [3000, 90],
    ] as const) {
      const branch = bench.open()
      const tokens = join(run(0, 300), run(from, count))
      bench.restore(branch, join(tokens, run(5000, 5)), tokens.length + 4)
      bench.check(branch, tokens)
      bench.memory.discard(branch)
    }
  })

  test("brings back the end of what is still there in part", async () => {
    const bench = new Bench({ tier: new MemoryTier(1e6), cells: 1024, batchTokens: 1024 })
    await bench.answer(run(0, 700))
    bench.memory.evict(1)
    expect(bench.memory.cachedCells).toBe(700 - 256)
    const branch = bench.open()
    bench.memory.reuse(branch, run(0, 701), 700)
    expect(branch.end).toBe(444)
    bench.restore(branch, run(0, 701), 700)
    bench.check(branch, run(0, 700))
    expect(bench.memory.counters).toMatchObject({ savedTokens: 256, restoredTokens: 256 })
    // What is there already is not written again.
    bench.memory.retire(branch)
    bench.memory.evict(1)
    expect(bench.memory.counters.savedTokens).toBe(256)
  })

  test("copies long branches piece by piece to a tier that outlives it, when there is time", async () => {
    const tier = new KeptTier(1e6)
    const bench = new Bench({ tier, cells: 4096, batchTokens: 4096 })
    await bench.answer(run(0, 2500))
    const saved: number[] = []
    while (bench.memory.saveNext()) saved.push(bench.memory.counters.savedTokens)
    expect(saved).toEqual([1024, 2048, 2500])
    expect(bench.memory.cachedCells).toBe(2500)
    const other = new Bench({ tier, cells: 4096, batchTokens: 4096 })
    const branch = other.open()
    other.restore(branch, run(0, 2600), 2599)
    other.check(branch, run(0, 2500))
  })

  test("leaves in the cells what the tier does not take", async () => {
    const options = { cells: 4096, batchTokens: 2048, cachedCellsMax: 100 }
    const bench = new Bench({ ...options, tier: new MemoryTier(500) })
    await bench.answer(run(0, 800))
    bench.memory.trim()
    expect(bench.memory.cachedCells).toBe(800)
    expect(bench.memory.evict(1)).toBe(true)
    expect(bench.memory.counters).toMatchObject({ evictedTokens: 256, savedTokens: 0 })
  })

  test("leaves in the cells what would push others out of the tier", async () => {
    const options = { cells: 8192, batchTokens: 2048, cachedCellsMax: 100 }
    // Room for one stretch of 256 tokens and the 800 before it, and not for two.
    const tier = new MemoryTier(6000)
    const bench = new Bench({ ...options, tier })
    for (const from of [0, 2000]) await bench.answer(run(from, 800))
    for (let steps = 0; steps < 8; steps++) bench.memory.trim()
    expect(bench.memory.cachedCells).toBe(1600 - 256)
    expect([...tier.entries(SCOPE)].map(({ from }) => from)).toEqual([544])
  })

  test("keeps no more than a few cached cells where cells slow steps down, and loses nothing", async () => {
    const options = { cells: 8192, batchTokens: 2048, cachedCellsMax: 1024 }
    const bench = new Bench({ ...options, tier: new MemoryTier(1e6) })
    await bench.answer(run(0, 800))
    bench.memory.trim()
    expect(bench.memory.cachedCells).toBe(800)
    for (const from of [2000, 4000]) await bench.answer(run(from, 800))
    bench.memory.trim()
    expect(bench.memory.cachedCells).toBe(0)
    const branch = bench.open()
    bench.restore(branch, run(0, 800), 799)
    expect(branch.end).toBe(799)
    const bare = new Bench(options)
    for (const from of [0, 2000]) await bare.answer(run(from, 800))
    bare.memory.trim()
    expect(bare.memory.cachedCells).toBe(1600)
  })

  test("moves no more between two steps than is copied in a moment, and goes on at the next", async () => {
    const options = { cells: 8192, batchTokens: 2048, cachedCellsMax: 1024 }
    const bench = new Bench({ ...options, tier: new MemoryTier(1e12) })
    for (const from of [0, 2000]) await bench.answer(run(from, 800))
    bench.backend.stateBytes = () => 40 * 2 ** 20
    const left = Array.from({ length: 4 }, () => {
      bench.memory.trim()
      return bench.memory.cachedCells
    })
    // Two stretches at a time, of 256 cells or what a branch has left.
    expect(left).toEqual([1600 - 512, 800, 800 - 512, 0])
  })

  test("hands over all that is cached at the end, and each beginning once", async () => {
    const tier = new KeptTier(1e6)
    const bench = new Bench({ tier })
    await bench.answer(run(0, 70))
    await bench.answer(run(0, 100))
    const running = await bench.ask(run(150, 100))
    while (bench.memory.saveNext());
    expect(bench.memory.counters.savedTokens).toBe(100)
    bench.memory.retire(running.branch)
    while (bench.memory.saveNext());
    expect(bench.memory.counters.savedTokens).toBe(200)
    const spans = [...tier.entries(SCOPE)].map(({ from, tokens }) => [from, tokens.length])
    expect(spans).toEqual([
      [0, 100],
      [0, 100],
    ])
  })
})
