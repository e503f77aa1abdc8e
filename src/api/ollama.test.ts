import { describe, expect, test } from "bun:test"

import {
  chatRequest,
  type ChatRequest,
  generateRequest,
  type GenerateRequest,
  showRequest,
} from "./ollama.ts"
import { parseBody } from "./parts.ts"

function generate(fields: object): GenerateRequest {
  return parseBody(generateRequest, JSON.stringify(fields), "empty")
}

function chat(fields: object): ChatRequest {
  return parseBody(chatRequest, JSON.stringify(fields), "empty")
}

/** Status 400 with exactly this text. */
function refusal(message: string): object {
  return expect.objectContaining({ code: "invalid-input", message })
}

const CHOICES = 'must be "high", "medium", "low", "max", true, or false'
const TYPES = 'think must be a boolean or string ("high", "medium", "low", "max", true, or false)'

describe("think", () => {
  test.each([true, false, "low", "medium", "high", "max"] as const)("%p is taken", (think) => {
    expect(generate({ think }).think).toBe(think)
    expect(chat({ think }).think).toBe(think)
  })

  test("missing and null leave it to the model", () => {
    expect(generate({}).think).toBeUndefined()
    expect(generate({ think: null }).think).toBeUndefined()
  })

  test.each<[unknown, string]>([
    ["x", `invalid think value: "x" (${CHOICES})`],
    ["", `invalid think value: "" (${CHOICES})`],
    ["HIGH", `invalid think value: "HIGH" (${CHOICES})`],
    ["true", `invalid think value: "true" (${CHOICES})`],
    ['"', String.raw`invalid think value: "\"" (${CHOICES})`],
    [1, TYPES],
    [[true], TYPES],
    [{}, TYPES],
  ])("%j is refused", (think, message) => {
    expect(() => generate({ think })).toThrow(refusal(message))
    expect(() => chat({ think })).toThrow(refusal(message))
  })
})

describe("keep_alive", () => {
  test.each<[unknown, number | undefined]>([
    [undefined, undefined],
    [null, undefined],
    [0, 0],
    [300, 300_000],
    [0.5, 500],
    [-1, Infinity],
    [-0.001, Infinity],
    [1e300, 1e303],
    ["0", 0],
    ["0s", 0],
    ["300ms", 300],
    ["1.5h", 5_400_000],
    ["2h45m", 9_900_000],
    ["-1s", Infinity],
    ["-5m", Infinity],
  ])("%j is %p ms", (value, expected) => {
    expect(generate({ keep_alive: value }).keep_alive).toBe(expected)
    expect(chat({ keep_alive: value }).keep_alive).toBe(expected)
  })

  test.each<[unknown, string]>([
    ["10", 'time: missing unit in duration "10"'],
    ["-1", 'time: missing unit in duration "-1"'],
    ["", 'time: invalid duration ""'],
    ["forever", 'time: invalid duration "forever"'],
    ["1d", 'time: unknown unit "d" in duration "1d"'],
    [true, "Unsupported type: 'bool'"],
    [["5m"], "Unsupported type: '[]interface {}'"],
    [{ seconds: 5 }, "Unsupported type: 'map[string]interface {}'"],
  ])("%j is refused", (value, message) => {
    expect(() => generate({ keep_alive: value })).toThrow(refusal(message))
  })
})

describe("top_logprobs", () => {
  test.each([0, 1, 20])("%d is taken", (count) => {
    expect(generate({ top_logprobs: count }).top_logprobs).toBe(count)
  })

  test.each([-1, 21, 1000])("%d is refused, whether logprobs are asked for or not", (count) => {
    const message = "top_logprobs must be between 0 and 20"
    expect(() => generate({ top_logprobs: count })).toThrow(refusal(message))
    expect(() => chat({ top_logprobs: count, logprobs: true })).toThrow(refusal(message))
  })

  test("it is a whole number", () => {
    expect(() => generate({ top_logprobs: 1.5 })).toThrow('Cannot read "top_logprobs": ')
  })
})

describe("requests without anything", () => {
  test("generate", () => {
    expect<object>(generate({})).toEqual({
      model: "",
      prompt: "",
      suffix: "",
      system: "",
      template: "",
      images: [],
      raw: false,
      stream: true,
      options: {},
      logprobs: false,
      top_logprobs: 0,
      _debug_render_only: false,
      cache_prompt: true,
    })
  })

  test("chat", () => {
    const { messages, tools, stream, options } = chat({
      messages: null,
      tools: null,
      options: null,
    })
    expect({ messages, tools, stream, options }).toEqual({
      messages: [],
      tools: [],
      stream: true,
      options: {},
    })
  })

  test("show", () => {
    expect(parseBody(showRequest, '{"NAME":"tiny"}', "empty")).toEqual({
      model: "",
      name: "tiny",
      verbose: false,
      system: "",
      options: {},
    })
  })
})

describe("messages and tools", () => {
  test("roles are lower-cased, unknown ones pass", () => {
    const roles = ["User", "SYSTEM", "tool", "Critic"]
    const { messages } = chat({ messages: roles.map((role) => ({ role, content: "x" })) })
    expect(messages.map(({ role }) => role)).toEqual(["user", "system", "tool", "critic"])
  })

  test("what a message leaves out is empty", () => {
    expect(chat({ messages: [{ role: "user" }] }).messages).toEqual([
      {
        role: "user",
        content: "",
        thinking: "",
        images: [],
        tool_calls: [],
        tool_name: "",
        tool_call_id: "",
      },
    ])
  })

  test("arguments of a call keep their order, and may be missing or null", () => {
    const calls = [
      { function: { name: "f", arguments: { z: 1, a: [2], m: { k: null } } } },
      { function: { name: "f" } },
      { function: { name: "f", arguments: null } },
    ]
    const { messages } = chat({ messages: [{ role: "assistant", tool_calls: calls }] })
    const read = messages[0]?.tool_calls.map((one) => JSON.stringify(one.function.arguments))
    expect(read).toEqual(['{"z":1,"a":[2],"m":{"k":null}}', "{}", "{}"])
  })

  test("a tool keeps its schema as it is, with the order of its properties", () => {
    const parameters = {
      type: "object",
      required: ["b"],
      properties: { b: { type: ["string", "null"] }, a: { enum: [1] } },
      additionalProperties: false,
    }
    const tools = [{ type: "function", function: { name: "f", parameters } }]
    const [tool] = chat({ tools }).tools
    expect(JSON.stringify(tool?.function.parameters)).toBe(JSON.stringify(parameters))
    expect(tool?.function.description).toBe("")
  })

  test.each<[object, string]>([
    [{ messages: "hi" }, '"messages"'],
    [{ messages: [{ role: "user", content: 5 }] }, '"messages.0.content"'],
    [{ messages: [{ role: "user", content: [{ type: "text" }] }] }, '"messages.0.content"'],
    [{ messages: [{ role: "user", images: "abc" }] }, '"messages.0.images"'],
    [
      { messages: [{ role: "assistant", tool_calls: [{ function: { arguments: "{}" } }] }] },
      '"messages.0.tool_calls.0.function.arguments"',
    ],
    [{ tools: {} }, '"tools"'],
    [{ options: [1] }, '"options"'],
    [{ stream: "false" }, '"stream"'],
  ])("%j is refused by name", (fields, name) => {
    expect(() => chat(fields)).toThrow(
      expect.objectContaining({
        code: "invalid-input",
        message: expect.stringContaining(`Cannot read ${name}: `),
      }),
    )
  })
})
