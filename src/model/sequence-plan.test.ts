import { describe, expect, test } from "bun:test"

import { planSequences } from "./sequence-plan.ts"

const DENSE = { recurrent: false, hybrid: false, window: 0 }
const CELLS = { isWindowFull: true, states: 0, runningMax: Infinity }
const STATES = { isWindowFull: true, states: 24, runningMax: 16 }

describe("planSequences()", () => {
  test("gives all ids to cached prefixes that running requests leave", () => {
    expect(planSequences(DENSE, CELLS, undefined)).toEqual({
      sequences: 64,
      pins: 192,
      runningMax: 64,
    })
    expect(planSequences(DENSE, CELLS, 4)).toEqual({ sequences: 64, pins: 192, runningMax: 4 })
    expect(planSequences(DENSE, CELLS, 100)).toEqual({ sequences: 100, pins: 156, runningMax: 100 })
  })

  test("leaves some ids to the cache however many requests shall run", () => {
    expect(planSequences(DENSE, CELLS, 1000)).toEqual({
      sequences: 240,
      pins: 16,
      runningMax: 240,
    })
  })

  test("has half of the ids where a window is kept whole", () => {
    const windows = { ...DENSE, window: 1024 }
    expect(planSequences(windows, CELLS, undefined)).toEqual({
      sequences: 64,
      pins: 64,
      runningMax: 64,
    })
    expect(planSequences(windows, CELLS, 1000)).toEqual({
      sequences: 112,
      pins: 16,
      runningMax: 112,
    })
  })

  test.each([
    ["recurrent", { ...DENSE, recurrent: true }, STATES],
    ["hybrid", { ...DENSE, hybrid: true }, STATES],
    ["a window that slides", { ...DENSE, window: 1024 }, { ...STATES, isWindowFull: false }],
  ])("has as many ids as states: %s", (_, model, fit) => {
    expect(planSequences(model, fit, undefined)).toEqual({
      sequences: 24,
      pins: 0,
      runningMax: 16,
    })
  })

  test("has some states where the file does not tell that there are any", () => {
    const model = { ...DENSE, hybrid: true }
    expect(planSequences(model, CELLS, undefined)).toEqual({
      sequences: 8,
      pins: 0,
      runningMax: 6,
    })
    expect(planSequences(model, CELLS, 2).runningMax).toBe(2)
  })
})
