import { describe, expect, test } from "bun:test"

import {
  commonLength,
  joinTiers,
  MemoryTier,
  partsFrom,
  type TierEntry,
  type TierPart,
  wholeBeyond,
} from "./prefix-tier.ts"

const tokens = (...numbers: number[]) => Int32Array.from(numbers)
const bytes = (length: number, fill = 0) => new Uint8Array(length).fill(fill)

/** An entry of which only the tokens matter. */
const entry = (from: number, ...numbers: number[]): TierEntry => ({
  tokens: tokens(...numbers),
  from,
  read: () => bytes(1),
  forget: () => {},
})

const lookup = (...numbers: number[]) => ({ tokens: numbers, limit: numbers.length })

/** Where the parts begin and end. */
const spans = (parts: readonly TierPart[]) => parts.map(({ from, to }) => [from, to])

describe("commonLength()", () => {
  test("counts tokens that agree, at most to the limit", () => {
    const wanted = { tokens: [1, 2, 3, 4], limit: 3 }
    expect(commonLength([1, 2, 3, 4], wanted)).toBe(3)
    expect(commonLength([1, 2, 9], wanted)).toBe(2)
    expect(commonLength([1], wanted)).toBe(1)
    expect(commonLength([], wanted)).toBe(0)
  })
})

describe("partsFrom()", () => {
  const chain = [entry(4, 1, 2, 3, 4, 5, 6), entry(0, 1, 2), entry(2, 1, 2, 3, 4)]

  test("strings stretches together that follow each other, whatever their order", () => {
    expect(spans(partsFrom(chain, lookup(1, 2, 3, 4, 5, 6, 7), 0))).toEqual([
      [0, 2],
      [2, 4],
      [4, 6],
    ])
  })

  test("begins in the middle of a stretch, and ends there too", () => {
    expect(spans(partsFrom(chain, lookup(1, 2, 3, 4, 5, 9), 3))).toEqual([
      [3, 4],
      [4, 5],
    ])
    expect(spans(partsFrom(chain, { ...lookup(1, 2, 3, 4, 5, 6), limit: 3 }, 0))).toEqual([
      [0, 2],
      [2, 3],
    ])
  })

  test("stops where a stretch is missing, and where tokens differ", () => {
    const holed = [chain[0] ?? entry(0, 1), chain[1] ?? entry(0, 1)]
    expect(spans(partsFrom(holed, lookup(1, 2, 3, 4, 5, 6), 0))).toEqual([[0, 2]])
    expect(spans(partsFrom(chain, lookup(1, 9), 0))).toEqual([[0, 1]])
    expect(partsFrom(chain, lookup(9), 0)).toEqual([])
    expect(partsFrom(chain, lookup(1, 2, 3, 4, 5, 6), 6)).toEqual([])
  })

  test("takes the stretch that goes furthest", () => {
    const both = [entry(0, 1, 2), entry(0, 1, 2, 3, 4), entry(2, 1, 2, 3)]
    expect(spans(partsFrom(both, lookup(1, 2, 3, 4), 0))).toEqual([[0, 4]])
  })
})

describe("wholeBeyond()", () => {
  test("finds the longest that agrees entirely and is longer than what is there", () => {
    const states = [entry(0, 1, 2), entry(0, 1, 2, 3), entry(0, 1, 2, 3, 4, 5)]
    expect(wholeBeyond(states, lookup(1, 2, 3, 4), 0)?.to).toBe(3)
    expect(wholeBeyond(states, lookup(1, 2, 3, 4), 2)?.to).toBe(3)
    expect(wholeBeyond(states, lookup(1, 2, 3, 4), 3)).toBeUndefined()
    expect(wholeBeyond(states, lookup(1, 9), 0)).toBeUndefined()
  })
})

/** Tokens of all entries. */
const names = (tier: MemoryTier, scope = "a") =>
  [...tier.entries(scope)].map((one) => one.tokens.join())

describe("MemoryTier", () => {
  test("gives back what was put, in its scope only", () => {
    const tier = new MemoryTier(1000)
    tier.put("a", { tokens: tokens(1, 2, 3), from: 1 }, bytes(10, 1))
    const [one] = tier.entries("a")
    expect(one).toMatchObject({ tokens: tokens(1, 2, 3), from: 1 })
    expect(one?.read()).toEqual(bytes(10, 1))
    expect([...tier.entries("b")]).toEqual([])
  })

  test("forgets what was read longest ago, and stays within its bytes", () => {
    const tier = new MemoryTier(42)
    for (const token of [1, 2, 3]) tier.put("a", { tokens: tokens(token), from: 0 }, bytes(10))
    const [first] = tier.entries("a")
    expect(first?.read()).toEqual(bytes(10))
    tier.put("a", { tokens: tokens(4), from: 0 }, bytes(16))
    expect(names(tier)).toEqual(["1", "4"])
    expect(tier.bytes).toBe(34)
  })

  test("takes nothing that is larger than itself, and forgets nothing for it", () => {
    const tier = new MemoryTier(30)
    tier.put("a", { tokens: tokens(1), from: 0 }, bytes(10))
    expect([tier.accepts(30), tier.accepts(31)]).toEqual([true, false])
    tier.put("a", { tokens: tokens(2), from: 0 }, bytes(31))
    expect(names(tier)).toEqual(["1"])
  })

  test("forgets what is of no use, once", () => {
    const tier = new MemoryTier(100)
    tier.put("a", { tokens: tokens(1), from: 0 }, bytes(10))
    const [one] = tier.entries("a")
    one?.forget()
    one?.forget()
    expect({ left: names(tier), bytes: tier.bytes }).toEqual({ left: [], bytes: 0 })
    expect(one?.read()).toEqual(bytes(10))
    expect(names(tier)).toEqual([])
  })
})

describe("joinTiers()", () => {
  class Kept extends MemoryTier {
    override readonly persists = true
  }

  test("puts into all that accept, and has what any of them has", () => {
    const [small, large] = [new MemoryTier(10), new Kept(1000)]
    const both = joinTiers([small, large])
    both.put("a", { tokens: tokens(1), from: 0 }, bytes(5))
    both.put("a", { tokens: tokens(1, 2), from: 1 }, bytes(100))
    expect([[...small.entries("a")].length, [...large.entries("a")].length]).toEqual([1, 2])
    expect([...both.entries("a")]).toHaveLength(3)
    expect([both.accepts(500), both.accepts(5000)]).toEqual([true, false])
  })

  test("persists when one of them does", () => {
    expect(joinTiers([new MemoryTier(1)]).persists).toBe(false)
    expect(joinTiers([new MemoryTier(1), new Kept(1)]).persists).toBe(true)
  })
})
