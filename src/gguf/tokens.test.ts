import { describe, expect, test } from "bun:test"

import * as fc from "fast-check"

import { TokenChecker } from "./tokens.ts"

function checker(count: number): (token: string) => void {
  const tokens = new TokenChecker(count, (problem) => new Error(problem))
  return (token) => {
    const bytes = new TextEncoder().encode(`..${token}..`)
    tokens.check(bytes, 2, bytes.length - 4)
  }
}

describe("TokenChecker", () => {
  test("accepts any distinct texts and refuses the first that comes again", () => {
    const texts = fc.uniqueArray(fc.string({ minLength: 1 }), { minLength: 1, maxLength: 200 })
    fc.assert(
      fc.property(texts, fc.nat(), (tokens, pick) => {
        fc.pre(!tokens.some((token) => /^<0x..>$/.test(token)))
        const check = checker(tokens.length + 1)
        for (const token of tokens) check(token)
        const again = tokens[pick % tokens.length] ?? ""
        expect(() => check(again)).toThrow(`token ${tokens.length} is`)
      }),
    )
  })

  test("refuses more tokens than any vocabulary has, before it allocates", () => {
    expect(() => checker(2 ** 21 + 1)).toThrow(
      "the vocabulary has 2097153 tokens, expected at most 2097152",
    )
  })

  test("gives up on texts that all collide", () => {
    const check = checker(1) // a table of four slots
    for (const token of ["a", "b", "c", "d"]) check(token)
    expect(() => check("e")).toThrow("token 4 collides with 256 others")
  })
})
