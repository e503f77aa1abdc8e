import { afterAll, beforeAll, describe, expect, test } from "bun:test"

import { Ollama } from "ollama"
import { NotFoundError, OpenAI } from "openai"

import { NO_PYTHON_CLIENT, testUnless } from "./requirements.ts"
import {
  DRAFT,
  firstLines,
  LONG_ANSWER,
  ndjson,
  type Outcome,
  residentBytes,
  type Server,
  World,
} from "./support.ts"

let world: World
let server: Server

beforeAll(async () => {
  world = new World()
  world.install("draft", DRAFT)
  server = await world.serve()
})

afterAll(async () => {
  await server[Symbol.asyncDispose]()
  await world.quiet()
  await world[Symbol.asyncDispose]()
})

const CAPITAL = { model: "demo", prompt: "What is the capital of France?", think: false }

async function askCapital(country: string): Promise<string> {
  const prompt = `What is the capital of ${country}?`
  const reply = await server.json("/api/generate", { ...CAPITAL, prompt, stream: false })
  return String(reply["response"])
}

/** Runs a command against the server. */
function cria(...args: string[]): Promise<Outcome> {
  return world.run(args, { env: { CRIA_HOST: new URL(server.url).host } })
}

const WEATHER = {
  type: "function" as const,
  function: {
    name: "get_weather",
    description: "Get the weather of a city",
    parameters: { type: "object", properties: { city: { type: "string" } }, required: ["city"] },
  },
}

describe("an idle server", () => {
  test("stays small while it has loaded nothing", async () => {
    await server.json("/api/tags")
    expect(residentBytes(server.child.pid)).toBeLessThan(60e6)
    expect(server.runners).toEqual([])
  })

  test("lists the built-in model beside those of the store", async () => {
    const { models } = await server.json("/api/tags")
    expect(models).toEqual(
      expect.arrayContaining([
        expect.objectContaining({
          name: "demo:latest",
          details: expect.objectContaining({
            family: "qwen3",
            parameter_size: "4.98M",
            quantization_level: "Q8_0",
          }),
        }),
        expect.objectContaining({ name: "draft:latest" }),
      ]),
    )
  })
})

describe("the native API", () => {
  test("streams an answer line by line, each a real line", async () => {
    const lines = await ndjson(await server.post("/api/generate", CAPITAL))
    expect(lines.map(({ response }) => response).join("")).toBe("The capital of France is Paris.")
    expect(lines.slice(0, -1).every(({ done }) => done === false)).toBe(true)
    expect(lines.at(-1)).toMatchObject({
      done: true,
      done_reason: "stop",
      model: "demo",
      eval_count: 8,
      prompt_eval_count: 19,
    })
    expect(lines.at(-1)?.["context"]).toBeArray()
  })

  test("goes on from the context of an earlier answer", async () => {
    const first = await server.json("/api/generate", {
      model: "demo",
      prompt: "My name is Anna.",
      think: false,
      stream: false,
    })
    const next = await server.json("/api/generate", {
      model: "demo",
      prompt: "What is my name?",
      context: first["context"],
      think: false,
      stream: false,
    })
    expect(String(next["response"])).toContain("Anna")
  })

  test("loads and unloads on demand, and says what is loaded", async () => {
    const loaded = await server.json("/api/generate", { model: "demo", keep_alive: "10m" })
    expect(loaded).toMatchObject({ model: "demo", response: "", done: true, done_reason: "load" })
    const { models } = await server.json("/api/ps")
    expect(models).toMatchObject([{ name: "demo:latest", context_length: 2048, size_vram: 0 }])
    const unloaded = await server.json("/api/chat", { model: "demo", messages: [], keep_alive: 0 })
    expect(unloaded).toMatchObject({
      message: { role: "assistant", content: "" },
      done_reason: "unload",
    })
    await server.idle()
    expect(await server.json("/api/ps")).toEqual({ models: [] })
  })

  test("renders a prompt without answering it", async () => {
    const { _debug_info: info } = await server.json("/api/chat", {
      model: "demo",
      messages: [{ role: "user", content: "Hi" }],
      _debug_render_only: true,
      stream: false,
    })
    expect(info).toMatchObject({
      rendered_template: expect.stringContaining("<|im_start|>user\nHi<|im_end|>"),
    })
  })

  test("answers many at once, each right", async () => {
    const capitals = {
      France: "Paris",
      Japan: "Tokyo",
      Italy: "Rome",
      Spain: "Madrid",
      Egypt: "Cairo",
      Germany: "Berlin",
    }
    const countries = Object.keys(capitals)
    const answers = await Promise.all([...countries, ...countries, ...countries].map(askCapital))
    for (const [i, answer] of answers.entries()) {
      expect(answer).toContain(Object.values(capitals)[i % countries.length] ?? "?")
    }
  })

  test.each<[string, string, unknown, number, string | RegExp]>([
    [
      "an unknown model",
      "/api/chat",
      { model: "nope", messages: [{ role: "user", content: "x" }] },
      404,
      "model 'nope' not found",
    ],
    ["an invalid name", "/api/generate", { model: "a b", prompt: "x" }, 400, "invalid model name"],
    ["no name", "/api/chat", { messages: [] }, 400, "model is required"],
    ["an empty name", "/api/generate", { prompt: "x" }, 404, "model '' not found"],
    ["no body", "/api/generate", "", 400, "missing request body"],
    ["broken JSON", "/api/chat", "{", 400, /^Cannot read the request as JSON/],
    ["a wrong type", "/api/chat", { model: "demo", messages: "hi" }, 400, /"messages"/],
    [
      "an option of the wrong type",
      "/api/generate",
      { ...CAPITAL, options: { temperature: "hot" } },
      500,
      'option "temperature" must be of type float32',
    ],
    [
      "stop strings that are none",
      "/api/generate",
      { ...CAPITAL, options: { stop: "x" } },
      500,
      'option "stop" must be of type array',
    ],
    [
      "a negative temperature",
      "/api/generate",
      { ...CAPITAL, options: { temperature: -1 } },
      400,
      "Cannot sample with temperature -1: expected a number from 0 to 100",
    ],
    [
      "a negative context",
      "/api/generate",
      { ...CAPITAL, options: { num_ctx: -5 } },
      400,
      /^Cannot use num_ctx -5/,
    ],
    [
      "half a million alternatives",
      "/api/generate",
      { ...CAPITAL, logprobs: true, top_logprobs: 500_000 },
      400,
      "top_logprobs must be between 0 and 20",
    ],
    [
      "a format that is none",
      "/api/generate",
      { ...CAPITAL, format: "xml" },
      500,
      'invalid format: "xml"; expected "json" or a valid JSON Schema object',
    ],
    [
      "a schema that refers to nothing",
      "/api/generate",
      { ...CAPITAL, format: { $ref: "#/nowhere" } },
      400,
      /./,
    ],
    [
      "a duration without a unit",
      "/api/generate",
      { ...CAPITAL, keep_alive: "10" },
      400,
      /time: missing unit in duration "10"/,
    ],
    [
      "a prompt that is too long",
      "/api/generate",
      { ...CAPITAL, prompt: "word ".repeat(5000) },
      400,
      /^Cannot read a prompt of \d+ tokens: the context holds 2048, answer included$/,
    ],
    [
      "tools for a model without",
      "/api/chat",
      {
        model: "draft",
        messages: [{ role: "user", content: "x" }],
        tools: [WEATHER],
        think: "high",
      },
      200,
      "",
    ],
  ])("answers %s as it should", async (_, path, body, status, message) => {
    const response = await server.post(
      path,
      typeof body === "object" ? { stream: false, ...body } : body,
    )
    expect(response.status).toBe(status)
    const { error } = (await response.json()) as { error: string }
    if (status === 200) return
    if (typeof message === "string") expect(error).toBe(message)
    else expect(error).toMatch(message)
  })

  test("says how many wait when there are too many, before it reads the prompt", async () => {
    const env = { OLLAMA_MAX_QUEUE: "1", OLLAMA_NUM_PARALLEL: "1" }
    await using small = await world.serve(env)
    const controller = new AbortController()
    const long = { model: "demo", ...LONG_ANSWER }
    await firstLines(await small.post("/api/generate", long, controller.signal), 2)
    const waiting = small.post("/api/generate", long, controller.signal).catch(() => undefined)
    await small.busy({ waiting: 1 })
    for (const path of ["/api/generate", "/v1/chat/completions"]) {
      const messages = [{ role: "user", content: "x" }]
      const refused = await small.post(path, { ...long, messages })
      expect(refused.status).toBe(503)
      expect(Number(refused.headers.get("Retry-After"))).toBeWithin(1, 61)
      expect(await refused.text()).toContain(
        "server busy, please try again.  maximum pending requests exceeded: Cannot queue the request: 1 waits already",
      )
    }
    controller.abort()
    await waiting
  })

  test("refuses pages of strangers", async () => {
    const options = { method: "POST", headers: { Origin: "https://evil.example" }, body: "{}" }
    expect((await fetch(`${server.url}/api/chat`, options)).status).toBe(403)
    const rebound = await fetch(`${server.url}/api/tags`, { headers: { Host: "evil.example" } })
    expect(rebound.status).toBe(403)
  })
})

describe("real clients", () => {
  test("ollama: chats, streams, calls tools, lists, shows", async () => {
    const client = new Ollama({ host: server.url })
    const whole = await client.chat({
      model: "demo",
      messages: [{ role: "user", content: "2+3?" }],
      think: false,
    })
    expect(whole.message.content).toBe("2 + 3 = 5.")
    let streamed = ""
    for await (const part of await client.generate({ ...CAPITAL, stream: true }))
      streamed += part.response
    expect(streamed).toBe("The capital of France is Paris.")
    const called = await client.chat({
      model: "demo",
      messages: [{ role: "user", content: "What is the weather in Oslo?" }],
      tools: [WEATHER],
      think: false,
    })
    expect(called.message.tool_calls).toMatchObject([
      { function: { name: "get_weather", arguments: { city: "Oslo" } } },
    ])
    expect((await client.list()).models.map(({ name }) => name)).toContain("demo:latest")
    expect((await client.ps()).models.map(({ name }) => name)).toContain("demo:latest")
    const shown = await client.show({ model: "demo" })
    expect(shown.capabilities).toEqual(["tools", "thinking", "completion"])
    expect(shown.details.family).toBe("qwen3")
  })

  test("ollama: thinks, gives JSON, aborts", async () => {
    const client = new Ollama({ host: server.url })
    const thought = await client.chat({
      model: "demo",
      messages: [{ role: "user", content: "What is the capital of France?" }],
      think: true,
    })
    expect(thought.message.thinking?.length).toBeGreaterThan(0)
    expect(thought.message.content).toContain("Paris")
    const json = await client.chat({
      model: "demo",
      messages: [{ role: "user", content: "Tell me about Oslo as JSON" }],
      format: "json",
      think: false,
    })
    expect(typeof JSON.parse(json.message.content)).toBe("object")
    const stream = await client.generate({ model: "demo", ...LONG_ANSWER, stream: true })
    const error = await (async () => {
      for await (const _ of stream) stream.abort()
    })().catch((caught: unknown) => caught)
    expect(error).toBeInstanceOf(Error)
  })

  test("openai: completes, streams, calls tools, lists", async () => {
    const client = new OpenAI({ baseURL: `${server.url}/v1`, apiKey: "unused" })
    const messages = [{ role: "user" as const, content: "What is the capital of France?" }]
    const whole = await client.chat.completions.create({
      model: "demo",
      messages,
      temperature: 0,
      reasoning_effort: "none",
    })
    expect(whole.choices[0]).toMatchObject({
      finish_reason: "stop",
      message: { role: "assistant", content: "The capital of France is Paris." },
    })
    expect(whole.usage).toMatchObject({ prompt_tokens: 19, completion_tokens: 8, total_tokens: 27 })
    const stream = await client.chat.completions.create({
      model: "demo",
      messages,
      temperature: 0,
      reasoning_effort: "none",
      stream: true,
      stream_options: { include_usage: true },
    })
    const chunks = await Array.fromAsync(stream)
    expect(chunks.map(({ choices }) => choices[0]?.delta.content ?? "").join("")).toBe(
      "The capital of France is Paris.",
    )
    expect(chunks.at(-1)?.usage?.total_tokens).toBe(27)
    const called = await client.chat.completions.create({
      model: "demo",
      messages: [{ role: "user", content: "What is the weather in Oslo?" }],
      tools: [WEATHER],
      temperature: 0,
      reasoning_effort: "none",
    })
    expect(called.choices[0]).toMatchObject({
      finish_reason: "tool_calls",
      message: { tool_calls: [{ type: "function", function: { name: "get_weather" } }] },
    })
    const { data } = await client.models.list()
    expect(data.map(({ id }) => id)).toContain("demo:latest")
    expect((await client.models.retrieve("demo")).owned_by).toBe("library")
  })

  test("openai: gets several answers to one prompt", async () => {
    const client = new OpenAI({ baseURL: `${server.url}/v1`, apiKey: "unused" })
    const request = {
      model: "demo",
      messages: [{ role: "user" as const, content: "What is the capital of France?" }],
      n: 3,
      temperature: 0,
      reasoning_effort: "none" as const,
    }
    const { choices, usage } = await client.chat.completions.create(request)
    const expected = [0, 1, 2].map((index) => [index, "The capital of France is Paris."])
    expect(choices.map(({ index, message }) => [index, message.content])).toEqual(expected)
    expect(usage).toMatchObject({ prompt_tokens: 19, completion_tokens: 24, total_tokens: 43 })
    const texts = ["", "", ""]
    for await (const chunk of await client.chat.completions.create({ ...request, stream: true })) {
      for (const { index, delta } of chunk.choices) texts[index] += delta.content ?? ""
    }
    expect(texts.map((text, index) => [index, text])).toEqual(expected)
  })

  test("openai: gets errors that it understands", async () => {
    const client = new OpenAI({ baseURL: `${server.url}/v1`, apiKey: "unused", maxRetries: 0 })
    const error = await client.chat.completions
      .create({ model: "nope", messages: [{ role: "user", content: "x" }] })
      .catch((caught: unknown) => caught)
    expect(error).toBeInstanceOf(NotFoundError)
    expect(String(error)).toContain("model 'nope' not found")
  })

  test("openai: gets a schema followed", async () => {
    const client = new OpenAI({ baseURL: `${server.url}/v1`, apiKey: "unused" })
    const schema = {
      type: "object",
      properties: { answer: { type: "integer" } },
      required: ["answer"],
      additionalProperties: false,
    }
    const { choices } = await client.chat.completions.create({
      model: "demo",
      messages: [{ role: "user", content: "2+3?" }],
      response_format: { type: "json_schema", json_schema: { name: "sum", schema } },
      temperature: 0,
      reasoning_effort: "none",
    })
    expect(Object.keys(JSON.parse(choices[0]?.message.content ?? "") as object)).toEqual(["answer"])
  })

  testUnless(NO_PYTHON_CLIENT)("openai for Python: completes and streams", async () => {
    const script = `
import openai
client = openai.OpenAI(base_url="${server.url}/v1", api_key="unused")
messages = [{"role": "user", "content": "What is the capital of France?"}]
print(client.chat.completions.create(model="demo", messages=messages, temperature=0, reasoning_effort="none").choices[0].message.content)
print("".join(c.choices[0].delta.content or "" for c in client.chat.completions.create(model="demo", messages=messages, temperature=0, reasoning_effort="none", stream=True)))
`
    const child = Bun.spawnSync(["python3", "-c", script])
    expect(child.stdout.toString()).toBe(
      "The capital of France is Paris.\nThe capital of France is Paris.\n",
    )
  })
})

describe("the commands that talk to a server", () => {
  test("list, ps and stop print what Ollama's print", async () => {
    await server.json("/api/generate", { model: "demo" })
    const list = await cria("list", "demo")
    expect(list.stdout).toMatch(
      /^NAME {11}ID {14}SIZE {6}MODIFIED +\ndemo:latest {4}[0-9a-f]{12} {4}5\.4 MB {4}\S.* ago +\n$/,
    )
    const ps = await cria("ps", "demo")
    expect(ps.stdout).toMatch(
      /^NAME +ID +SIZE +PROCESSOR +CONTEXT +UNTIL +\ndemo:latest +[0-9a-f]{12} +\d.* MB +100% CPU +2048 +\d+ minutes from now +\n$/,
    )
    expect(await cria("stop", "demo")).toEqual({ code: 0, stdout: "", stderr: "" })
    expect(await cria("stop", "nope")).toEqual({
      code: 1,
      stdout: "",
      stderr: 'Error: couldn\'t find model "nope" to stop\n',
    })
  })

  test("show prints the overview, or one part of it", async () => {
    const { stdout } = await cria("show", "demo")
    expect(stdout).toContain(
      "  Model\n    architecture        qwen3    \n    parameters          4.98M    \n    context length      2048     \n",
    )
    expect(stdout).toContain(
      "  Capabilities\n    tools         \n    thinking      \n    completion    \n\n",
    )
    expect((await cria("show", "demo", "--parameters")).stdout).toBe(
      "temperature                    0\n",
    )
    expect((await cria("show", "demo", "--template")).stdout).toStartWith("{%- set st = namespace(")
    expect((await cria("show", "demo", "--modelfile")).stdout).toContain(
      "\n# FROM demo:latest\n\nFROM /",
    )
    expect((await cria("show", "demo", "--system", "--license")).code).toBe(1)
  })

  test("run uses the server that listens", async () => {
    const { stdout } = await cria("run", "demo", "--think=false", "2+3?")
    expect(stdout).toBe("2 + 3 = 5.\n\n")
    const { models } = (await server.json("/api/ps")) as { models: { name: string }[] }
    expect(models.map(({ name }) => name)).toContain("demo:latest")
  })
})
