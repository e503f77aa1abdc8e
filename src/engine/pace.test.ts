import { describe, expect, test } from "bun:test"

import { type Arrival, CPU_CHUNKS, GPU_CHUNKS, isBurst, Pace } from "./pace.ts"

/** A step at the beginning of a prompt. */
const step = (rows: number, promptTokens: number, ms: number, depth = 0) => ({
  rows,
  promptTokens,
  ms,
  depth,
})

/** What a chunk may take beside `rows` answers, from a measured step of `from` answers. */
const budget = (rows: number, from: number, ms: number) => 2.5 * ms * (rows / from) ** 0.65

const fours = (tokens: number) => Math.floor(tokens / 4) * 4

const PLAIN = { tile: 1, step: 4, least: 8 }

describe("Pace", () => {
  test("is careful as long as nothing was measured", () => {
    const pace = new Pace(PLAIN)
    expect(pace.promptTokens(4, 0)).toBe(64)
    pace.observe(step(4, 0, 10))
    expect(pace.promptTokens(4, 0)).toBe(64)
  })

  test("gives a chunk with which answers come three and a half times as late", () => {
    const pace = new Pace(PLAIN)
    pace.observe(step(8, 0, 40))
    pace.observe(step(8, 100, 40 + 100 * 0.5))
    expect(pace.promptTokens(8, 0)).toBe(200)
  })

  test("learns the time of a prompt token from steps without answers too", () => {
    const pace = new Pace(PLAIN)
    pace.observe(step(1, 0, 10))
    pace.observe(step(0, 512, 512))
    expect(pace.promptTokens(1, 0)).toBe(24)
  })

  test("learns nothing from a mixed step before it knows the answers' part", () => {
    const pace = new Pace(PLAIN)
    pace.observe(step(2, 10, 1000))
    pace.observe(step(2, 0, 10))
    expect(pace.promptTokens(2, 0)).toBe(64)
  })

  test("follows new measurements without jumping to any of them", () => {
    const pace = new Pace(PLAIN)
    pace.observe(step(1, 0, 100))
    pace.observe(step(0, 1, 1))
    expect(pace.promptTokens(1, 0)).toBe(fours(250))
    pace.observe(step(1, 0, 200))
    expect(pace.promptTokens(1, 0)).toBe(fours(300))
    for (let i = 0; i < 50; i++) pace.observe(step(1, 0, 200))
    expect(pace.promptTokens(1, 0)).toBe(fours(499))
  })

  test("does not believe a step that was interrupted", () => {
    const pace = new Pace(PLAIN)
    pace.observe(step(1, 0, 100))
    pace.observe(step(0, 1, 1))
    pace.observe(step(1, 0, 100_000))
    expect(pace.promptTokens(1, 0)).toBe(fours(2.5 * 140))
    pace.observe(step(0, 1, 1000))
    expect(pace.promptTokens(1, 0)).toBe(fours((2.5 * 140) / 1.8))
  })

  test("estimates a number of answers that was not measured from its neighbours", () => {
    const pace = new Pace(PLAIN)
    pace.observe(step(0, 1, 1))
    pace.observe(step(4, 0, 40))
    expect([6, 4, 2].map((rows) => pace.promptTokens(rows, 0))).toEqual(
      [6, 4, 2].map((rows) => fours(budget(rows, 4, 40))),
    )
    pace.observe(step(7, 0, 70))
    expect(pace.promptTokens(6, 0)).toBe(fours(budget(6, 7, 70)))
    expect(pace.promptTokens(64, 0)).toBe(fours(budget(64, 7, 70)))
  })

  test("never lets a prompt crawl, nor counts to infinity", () => {
    const pace = new Pace(PLAIN)
    pace.observe(step(1, 0, 1))
    pace.observe(step(0, 1, 1000))
    expect(pace.promptTokens(1, 0)).toBe(8)
    const free = new Pace(PLAIN)
    free.observe(step(1, 0, 10))
    free.observe(step(1, 50, 5))
    expect(free.promptTokens(1, 0)).toBe(2 ** 20)
  })

  test("takes the answers' part of a mixed step for what prompts do not explain", () => {
    const pace = new Pace(PLAIN)
    pace.observe(step(0, 100, 100))
    pace.observe(step(8, 100, 160))
    expect(pace.promptTokens(8, 0)).toBe(fours(2.5 * 60))
  })

  test("learns that a token takes the longer the more come before it", () => {
    const pace = new Pace(PLAIN)
    pace.observe(step(1, 0, 100))
    for (let round = 0; round < 50; round++)
      for (let depth = 0; depth < 8000; depth += 500)
        pace.observe(step(0, 10, 10 * (2 + depth / 1000), depth))
    expect(pace.promptTokens(1, 0)).toBeWithin(120, 129)
    expect(pace.promptTokens(1, 8000)).toBeWithin(24, 33)
  })

  test("gives whole tiles where these cost less, as long as one of them is in time", () => {
    const pace = new Pace(CPU_CHUNKS)
    pace.observe(step(1, 0, 80))
    pace.observe(step(0, 64, 64))
    expect(pace.promptTokens(1, 0)).toBe(192)
    pace.observe(step(2, 0, 20))
    // 50 ms: not enough for a tile. What less costs is not known: no more, at the beginning.
    expect(pace.promptTokens(2, 0)).toBe(48)
    for (let i = 0; i < 50; i++) pace.observe(step(2, 8, 20 + 8 * 4))
    expect(pace.promptTokens(2, 0)).toBe(12)
    expect(pace.promptTokens(1, 0)).toBe(192)
  })

  test("gives chunks in the shapes that a GPU likes", () => {
    const pace = new Pace(GPU_CHUNKS)
    pace.observe(step(1, 0, 10))
    pace.observe(step(0, 100, 10))
    expect(pace.promptTokens(1, 0)).toBe(240)
    for (let i = 0; i < 50; i++) pace.observe(step(0, 100, 1000))
    expect(pace.promptTokens(1, 0)).toBe(16)
  })

  test("expects that behind others less than a tile costs more", () => {
    const pace = new Pace(CPU_CHUNKS)
    pace.observe(step(1, 0, 40))
    for (let round = 0; round < 200; round++)
      for (const depth of [0, 2000, 4000]) pace.observe(step(0, 64, 64 * (1 + depth / 1000), depth))
    // 100 ms; a tile takes 64 x 3 here, and a token alone 1 + 2 x 2.
    expect(pace.promptTokens(1, 2000)).toBe(20)
    expect(pace.promptTokens(1, 0)).toBe(64)
  })
})

const at = (submittedAt: number, remainingTokens = 100, more: Partial<Arrival> = {}): Arrival => ({
  submittedAt,
  remainingTokens,
  completionTokens: 0,
  priority: "normal",
  ...more,
})

test("says how long a prompt takes alone, nothing as long as it does not know", () => {
  const pace = new Pace(PLAIN)
  expect(pace.readMs(100)).toBe(0)
  pace.observe(step(0, 100, 250))
  expect(pace.readMs(40)).toBe(100)
})

describe("isBurst()", () => {
  test("is when short prompts came together with those that answer", () => {
    expect(isBurst([at(0), at(900)], [at(1000), at(1000)], 512)).toBe(true)
    expect(isBurst([at(1500)], [at(1000), at(1000)], 512)).toBe(true)
  })

  test("is none of prompts that waited longer than those that answer, or go on after they gave way", () => {
    expect(isBurst([at(5000)], [at(1000), at(1000)], 512)).toBe(false)
    const resumed = { completionTokens: 5 }
    expect(isBurst([at(0)], [at(0, 100, resumed), at(0, 100, resumed)], 512)).toBe(false)
  })

  test("is none of prompts that are less urgent than who answers", () => {
    const [urgent, batch] = [{ priority: "interactive" }, { priority: "batch" }] as const
    const prompts = [at(0, 100, batch), at(0, 100, batch)]
    expect(isBurst([at(0, 1, urgent)], prompts, 512)).toBe(false)
    expect(isBurst([at(0, 1, batch)], prompts, 512)).toBe(true)
    expect(isBurst([at(0, 1, batch)], [at(0), at(0)], 512)).toBe(true)
  })

  test("is none when somebody answers who was there before", () => {
    expect(isBurst([at(0), at(1000)], [at(1001), at(1001)], 512)).toBe(false)
  })

  test("is none of one prompt, of a long one, or of very many", () => {
    expect(isBurst([at(0)], [at(0)], 512)).toBe(false)
    expect(isBurst([at(0)], [at(0), at(0, 513)], 512)).toBe(false)
    const many = Array.from({ length: 16 }, () => at(0, 512))
    expect(isBurst([at(0)], many, 512)).toBe(true)
    expect(isBurst([at(0)], [...many, at(0, 1)], 512)).toBe(false)
  })
})
