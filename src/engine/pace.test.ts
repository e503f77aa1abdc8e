import { describe, expect, test } from "bun:test"

import { Pace } from "./pace.ts"

/** The chunk beside `rows` answers, from a measured step of `from` answers. */
const near = (rows: number, from: number, ms: number) => Math.floor(2 * ms * (rows / from) ** 0.65)

describe("Pace", () => {
  test("is careful as long as nothing was measured", () => {
    const pace = new Pace(1)
    expect(pace.promptTokens(4, 1)).toBe(64)
    pace.observe({ rows: 4, promptTokens: 0, ms: 10 })
    expect(pace.promptTokens(4, 1)).toBe(64)
  })

  test("gives a chunk with which a step takes three times as long as without", () => {
    const pace = new Pace(1)
    pace.observe({ rows: 8, promptTokens: 0, ms: 40 })
    pace.observe({ rows: 8, promptTokens: 100, ms: 40 + 100 * 0.5 })
    expect(pace.promptTokens(8, 1)).toBe(160)
  })

  test("learns the time of a prompt token from steps without answers too", () => {
    const pace = new Pace(1)
    pace.observe({ rows: 1, promptTokens: 0, ms: 10 })
    pace.observe({ rows: 0, promptTokens: 512, ms: 512 })
    expect(pace.promptTokens(1, 1)).toBe(20)
  })

  test("learns nothing from a mixed step before it knows the answers' part", () => {
    const pace = new Pace(1)
    pace.observe({ rows: 2, promptTokens: 10, ms: 1000 })
    pace.observe({ rows: 2, promptTokens: 0, ms: 10 })
    expect(pace.promptTokens(2, 1)).toBe(64)
  })

  test("follows new measurements without jumping to any of them", () => {
    const pace = new Pace(1)
    pace.observe({ rows: 1, promptTokens: 0, ms: 100 })
    pace.observe({ rows: 0, promptTokens: 1, ms: 1 })
    expect(pace.promptTokens(1, 1)).toBe(200)
    pace.observe({ rows: 1, promptTokens: 0, ms: 200 })
    expect(pace.promptTokens(1, 1)).toBe(240)
    for (let i = 0; i < 50; i++) pace.observe({ rows: 1, promptTokens: 0, ms: 200 })
    expect(pace.promptTokens(1, 1)).toBe(399)
  })

  test("estimates a number of answers that was not measured from its neighbours", () => {
    const pace = new Pace(1)
    pace.observe({ rows: 0, promptTokens: 1, ms: 1 })
    pace.observe({ rows: 4, promptTokens: 0, ms: 40 })
    expect([6, 4, 2].map((rows) => pace.promptTokens(rows, 1))).toEqual([
      near(6, 4, 40),
      80,
      near(2, 4, 40),
    ])
    pace.observe({ rows: 7, promptTokens: 0, ms: 70 })
    expect(pace.promptTokens(6, 1)).toBe(near(6, 7, 70))
    expect(pace.promptTokens(64, 1)).toBe(near(64, 7, 70))
  })

  test("never lets a prompt crawl, nor counts to infinity", () => {
    const pace = new Pace(16)
    pace.observe({ rows: 1, promptTokens: 0, ms: 1 })
    pace.observe({ rows: 0, promptTokens: 1, ms: 1000 })
    expect(pace.promptTokens(1, 1)).toBe(16)
    const free = new Pace(1)
    free.observe({ rows: 1, promptTokens: 0, ms: 10 })
    free.observe({ rows: 1, promptTokens: 50, ms: 5 })
    expect(Number.isSafeInteger(free.promptTokens(1, 1))).toBe(true)
    expect(free.promptTokens(1, 1)).toBeGreaterThan(1e6)
  })

  test("takes the answers' part of a mixed step for what prompts do not explain", () => {
    const pace = new Pace(1)
    pace.observe({ rows: 0, promptTokens: 100, ms: 100 })
    pace.observe({ rows: 8, promptTokens: 100, ms: 160 })
    expect(pace.promptTokens(8, 1)).toBe(120)
  })

  test("lets answers wait for longer when more prompts wait than answers flow", () => {
    const pace = new Pace(1)
    expect(pace.promptTokens(2, 14)).toBe(64 * 26 * 26)
    pace.observe({ rows: 0, promptTokens: 1, ms: 1 })
    pace.observe({ rows: 4, promptTokens: 0, ms: 40 })
    // One more never counts; 3 x (4 x 1 / 4)^2 and 3 x (4 x 3 / 4)^2.
    expect([1, 2, 4].map((prompts) => pace.promptTokens(4, prompts))).toEqual([80, 80, 40 * 26])
  })

  test("gives whole tiles, where attention is computed in tiles", () => {
    const pace = new Pace(64)
    pace.observe({ rows: 0, promptTokens: 1, ms: 1 })
    pace.observe({ rows: 1, promptTokens: 0, ms: 80 })
    expect(pace.promptTokens(1, 1)).toBe(128)
  })
})
