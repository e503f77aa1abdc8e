import { describe, expect, test } from "bun:test"

import { commonLength, MemoryTier } from "./prefix-tier.ts"

const tokens = (...numbers: number[]) => Int32Array.from(numbers)
const bytes = (length: number, fill = 0) => new Uint8Array(length).fill(fill)

const find = (tier: MemoryTier, scope: string, ...wanted: number[]) =>
  tier.find(scope, { tokens: wanted, limit: wanted.length }, "prefix")

describe("commonLength()", () => {
  test("counts tokens that agree, at most to the limit", () => {
    const lookup = { tokens: [1, 2, 3, 4], limit: 3 }
    expect(commonLength([1, 2, 3, 4], lookup)).toBe(3)
    expect(commonLength([1, 2, 9], lookup)).toBe(2)
    expect(commonLength([1], lookup)).toBe(1)
    expect(commonLength([], lookup)).toBe(0)
  })
})

describe("MemoryTier", () => {
  test("finds the entry that agrees longest, in its scope only", () => {
    const tier = new MemoryTier(1000)
    tier.put("a", tokens(1, 2, 3), bytes(10, 1))
    tier.put("a", tokens(1, 2, 8, 9), bytes(10, 2))
    const entry = find(tier, "a", 1, 2, 8, 7)
    expect(entry).toMatchObject({ agreeing: 3, tokens: tokens(1, 2, 8, 9) })
    expect(entry?.read()).toEqual(bytes(10, 2))
    expect(find(tier, "b", 1, 2, 3)).toBeUndefined()
    expect(find(tier, "a", 7)).toBeUndefined()
  })

  test("has what begins an entry", () => {
    const tier = new MemoryTier(1000)
    tier.put("a", tokens(1, 2, 3), bytes(10))
    expect(tier.has("a", tokens(1, 2, 3), "prefix")).toBe(true)
    expect(tier.has("a", tokens(1, 2), "prefix")).toBe(true)
    expect(tier.has("a", tokens(1, 2, 3, 4), "prefix")).toBe(false)
    expect(tier.has("b", tokens(1, 2, 3), "prefix")).toBe(false)
  })

  test("finds and has only what agrees entirely where whole states are wanted", () => {
    const tier = new MemoryTier(1000)
    tier.put("a", tokens(1, 2, 3, 4), bytes(10, 1))
    const lookup = { tokens: [1, 2, 3, 9], limit: 4 }
    expect(tier.find("a", lookup, "whole")).toBeUndefined()
    expect(tier.has("a", tokens(1, 2), "whole")).toBe(false)
    tier.put("a", tokens(1, 2), bytes(10, 2))
    expect(tier.has("a", tokens(1, 2), "whole")).toBe(true)
    expect(tier.find("a", lookup, "whole")?.read()).toEqual(bytes(10, 2))
    expect(tier.find("a", lookup, "prefix")?.read()).toEqual(bytes(10, 1))
  })

  test("forgets what was read longest ago, and stays within its bytes", () => {
    const tier = new MemoryTier(30)
    for (const token of [1, 2, 3]) tier.put("a", tokens(token), bytes(10))
    find(tier, "a", 1)?.read()
    tier.put("a", tokens(4), bytes(15))
    expect([1, 2, 3, 4].map((token) => find(tier, "a", token) !== undefined)).toEqual([
      true,
      false,
      false,
      true,
    ])
    expect(tier.bytes).toBe(25)
  })

  test("does not forget everything for something that can never fit", () => {
    const tier = new MemoryTier(30)
    tier.put("a", tokens(1), bytes(30))
    tier.put("a", tokens(2), bytes(31))
    expect(find(tier, "a", 1)?.read()).toHaveLength(30)
    expect(find(tier, "a", 2)).toBeUndefined()
    expect(tier.bytes).toBe(30)
  })

  test("still reads an entry that was found before it was forgotten", () => {
    const tier = new MemoryTier(10)
    tier.put("a", tokens(1), bytes(10, 7))
    const entry = find(tier, "a", 1)
    tier.put("a", tokens(2), bytes(10))
    expect(entry?.read()).toEqual(bytes(10, 7))
    expect(tier.bytes).toBe(10)
    expect(find(tier, "a", 1)).toBeUndefined()
  })
})
