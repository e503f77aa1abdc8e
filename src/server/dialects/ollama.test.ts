import { describe, expect, test } from "bun:test"
import { rejects } from "node:assert/strict"

import {
  type ChatReply,
  chatRequest,
  type ChatRequest,
  generateRequest,
  type GenerateRequest,
} from "../../api/ollama.ts"
import { parseBody } from "../../api/parts.ts"
import type { ChatEvent, TokenProbability } from "../../chat/message.ts"
import type { AnswerCommand } from "../../services/generate.ts"
import { delta, done, streamOf, toolCall } from "../../services/test-app.ts"
import {
  chatCommand,
  chatReplies,
  chatReply,
  formatSchema,
  generateCommand,
  generateReplies,
  generateReply,
  type ReplyContext,
} from "./ollama.ts"

function generate(fields: object): AnswerCommand {
  const body = JSON.stringify({ model: "tiny", prompt: "2+2?", ...fields })
  return generateCommand(parseBody<GenerateRequest>(generateRequest, body, "empty"))
}

function chat(fields: object): AnswerCommand {
  const messages = [{ role: "user", content: "hi" }]
  const body = JSON.stringify({ model: "tiny", messages, ...fields })
  return chatCommand(parseBody<ChatRequest>(chatRequest, body, "empty"))
}

const CREATED = "2026-01-02T03:04:05.6Z"
const NOW = Date.parse(CREATED)

/** The request came 91 ms ago; 2.1 of them went into loading. */
const CONTEXT: ReplyContext = {
  model: "tiny",
  now: () => NOW,
  startedAt: NOW - 91,
  loadMs: 2.1,
}

/** As a reply has them, from the usage of scripted answers. */
const METRICS = {
  total_duration: 91_000_000,
  load_duration: 2_100_000,
  prompt_eval_count: 11,
  prompt_eval_duration: 30_000_000,
  eval_count: 2,
  eval_duration: 41_000_000,
  prompt_eval_cached_count: 4,
}

const HEAD = { model: "tiny", created_at: CREATED }

function generated(...events: ChatEvent[]) {
  return Array.fromAsync(generateReplies(streamOf(...events), CONTEXT))
}

function chatted(...events: ChatEvent[]) {
  return Array.fromAsync(chatReplies(streamOf(...events), CONTEXT))
}

function probability(token: string): TokenProbability {
  return { token, logprob: -0.5, bytes: [...Buffer.from(token)] }
}

describe("generateCommand()", () => {
  test("a prompt is a chat of one message", () => {
    expect(generate({})).toEqual({
      operation: "generate",
      model: "tiny",
      options: {},
      keepAliveMs: undefined,
      think: undefined,
      format: undefined,
      logprobs: undefined,
      shift: false,
      input: {
        kind: "chat",
        messages: [{ role: "user", content: "2+2?" }],
        tools: [],
        truncate: false,
        before: [],
        system: undefined,
        withModelTurns: true,
        template: undefined,
      },
      wantsContext: true,
    })
  })

  test("takes over what both endpoints have", () => {
    const fields = {
      options: { seed: 7 },
      keep_alive: "1m",
      think: "low",
      format: "json",
      logprobs: true,
      top_logprobs: 3,
    }
    const expected = {
      options: { seed: 7 },
      keepAliveMs: 60_000,
      think: "low",
      format: '{"type":"object"}',
      logprobs: 3,
    }
    expect(generate(fields)).toMatchObject(expected)
    expect(chat(fields)).toMatchObject(expected)
  })

  test("alternatives count only with logprobs", () => {
    expect(generate({ top_logprobs: 3 }).logprobs).toBeUndefined()
    expect(generate({ logprobs: true }).logprobs).toBe(0)
  })

  test("a system text stands in place of the model's", () => {
    expect(generate({ system: "Be brief." }).input).toMatchObject({ system: "Be brief." })
  })

  test.each([[[9, 12]], [[]]])(
    "context %j goes before the prompt, without the model's turns",
    (context) => {
      expect(generate({ context }).input).toMatchObject({ before: context, withModelTurns: false })
    },
  )

  test("a raw prompt is taken as it is, and gives no context back", () => {
    expect(generate({ raw: true, prompt: "<|x|>" })).toMatchObject({
      input: { kind: "text", text: "<|x|>" },
      wantsContext: false,
    })
  })

  test("with a suffix the gap between it and the prompt is to be filled", () => {
    expect(generate({ suffix: "end", system: "x", context: [1] }).input).toEqual({
      kind: "insert",
      prompt: "2+2?",
      suffix: "end",
      before: [1],
      template: undefined,
    })
  })

  test("a template stands in place of the model's", () => {
    const template = "{{ .Prompt }}"
    expect(generate({ template }).input).toMatchObject({ kind: "chat", template })
    expect(generate({ template, suffix: "x" }).input).toMatchObject({ kind: "insert", template })
  })

  test.each<[object, string]>([
    [
      { raw: true, template: "{{ .Prompt }}" },
      "raw mode does not support template, system, or context",
    ],
    [{ raw: true, system: "x" }, "raw mode does not support template, system, or context"],
    [{ raw: true, context: [1] }, "raw mode does not support template, system, or context"],
    [{ images: ["aGk="] }, 'Cannot use "images": this version of cria reads text only'],
  ])("%j is refused", (fields, message) => {
    expect(() => generate(fields)).toThrow(
      expect.objectContaining({ code: "invalid-input", message }),
    )
  })

  test("raw with an empty context is no contradiction", () => {
    expect(generate({ raw: true, context: [] }).input.kind).toBe("text")
  })
})

describe("chatCommand()", () => {
  test("messages keep whatever they have", () => {
    const messages = [
      { role: "System", content: "Be brief." },
      {
        role: "assistant",
        thinking: "hm",
        tool_calls: [{ id: "c1", function: { name: "wx", arguments: { z: 1, city: "Oslo" } } }],
      },
      { role: "tool", content: "11°", tool_name: "wx", tool_call_id: "c1" },
    ]
    expect(chat({ messages })).toMatchObject({
      operation: "chat",
      wantsContext: false,
      input: {
        kind: "chat",
        messages: [
          { role: "system", content: "Be brief." },
          {
            role: "assistant",
            content: "",
            thinking: "hm",
            toolCalls: [{ id: "c1", name: "wx", arguments: '{"z":1,"city":"Oslo"}' }],
          },
          { role: "tool", content: "11°", toolName: "wx", toolCallId: "c1" },
        ],
        before: [],
        withModelTurns: true,
      },
    })
  })

  test("a plain message has nothing else", () => {
    const { input } = chat({})
    expect(input).toMatchObject({ messages: [{ role: "user", content: "hi" }] })
    expect(Object.keys(input.kind === "chat" ? (input.messages[0] ?? {}) : {})).toEqual([
      "role",
      "content",
    ])
  })

  test("tools keep their schema, and lose empty fields", () => {
    const parameters = { type: "object", properties: { b: {}, a: {} } }
    const tools = [
      { type: "function", function: { name: "wx", description: "Weather", parameters } },
      { type: "function", function: { name: "now" } },
    ]
    expect(chat({ tools }).input).toMatchObject({
      tools: [{ name: "wx", description: "Weather", parameters }, { name: "now" }],
    })
  })

  test("history is cut only for those who ask for it", () => {
    expect(chat({}).input).toMatchObject({ truncate: false })
    expect(chat({ truncate: false }).input).toMatchObject({ truncate: false })
    expect(chat({ truncate: true }).input).toMatchObject({ truncate: true })
  })

  test("images are refused", () => {
    expect(() => chat({ messages: [{ role: "user", images: ["aGk="] }] })).toThrow(
      'Cannot use "images": this version of cria reads text only',
    )
  })
})

describe("formatSchema()", () => {
  test.each<[unknown, string | undefined]>([
    [undefined, undefined],
    [null, undefined],
    ["", undefined],
    ["json", '{"type":"object"}'],
    [{ type: "array" }, '{"type":"array"}'],
    [{}, "{}"],
  ])("%j is %p", (format, expected) => {
    expect(formatSchema(format)).toBe(expected)
  })

  test.each<[unknown, string]>([
    ["xml", '"xml"'],
    ["JSON", '"JSON"'],
    [5, "5"],
    [true, "true"],
    [["json"], '["json"]'],
  ])("%j is refused, with status 500 as in Ollama", (format, written) => {
    expect(() => formatSchema(format)).toThrow(
      expect.objectContaining({
        code: "internal",
        message: `invalid format: ${written}; expected "json" or a valid JSON Schema object`,
      }),
    )
  })
})

describe("replies to generate", () => {
  test("one line a delta, then one with the metrics", async () => {
    expect(await generated(delta("4"), delta("."), done({ context: [9, 12, 7] }))).toEqual([
      { ...HEAD, response: "4", done: false },
      { ...HEAD, response: ".", done: false },
      { ...HEAD, response: "", done: true, done_reason: "stop", context: [9, 12, 7], ...METRICS },
    ])
  })

  test("have the order of fields that people are used to", async () => {
    const replies = generateReplies(streamOf(delta("4"), done({ context: [9] })), CONTEXT)
    expect(JSON.stringify(await generateReply(replies))).toBe(
      `{"model":"tiny","created_at":"${CREATED}","response":"4","done":true,"done_reason":"stop","context":[9],` +
        `"total_duration":91000000,"load_duration":2100000,"prompt_eval_count":11,` +
        `"prompt_eval_duration":30000000,"eval_count":2,"eval_duration":41000000,"prompt_eval_cached_count":4}`,
    )
  })

  test("thinking has a field of its own, which is there only when it says something", async () => {
    const events = [delta("", { thinking: "hm" }), delta("4"), done()]
    expect(await generated(...events)).toMatchObject([
      { response: "", thinking: "hm" },
      { response: "4" },
      { done: true },
    ])
    expect((await generated(...events))[1]).not.toHaveProperty("thinking")
    const whole = await generateReply(generateReplies(streamOf(...events), CONTEXT))
    expect(whole).toMatchObject({ response: "4", thinking: "hm" })
  })

  test("metrics of 0 are left out, one by one", async () => {
    const usage = {
      promptTokens: 0,
      cachedTokens: 0,
      shiftedTokens: 0,
      preemptions: 0,
      completionTokens: 0,
      queueMs: 0,
      promptMs: 0,
      decodeMs: 0,
    }
    const [last] = await generated(done({ usage }))
    expect(last).toEqual({
      ...HEAD,
      response: "",
      done: true,
      done_reason: "stop",
      total_duration: 91_000_000,
      load_duration: 2_100_000,
    })
  })

  test("an answer that hits the limit says so", async () => {
    expect((await generated(done({ reason: "length" })))[0]).toMatchObject({
      done_reason: "length",
    })
  })

  test("an answer that ends without its end is our bug", async () => {
    const replies = generateReplies(streamOf(delta("a")), CONTEXT)
    await rejects(generateReply(replies), /an answer ends with done/)
    await rejects(chatReply(chatReplies(streamOf(delta("a")), CONTEXT)), /an answer ends with done/)
  })
})

function assistant(content: string, fields: object = {}) {
  return { role: "assistant" as const, content, ...fields }
}

describe("replies to chat", () => {
  test("one line a delta, then one with the metrics", async () => {
    expect(await chatted(delta("", { thinking: "hm" }), delta("Hi"), done())).toEqual([
      { ...HEAD, message: assistant("", { thinking: "hm" }), done: false },
      { ...HEAD, message: assistant("Hi"), done: false },
      { ...HEAD, message: assistant(""), done: true, done_reason: "stop", ...METRICS },
    ])
  })

  test("tool calls are in the last line, numbered, with arguments as objects", async () => {
    const calls = [toolCall("wx", '{"z":1,"city":"Oslo"}', "call_a"), toolCall("now", "", "call_b")]
    const [first, last, ...rest] = await chatted(delta("Let me see"), ...calls, done())
    expect(rest).toEqual([])
    expect(first?.message).not.toHaveProperty("tool_calls")
    expect(JSON.stringify(last?.message)).toBe(
      '{"role":"assistant","content":"","tool_calls":[' +
        '{"id":"call_a","function":{"index":0,"name":"wx","arguments":{"z":1,"city":"Oslo"}}},' +
        '{"id":"call_b","function":{"index":1,"name":"now","arguments":{}}}]}',
    )
    // Never "tool_calls", as in OpenAI's API.
    expect(last?.done_reason).toBe("stop")
  })

  test("a whole reply has all that the lines had", async () => {
    const events = [
      delta("", { thinking: "h" }),
      delta("", { thinking: "m" }),
      delta("Hi"),
      delta(" there"),
      toolCall("wx", "{}", "call_a"),
      done(),
    ]
    const reply = await chatReply(chatReplies(streamOf(...events), CONTEXT))
    expect(reply).toEqual({
      ...HEAD,
      message: assistant("Hi there", {
        thinking: "hm",
        tool_calls: [{ id: "call_a", function: { index: 0, name: "wx", arguments: {} } }],
      }),
      done: true,
      done_reason: "stop",
      ...METRICS,
    })
  })

  test("arguments that are no JSON are an error, not a text", async () => {
    await rejects(chatted(toolCall("wx", "{oops"), done()), {
      code: "internal",
      message: 'Cannot read the arguments of the call of "wx" as JSON',
    })
  })

  test("messages that were left out are counted", async () => {
    const [last] = await chatted(done({ droppedMessages: 4 }))
    expect(last).toMatchObject({ dropped_messages: 4 })
    expect((await chatted(done()))[0]).not.toHaveProperty("dropped_messages")
  })
})

describe("log-probabilities in replies", () => {
  const events: ChatEvent[] = [
    {
      kind: "delta",
      content: "é",
      thinking: "",
      logprobs: [{ ...probability("é"), top: [probability("é"), probability("e")] }],
    },
    { kind: "delta", content: "", thinking: "", logprobs: [{ ...probability("!"), top: [] }] },
    done(),
  ]
  const first = {
    token: "é",
    logprob: -0.5,
    bytes: [0xc3, 0xa9],
    top_logprobs: [
      { token: "é", logprob: -0.5, bytes: [0xc3, 0xa9] },
      { token: "e", logprob: -0.5, bytes: [0x65] },
    ],
  }
  const second = { token: "!", logprob: -0.5, bytes: [0x21] }

  test("each line carries those of its tokens", async () => {
    const lines: Pick<ChatReply, "logprobs">[] = await generated(...events)
    expect(lines.map(({ logprobs }) => logprobs)).toEqual([[first], [second], undefined])
    expect((await chatted(...events)).map(({ logprobs }) => logprobs)).toEqual([
      [first],
      [second],
      undefined,
    ])
  })

  test("a whole reply has them all", async () => {
    const generateWhole = await generateReply(generateReplies(streamOf(...events), CONTEXT))
    const chatWhole = await chatReply(chatReplies(streamOf(...events), CONTEXT))
    expect(generateWhole.logprobs).toEqual([first, second])
    expect(chatWhole.logprobs).toEqual([first, second])
    expect(chatWhole.message.content).toBe("é")
  })
})
