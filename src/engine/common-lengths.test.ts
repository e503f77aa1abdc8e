import { describe, expect, test } from "bun:test"

import { type Comparable, CommonLengths } from "./common-lengths.ts"

/** A request whose tokens can be compared, and that counts how often they are. */
class Request implements Comparable {
  tokens: number[]
  readonly scope: string | undefined
  revision = 0
  reads = 0

  constructor(tokens: number[], scope: string | undefined = "s") {
    this.tokens = tokens
    this.scope = scope
  }

  get knownTokens(): number {
    return this.tokens.length
  }

  get known(): Int32Array {
    this.reads++
    return Int32Array.from(this.tokens)
  }
}

describe("CommonLengths", () => {
  test("counts what agrees, but for the last token of who takes over", () => {
    const lengths = new CommonLengths<Request>()
    expect(lengths.of(new Request([1, 2, 3, 4]), new Request([1, 2, 9]))).toBe(2)
    expect(lengths.of(new Request([1, 2, 3]), new Request([1, 2, 3, 4]))).toBe(2)
  })

  test("finds nothing in common across scopes, or without one", () => {
    const lengths = new CommonLengths<Request>()
    const one = new Request([1, 2, 3])
    expect(lengths.of(one, new Request([1, 2, 3], "other"))).toBe(0)
    const alone = new Request([1, 2, 3])
    Object.defineProperty(alone, "scope", { value: undefined })
    expect(lengths.of(alone, alone)).toBe(0)
  })

  test("compares two requests once as long as they do not change", () => {
    const lengths = new CommonLengths<Request>()
    const [one, leader] = [new Request([1, 2, 3, 4]), new Request([1, 2, 9])]
    for (let i = 0; i < 5; i++) expect(lengths.of(one, leader)).toBe(2)
    // What comes after the difference does not matter.
    leader.tokens.push(3)
    expect(lengths.of(one, leader)).toBe(2)
    expect([one.reads, leader.reads]).toEqual([1, 1])
  })

  test("looks again when the leader went on where they agreed, and when tokens changed", () => {
    const lengths = new CommonLengths<Request>()
    const [one, leader] = [new Request([1, 2, 3, 4]), new Request([1, 2])]
    expect(lengths.of(one, leader)).toBe(2)
    leader.tokens.push(3)
    expect(lengths.of(one, leader)).toBe(3)
    leader.tokens = [7, 7, 7]
    leader.revision++
    expect(lengths.of(one, leader)).toBe(0)
    one.tokens = [7, 7, 7, 7]
    one.revision++
    expect(lengths.of(one, leader)).toBe(3)
  })
})
