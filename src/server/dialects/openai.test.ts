import { describe, expect, test } from "bun:test"
import { rejects } from "node:assert/strict"

import { type ChatCompletionRequest, chatCompletionRequest } from "../../api/openai.ts"
import { parseBody } from "../../api/parts.ts"
import type { ChatEvent, Message, TokenProbability } from "../../chat/message.ts"
import type { AnswerCommand, ChoiceEvent } from "../../services/generate.ts"
import { delta, done, TEST_USAGE, toolCall } from "../../services/test-app.ts"
import {
  chatCompletionCommand,
  type CompletionContext,
  completionChunks,
  completionReply,
  openaiError,
} from "./openai.ts"

function command(fields: object): AnswerCommand {
  const messages = [{ role: "user", content: "hi" }]
  const body = JSON.stringify({ model: "tiny", messages, ...fields })
  return chatCompletionCommand(parseBody<ChatCompletionRequest>(chatCompletionRequest, body, "EOF"))
}

function messagesOf(...messages: object[]): readonly Message[] {
  const { input } = command({ messages })
  return input.kind === "chat" ? input.messages : []
}

const CONTEXT: CompletionContext = {
  model: "tiny",
  id: "chatcmpl-42",
  created: 1_767_323_045,
  choices: 1,
  includeUsage: false,
}

const USAGE = {
  prompt_tokens: 11,
  completion_tokens: 2,
  total_tokens: 13,
  prompt_tokens_details: { cached_tokens: 4 },
  queue_ms: 0,
  preempted_count: 0,
}

/** Events of the only choice, or of several in turn. */
async function* choiceEvents(
  events: readonly (ChatEvent | ChoiceEvent)[],
): AsyncGenerator<ChoiceEvent> {
  for (const event of events) yield "choice" in event ? event : { choice: 0, event }
}

function chunks(
  events: readonly (ChatEvent | ChoiceEvent)[],
  context: Partial<CompletionContext> = {},
) {
  return Array.fromAsync(completionChunks(choiceEvents(events), { ...CONTEXT, ...context }))
}

/** The choice of each chunk, or what there is instead. */
async function choices(events: readonly ChatEvent[]): Promise<unknown[]> {
  const all = (await chunks(events)) as { choices: { delta: object; finish_reason: unknown }[] }[]
  return all.map(({ choices: [choice] }) => [choice?.delta, choice?.finish_reason])
}

function reply(...events: readonly ChatEvent[]): Promise<object> {
  return completionReply(choiceEvents(events), CONTEXT)
}

describe("chatCompletionCommand()", () => {
  test("a plain request, with OpenAI's defaults", () => {
    expect(command({})).toEqual({
      operation: "chat",
      model: "tiny",
      options: { temperature: 1, top_p: 1 },
      input: {
        kind: "chat",
        messages: [{ role: "user", content: "hi" }],
        tools: [],
        truncate: false,
        before: [],
        withModelTurns: true,
      },
      think: undefined,
      format: undefined,
      logprobs: undefined,
      wantsContext: false,
    })
  })

  test.each<[object, object]>([
    [{ max_tokens: 5 }, { num_predict: 5 }],
    [{ max_completion_tokens: 6 }, { num_predict: 6 }],
    [{ max_tokens: 5, max_completion_tokens: 6 }, { num_predict: 5 }],
    [{ max_tokens: 0 }, { num_predict: 0 }],
    [{ seed: 7 }, { seed: 7 }],
    [{ temperature: 0 }, { temperature: 0 }],
    [{ top_p: 0.5 }, { top_p: 0.5 }],
    [{ frequency_penalty: 0.1 }, { frequency_penalty: 0.1 }],
    [{ presence_penalty: 0.2 }, { presence_penalty: 0.2 }],
    [{ stop: "x" }, { stop: ["x"] }],
    [{ stop: ["x", 1, "y"] }, { stop: ["x", "y"] }],
    [{ stop: [] }, {}],
    [{ temperature: null, seed: null }, {}],
    [{ options: { num_ctx: 64, top_k: 1 } }, { num_ctx: 64, top_k: 1 }],
    [
      { options: { seed: 1, top_p: 0.1 }, seed: 2 },
      { seed: 2, top_p: 0.1 },
    ],
  ])("%j becomes options %j", (fields, options) => {
    expect(command(fields).options).toEqual({ temperature: 1, top_p: 1, ...options })
  })

  test.each<[object, AnswerCommand["think"]]>([
    [{}, undefined],
    [{ reasoning_effort: null }, undefined],
    [{ reasoning_effort: "none" }, false],
    [{ reasoning_effort: "minimal" }, "low"],
    [{ reasoning_effort: "low" }, "low"],
    [{ reasoning_effort: "medium" }, "medium"],
    [{ reasoning_effort: "high" }, "high"],
    [{ reasoning_effort: "xhigh" }, "max"],
    [{ reasoning_effort: "ultra" }, "max"],
    [{ reasoning_effort: "max" }, "max"],
    [{ reasoning: { effort: "high" } }, "high"],
    [{ reasoning: { effort: "high" }, reasoning_effort: "low" }, "high"],
    [{ reasoning: { effort: null }, reasoning_effort: "low" }, "low"],
  ])("%j thinks %p", (fields, think) => {
    expect(command(fields).think).toEqual(think as never)
  })

  test.each(["x", "", "constructor", "HIGH"])("effort %p is refused", (effort) => {
    expect(() => command({ reasoning_effort: effort })).toThrow(
      expect.objectContaining({
        code: "invalid-input",
        message:
          `invalid reasoning value: "${effort}" (must be "minimal", "low", "medium", "high", "xhigh", ` +
          `"ultra", "max", or "none")`,
      }),
    )
  })

  test.each<[unknown, string | undefined]>([
    [undefined, undefined],
    [null, undefined],
    [{ type: "text" }, undefined],
    [{ type: "json_object" }, '{"type":"object"}'],
    [
      { type: "json_schema", json_schema: { name: "x", schema: { type: "array" } } },
      '{"type":"array"}',
    ],
    [{ type: "json_schema", json_schema: { name: "x" } }, undefined],
    [{ type: "json_schema" }, undefined],
  ])("response_format %j is %p", (format, expected) => {
    expect(command({ response_format: format }).format).toBe(expected)
  })

  test.each<[object, number | undefined]>([
    [{}, undefined],
    [{ logprobs: true }, 0],
    [{ logprobs: true, top_logprobs: 5 }, 5],
    [{ logprobs: false, top_logprobs: 5 }, undefined],
  ])("%j asks for %p alternatives", (fields, expected) => {
    expect(command(fields).logprobs).toBe(expected)
  })

  test("tools keep their schema, and lose empty fields", () => {
    const parameters = { type: "object", properties: { b: {}, a: {} } }
    const tools = [
      { type: "function", function: { name: "wx", description: "Weather", parameters } },
      { type: "function", function: { name: "now", strict: true } },
    ]
    expect(command({ tools }).input).toMatchObject({
      tools: [{ name: "wx", description: "Weather", parameters }, { name: "now" }],
    })
  })

  test("no messages are refused in OpenAI's words", () => {
    expect(() => command({ messages: [] })).toThrow(
      expect.objectContaining({ code: "invalid-input", message: "[] is too short - 'messages'" }),
    )
  })
})

/** A call as OpenAI writes it. */
function call(args: string, id = "call_1", name = "wx"): object {
  return { id, type: "function", function: { name, arguments: args } }
}

describe("chatCompletionCommand() — messages", () => {
  test("each part is a message; calls and reasoning go with the last", () => {
    const parts = [
      { type: "text", text: "a" },
      { type: "text", text: "b" },
    ]
    const message = {
      role: "assistant",
      content: parts,
      reasoning: "hm",
      tool_calls: [call('{"city":"Oslo"}')],
    }
    expect(messagesOf(message)).toEqual([
      { role: "assistant", content: "a" },
      {
        role: "assistant",
        content: "b",
        thinking: "hm",
        toolCalls: [{ id: "call_1", name: "wx", arguments: '{"city":"Oslo"}' }],
      },
    ])
  })

  test.each([[null], [undefined], [[]]])("content %j is fine beside tool calls", (content) => {
    expect(messagesOf({ role: "assistant", content, tool_calls: [call("{}")] })).toEqual([
      {
        role: "assistant",
        content: "",
        toolCalls: [{ id: "call_1", name: "wx", arguments: "{}" }],
      },
    ])
  })

  test("a message without parts is not lost", () => {
    expect(messagesOf({ role: "user", content: [] })).toEqual([{ role: "user", content: "" }])
  })

  test("a tool's result finds the name of its call; the last call of an id counts", () => {
    const [, , byId, byName, unknown] = messagesOf(
      { role: "assistant", tool_calls: [call("{}", "c1")] },
      {
        role: "assistant",
        tool_calls: [{ id: "c1", function: { name: "now", arguments: "{}" } }],
      },
      { role: "tool", content: "11°", tool_call_id: "c1" },
      { role: "tool", content: "12°", tool_call_id: "c1", name: "other" },
      { role: "tool", content: "13°", tool_call_id: "c9" },
    )
    expect(byId).toEqual({ role: "tool", content: "11°", toolName: "now", toolCallId: "c1" })
    expect(byName).toMatchObject({ toolName: "other" })
    expect(unknown).toEqual({ role: "tool", content: "13°", toolCallId: "c9" })
  })

  test.each<[object, string]>([
    [{ role: "user", content: null }, "invalid message content type: <nil>"],
    [{ role: "user" }, "invalid message content type: <nil>"],
    [{ role: "user", content: [{ type: "text" }] }, "invalid message format"],
    [{ role: "user", content: [{ type: "file", text: "x" }] }, "invalid message format"],
    [
      { role: "user", content: [{ type: "image_url", image_url: { url: "data:" } }] },
      'Cannot use content of type "image_url": this version of cria reads text only',
    ],
    [
      { role: "user", content: [{ type: "input_audio", input_audio: { data: "" } }] },
      'Cannot use content of type "input_audio": this version of cria reads text only',
    ],
    [{ role: "assistant", tool_calls: [call("{")] }, "invalid tool call arguments"],
    [{ role: "assistant", tool_calls: [call("")] }, "invalid tool call arguments"],
    [{ role: "assistant", tool_calls: [call("5")] }, "invalid tool call arguments"],
    [{ role: "assistant", tool_calls: [call("[1]")] }, "invalid tool call arguments"],
    [{ role: "assistant", tool_calls: [call("null")] }, "invalid tool call arguments"],
  ])("%j is refused", (message, text) => {
    expect(() => messagesOf(message)).toThrow(
      expect.objectContaining({ code: "invalid-input", message: text }),
    )
  })
})

function one(token: string): TokenProbability {
  return { token, logprob: -0.5, bytes: [...Buffer.from(token)] }
}

/** Two answers whose events come in turn. */
const TWO: readonly ChoiceEvent[] = [
  { choice: 1, event: delta("B") },
  { choice: 0, event: delta("A") },
  { choice: 1, event: toolCall("wx", "{}", "c1") },
  { choice: 0, event: delta("a") },
  {
    choice: 1,
    event: done({
      usage: {
        ...TEST_USAGE,
        cachedTokens: 10,
        completionTokens: 5,
        queueMs: 1.23456,
        preemptions: 2,
      },
    }),
  },
  { choice: 0, event: done({ reason: "length" }) },
]

const USAGE_OF_TWO = {
  prompt_tokens: 11,
  completion_tokens: 7,
  total_tokens: 18,
  prompt_tokens_details: { cached_tokens: 4 },
  queue_ms: 1.235,
  preempted_count: 2,
}

describe("completionChunks()", () => {
  const head = {
    id: "chatcmpl-42",
    object: "chat.completion.chunk",
    created: 1_767_323_045,
    model: "tiny",
    system_fingerprint: "fp_ollama",
  }

  test("chunks share their head; the role is in the first, the reason in the last", async () => {
    expect(await chunks([delta("Hey"), delta("!"), done()])).toEqual([
      {
        ...head,
        choices: [{ index: 0, delta: { role: "assistant", content: "Hey" }, finish_reason: null }],
      },
      { ...head, choices: [{ index: 0, delta: { content: "!" }, finish_reason: null }] },
      { ...head, choices: [{ index: 0, delta: {}, finish_reason: "stop" }] },
    ])
  })

  test("usage comes in a chunk of its own, for those who want it", async () => {
    const all = await chunks([delta("a"), done()], { includeUsage: true })
    expect(all).toHaveLength(3)
    expect(all[2]).toEqual({ ...head, choices: [], usage: USAGE })
    expect(all[1]).not.toHaveProperty("usage")
  })

  test("of several answers each chunk says to which it belongs; one usage is for all", async () => {
    const all = (await chunks(TWO, { choices: 2, includeUsage: true })) as {
      choices: { index: number; delta: object; finish_reason: unknown }[]
      usage?: object
    }[]
    expect(
      all.map(
        ({ choices: [choice] }) => choice && [choice.index, choice.delta, choice.finish_reason],
      ),
    ).toEqual([
      [1, { role: "assistant", content: "B" }, null],
      [0, { role: "assistant", content: "A" }, null],
      [1, { content: "", tool_calls: [{ index: 0, ...call("{}", "c1") }] }, null],
      [0, { content: "a" }, null],
      [1, {}, "tool_calls"],
      [0, {}, "length"],
      undefined,
    ])
    expect(all.at(-1)?.usage).toEqual(USAGE_OF_TWO)
  })

  test("thinking and content never share a chunk", async () => {
    expect(await choices([delta("4", { thinking: "hm" }), done()])).toEqual([
      [{ role: "assistant", content: "", reasoning: "hm" }, null],
      [{ content: "4" }, null],
      [{}, "stop"],
    ])
  })

  test("tool calls are numbered and end the answer as tool_calls", async () => {
    const events = [toolCall("wx", '{"a":1}', "c1"), toolCall("now", "{}", "c2"), done()]
    expect(await choices(events)).toEqual([
      [
        { role: "assistant", content: "", tool_calls: [{ index: 0, ...call('{"a":1}', "c1") }] },
        null,
      ],
      [{ content: "", tool_calls: [{ index: 1, ...call("{}", "c2", "now") }] }, null],
      [{}, "tool_calls"],
    ])
  })

  test.each<[ChatEvent[], string]>([
    [[done()], "stop"],
    [[done({ reason: "length" })], "length"],
    [[toolCall("wx", "{}"), done({ reason: "length" })], "length"],
  ])("%j ends as %s", async (events, reason) => {
    expect((await choices(events)).at(-1)).toEqual([
      events.length === 1 ? { role: "assistant" } : {},
      reason,
    ])
  })

  test("log-probabilities come with their text, and also without any", async () => {
    const events: ChatEvent[] = [
      {
        kind: "delta",
        content: "b",
        thinking: "a",
        logprobs: [{ ...one("b"), top: [one("b"), one("c")] }],
      },
      { kind: "delta", content: "", thinking: "", logprobs: [{ ...one("!"), top: [] }] },
      done(),
    ]
    const all = (await chunks(events)) as { choices: { delta: object; logprobs?: object }[] }[]
    expect(all.map(({ choices: [choice] }) => [choice?.delta, choice?.logprobs])).toEqual([
      [{ role: "assistant", content: "", reasoning: "a" }, undefined],
      [{ content: "b" }, { content: [{ ...one("b"), top_logprobs: [one("b"), one("c")] }] }],
      [{ content: "" }, { content: [{ ...one("!"), top_logprobs: [] }] }],
      [{}, undefined],
    ])
  })
})

describe("completionReply()", () => {
  test("has the order of fields that people are used to", async () => {
    expect(JSON.stringify(await reply(delta("Hey"), delta("!"), done()))).toBe(
      '{"id":"chatcmpl-42","object":"chat.completion","created":1767323045,"model":"tiny",' +
        '"system_fingerprint":"fp_ollama","choices":[{"index":0,"message":{"role":"assistant",' +
        '"content":"Hey!"},"finish_reason":"stop"}],"usage":{"prompt_tokens":11,"completion_tokens":2,' +
        '"total_tokens":13,"prompt_tokens_details":{"cached_tokens":4},"queue_ms":0,"preempted_count":0}}',
    )
  })

  test("has everything that an answer can have", async () => {
    const top = { token: "a", logprob: -1, bytes: [97] }
    const events: ChatEvent[] = [
      { kind: "delta", content: "a", thinking: "h", logprobs: [{ ...top, top: [top] }] },
      delta("", { thinking: "m" }),
      toolCall("wx", '{"z":1}', "c1"),
      done(),
    ]
    expect(await reply(...events)).toMatchObject({
      choices: [
        {
          index: 0,
          message: {
            role: "assistant",
            content: "a",
            reasoning: "hm",
            tool_calls: [
              {
                id: "c1",
                index: 0,
                type: "function",
                function: { name: "wx", arguments: '{"z":1}' },
              },
            ],
          },
          finish_reason: "tool_calls",
          logprobs: { content: [{ ...top, top_logprobs: [top] }] },
        },
      ],
      usage: USAGE,
    })
  })

  test("has several answers in their order, and one usage for all", async () => {
    expect(await completionReply(choiceEvents(TWO), { ...CONTEXT, choices: 2 })).toMatchObject({
      choices: [
        { index: 0, message: { content: "Aa" }, finish_reason: "length" },
        {
          index: 1,
          message: { content: "B", tool_calls: [{ id: "c1" }] },
          finish_reason: "tool_calls",
        },
      ],
      usage: USAGE_OF_TWO,
    })
  })

  test("an answer that ends without its end is our bug", async () => {
    await rejects(reply(delta("a")), /an answer ends with done/)
  })
})

describe("openaiError()", () => {
  test.each<[number, string]>([
    [400, "invalid_request_error"],
    [404, "not_found_error"],
    [409, "api_error"],
    [499, "api_error"],
    [500, "api_error"],
    [503, "api_error"],
  ])("%d is %s", (status, type) => {
    expect(openaiError(status, "no")).toEqual({
      error: { message: "no", type, param: null, code: null },
    })
  })
})
