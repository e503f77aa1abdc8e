import { describe, expect, test } from "bun:test"
import { rejects } from "node:assert/strict"

import { drain, Merged, untilAborted, withCleanup } from "./iterate.ts"

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

/** A source that gives an item when it is told to, and notes what becomes of it. */
class Tap {
  readonly #gates: PromiseWithResolvers<string>[] = []
  asked = 0
  isAborted = false
  hasEnded = false

  async *open(signal: AbortSignal): AsyncGenerator<string> {
    signal.addEventListener("abort", () => {
      this.isAborted = true
      this.#gate(this.asked - 1).reject(signal.reason)
    })
    try {
      for (;;) {
        this.asked++
        const item = await this.#gate(this.asked - 1).promise
        if (item === "end") return
        yield item
      }
    } finally {
      this.hasEnded = true
    }
  }

  /** Gives the answer to the so-manieth question. */
  give(question: number, item: string): void {
    this.#gate(question).resolve(item)
  }

  break(question: number, error: Error): void {
    this.#gate(question).reject(error)
  }

  #gate(question: number): PromiseWithResolvers<string> {
    const gate = (this.#gates[question] ??= Promise.withResolvers())
    gate.promise.catch(() => {})
    return gate
  }
}

function merged(signal?: AbortSignal) {
  const items = new Merged<string>(signal)
  const taps = [new Tap(), new Tap()] as const
  for (const tap of taps) items.add((inner) => tap.open(inner))
  return { items, taps }
}

describe("Merged", () => {
  test("gives items in the order in which they come, and ends when all have ended", async () => {
    const { items, taps } = merged()
    const [a, b] = taps
    b.give(0, "b0")
    expect((await items.next()).value).toBe("b0")
    a.give(0, "a0")
    b.give(1, "end")
    a.give(1, "a1")
    a.give(2, "end")
    expect(await Array.fromAsync(items)).toEqual(["a0", "a1"])
    expect(await items.next()).toEqual({ done: true, value: undefined })
  })

  test("asks a source for more only when its item was taken", async () => {
    const { items, taps } = merged()
    const [a, b] = taps
    a.give(0, "a0")
    b.give(0, "b0")
    a.give(1, "a1")
    const first = (await items.next()).value
    expect([first, a.asked + b.asked]).toEqual(["a0", 2])
    expect((await items.next()).value).toBe("b0")
    expect(a.asked).toBe(2)
    await items.return()
  })

  test("takes in sources that join later", async () => {
    const { items, taps } = merged()
    const late = new Tap()
    const next = items.next()
    items.add((signal) => late.open(signal))
    late.give(0, "late")
    expect((await next).value).toBe("late")
    for (const tap of [...taps, late]) tap.give(tap.asked - (tap === late ? 0 : 1), "end")
    expect(await Array.fromAsync(items)).toEqual([])
  })

  test("aborts the others when one fails, and throws what it threw", async () => {
    const { items, taps } = merged()
    taps[0].break(0, new Error("broken"))
    await rejects(items.next(), /broken/)
    expect([taps[1].isAborted, taps[1].hasEnded]).toEqual([true, true])
    expect((await items.next()).done).toBe(true)
  })

  test("ends all when it is left while they are waited for", async () => {
    const { items, taps } = merged()
    const next = items.next()
    await items.return()
    expect((await next).done).toBe(true)
    expect(taps.map(({ hasEnded }) => hasEnded)).toEqual([true, true])
  })

  test("ends with the reason of the caller's signal", async () => {
    const controller = new AbortController()
    const { items, taps } = merged(controller.signal)
    const next = items.next()
    controller.abort(new Error("gone"))
    await rejects(next, /gone/)
    expect(taps.map(({ hasEnded }) => hasEnded)).toEqual([true, true])
  })
})
