import { describe, expect, test } from "bun:test"
import { rejects } from "node:assert/strict"

import { Queue } from "./queue.ts"

/** What an iteration gives until it ends or throws. */
async function drain<T>(queue: AsyncIterable<T>): Promise<{ items: T[]; error: unknown }> {
  const items: T[] = []
  try {
    for await (const item of queue) items.push(item)
    return { items, error: undefined }
  } catch (error) {
    return { items, error }
  }
}

describe("Queue — order", () => {
  test("gives what was pushed before the iteration began, in order", async () => {
    const queue = new Queue<number>()
    for (const item of [1, 2, 3]) queue.push(item)
    queue.end()
    expect(await drain(queue)).toEqual({ items: [1, 2, 3], error: undefined })
  })

  test("gives an item to a consumer that waits already", async () => {
    const queue = new Queue<string>()
    const next = queue.next()
    queue.push("a")
    queue.push("b")
    expect(await next).toEqual({ done: false, value: "a" })
    expect(await queue.next()).toEqual({ done: false, value: "b" })
  })

  test("passes items on that are false, zero or empty", async () => {
    const queue = new Queue<unknown>()
    for (const item of [0, "", false, null]) queue.push(item)
    queue.end()
    expect((await drain(queue)).items).toEqual([0, "", false, null])
  })

  test("refuses a second consumer, which would take the first one's items", async () => {
    const queue = new Queue<number>()
    const first = queue.next()
    expect(() => queue.next()).toThrow("one consumer")
    queue.push(1)
    expect(await first).toEqual({ done: false, value: 1 })
  })
})

describe("Queue — end and failure", () => {
  test("ends a consumer that waits", async () => {
    const queue = new Queue<number>()
    const next = queue.next()
    queue.end()
    expect(await next).toEqual({ done: true, value: undefined })
    expect(await queue.next()).toEqual({ done: true, value: undefined })
  })

  test("throws to a consumer that waits", async () => {
    const queue = new Queue<number>()
    const next = queue.next()
    queue.fail(new Error("broken"))
    await rejects(next, /broken/)
  })

  test("throws only after the items that came before", async () => {
    const queue = new Queue<number>()
    const error = new Error("broken")
    queue.push(1)
    queue.fail(error)
    expect(await drain(queue)).toEqual({ items: [1], error })
  })

  test("ignores whatever comes after its end", async () => {
    const queue = new Queue<number>()
    queue.push(1)
    queue.end()
    queue.push(2)
    queue.fail(new Error("too late"))
    expect(await drain(queue)).toEqual({ items: [1], error: undefined })
  })

  test("keeps its first failure", async () => {
    const queue = new Queue<number>()
    queue.fail(new Error("first"))
    queue.fail(new Error("second"))
    queue.end()
    await rejects(queue.next(), /first/)
  })
})

describe("Queue — leaving early", () => {
  test("tells the producer once and drops what is queued", async () => {
    let returns = 0
    const queue = new Queue<number>(() => returns++)
    for (const item of [1, 2, 3]) queue.push(item)
    for await (const _ of queue) break
    expect(returns).toBe(1)
    await queue.return()
    expect(returns).toBe(1)
    queue.push(4)
    expect(await queue.next()).toEqual({ done: true, value: undefined })
  })

  test("ends a consumer that still waits", async () => {
    const queue = new Queue<number>()
    const next = queue.next()
    await queue.return()
    expect(await next).toEqual({ done: true, value: undefined })
  })

  test("does not tell a producer that is through", async () => {
    let returns = 0
    const ended = new Queue<number>(() => returns++)
    ended.push(1)
    ended.end()
    for await (const _ of ended) break
    const failed = new Queue<number>(() => returns++)
    failed.fail(new Error("broken"))
    await failed.return()
    expect(returns).toBe(0)
    expect(await failed.next()).toEqual({ done: true, value: undefined })
  })

  test("is not called by an iteration that runs to its end", async () => {
    let returns = 0
    const queue = new Queue<number>(() => returns++)
    queue.push(1)
    queue.end()
    await drain(queue)
    expect(returns).toBe(0)
  })
})
