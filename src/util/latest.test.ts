import { describe, expect, test } from "bun:test"

import { Latest } from "./latest.ts"

describe("Latest", () => {
  test("gives the newest value, and each once", async () => {
    const latest = new Latest<{ n: number }>()
    for (const n of [1, 2, 3]) latest.set({ n })
    expect((await latest.next()).value).toEqual({ n: 3 })
    const next = latest.next()
    latest.set({ n: 4 })
    expect((await next).value).toEqual({ n: 4 })
  })

  test("ends after the last value, and takes none afterwards", async () => {
    const latest = new Latest<{ n: number }>()
    latest.set({ n: 1 })
    latest.end()
    latest.set({ n: 2 })
    expect(await Array.fromAsync(latest)).toEqual([{ n: 1 }])
  })

  test("ends for whoever waits", async () => {
    const latest = new Latest<{ n: number }>()
    const next = latest.next()
    await latest.return()
    expect((await next).done).toBe(true)
  })
})
