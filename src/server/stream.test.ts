import { describe, expect, test } from "bun:test"
import { rejects } from "node:assert/strict"

import { withCleanup } from "../util/iterate.ts"
import { type Framing, streamed } from "./stream.ts"

const FRAMING: Framing<string> = {
  contentType: "text/event-stream",
  frame: (item) => `[${item}]`,
  error: (error) => `{${error instanceof Error ? error.message : "?"}}`,
  end: ".",
}

/** Gives some items, then throws when it is told so; counts how often it is closed. */
function source(items: readonly string[], error?: Error) {
  const calls = { closed: 0, given: 0 }
  async function* generate(): AsyncGenerator<string, undefined> {
    for (const item of items) {
      calls.given++
      yield item
    }
    if (error !== undefined) throw error
    return undefined
  }
  return { calls, items: withCleanup(generate(), () => calls.closed++) }
}

function notB(item: string): string {
  if (item === "b") throw new Error("no frame for b")
  return `[${item}]`
}

describe("streamed() — frames", () => {
  test("each item is a frame, and the end comes last", async () => {
    const { calls, items } = source(["a", "b", "c"])
    const response = await streamed(items, FRAMING)
    expect(response.status).toBe(200)
    expect(response.headers.get("Content-Type")).toBe("text/event-stream")
    expect(await response.text()).toBe("[a][b][c].")
    expect(calls.closed).toBe(1)
  })

  test("without items there is only the end", async () => {
    expect(await (await streamed(source([]).items, FRAMING)).text()).toBe(".")
  })

  test("without an end marker nothing comes after the last item", async () => {
    const response = await streamed(source(["a"]).items, { ...FRAMING, end: "" })
    expect(await response.text()).toBe("[a]")
  })

  test("each frame is sent by itself, as soon as it is there", async () => {
    const waiting = Promise.withResolvers<void>()
    async function* slow(): AsyncGenerator<string, undefined> {
      yield "a"
      await waiting.promise
      yield "b"
      return undefined
    }
    const reader = (await streamed(slow(), FRAMING)).body?.getReader()
    const read = async () => new TextDecoder().decode((await reader?.read())?.value)
    expect(await read()).toBe("[a]")
    waiting.resolve()
    expect(await read()).toBe("[b]")
    expect(await read()).toBe(".")
  })
})

describe("streamed() — errors", () => {
  test("before the first item there is no response at all", async () => {
    const { calls, items } = source([], new Error("no model"))
    await rejects(streamed(items, FRAMING), /no model/)
    expect(calls.closed).toBe(1)
  })

  test("after an item it is the last frame, and there is no end marker", async () => {
    const { calls, items } = source(["a"], new Error("the runner died"))
    expect(await (await streamed(items, FRAMING)).text()).toBe("[a]{the runner died}")
    expect(calls.closed).toBe(1)
  })

  test("an item that cannot be framed ends the stream and closes the source", async () => {
    const { calls, items } = source(["a", "b", "c"])
    const response = await streamed(items, { ...FRAMING, frame: notB })
    expect(await response.text()).toBe("[a]{no frame for b}")
    expect(calls.closed).toBe(1)
  })
})

describe("streamed() — a client that goes away", () => {
  test("closes the source, which gives nothing more", async () => {
    const { calls, items } = source(Array.from({ length: 1000 }, String))
    const { body } = await streamed(items, FRAMING)
    const reader = body?.getReader()
    await reader?.read()
    await reader?.cancel()
    expect(calls.closed).toBe(1)
    // What was read, what waits in the stream, and what was fetched ahead.
    expect(calls.given).toBeLessThanOrEqual(4)
  })

  test("closes the source when nothing was read yet", async () => {
    const { calls, items } = source(["a", "b", "c", "d", "e"])
    await (await streamed(items, FRAMING)).body?.cancel()
    expect(calls.closed).toBe(1)
  })

  test("while the source waits, the signal that ends the waiting closes it", async () => {
    // A server's request has a signal beside its stream, and it is aborted first.
    const controller = new AbortController()
    async function* waiting(): AsyncGenerator<string, undefined> {
      yield "a"
      await new Promise((_, reject) => {
        controller.signal.addEventListener("abort", () => reject(new Error("aborted")))
      })
      return undefined
    }
    const calls = { closed: 0 }
    const items = withCleanup(waiting(), () => calls.closed++)
    const { body } = await streamed(items, FRAMING)
    const reader = body?.getReader()
    await reader?.read()
    controller.abort()
    await reader?.cancel()
    expect(calls.closed).toBe(1)
  })
})
