import { describe, expect, test } from "bun:test"

import { gather } from "./gather.ts"

/** How often it looked who is there, while one more came each time until there were `most`. */
async function looks(waitMsMax: number, readMs: number, most: number): Promise<number> {
  let count = 0
  await gather(waitMsMax, readMs, () => Math.min(++count, most))
  return count
}

describe("gather()", () => {
  test("waits for nobody where what is there is read in no time, or it shall not wait", async () => {
    expect(await looks(6, 49, 5)).toBe(0)
    expect(await looks(0, 9999, 5)).toBe(0)
  })

  test("waits as long as others come, and not for ever", async () => {
    expect(await looks(2, 100, 1)).toBe(2)
    expect(await looks(2, 100, 3)).toBe(4)
    expect(await looks(2, 100, 99)).toBe(8)
  })
})
