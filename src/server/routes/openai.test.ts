import { describe, expect, test } from "bun:test"
import { utimesSync } from "node:fs"

import { breakingAfter, delta, done, streamOf, toolCall } from "../../services/test-app.ts"
import { CriaError } from "../../util/errors.ts"
import { TestServer } from "../test-server.ts"

/** What differs from run to run, made equal. */
function timeless(text: string): string {
  return text
    .replaceAll(/"id":"chatcmpl-\d{1,3}"/g, '"id":"I"')
    .replaceAll(/"created":\d{10}/g, '"created":1')
}

const PATH = "/v1/chat/completions"
const REQUEST = { model: "tiny", messages: [{ role: "user", content: "hi" }] }
const CHUNK =
  '{"id":"I","object":"chat.completion.chunk","created":1,"model":"tiny","system_fingerprint":"fp_ollama","choices":['
const USAGE =
  '"usage":{"prompt_tokens":11,"completion_tokens":2,"total_tokens":13,"prompt_tokens_details":{"cached_tokens":4},"queue_ms":0,"preempted_count":0}'

/** A model that was installed at a known time. */
async function install(server: TestServer): Promise<void> {
  const manifest = await server.app.install("me/old")
  utimesSync(manifest, 1_767_323_045, 1_767_323_045)
}

describe("GET /v1/models", () => {
  test("lists what is installed", async () => {
    await using server = new TestServer()
    await install(server)
    const { status, type, text } = await server.get("/v1/models")
    expect(status).toBe(200)
    expect(type).toStartWith("application/json")
    expect(text).toBe(
      '{"object":"list","data":[{"id":"me/old:latest","object":"model","created":1767323045,"owned_by":"me"}]}',
    )
  })

  test("without models the data are null, as Ollama's", async () => {
    await using server = new TestServer()
    expect((await server.get("/v1/models")).text).toBe('{"object":"list","data":null}')
  })

  test("one is described under the name that was asked for", async () => {
    await using server = await TestServer.start()
    expect((await server.get("/v1/models/TINY")).text).toMatch(
      /^\{"id":"TINY","object":"model","created":\d{10},"owned_by":"library"\}$/,
    )
    expect((await server.get("/v1/models/tiny:latest")).status).toBe(200)
  })

  test("one that is not installed is not found", async () => {
    await using server = await TestServer.start()
    const { status, text } = await server.get("/v1/models/nope")
    expect(status).toBe(404)
    expect(JSON.parse(text)).toEqual({
      error: {
        message: "model 'nope:latest' not found",
        type: "not_found_error",
        param: null,
        code: null,
      },
    } as never)
  })
})

describe("POST /v1/chat/completions", () => {
  test("answers at once", async () => {
    await using server = await TestServer.start()
    server.app.script = () => streamOf(delta("Hey"), delta("!"), done())
    const { status, type, text } = await server.post(PATH, REQUEST)
    expect(status).toBe(200)
    expect(type).toStartWith("application/json")
    expect(timeless(text)).toBe(
      '{"id":"I","object":"chat.completion","created":1,"model":"tiny","system_fingerprint":"fp_ollama",' +
        '"choices":[{"index":0,"message":{"role":"assistant","content":"Hey!"},"finish_reason":"stop"}],' +
        `${USAGE}}`,
    )
    const { created } = JSON.parse(text) as { created: number }
    expect(Math.abs(created - Date.now() / 1000)).toBeLessThan(10)
    expect(server.app.leases).toBe(0)
  })

  test("streams events, and [DONE] at the end", async () => {
    await using server = await TestServer.start()
    server.app.script = () => streamOf(delta("", { thinking: "hm" }), delta("Hey"), done())
    const { status, type, text } = await server.post(PATH, { ...REQUEST, stream: true })
    expect({ status, type }).toEqual({ status: 200, type: "text/event-stream" })
    expect(timeless(text)).toBe(
      `data: ${CHUNK}{"index":0,"delta":{"role":"assistant","content":"","reasoning":"hm"},"finish_reason":null}]}\n\n` +
        `data: ${CHUNK}{"index":0,"delta":{"content":"Hey"},"finish_reason":null}]}\n\n` +
        `data: ${CHUNK}{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n` +
        "data: [DONE]\n\n",
    )
    // All chunks of an answer have one id and one time.
    expect(new Set(text.match(/"id":"[^"]+","object":"[^"]+","created":\d+/g)).size).toBe(1)
    expect(server.app.leases).toBe(0)
  })

  test("streams the usage to those who want it", async () => {
    await using server = await TestServer.start()
    const request = { ...REQUEST, stream: true, stream_options: { include_usage: true } }
    const { text } = await server.post(PATH, request)
    expect(timeless(text)).toEndWith(`data: ${CHUNK}],${USAGE}}\n\ndata: [DONE]\n\n`)
  })

  test("gives several answers, whole and as they come", async () => {
    await using server = await TestServer.start()
    server.app.script = ({ sampling }) => streamOf(delta(`#${sampling.seed}`), done())
    const whole = await server.post(PATH, { ...REQUEST, n: 3, seed: 7 })
    const { choices, usage } = JSON.parse(whole.text) as {
      choices: { index: number; message: { content: string } }[]
      usage: object
    }
    expect(choices.map(({ index, message }) => [index, message.content])).toEqual([
      [0, "#7"],
      [1, "#8"],
      [2, "#9"],
    ])
    expect(usage).toMatchObject({ prompt_tokens: 11, completion_tokens: 6, total_tokens: 17 })
    const { text } = await server.post(PATH, { ...REQUEST, n: 2, seed: 7, stream: true })
    for (const i of [0, 1]) {
      expect(text).toContain(`{"index":${i},"delta":{"role":"assistant","content":"#${7 + i}"}`)
      expect(text).toContain(`{"index":${i},"delta":{},"finish_reason":"stop"}`)
    }
    expect(text).toEndWith("data: [DONE]\n\n")
    expect(server.app.leases).toBe(0)
  })

  test("calls tools", async () => {
    await using server = await TestServer.start()
    server.app.script = () => streamOf(toolCall("wx", '{"city":"Oslo"}', "call_1"), done())
    const tools = [{ type: "function", function: { name: "wx" } }]
    const { text } = await server.post(PATH, { ...REQUEST, tools })
    expect(text).toContain(
      '"message":{"role":"assistant","content":"","tool_calls":[{"id":"call_1","index":0,"type":"function",' +
        '"function":{"name":"wx","arguments":"{\\"city\\":\\"Oslo\\"}"}}]},"finish_reason":"tool_calls"',
    )
    expect(server.app.requests[0]?.input).toMatchObject({ tools: [{ name: "wx" }] })
  })

  test("a client that goes away returns the answer", async () => {
    await using server = await TestServer.start()
    server.app.script = async function* () {
      for (;;) yield delta("word ")
    }
    const body = JSON.stringify({ ...REQUEST, stream: true })
    const response = await server.request(PATH, { method: "POST", body })
    const reader = response.body?.getReader()
    await reader?.read()
    expect(server.app.leases).toBe(1)
    await reader?.cancel()
    expect(server.app.leases).toBe(0)
  })
})

describe("POST /v1/chat/completions — errors", () => {
  test.each<[string, object | string, number, string, string]>([
    ["no body", "", 400, "invalid_request_error", "EOF"],
    ["no model", { ...REQUEST, model: "" }, 400, "invalid_request_error", "model is required"],
    [
      "no messages",
      { model: "tiny" },
      400,
      "invalid_request_error",
      "[] is too short - 'messages'",
    ],
    [
      "unknown model",
      { ...REQUEST, model: "nope" },
      404,
      "not_found_error",
      "model 'nope' not found",
    ],
    ["bad name", { ...REQUEST, model: "a b" }, 400, "invalid_request_error", "invalid model name"],
    [
      "too many alternatives",
      { ...REQUEST, logprobs: true, top_logprobs: 21 },
      400,
      "invalid_request_error",
      "top_logprobs must be between 0 and 20",
    ],
    [
      "too many answers",
      { ...REQUEST, n: 17 },
      400,
      "invalid_request_error",
      "n must be a whole number from 1 to 16",
    ],
    [
      "an option of a wrong type",
      { ...REQUEST, options: { top_k: "x" } },
      500,
      "api_error",
      'option "top_k" must be of type integer',
    ],
    [
      "thinking without the ability",
      { ...REQUEST, model: "plain", reasoning_effort: "high" },
      400,
      "invalid_request_error",
      '"plain" does not support thinking',
    ],
  ])("%s", async (_, body, status, type, message) => {
    await using server = await TestServer.start()
    await server.app.install("plain")
    const reply = await server.post(PATH, body)
    expect(reply.status).toBe(status)
    expect(JSON.parse(reply.text)).toEqual({
      error: { message, type, param: null, code: null },
    } as never)
    expect(server.app.loads).toEqual([])
  })

  test("before the first word are real statuses, streaming or not", async () => {
    await using server = await TestServer.start()
    server.app.script = () => breakingAfter(new CriaError("unavailable", "The model was unloaded"))
    for (const stream of [true, false]) {
      // oxlint-disable-next-line no-await-in-loop -- one after the other
      const { status, text } = await server.post(PATH, { ...REQUEST, stream })
      expect(status).toBe(503)
      expect(text).toBe(
        '{"error":{"message":"The model was unloaded","type":"api_error","param":null,"code":null}}',
      )
    }
  })

  test("in mid-stream are the last event, and there is no [DONE]", async () => {
    await using server = await TestServer.start()
    server.app.script = () =>
      breakingAfter(new CriaError("internal", "the runner died"), delta("a"))
    const { status, text } = await server.post(PATH, { ...REQUEST, stream: true })
    expect(status).toBe(200)
    expect(text).toEndWith(
      'data: {"error":{"message":"an error was encountered while running the model: the runner died","type":"api_error","param":null,"code":null}}\n\n',
    )
    expect(text).not.toContain("[DONE]")
    expect(server.app.leases).toBe(0)
  })
})
