import { describe, expect, test } from "bun:test"

import { loadNotes } from "./load-notes.ts"

const LOADED = { contextTokens: 4096, parallel: 4, runningMax: 64 }

describe("loadNotes()", () => {
  test("has nothing to say when all was granted, or nothing was asked for", () => {
    expect(loadNotes({ name: "m" }, LOADED)).toEqual([])
    expect(loadNotes({ name: "m", contextTokens: 4096, parallel: 4 }, LOADED)).toEqual([])
    // Contexts of a length that nobody asked for.
    expect(loadNotes({ name: "m", parallel: 8 }, LOADED)).toEqual([])
  })

  test.each([
    [
      { contextTokens: 8192 },
      '"m" has a context of 4096 tokens instead of 8192: it was trained for no more',
    ],
    [
      { parallel: 300 },
      '"m" runs 64 requests at once instead of 300: there are no sequence ids, or no memory for their states, for more',
    ],
    [
      { contextTokens: 4096, parallel: 6 },
      '"m" has memory for 4 full contexts at once instead of 6: more requests run only while they are shorter',
    ],
  ])("explains what became of %j", (wishes, note) => {
    expect(loadNotes({ name: "m", ...wishes }, LOADED)).toEqual([note])
  })
})
