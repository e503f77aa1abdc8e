import { describe, expect, test } from "bun:test"

import * as fc from "fast-check"

import { ThinkingReader } from "./tagged-answer.ts"

const TAGS = { opening: "<think>", closing: "</think>" }

/** Reads pieces; what comes out is joined. */
function read(pieces: readonly string[], isOpen = false): { thinking: string; content: string } {
  const reader = new ThinkingReader(TAGS, isOpen)
  const parts = [...pieces.map((piece) => reader.push(piece)), reader.finish()]
  return {
    thinking: parts.map((part) => part.thinking).join(""),
    content: parts.map((part) => part.content).join(""),
  }
}

const CASES: readonly [string, boolean, { thinking: string; content: string }][] = [
  ["Hello", false, { thinking: "", content: "Hello" }],
  ["  Hello ", false, { thinking: "", content: "  Hello " }],
  ["<think>a</think>b", false, { thinking: "a", content: "b" }],
  ["\n<think>\n a b \n</think>\n\nb \n", false, { thinking: "a b", content: "b \n" }],
  ["<think></think>b", false, { thinking: "", content: "b" }],
  ["<think>\n\n</think>\n\nb", false, { thinking: "", content: "b" }],
  ["a<think>b</think>", false, { thinking: "", content: "a<think>b</think>" }],
  ["<think>a</think>b</think>c", false, { thinking: "a", content: "b</think>c" }],
  ["<think>a < b </thin </think>c", false, { thinking: "a < b </thin", content: "c" }],
  ["<think>a", false, { thinking: "a", content: "" }],
  ["<think>a</thi", false, { thinking: "a</thi", content: "" }],
  ["<thi", false, { thinking: "", content: "<thi" }],
  ["<thing>", false, { thinking: "", content: "<thing>" }],
  ["", false, { thinking: "", content: "" }],
  ["a</think>b", true, { thinking: "a", content: "b" }],
  ["\n a", true, { thinking: "a", content: "" }],
  ["</think>b", true, { thinking: "", content: "b" }],
]

describe("ThinkingReader", () => {
  test.each(CASES)("%j, inside of thoughts: %p", (text, isOpen, expected) => {
    expect(read([text], isOpen)).toEqual(expected)
    expect(read(Array.from(text), isOpen)).toEqual(expected)
  })

  test("however the text is cut, the same comes out", () => {
    const chunk = fc.constantFrom("<think>", "</think>", "<", "think>", "</", " ", "\n", "a", "é")
    fc.assert(
      fc.property(fc.array(chunk, { maxLength: 12 }), fc.boolean(), (chunks, isOpen) => {
        expect(read(chunks, isOpen)).toEqual(read([chunks.join("")], isOpen))
      }),
    )
  })

  test("text that can be no tag is not held back", () => {
    const reader = new ThinkingReader(TAGS, false)
    expect(reader.push("<think>one").thinking).toBe("one")
    expect(reader.push(" two <").thinking).toBe(" two")
    expect(reader.push("b").thinking).toBe(" <b")
    expect(reader.push("</think>  ")).toEqual({ thinking: "", content: "" })
    expect(reader.push("c ").content).toBe("c ")
  })
})
