import { describe, expect, test } from "bun:test"
import { rejects } from "node:assert/strict"

import * as fc from "fast-check"

import { linesOf } from "./lines.ts"

async function* chunksOf(...chunks: readonly (string | Uint8Array)[]): AsyncGenerator<Uint8Array> {
  for (const chunk of chunks) yield typeof chunk === "string" ? Buffer.from(chunk) : chunk
}

/** Bytes of a text, cut at the given places. */
function cut(text: string, ...places: readonly number[]): Uint8Array[] {
  const bytes = Buffer.from(text)
  const ends = [...places, bytes.length]
  return ends.map((end, i) => bytes.subarray(ends[i - 1] ?? 0, end))
}

function lines(...chunks: readonly (string | Uint8Array)[]): Promise<string[]> {
  return Array.fromAsync(linesOf(chunksOf(...chunks)))
}

describe("linesOf() — where lines end", () => {
  test.each<[string, string[], string[]]>([
    ["nothing", [], []],
    ["an empty chunk", [""], []],
    ["one line", ["a\n"], ["a"]],
    ["several lines in a chunk", ["a\nb\nc\n"], ["a", "b", "c"]],
    ["a line over several chunks", ["a", "b", "", "c\nd\n"], ["abc", "d"]],
    ["no line end at the end", ["a\nb"], ["a", "b"]],
    ["empty lines", ["\n\na\n\n"], ["", "", "a", ""]],
    ["CRLF", ["a\r\nb\r\n"], ["a", "b"]],
    ["CRLF cut in two", ["a\r", "\nb\r", "\n"], ["a", "b"]],
    ["a return that ends no line", ["a\rb\n"], ["a\rb"]],
    ["a return at the very end", ["a\r"], ["a"]],
    ["a line separator of Unicode, which JSON leaves as it is", ["a\u2028b\n"], ["a\u2028b"]],
  ])("%s", async (_, chunks, expected) => {
    expect(await lines(...chunks)).toEqual(expected)
  })
})

describe("linesOf() — characters cut between chunks", () => {
  test("joins a character of four bytes at every cut", async () => {
    for (const place of [1, 2, 3, 4, 5]) {
      // oxlint-disable-next-line no-await-in-loop -- one after the other, so that a failure names its cut
      expect(await lines(...cut("a🦙b\nc", place))).toEqual(["a🦙b", "c"])
    }
  })

  test("shows a character that never ends as U+FFFD", async () => {
    expect(await lines(Uint8Array.of(0x61, 0xf0, 0x9f))).toEqual(["a\uFFFD"])
  })

  test("gives the same lines however the bytes are cut", async () => {
    const text = fc.string({ unit: fc.constantFrom("a", "é", "🦙", "\n", "\r\n", "漢") })
    await fc.assert(
      fc.asyncProperty(text, fc.array(fc.nat({ max: 40 })), async (whole, places) => {
        const size = Buffer.byteLength(whole)
        const sorted = places.map((place) => Math.min(place, size)).toSorted((a, b) => a - b)
        expect(await lines(...cut(whole, ...sorted))).toEqual(await lines(whole))
      }),
    )
  })
})

describe("linesOf() — limits", () => {
  test("refuses a line that is too long, before its end is there", async () => {
    const reading = Array.fromAsync(linesOf(chunksOf("12345", "67890", "1"), 10))
    await rejects(reading, /more than 10 characters/)
  })

  test("refuses a line that is too long and whole", async () => {
    const reading = Array.fromAsync(linesOf(chunksOf("12345678901\nb\n"), 10))
    await rejects(reading, /more than 10 characters/)
  })

  test("counts each line by itself", async () => {
    const reading = Array.fromAsync(linesOf(chunksOf("1234567890\n12345", "67890\n1234567890"), 10))
    expect(await reading).toEqual(["1234567890", "1234567890", "1234567890"])
  })

  test("closes its source when the caller leaves", async () => {
    let isClosed = false
    async function* endless(): AsyncGenerator<Uint8Array> {
      try {
        for (;;) yield Buffer.from("a\n")
      } finally {
        isClosed = true
      }
    }
    for await (const _ of linesOf(endless())) break
    expect(isClosed).toBe(true)
  })
})
