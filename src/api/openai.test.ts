import { describe, expect, test } from "bun:test"

import { chatCompletionRequest, type ChatCompletionRequest } from "./openai.ts"
import { parseBody } from "./parts.ts"

function parse(fields: object): ChatCompletionRequest {
  return parseBody(chatCompletionRequest, JSON.stringify(fields), "EOF")
}

describe("POST /v1/chat/completions — fields", () => {
  test("what is missing or null", () => {
    const nothing = {
      model: "",
      messages: [],
      n: 1,
      stream: false,
      stop: [],
      tools: [],
      logprobs: false,
      top_logprobs: 0,
      cache_prompt: true,
      priority: undefined,
      options: {},
    }
    expect(parse({})).toEqual(nothing)
    const names = [...Object.keys(nothing), "max_tokens", "temperature", "seed", "response_format"]
    expect(parse(Object.fromEntries(names.map((name) => [name, null])))).toMatchObject(nothing)
  })

  test.each([0, -1, 1.5, 17])("n: %p is refused", (n) => {
    expect(() => parse({ n })).toThrow("n must be a whole number from 1 to 16")
  })

  test.each<[unknown, string[]]>([
    ["a", ["a"]],
    [
      ["a", "b"],
      ["a", "b"],
    ],
    [["a", 1, null, { b: 1 }], ["a"]],
    [[], []],
  ])("stop: %j becomes %j", (stop, expected) => {
    expect(parse({ stop }).stop).toEqual(expected)
  })

  test.each<[unknown, unknown]>([
    ["hi", "hi"],
    [null, null],
    [[{ type: "text", text: "hi" }], [{ type: "text", text: "hi" }]],
    [
      [{ type: "image_url", image_url: { url: "data:" } }],
      [{ type: "image_url", image_url: { url: "data:" } }],
    ],
  ])("content: %j is taken", (content, expected) => {
    expect(parse({ messages: [{ role: "user", content }] }).messages[0]?.content).toEqual(
      expected as never,
    )
  })

  test("top_logprobs has Ollama's limit", () => {
    expect(parse({ top_logprobs: 20 }).top_logprobs).toBe(20)
    expect(() => parse({ top_logprobs: 21 })).toThrow("top_logprobs must be between 0 and 20")
  })

  test.each<[object, string]>([
    [{ messages: [{ content: "hi" }] }, '"messages.0.role"'],
    [{ messages: [{ role: "user", content: 5 }] }, '"messages.0.content"'],
    [{ messages: [{ role: "user", content: ["hi"] }] }, '"messages.0.content"'],
    [{ stop: 5 }, '"stop"'],
    [{ max_tokens: "5" }, '"max_tokens"'],
    [{ tools: [{ type: "function" }] }, '"tools.0.function"'],
    [{ stream_options: true }, '"stream_options"'],
  ])("%j is refused by name", (fields, name) => {
    expect(() => parse(fields)).toThrow(
      expect.objectContaining({
        code: "invalid-input",
        message: expect.stringContaining(`Cannot read ${name}: `),
      }),
    )
  })
})
