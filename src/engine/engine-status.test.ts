import { describe, expect, test } from "bun:test"

import { drainSeconds, newCounters } from "./engine-status.ts"

describe("drainSeconds()", () => {
  test.each<[string, number, Partial<ReturnType<typeof newCounters>>, number]>([
    [
      "so many times what a request took",
      5,
      { finished: 10, decodeMs: 18_000, sampleMs: 2000 },
      10,
    ],
    ["a second at least", 5, { finished: 1000, decodeMs: 1000 }, 1],
    ["a minute at most", 500, { finished: 1, decodeMs: 5000 }, 60],
    ["what was computed so far when nothing is finished", 1, { betweenMs: 100, decodeMs: 3000 }, 4],
    ["a second when nothing was computed", 3, {}, 1],
    ["as for one when none may wait", 0, { finished: 1, decodeMs: 3000 }, 3],
  ])("%s", (_, waiting, counters, seconds) => {
    expect(drainSeconds(waiting, { ...newCounters(), ...counters })).toBe(seconds)
  })
})
