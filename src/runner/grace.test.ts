import { describe, expect, test } from "bun:test"

import { FakeTimers } from "../util/fake-timers.ts"
import { Grace } from "./grace.ts"

function world() {
  const timers = new FakeTimers()
  const over: number[] = []
  const grace = new Grace({ quietMsMax: 5, totalMsMax: 20 }, timers, () => over.push(timers.now()))
  const pass = (ms: number) => {
    for (let i = 0; i < ms; i++) timers.advance(1)
  }
  return { timers, grace, over, pass }
}

describe("Grace", () => {
  test("is over after a quiet while, once", () => {
    const { over, pass } = world()
    pass(30)
    expect(over).toEqual([5])
  })

  test("begins anew with each sign of life", () => {
    const { grace, over, pass } = world()
    pass(4)
    grace.extend()
    pass(4)
    expect(over).toEqual([])
    pass(10)
    expect(over).toEqual([9])
  })

  test("has an end, however lively it is", () => {
    const { grace, over, pass } = world()
    for (let i = 0; i < 12 && over.length === 0; i++) {
      pass(2)
      if (over.length === 0) grace.extend()
    }
    expect(over).toEqual([20])
  })

  test("never ends what was disposed", () => {
    const { grace, over, pass, timers } = world()
    grace[Symbol.dispose]()
    pass(30)
    expect(over).toEqual([])
    expect(timers.pending).toBe(0)
  })
})
