import { describe, expect, test } from "bun:test"

import { termsOf } from "./terms.ts"

describe("termsOf()", () => {
  test("without headers all share one scope", () => {
    expect(termsOf(new Headers(), {})).toEqual({ client: "", cacheScope: "" })
  })

  test("a key is a client and a scope of its own, and is not passed on", () => {
    const [a, b, again] = ["Bearer a", "Bearer b", "Bearer a"].map((Authorization) =>
      termsOf(new Headers({ Authorization }), {}),
    )
    expect(a).toEqual(again)
    expect(a).not.toEqual(b)
    expect(a?.client).toBe(String(a?.cacheScope))
    expect(JSON.stringify(a)).not.toContain("Bearer")
  })

  test("headers go before what the body says", () => {
    const headers = new Headers({
      "X-Cria-Scope": "team",
      "X-Cria-Client": "ann",
      "X-Cria-Priority": "Batch",
    })
    expect(termsOf(headers, { priority: "interactive", user: "bob" })).toEqual({
      cacheScope: "team",
      client: "ann",
      priority: "batch",
    })
    expect(termsOf(new Headers(), { priority: "interactive", user: "bob" })).toEqual({
      cacheScope: "",
      client: "bob",
      priority: "interactive",
    })
  })

  test("a prompt that shall not be cached has no scope", () => {
    const headers = new Headers({ "X-Cria-Scope": "team" })
    expect(termsOf(headers, { cachePrompt: false }).cacheScope).toBeNull()
  })

  test("says which priorities there are", () => {
    expect(() => termsOf(new Headers({ "X-Cria-Priority": "now" }), {})).toThrow(
      'Cannot use priority "now": expected interactive, normal, batch',
    )
  })
})
