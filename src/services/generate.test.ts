import { describe, expect, test } from "bun:test"
import { rejects } from "node:assert/strict"

import type { ChatEvent, Message, Tool } from "../chat/message.ts"
import { u32 } from "../gguf/write.ts"
import { settle } from "../pool/fake-effects.ts"
import type { AnswerRequest } from "../runner/protocol.ts"
import { CriaError } from "../util/errors.ts"
import type { AnswerCommand } from "./generate.ts"
import {
  ABLE_TEMPLATE,
  breakingAfter,
  delta,
  done,
  streamOf,
  TestApp,
  type TestModel,
} from "./test-app.ts"

const ABLE: TestModel = { chatTemplate: ABLE_TEMPLATE }
const TOOL: Tool = { name: "wx", description: "Weather", parameters: { type: "object" } }

const GAP = { kind: "insert", prompt: "a", suffix: "b", before: [] } as const

type ChatInput = Extract<AnswerCommand["input"], { kind: "chat" }>

function user(content: string): Message {
  return { role: "user", content }
}

function chatInput(fields: Partial<ChatInput> = {}): ChatInput {
  return {
    kind: "chat",
    messages: [user("hi")],
    tools: [],
    truncate: false,
    before: [],
    withModelTurns: true,
    ...fields,
  }
}

function command(fields: Partial<AnswerCommand> = {}): AnswerCommand {
  return {
    operation: "chat",
    model: "tiny",
    options: {},
    input: chatInput(),
    wantsContext: false,
    ...fields,
  }
}

async function appWith(
  model: TestModel = ABLE,
  env: Record<string, string> = {},
): Promise<TestApp> {
  const app = new TestApp(env)
  await app.install("tiny", model)
  return app
}

/** Answers a command to its end. */
async function run(app: TestApp, fields: Partial<AnswerCommand> = {}): Promise<ChatEvent[]> {
  const { events } = await app.generator.answer(command(fields))
  return Array.fromAsync(events)
}

/** What the runner is asked. */
async function requestOf(
  fields: Partial<AnswerCommand>,
  model: TestModel = ABLE,
): Promise<AnswerRequest> {
  await using app = await appWith(model)
  await run(app, fields)
  const [request] = app.requests
  if (request === undefined) throw new Error("nothing was asked")
  return request
}

/** The turns that the runner gets. */
async function turnsOf(input: Partial<ChatInput>, model: TestModel): Promise<string[]> {
  const request = await requestOf({ input: chatInput(input) }, { ...ABLE, ...model })
  if (request.input.kind !== "chat") throw new Error("no chat")
  return request.input.messages.map(({ role, content }) => `${role}: ${content}`)
}

describe("Generator — what the runner is asked", () => {
  test("a plain chat", async () => {
    expect(await requestOf({})).toEqual({
      input: { kind: "chat", messages: [user("hi")], tools: [], truncate: false, before: [] },
      sampling: expect.objectContaining({ temperature: 0.8, seed: -1 }),
      maxTokens: null,
      stop: [],
      wantsContext: false,
    })
  })

  test("a prompt that is taken as it is: no turns of the model, no thinking", async () => {
    const model = { ...ABLE, system: "You are a pirate.", messages: [user("Ahoy")] }
    const input = { kind: "text", text: "Once" } as const
    const request = await requestOf({ operation: "generate", input, think: true }, model)
    expect(request.input).toEqual(input)
  })

  test("everything else that a command can have", async () => {
    const request = await requestOf({
      input: chatInput({ tools: [TOOL], truncate: true, before: [1, 2] }),
      format: '{"type":"object"}',
      logprobs: 3,
      wantsContext: true,
      options: { num_predict: 5, stop: ["x"], num_ctx: 64 },
    })
    expect(request).toMatchObject({
      input: { tools: [TOOL], truncate: true, before: [1, 2] },
      format: '{"type":"object"}',
      logprobs: 3,
      wantsContext: true,
      maxTokens: 5,
      stop: ["x"],
      contextTokens: 64,
    })
  })

  test.each<[AnswerCommand["think"], object]>([
    [undefined, {}],
    [false, { thinking: false }],
    [true, { thinking: true }],
    ["low", { thinking: true, effort: "low" }],
    ["max", { thinking: true, effort: "max" }],
  ])("think: %p", async (think, expected) => {
    const { input } = await requestOf({ think })
    const { thinking, effort } = { thinking: undefined, effort: undefined, ...input }
    expect({ thinking, effort }).toEqual({ thinking: undefined, effort: undefined, ...expected })
  })

  test("gpt-oss knows no level above high", async () => {
    const { input } = await requestOf({ think: "max" }, { architecture: "gpt-oss" })
    expect(input).toMatchObject({ thinking: true, effort: "high" })
  })
})

async function inputOf(
  fields: Partial<AnswerCommand>,
  model: TestModel,
): Promise<AnswerRequest["input"]> {
  const { input } = await requestOf(fields, model)
  return input
}

/** What the runner is asked under a setting, of a model whose file has a template of its own. */
async function inputUnder(setting: string, template: string): Promise<unknown> {
  await using app = await appWith({ ...ABLE, template }, { OLLAMA_GO_TEMPLATE: setting })
  await run(app)
  return app.requests[0]?.input
}

describe("Generator — Go templates", () => {
  const THINKING = "{{ range .Messages }}<t>{{ .Thinking }}</t>{{ end }}{{ .Suffix }}{{ .Tools }}"

  test("the model's goes with the request, and is told to think when it can", async () => {
    const model = { template: THINKING }
    expect(await inputOf({}, model)).toEqual({
      kind: "chat",
      messages: [user("hi")],
      tools: [],
      truncate: false,
      before: [],
      template: THINKING,
      thinking: true,
    })
    expect(await inputOf({ think: false }, model)).toMatchObject({ thinking: false })
    expect(await inputOf({ think: "low" }, model)).toMatchObject({ thinking: true, effort: "low" })
  })

  test("one that cannot think is not told to", async () => {
    const input = await inputOf({}, { template: "{{ .Prompt }}" })
    expect(input).not.toHaveProperty("thinking")
  })

  test("that of the request wins", async () => {
    const input = chatInput({ template: "Q: {{ .Prompt }}" })
    expect(await inputOf({ input }, ABLE)).toMatchObject({ template: "Q: {{ .Prompt }}" })
    expect(await inputOf({ input }, { template: THINKING })).toMatchObject({
      template: "Q: {{ .Prompt }}",
    })
  })

  test("a gap goes with the model's", async () => {
    const { kind, prompt, suffix } = GAP
    expect(await inputOf({ input: GAP }, { template: THINKING })).toEqual({
      kind,
      prompt,
      suffix,
      before: [],
      template: THINKING,
      thinking: true,
    })
  })

  test("a model without any continues the prompt, but chats in the runner's own way", async () => {
    const generate = await inputOf({ operation: "generate" }, {})
    expect(generate).toMatchObject({ kind: "chat", template: "{{ .Prompt }}" })
    expect(await inputOf({}, {})).not.toHaveProperty("template")
  })

  test("the file's own is used where it can do more and says the same", async () => {
    const old = "<think>{{ .Prompt }}"
    expect(await inputOf({}, { ...ABLE, template: old })).not.toHaveProperty("template")
  })

  test("thoughts in the text of earlier answers are left out where the model is not used to them", async () => {
    const thought = "\n<think>a</think>\n\nb <think>"
    const assistant = { role: "assistant", content: thought }
    const messages = [user(thought), assistant, user("c"), assistant]
    const contents = async (architecture: string) => {
      const input = chatInput({ messages })
      const sent = await inputOf({ input }, { architecture, template: "{{ .Prompt }}" })
      return sent.kind === "chat" ? sent.messages.map(({ content }) => content) : []
    }
    expect(await contents("qwen3")).toEqual([thought, "b <think>", "c", thought])
    expect(await contents("llama")).toEqual([thought, thought, "c", thought])
  })

  test("OLLAMA_GO_TEMPLATE decides", async () => {
    expect(await inputUnder("1", "{{ .Prompt }}")).toHaveProperty("template")
    expect(await inputUnder("0", "Something else: {{ .Prompt }}")).not.toHaveProperty("template")
  })

  test("one that cannot be read is the server's error, in Go's words, before anything is loaded", async () => {
    await using app = await appWith()
    const input = chatInput({ template: "{{ if }}" })
    await rejects(app.generator.answer(command({ input })), {
      code: "internal",
      message: "template: :1: missing value for if",
    })
    await app.install("broken", { template: "{{ nope }}" })
    await rejects(app.generator.answer(command({ model: "broken" })), {
      code: "internal",
      message: 'template: :1: function "nope" not defined',
    })
    expect(app.loads).toEqual([])
    expect(
      app.catalog.describe("broken", { system: undefined, options: {} }, false).modelfile,
    ).toContain("TEMPLATE {{ nope }}")
  })
})

describe("Generator — the model's own turns", () => {
  const model = {
    system: "You are a pirate.",
    messages: [user("Ahoy"), { role: "assistant", content: "Arr", images: ["x"] }],
  }
  const SYSTEM = "system: You are a pirate."
  const TURNS = ["user: Ahoy", "assistant: Arr"]

  test("SYSTEM, MESSAGE turns, then the request", async () => {
    expect(await turnsOf({}, model)).toEqual([SYSTEM, ...TURNS, "user: hi"])
  })

  test("SYSTEM gives way to a request that begins with a system message of its own", async () => {
    const messages = [{ role: "system", content: "Be brief." }, user("hi")]
    expect(await turnsOf({ messages }, model)).toEqual([...TURNS, "system: Be brief.", "user: hi"])
  })

  test("SYSTEM stays when a system message comes later", async () => {
    const messages = [user("hi"), { role: "system", content: "Be brief." }]
    expect(await turnsOf({ messages }, model)).toEqual([
      SYSTEM,
      ...TURNS,
      "user: hi",
      "system: Be brief.",
    ])
  })

  test("the system text of a prompt stands in its place, before the turns", async () => {
    expect(await turnsOf({ system: "Be brief." }, model)).toEqual([
      "system: Be brief.",
      ...TURNS,
      "user: hi",
    ])
  })

  test("a prompt that goes on from an earlier one has SYSTEM but no turns", async () => {
    expect(await turnsOf({ withModelTurns: false }, model)).toEqual([SYSTEM, "user: hi"])
  })

  test("a model without any adds nothing", async () => {
    expect(await turnsOf({}, {})).toEqual(["user: hi"])
    expect(await turnsOf({}, { system: "", messages: [] })).toEqual(["user: hi"])
  })
})

describe("Generator — options", () => {
  test("the request's win over the model's, and null is not given", async () => {
    const request = await requestOf(
      { options: { temperature: 0.1, top_k: null } },
      { ...ABLE, params: { temperature: 0.9, top_k: 7, stop: ["<eot>"] } },
    )
    expect(request.sampling).toMatchObject({ temperature: 0.1, topK: 7 })
    expect(request.stop).toEqual(["<eot>"])
  })

  test("decide how the model is loaded: request, then model, then server", async () => {
    await using app = await appWith(
      { ...ABLE, params: { num_ctx: 2048, num_gpu: 0 } },
      { OLLAMA_CONTEXT_LENGTH: "1024", CRIA_THREADS: "2" },
    )
    await run(app)
    expect(app.loads[0]).toMatchObject({ contextTokens: 2048, gpuLayers: 0, threads: 2 })
    await run(app, { options: { num_ctx: 4096 } })
    expect(app.loads[1]).toMatchObject({ contextTokens: 4096 })
  })

  test("that are unknown are logged once per request and change nothing", async () => {
    await using app = await appWith()
    await run(app, { options: { mirostat: 2, seed: 3 } })
    expect(app.complaints).toEqual(["invalid option provided mirostat tiny:latest"])
    expect(app.requests[0]?.sampling.seed).toBe(3)
  })

  test("for guessing tokens are logged once, and so is a DRAFT: nothing uses them", async () => {
    await using app = await appWith({ ...ABLE, hasDraft: true })
    await run(app, { options: { draft_num_predict: 4 } })
    await run(app, { options: { draft_num_predict: 4 } })
    await run(app, { options: { draft_num_predict: 0 } })
    expect(app.complaints).toEqual([
      "speculative decoding is not available tiny:latest DRAFT, draft_num_predict",
      "speculative decoding is not available tiny:latest DRAFT",
    ])
  })

  test("a model that requires a later Ollama is run: it is no version of cria", async () => {
    await using app = await appWith({ ...ABLE, config: { requires: "99.0.0" } })
    expect(await run(app)).toHaveLength(2)
  })

  test.each<[Record<string, unknown>, string]>([
    [{ temperature: "hot" }, 'option "temperature" must be of type float32'],
    [{ num_ctx: "4k" }, 'option "num_ctx" must be of type integer'],
    [{ use_mmap: 1 }, 'option "use_mmap" must be of type boolean'],
    [{ stop: "x" }, 'option "stop" must be of type array'],
    [{ stop: [1] }, 'option "stop" must be of an array of strings'],
  ])("of a wrong type, %j, are refused before anything is loaded", async (options, message) => {
    await using app = await appWith()
    await rejects(app.generator.answer(command({ options })), {
      code: "internal",
      message,
    })
    expect(app.loads).toEqual([])
  })

  test("that the model cannot have are refused, and it stays loaded as it is", async () => {
    const metadata = {
      "llama.attention.key_length": u32(80),
      "llama.attention.value_length": u32(80),
    }
    await using app = await appWith({ ...ABLE, metadata })
    await run(app)
    await rejects(run(app, { options: { kv_cache_type: "q8_0" } }), {
      code: "invalid-input",
      message:
        'Cannot keep the keys of "tiny:latest" as q8_0: a head has 80 elements, expected a multiple of 32',
    })
    await run(app)
    expect(app.loads).toHaveLength(1)
  })

  test("out of range are refused before anything is loaded", async () => {
    await using app = await appWith()
    await rejects(run(app, { options: { num_ctx: -1 } }), {
      code: "invalid-input",
    })
    expect(app.loads).toEqual([])
  })
})

describe("Generator — what a model cannot do", () => {
  const EMBEDDING: TestModel = { metadata: { "llama.pooling_type": u32(1) } }
  const NO_THINKING = '"tiny" does not support thinking'
  const FULL_NAME = "registry.ollama.ai/library/tiny:latest"

  test.each<[string, TestModel, Partial<AnswerCommand>, string]>([
    ["chat", EMBEDDING, {}, '"tiny" does not support chat'],
    ["generate", EMBEDDING, { operation: "generate" }, '"tiny" does not support generate'],
    [
      "generate from plain text",
      EMBEDDING,
      { operation: "generate", input: { kind: "text", text: "x" } },
      '"tiny" does not support generate',
    ],
    [
      "call tools",
      {},
      { input: chatInput({ tools: [TOOL] }) },
      `${FULL_NAME} does not support tools`,
    ],
    ["insert", ABLE, { input: GAP }, `${FULL_NAME} does not support insert`],
    ["think", {}, { think: true }, NO_THINKING],
    ["think at a level", {}, { think: "low" }, NO_THINKING],
    ["think, which is said before tools", {}, { think: true, input: GAP }, NO_THINKING],
    [
      "think, being an old qwen3",
      { architecture: "qwen3" },
      { think: true },
      `${NO_THINKING}. Pull the model again to get the latest version with full thinking support`,
    ],
  ])("%s", async (_, model, fields, message) => {
    await using app = await appWith(model)
    const expected = { code: "invalid-input", message }
    await rejects(app.generator.answer(command(fields)), expected)
    await rejects(app.generator.render(command(fields)), expected)
    expect(app.loads).toEqual([])
  })

  test("think, being an old deepseek-r1, named as the client did", async () => {
    await using app = new TestApp()
    await app.install("deepseek-r1:8b", { architecture: "qwen2" })
    const asked = command({ model: "DeepSeek-R1:8b", think: true })
    await rejects(
      app.generator.answer(asked),
      /"DeepSeek-R1:8b" does not support thinking\. Pull the model again/,
    )
  })

  test("not to think is no ability", async () => {
    await using app = await appWith({})
    expect(await run(app, { think: false })).toHaveLength(2)
  })

  test("an embedding model can be loaded all the same", async () => {
    await using app = await appWith(EMBEDDING)
    await app.generator.load({ model: "tiny", options: {} })
    expect(app.loads).toHaveLength(1)
  })
})

describe("Generator — every way out gives the model back", () => {
  test("an answer that ends", async () => {
    await using app = await appWith()
    const { events, loadMs } = await app.generator.answer(command())
    expect(app.leases).toBe(1)
    expect(loadMs).toBeGreaterThan(0)
    expect(await Array.fromAsync(events)).toEqual([delta("4"), done()])
    expect(app.leases).toBe(0)
  })

  test("an answer that is left", async () => {
    await using app = await appWith()
    const { events } = await app.generator.answer(command())
    for await (const _ of events) break
    expect(app.leases).toBe(0)
  })

  test("an answer that nobody ever looks at", async () => {
    await using app = await appWith()
    const { events } = await app.generator.answer(command())
    await events.return?.()
    expect(app.leases).toBe(0)
  })

  test("an answer that breaks", async () => {
    await using app = await appWith()
    app.script = () => breakingAfter(new CriaError("internal", "the runner died"), delta("a"))
    await rejects(run(app), /the runner died/)
    expect(app.leases).toBe(0)
  })

  test("a runner that refuses at once", async () => {
    await using app = await appWith()
    app.script = () => breakingAfter(new CriaError("unavailable", "The model was unloaded"))
    await rejects(run(app), /The model was unloaded/)
    expect(app.leases).toBe(0)
  })

  test("a load, with or without success", async () => {
    await using app = await appWith()
    await app.generator.load({ model: "tiny", options: {} })
    expect(app.leases).toBe(0)
    expect(app.pool.list()).toMatchObject([{ name: "tiny:latest", state: "ready" }])
  })

  test("a rendering, with or without success", async () => {
    await using app = await appWith()
    expect(await app.generator.render(command())).toBe("rendered")
    expect(app.leases).toBe(0)
    app.rendering = Promise.reject(new CriaError("invalid-input", "the template complains"))
    await rejects(app.generator.render(command()), /the template complains/)
    expect(app.leases).toBe(0)
  })

  test("several at once, each by itself", async () => {
    await using app = await appWith()
    const [first, second] = await Promise.all([
      app.generator.answer(command()),
      app.generator.answer(command()),
    ])
    await Array.fromAsync(first.events)
    expect(app.leases).toBe(1)
    await Array.fromAsync(second.events)
    expect(app.leases).toBe(0)
    expect(app.loads).toHaveLength(1)
  })
})

describe("Generator — several answers", () => {
  test("come as they come, with one lease, each with a seed of its own", async () => {
    await using app = await appWith()
    app.script = ({ sampling }) => streamOf(delta(`seed ${sampling.seed}`), done())
    const options = { seed: 2 ** 32 - 1 }
    const { events } = await app.generator.answers(command({ options }), 3)
    expect(app.leases).toBe(1)
    const texts: string[] = []
    let ends = 0
    for await (const { choice, event } of events) {
      if (event.kind === "delta") texts[choice] = event.content
      else ends++
    }
    expect([texts, ends]).toEqual([["seed 4294967295", "seed 0", "seed 1"], 3])
    expect(app.leases).toBe(0)
    expect(app.loads).toHaveLength(1)
  })

  test("are random each when the request is", async () => {
    await using app = await appWith()
    await Array.fromAsync((await app.generator.answers(command(), 2)).events)
    expect(app.requests.map(({ sampling }) => sampling.seed)).toEqual([-1, -1])
  })

  test("when one fails, all end and the model is given back", async () => {
    await using app = await appWith()
    let asked = 0
    const ended: unknown[] = []
    app.script = async function* (_, signal) {
      if (++asked === 2) throw new CriaError("busy", "too many wait")
      try {
        yield delta("a")
        await new Promise((resolve) => signal?.addEventListener("abort", resolve))
      } finally {
        ended.push(signal?.aborted)
      }
    }
    const { events } = await app.generator.answers(command(), 2)
    await rejects(Array.fromAsync(events), { code: "busy" })
    expect(ended).toEqual([true])
    expect(app.leases).toBe(0)
  })
})

describe("Generator — loads that fail", () => {
  test.each<[CriaError["code"], CriaError["code"]]>([
    // What is wrong with a file is not the fault of the request.
    ["invalid-input", "internal"],
    ["insufficient-memory", "insufficient-memory"],
    ["unavailable", "unavailable"],
    ["internal", "internal"],
  ])("%s becomes %s, with text and hint", async (thrown, expected) => {
    await using app = await appWith()
    app.loading = Promise.reject(new CriaError(thrown, "no", { hint: "do something" }))
    await rejects(app.generator.answer(command()), {
      code: expected,
      message: "no",
      hint: "do something",
    })
    expect(app.pool.list()).toEqual([])
  })

  test("a client that goes away while it waits gets its own reason", async () => {
    await using app = await appWith()
    app.loading = new Promise(() => {})
    const controller = new AbortController()
    const answer = app.generator.answer(command(), controller.signal)
    const reason = new Error("gone")
    controller.abort(reason)
    await rejects(answer, (error) => error === reason)
  })

  test("too many that wait", async () => {
    await using app = await appWith(ABLE, { OLLAMA_MAX_QUEUE: "0" })
    const loading = Promise.withResolvers<void>()
    app.loading = loading.promise
    const first = app.generator.load({ model: "tiny", options: {} })
    await rejects(app.generator.answer(command()), {
      code: "busy",
      message: "server busy, please try again.  maximum pending requests exceeded",
    })
    loading.resolve()
    await first
  })
})

describe("Generator — keep-alive and unloading", () => {
  test("a request says how long the model stays; one that does not keeps what it has", async () => {
    await using app = await appWith()
    const delays = () => [...app.timers.values()].map(({ delayMs }) => delayMs)
    await run(app, { keepAliveMs: 60_000 })
    expect(delays()).toEqual([60_000])
    await run(app)
    expect(delays()).toEqual([60_000])
  })

  test("without a word it is the server's", async () => {
    await using app = await appWith(ABLE, { OLLAMA_KEEP_ALIVE: "1s" })
    await run(app)
    expect([...app.timers.values()].map(({ delayMs }) => delayMs)).toEqual([1000])
  })

  test("unloads once nobody uses it", async () => {
    await using app = await appWith()
    const { events } = await app.generator.answer(command())
    app.generator.unload("TINY")
    expect(app.pool.list()).toHaveLength(1)
    await Array.fromAsync(events)
    await settle()
    expect(app.pool.list()).toEqual([])
  })

  test("what is not loaded is fine to unload; what is not installed is not", async () => {
    await using app = await appWith()
    app.generator.unload("tiny")
    expect(() => app.generator.unload("nope")).toThrow("model 'nope' not found")
  })

  test("two names of the same weights share a runner", async () => {
    await using app = await appWith()
    await run(app)
    app.folder.model("twin", app.resolver.store.list().models[0]?.manifest.layers ?? [])
    app.script = () => streamOf(done())
    await run(app, { model: "twin" })
    expect(app.loads).toHaveLength(1)
  })
})
