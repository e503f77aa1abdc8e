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

  test("a key's clients and scopes are its own: nobody joins those of another", () => {
    const named = { "X-Cria-Scope": "team", "X-Cria-Client": "ann" }
    const terms = ["Bearer a", "Bearer b", undefined].map((key) =>
      termsOf(new Headers({ ...named, ...(key === undefined ? {} : { Authorization: key }) }), {}),
    )
    const owner = String(termsOf(new Headers({ Authorization: "Bearer a" }), {}).client)
    expect(terms[0]).toEqual({ client: `${owner}/ann`, cacheScope: `${owner}/team` })
    expect(new Set(terms.map(({ cacheScope }) => cacheScope)).size).toBe(3)
    expect(new Set(terms.map(({ client }) => client)).size).toBe(3)
  })

  test("a name cannot pass for that of a key, which others can see", () => {
    const owner = String(termsOf(new Headers({ Authorization: "Bearer a" }), {}).client)
    for (const name of [owner, `${owner}/team`]) {
      const headers = new Headers({ "X-Cria-Scope": name, "X-Cria-Client": name })
      const { client, cacheScope } = termsOf(headers, {})
      expect([client, cacheScope]).toEqual(Array(2).fill(expect.stringMatching(/^sha256:/)))
    }
  })

  test("long names are kept apart, and short", () => {
    const scopes = ["", "x", "y"].map((end) => {
      const headers = new Headers({ "X-Cria-Scope": "s".repeat(256) + end })
      return String(termsOf(headers, {}).cacheScope)
    })
    expect(scopes[0]).toHaveLength(256)
    expect(new Set(scopes).size).toBe(3)
    expect(scopes.slice(1).every((scope) => scope.length < 256)).toBe(true)
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
