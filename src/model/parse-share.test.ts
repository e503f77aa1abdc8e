import { describe, expect, test } from "bun:test"

import { ParseShare } from "./parse-share.ts"

/** Plays answers that all want to be parsed all the time; milliseconds that each got out of so many. */
function play(answers: number, parseMs: number, totalMs: number): number[] {
  const share = new ParseShare()
  const turns = Array.from({ length: answers }, () => share.join())
  const spent = turns.map(() => 0)
  for (let now = 0; now < totalMs;) {
    const due = turns.findIndex((turn) => turn.isDue(now))
    if (due === -1) {
      now++
      continue
    }
    turns[due]?.took(now, now + parseMs)
    spent[due] = (spent[due] ?? 0) + parseMs
    now += parseMs
  }
  return spent
}

describe("ParseShare", () => {
  test.each([1, 4, 64])("%d answers together take a twentieth of the time", (answers) => {
    const spent = play(answers, 2, 100_000)
    const all = spent.reduce((sum, ms) => sum + ms, 0)
    expect(all / 100_000).toBeLessThan(0.055)
    expect(all / 100_000).toBeGreaterThan(0.04)
    expect(Math.max(...spent) - Math.min(...spent)).toBeLessThanOrEqual(4)
  })

  test("those that are over take none", () => {
    const share = new ParseShare()
    const first = share.join()
    const second = share.join()
    expect(share.pauseMs(1)).toBe(40)
    second[Symbol.dispose]()
    second[Symbol.dispose]()
    expect(share.pauseMs(1)).toBe(20)
    first.took(0, 1)
    expect([first.isDue(20), first.isDue(21)]).toEqual([false, true])
  })
})
