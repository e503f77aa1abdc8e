import { describe, expect, test } from "bun:test"
import { rejects } from "node:assert/strict"

import { drain, untilAborted, withCleanup } from "./iterate.ts"

async function* numbers(count: number, onFinally: () => void = () => {}): AsyncGenerator<number> {
  try {
    for (let i = 0; i < count; i++) yield i
  } finally {
    onFinally()
  }
}

async function* breaking(): AsyncGenerator<number> {
  yield 0
  throw new Error("broken")
}

async function* returning(value: string): AsyncGenerator<number, string> {
  yield 0
  return value
}

function counted<T>(source: AsyncIterable<T>) {
  const calls = { cleanups: 0 }
  return { calls, items: withCleanup(source, () => calls.cleanups++) }
}

describe("withCleanup() — cleans up exactly once", () => {
  test("when the source ends", async () => {
    const { calls, items } = counted(numbers(3))
    expect(await Array.fromAsync(items)).toEqual([0, 1, 2])
    expect(calls.cleanups).toBe(1)
    expect(await items.next()).toEqual({ done: true, value: undefined })
    await items.return?.()
    expect(calls.cleanups).toBe(1)
  })

  test("when the source throws, and passes the error on", async () => {
    const { calls, items } = counted(breaking())
    await rejects(Array.fromAsync(items), /broken/)
    expect(calls.cleanups).toBe(1)
    await items.return?.()
    expect(calls.cleanups).toBe(1)
  })

  test("when the iteration is left, after the source has cleaned up itself", async () => {
    const order: string[] = []
    const source = numbers(3, () => order.push("source"))
    for await (const _ of withCleanup(source, () => order.push("cleanup"))) break
    expect(order).toEqual(["source", "cleanup"])
  })

  test("when it is returned before it began", async () => {
    const { calls, items } = counted(numbers(3))
    expect(await items.return?.()).toEqual({ done: true, value: undefined })
    expect(calls.cleanups).toBe(1)
    expect(await items.next()).toEqual({ done: true, value: undefined })
    expect(calls.cleanups).toBe(1)
  })

  test("when the source cannot be returned", async () => {
    const source = {
      [Symbol.asyncIterator]: () => ({ next: async () => ({ done: false, value: 1 }) as const }),
    }
    const { calls, items } = counted(source)
    for await (const _ of items) break
    expect(calls.cleanups).toBe(1)
  })

  test("when returning the source fails, and passes the error on", async () => {
    const { calls, items } = counted(
      numbers(3, () => {
        throw new Error("cannot close")
      }),
    )
    await items.next()
    await rejects(async () => items.return?.(), /cannot close/)
    expect(calls.cleanups).toBe(1)
  })

  test("not before", async () => {
    const { calls, items } = counted(numbers(2))
    await items.next()
    await items.next()
    expect(calls.cleanups).toBe(0)
  })
})

describe("drain()", () => {
  test("runs a generator to its end and gives what it returns", async () => {
    expect(await drain(returning("end"))).toBe("end")
    await rejects(drain(breaking()), /broken/)
  })
})

describe("untilAborted()", () => {
  test("passes everything on while nothing happens", async () => {
    const { signal } = new AbortController()
    expect(await Array.fromAsync(untilAborted(numbers(3), signal))).toEqual([0, 1, 2])
    await rejects(Array.fromAsync(untilAborted(breaking(), signal)), /broken/)
  })

  test("ends a wait that would never end", async () => {
    const controller = new AbortController()
    const never: AsyncIterable<number> = {
      [Symbol.asyncIterator]: () => ({ next: () => new Promise<never>(() => {}) }),
    }
    const next = untilAborted(never, controller.signal).next()
    controller.abort(new Error("enough"))
    await rejects(next, /enough/)
  })

  test("leaves the source when it is left", async () => {
    let isLeft = false
    const { signal } = new AbortController()
    for await (const _ of untilAborted(
      numbers(3, () => {
        isLeft = true
      }),
      signal,
    ))
      break
    expect(isLeft).toBe(true)
  })
})
