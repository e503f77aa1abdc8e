import { describe, expect, test } from "bun:test"

import * as fc from "fast-check"

import { ToolReader } from "./tool-reader.ts"

const NAMES = ["get_weather", "get_weather_now", "add"]

/** Reads pieces: text that came out, and calls. */
function read(tag: string, pieces: readonly string[]): [string, ...string[]] {
  const reader = new ToolReader(tag, NAMES)
  const parts = pieces.map((piece) => reader.push(piece))
  const content = parts.map((part) => part.content).join("") + reader.finish()
  const calls = parts.flatMap((part) => part.calls)
  return [content, ...calls.map((call) => `${call.name} ${call.arguments}`)]
}

const OSLO = '{"name": "get_weather", "arguments": {"city": "Oslo"}}'
const ADD = '{"name": "add", "parameters": {"a": [1, {"b": "}"}]}}'

const CASES: readonly [string, string, [string, ...string[]]][] = [
  ["<call>", "Hello <b>", ["Hello <b>"]],
  ["<call>", `<call>\n${OSLO}\n</call>`, ["", 'get_weather {"city":"Oslo"}']],
  [
    "<call>",
    `Let me see. <call>${OSLO}</call><call>${ADD}</call>`,
    ["Let me see. ", 'get_weather {"city":"Oslo"}', 'add {"a":[1,{"b":"}"}]}'],
  ],
  [
    "<call>",
    `<call>[${OSLO}, ${ADD}]`,
    ["", 'get_weather {"city":"Oslo"}', 'add {"a":[1,{"b":"}"}]}'],
  ],
  ["<call>", '<call>get_weather_now\n{"city": "Oslo"}', ["", 'get_weather_now {"city":"Oslo"}']],
  ["<call>", '<call>add[ARGS]{"arguments": {"a": 1}}', ["", 'add {"a":1}']],
  ["<call>", '<call>{"add": {"a": 1}}', ["", 'add {"a":1}']],
  ["<call>", '<call>{"tool_name": "add", "parameters": {"a": 1}}', ["", 'add {"a":1}']],
  [
    "<call>",
    `<call>{"type": "function", "function": ${OSLO}}`,
    ["", 'get_weather {"city":"Oslo"}'],
  ],
  ["<call>", `<call>{"calls": [${OSLO}]}`, ["", 'get_weather {"city":"Oslo"}']],
  ["<call>", String.raw`<call>{"name": "add", "arguments": "{\"a\": 1}"}`, ["", 'add {"a":1}']],
  ["<call>", '<call>{"name": "add"}', ["", "add {}"]],
  ["<call>", '<call>{"name": "other", "arguments": {}}', [""]],
  ["<call>", '<call>{"name": "add", "arguments": {', [""]],
  ["<call>", '<call>{"name": add}', [""]],
  ["<call>", "a <cal", ["a <cal"]],
  ["<call>", 'He said "x" and <call>"' + OSLO, ['He said "x" and ', 'get_weather {"city":"Oslo"}']],
  ["{", OSLO, ["", 'get_weather {"city":"Oslo"}']],
  ["{", `\n ${OSLO}\n${ADD}`, ["", 'get_weather {"city":"Oslo"}', 'add {"a":[1,{"b":"}"}]}']],
  ["{", `Sure: ${OSLO}`, [`Sure: ${OSLO}`]],
  ["{", '{"answer": 42} and more', ['{"answer": 42} and more']],
  ["{", '{"answer": ', ['{"answer": ']],
  ["{", "  ", ["  "]],
  ["[", `[${OSLO}]`, ["", 'get_weather {"city":"Oslo"}']],
  ["[", "[1, 2]", ["[1, 2]"]],
  ["[", "[x](y)", ["[x](y)"]],
  ["[", "a [1]", ["a [1]"]],
  ["[", `[]${OSLO}`, [`[]${OSLO}`]],
  ["{", `{}${OSLO}`, [`{}${OSLO}`]],
]

describe("ToolReader", () => {
  test.each(CASES)("tag %s: %s", (tag, text, expected) => {
    expect(read(tag, [text])).toEqual(expected)
    expect(read(tag, Array.from(text))).toEqual(expected)
  })

  test("however the text is cut, the same comes out", () => {
    const chunk = fc.constantFrom(
      "<call>",
      "<",
      "call>",
      OSLO,
      ADD,
      "{",
      "}",
      '"',
      "\\",
      "[",
      "]",
      " a ",
      "add",
    )
    fc.assert(
      fc.property(
        fc.array(chunk, { maxLength: 10 }),
        fc.constantFrom("<call>", "{", "["),
        (chunks, tag) => {
          const whole = chunks.join("")
          expect(read(tag, Array.from(whole))).toEqual(read(tag, [whole]))
        },
      ),
    )
  })

  test("text before a tag is not held back", () => {
    const reader = new ToolReader("<call>", NAMES)
    expect(reader.push("One ").content).toBe("One ")
    expect(reader.push("two <c").content).toBe("two ")
    expect(reader.push("at>").content).toBe("<cat>")
  })

  test("megabytes behind a tag are content in the end", () => {
    const reader = new ToolReader("<call>", NAMES)
    reader.push("<call>")
    let content = ""
    for (let i = 0; i < 80; i += 1) content += reader.push("{x".repeat(32_768)).content
    expect(content.length).toBeGreaterThan(4_000_000)
  })
})
