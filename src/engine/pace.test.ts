import { describe, expect, test } from "bun:test"

import { Pace } from "./pace.ts"

describe("Pace", () => {
  test("is careful as long as nothing was measured", () => {
    const pace = new Pace()
    expect(pace.promptTokens(4)).toBe(64)
    pace.observe({ rows: 4, promptTokens: 0, ms: 10 })
    expect(pace.promptTokens(4)).toBe(64)
  })

  test("gives a chunk with which a step takes three times as long as without", () => {
    const pace = new Pace()
    pace.observe({ rows: 8, promptTokens: 0, ms: 40 })
    pace.observe({ rows: 8, promptTokens: 100, ms: 40 + 100 * 0.5 })
    expect(pace.promptTokens(8)).toBe(160)
  })

  test("learns the time of a prompt token from steps without answers too", () => {
    const pace = new Pace()
    pace.observe({ rows: 1, promptTokens: 0, ms: 10 })
    pace.observe({ rows: 0, promptTokens: 512, ms: 512 })
    expect(pace.promptTokens(1)).toBe(20)
  })

  test("learns nothing from a mixed step before it knows the answers' part", () => {
    const pace = new Pace()
    pace.observe({ rows: 2, promptTokens: 10, ms: 1000 })
    pace.observe({ rows: 2, promptTokens: 0, ms: 10 })
    expect(pace.promptTokens(2)).toBe(64)
  })

  test("follows new measurements without jumping to any of them", () => {
    const pace = new Pace()
    pace.observe({ rows: 1, promptTokens: 0, ms: 100 })
    pace.observe({ rows: 0, promptTokens: 1, ms: 1 })
    expect(pace.promptTokens(1)).toBe(200)
    pace.observe({ rows: 1, promptTokens: 0, ms: 200 })
    expect(pace.promptTokens(1)).toBe(240)
    for (let i = 0; i < 50; i++) pace.observe({ rows: 1, promptTokens: 0, ms: 200 })
    expect(pace.promptTokens(1)).toBe(399)
  })

  test("estimates a number of answers that was not measured from its neighbours", () => {
    const pace = new Pace()
    pace.observe({ rows: 0, promptTokens: 1, ms: 1 })
    pace.observe({ rows: 4, promptTokens: 0, ms: 40 })
    // More answers never take less; fewer take their part at least.
    expect([pace.promptTokens(6), pace.promptTokens(4), pace.promptTokens(2)]).toEqual([80, 80, 40])
    pace.observe({ rows: 7, promptTokens: 0, ms: 70 })
    expect(pace.promptTokens(6)).toBe(120)
    expect(pace.promptTokens(64)).toBe(140)
  })

  test("never lets a prompt crawl, nor counts to infinity", () => {
    const pace = new Pace()
    pace.observe({ rows: 1, promptTokens: 0, ms: 1 })
    pace.observe({ rows: 0, promptTokens: 1, ms: 1000 })
    expect(pace.promptTokens(1)).toBe(16)
    const free = new Pace()
    free.observe({ rows: 1, promptTokens: 0, ms: 10 })
    free.observe({ rows: 1, promptTokens: 50, ms: 5 })
    expect(Number.isSafeInteger(free.promptTokens(1))).toBe(true)
    expect(free.promptTokens(1)).toBeGreaterThan(1e6)
  })
})
