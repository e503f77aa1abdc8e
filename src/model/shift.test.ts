import { describe, expect, test } from "bun:test"

import { keptTokens } from "./shift.ts"

describe("keptTokens()", () => {
  test.each<[string, Partial<Parameters<typeof keptTokens>[0]>, number]>([
    ["what was asked for", { wanted: 4 }, 4],
    ["and the token in front", { wanted: 4, hasBos: true }, 5],
    ["nothing", { wanted: 0 }, 0],
    ["the prompt", { wanted: -1 }, 30],
    ["the prompt, which begins with the token in front", { wanted: -1, hasBos: true }, 30],
    ["at most half of the context", { wanted: 90 }, 50],
    ["at most half, however long the prompt is", { wanted: -1, promptTokens: 99 }, 50],
    ["at most half of an odd context", { wanted: 90, contextTokens: 5 }, 2],
  ])("%s", (_, change, kept) => {
    const facts = { wanted: 0, promptTokens: 30, contextTokens: 100, hasBos: false }
    expect(keptTokens({ ...facts, ...change })).toBe(kept)
  })
})
