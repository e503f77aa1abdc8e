import { describe, expect, test } from "bun:test"
import { readFileSync, rmSync } from "node:fs"

import { u32 } from "../../gguf/write.ts"
import {
  ABLE_TEMPLATE,
  breakingAfter,
  delta,
  done,
  streamOf,
  toolCall,
} from "../../services/test-app.ts"
import { CriaError } from "../../util/errors.ts"
import { TestServer } from "../test-server.ts"

/** What differs from run to run, made equal. */
function timeless(text: string): string {
  return text
    .replaceAll(/"(created_at|expires_at|modified_at)":"[^"]+"/g, '"$1":"T"')
    .replaceAll(/"(total_duration|load_duration)":\d+/g, '"$1":1')
    .replaceAll(/"digest":"[0-9a-f]{64}"/g, '"digest":"D"')
}

const JSON_TYPE = "application/json; charset=utf-8"
const CHAT = { model: "tiny", messages: [{ role: "user", content: "2+2?" }] }
const GENERATE = { model: "tiny", prompt: "2+2?" }
const METRICS =
  '"total_duration":1,"load_duration":1,"prompt_eval_count":11,"prompt_eval_duration":30000000,' +
  '"eval_count":2,"eval_duration":41000000,"prompt_eval_cached_count":4'

describe("GET / and /api/version", () => {
  test.each(["GET", "HEAD"])("%s / is what clients listen for", async (method) => {
    await using server = await TestServer.start()
    const { status, type, text } = await server.get("/", method)
    expect(status).toBe(200)
    expect(type.toLowerCase().replaceAll(" ", "")).toBe("text/plain;charset=utf-8")
    expect(text).toBe(method === "GET" ? "Ollama is running" : "")
  })

  test("the version is that of the API, and beside it our own", async () => {
    await using server = await TestServer.start()
    expect(await server.get("/api/version")).toEqual({
      status: 200,
      type: JSON_TYPE,
      text: '{"version":"0.20.0","cria":"0.1.0"}',
    })
    expect((await server.get("/api/version", "HEAD")).status).toBe(200)
  })
})

describe("GET /api/tags", () => {
  test("without models it is an empty list", async () => {
    await using server = new TestServer()
    expect(await server.get("/api/tags")).toEqual({
      status: 200,
      type: JSON_TYPE,
      text: '{"models":[]}',
    })
  })

  test("has what the configs say", async () => {
    await using server = new TestServer()
    await server.app.install("me/tiny:1b", {
      config: {
        model_format: "gguf",
        model_family: "llama",
        model_families: ["llama"],
        model_type: "1.2B",
        file_type: "Q4_K_M",
        context_length: 8192,
        embedding_length: 2048,
        capabilities: ["completion", "tools"],
      },
    })
    await server.app.install("bare")
    const { text } = await server.get("/api/tags")
    const [bare, whole] = (
      JSON.parse(timeless(text)) as { models: { name: string }[] }
    ).models.toSorted((a, b) => (a.name < b.name ? -1 : 1))
    expect(whole).toEqual({
      name: "me/tiny:1b",
      model: "me/tiny:1b",
      modified_at: "T",
      size: expect.any(Number),
      digest: "D",
      details: {
        parent_model: "",
        format: "gguf",
        family: "llama",
        families: ["llama"],
        parameter_size: "1.2B",
        quantization_level: "Q4_K_M",
        context_length: 8192,
        embedding_length: 2048,
      },
      capabilities: ["completion", "tools"],
    } as never)
    // All six details are always there.
    expect(bare).toEqual({
      name: "bare:latest",
      model: "bare:latest",
      modified_at: "T",
      size: expect.any(Number),
      digest: "D",
      details: {
        parent_model: "",
        format: "gguf",
        family: "",
        families: null,
        parameter_size: "",
        quantization_level: "",
      },
    } as never)
    expect((await server.get("/api/tags", "HEAD")).status).toBe(200)
  })
})

describe("GET /api/ps", () => {
  test("is an empty list, then has what was loaded", async () => {
    await using server = await TestServer.start()
    expect((await server.get("/api/ps")).text).toBe('{"models":[]}')
    await server.post("/api/generate", { model: "tiny", options: { num_ctx: 512 } })
    const { status, type, text } = await server.get("/api/ps")
    expect({ status, type }).toEqual({ status: 200, type: JSON_TYPE })
    expect(timeless(text)).toBe(
      '{"models":[{"name":"tiny:latest","model":"tiny:latest","size":1500,"digest":"D","details":{' +
        '"parent_model":"","format":"gguf","family":"llama","families":["llama"],"parameter_size":"0","quantization_level":"Q4_K_M"},' +
        '"expires_at":"T","size_vram":500,"context_length":512,"kv_cache_type":"f16","flash_attention":"auto","engine":{"running":1,"waiting":2,' +
        '"free_cells":3,"active_cells":4,"cached_cells":5,"total_cells":12,"accepted":5,"finished":2,"aborted":0,' +
        '"failed":0,"refused":0,"steps":6,"reused_graphs":0,"prompt_tokens":7,"cached_tokens":0,' +
        '"completion_tokens":8,"preemptions":0,"evicted_tokens":0,"saved_tokens":0,"restored_tokens":0,' +
        '"queue_ms":0,"decode_ms":9.5,"sample_ms":1.5,"between_ms":0.5,"step":{"tokens":3,"prompt_tokens":2,' +
        '"rows":1,"decode_ms":9.5,"sample_ms":1.5,"between_ms":0.5},"requests":[{"state":"waiting","position":1,' +
        '"priority":"batch","client":"","prompt_tokens":7,"cached_tokens":0,"computed_tokens":0,' +
        '"completion_tokens":0,"preemptions":0,"age_ms":12}]}}]}',
    )
    const [model] = (JSON.parse(text) as { models: { expires_at: string }[] }).models
    const leftMs = Date.parse(model?.expires_at ?? "") - Date.now()
    expect(Math.abs(leftMs - 5 * 60_000)).toBeLessThan(10_000)
  })

  test("has no field that the documentation does not have", async () => {
    await using server = await TestServer.start()
    await server.post("/api/generate", { model: "tiny" })
    const { models } = JSON.parse((await server.get("/api/ps")).text) as {
      models: [{ engine: object }]
    }
    const page = readFileSync(new URL("../../../docs/api.md", import.meta.url), "utf8")
    const fields = (value: unknown): string[] =>
      typeof value !== "object" || value === null
        ? []
        : Object.entries(value).flatMap(([name, inner]) => [
            ...(Array.isArray(value) ? [] : [name]),
            ...fields(inner),
          ])
    expect(fields(models[0].engine).filter((name) => !page.includes(`\`${name}\``))).toEqual([])
  })

  test("has the type of the cache that a request asked for", async () => {
    await using server = await TestServer.start()
    const options = { kv_cache_type: "q8_0/f16", flash_attention: true }
    await server.post("/api/generate", { model: "tiny", options })
    expect(JSON.parse((await server.get("/api/ps")).text)).toMatchObject({
      models: [{ kv_cache_type: "q8_0/f16", flash_attention: "on" }],
    })
    // What is left open is served as it is; what differs is loaded anew.
    await server.post("/api/generate", { model: "tiny" })
    expect(server.app.loads).toHaveLength(1)
    await server.post("/api/generate", { model: "tiny", options: { kv_cache_type: "q8_0" } })
    expect(server.app.loads.map(({ cacheType }) => cacheType)).toEqual(["q8_0/f16", "q8_0"])
    const refused = await server.post("/api/generate", {
      model: "tiny",
      options: { kv_cache_type: "q9" },
    })
    expect(refused.status).toBe(400)
    expect(refused.text).toContain('Cannot use kv_cache_type \\"q9\\": expected f32, f16, ')
  })

  test("a model that stays for ever expires so late that clients print Forever", async () => {
    await using server = await TestServer.start()
    await server.post("/api/generate", { model: "tiny", keep_alive: -1 })
    const { models } = JSON.parse((await server.get("/api/ps")).text) as {
      models: { expires_at: string }[]
    }
    const years = (Date.parse(models[0]?.expires_at ?? "") - Date.now()) / (365 * 24 * 3_600_000)
    expect(years).toBeGreaterThan(20)
  })
})

describe("POST /api/show", () => {
  test("says all there is to say", async () => {
    await using server = await TestServer.start()
    await server.app.install("full", {
      chatTemplate: ABLE_TEMPLATE,
      metadata: { "llama.block_count": u32(2) },
      config: { model_type: "1.2B", file_type: "unknown", requires: "0.14.0" },
      system: "You are a pirate.",
      params: { temperature: 0.7, stop: ["<eot>"] },
      messages: [{ role: "user", content: "Ahoy", images: ["aGk="] }],
      licenses: ["MIT", "Apache"],
    })
    const { status, type, text } = await server.post("/api/show", { model: "full" })
    expect({ status, type }).toEqual({ status: 200, type: JSON_TYPE })
    const { modelfile, ...shown } = JSON.parse(timeless(text)) as { modelfile: string }
    expect(modelfile).toContain("\nSYSTEM You are a pirate.\n")
    expect(shown).toEqual({
      license: "MIT\nApache",
      parameters: 'temperature                    0.7\nstop                           "<eot>"',
      template: ABLE_TEMPLATE,
      system: "You are a pirate.",
      details: {
        parent_model: "",
        format: "gguf",
        family: "llama",
        families: ["llama"],
        parameter_size: "1.2B",
        quantization_level: "Q4_K_M",
      },
      messages: [{ role: "user", content: "Ahoy" }],
      model_info: {
        "general.architecture": "llama",
        "general.file_type": 15,
        "general.parameter_count": 0,
        "llama.context_length": 8192,
        "llama.embedding_length": 2048,
        "llama.block_count": 2,
        "tokenizer.ggml.tokens": null,
      },
      tensors: [],
      capabilities: ["tools", "thinking", "completion"],
      modified_at: "T",
      requires: "0.14.0",
    } as never)
  })

  test("leaves out what a model does not have", async () => {
    await using server = await TestServer.start()
    await server.app.install("bare")
    const { text } = await server.post("/api/show", { name: "bare" })
    expect(Object.keys(JSON.parse(text) as object)).toEqual([
      "modelfile",
      "template",
      "details",
      "model_info",
      "tensors",
      "capabilities",
      "modified_at",
    ])
    // The template that stands for none.
    expect(text).toContain('"template":"{{ .Prompt }}"')
  })

  test("names the model that the weights were taken from", async () => {
    await using server = await TestServer.start()
    await server.app.install("child", { from: "tiny:latest" })
    const { text } = await server.post("/api/show", { model: "child" })
    expect(JSON.parse(text)).toMatchObject({ details: { parent_model: "tiny:latest" } })
  })

  test("has the projector's metadata beside the model's", async () => {
    await using server = await TestServer.start()
    await server.app.install("seeing", { projector: { "clip.vision.patch_size": u32(14) } })
    const reply = await server.post("/api/show", { model: "seeing" })
    expect(JSON.parse(reply.text)).toMatchObject({
      projector_info: { "clip.vision.patch_size": 14, "general.parameter_count": 0 },
      capabilities: ["completion", "vision"],
    })
  })

  test("describes a model that answers on another machine; it cannot be asked", async () => {
    await using server = await TestServer.start()
    const config = {
      model_family: "gptoss",
      model_type: "116.8B",
      file_type: "MXFP4",
      context_length: 131_072,
      remote_host: "https://ollama.com:443",
      remote_model: "gpt-oss:120b",
      capabilities: ["completion", "tools"],
    }
    server.app.folder.model("far", [], config)
    const { text: shown } = await server.post("/api/show", { model: "far" })
    expect(JSON.parse(timeless(shown))).toEqual({
      modelfile: "",
      details: {
        parent_model: "",
        format: "gguf",
        family: "gptoss",
        families: null,
        parameter_size: "116.8B",
        quantization_level: "MXFP4",
      },
      remote_model: "gpt-oss:120b",
      remote_host: "https://ollama.com:443",
      model_info: { "general.architecture": "gptoss", "gptoss.context_length": 131_072 },
      tensors: [],
      capabilities: ["completion", "tools"],
      modified_at: "T",
    })
    const { text: tags } = await server.get("/api/tags")
    expect((JSON.parse(tags) as { models: object[] }).models).toContainEqual(
      expect.objectContaining({
        name: "far:latest",
        remote_model: "gpt-oss:120b",
        remote_host: "https://ollama.com:443",
      }),
    )
    const reply = await server.post("/api/generate", { model: "far", prompt: "hi" })
    expect(reply.status).toBe(400)
    expect(reply.text).toContain("ollama cloud is disabled: remote model is unavailable")
  })

  test("gives arrays on request", async () => {
    await using server = await TestServer.start()
    const { text } = await server.post("/api/show", { model: "tiny", verbose: true })
    expect(text).toContain('"tokenizer.ggml.tokens":["a","b"]')
  })

  test("lays a system text and options over the Modelfile, and nothing over the parameters", async () => {
    await using server = await TestServer.start()
    const request = { model: "tiny", system: "Be brief.", options: { seed: 7 } }
    const { text } = await server.post("/api/show", request)
    const shown = JSON.parse(text) as { modelfile: string; system: string; parameters?: string }
    expect(shown.modelfile).toContain("\nSYSTEM Be brief.\nPARAMETER seed 7\n")
    expect(shown.system).toBe("Be brief.")
    expect(shown.parameters).toBeUndefined()
  })
})

describe("POST /api/show — for the chat of VS Code, which shows the base name", () => {
  test.each<[string, string | undefined]>([
    ["GitHubCopilotChat/0.30.1", "TINY"],
    ["ollama/0.20.0 (amd64 linux) Go/1.24", undefined],
  ])("User-Agent %s", async (agent, expected) => {
    await using server = await TestServer.start()
    const response = await server.request("/api/show", {
      method: "POST",
      headers: { "User-Agent": agent },
      body: '{"model":"TINY"}',
    })
    const shown = (await response.json()) as { model_info: Record<string, unknown> }
    expect(shown.model_info["general.basename"]).toBe(expected as never)
  })
})

describe("POST /api/generate", () => {
  test("streams a line a delta", async () => {
    await using server = await TestServer.start()
    server.app.script = () => streamOf(delta("4"), delta("!"), done({ context: [9, 12, 7] }))
    const { status, type, text } = await server.post("/api/generate", GENERATE)
    expect({ status, type }).toEqual({ status: 200, type: "application/x-ndjson" })
    expect(timeless(text)).toBe(
      '{"model":"tiny","created_at":"T","response":"4","done":false}\n' +
        '{"model":"tiny","created_at":"T","response":"!","done":false}\n' +
        `{"model":"tiny","created_at":"T","response":"","done":true,"done_reason":"stop","context":[9,12,7],${METRICS}}\n`,
    )
    expect(server.app.leases).toBe(0)
  })

  test("gives the whole answer to those who do not stream", async () => {
    await using server = await TestServer.start()
    server.app.script = () => streamOf(delta("4"), delta("!"), done({ context: [9] }))
    const { status, type, text } = await server.post("/api/generate", {
      ...GENERATE,
      stream: false,
    })
    expect({ status, type }).toEqual({ status: 200, type: JSON_TYPE })
    expect(timeless(text)).toBe(
      `{"model":"tiny","created_at":"T","response":"4!","done":true,"done_reason":"stop","context":[9],${METRICS}}`,
    )
    expect(server.app.leases).toBe(0)
  })

  test("gives the name back as it was sent", async () => {
    await using server = await TestServer.start()
    const { text } = await server.post("/api/generate", { ...GENERATE, model: "TINY:Latest" })
    expect(text).toStartWith('{"model":"TINY:Latest",')
  })

  test("the times are those of this request", async () => {
    await using server = await TestServer.start()
    const before = Date.now()
    const request = { ...GENERATE, stream: false }
    const { text } = await server.post("/api/generate", request)
    const reply = JSON.parse(text) as Record<string, number> & { created_at: string }
    expect(Date.parse(reply.created_at)).toBeGreaterThanOrEqual(before - 1)
    expect(reply.created_at).toEndWith("Z")
    expect(reply["load_duration"]).toBeGreaterThan(0)
    expect(reply["total_duration"]).toBeGreaterThanOrEqual(reply["load_duration"] ?? Infinity)
    expect(reply["total_duration"]).toBeLessThan((Date.now() - before + 1000) * 1e6)
  })

  test.each<[string, object, string]>([
    ["an empty prompt loads", {}, "load"],
    ["an empty prompt loads, whatever comes after it", { suffix: "x", images: ["aGk="] }, "load"],
    ["an empty prompt loads, as one object even when streaming", { stream: true }, "load"],
    ["an empty prompt with keep_alive 0 unloads", { keep_alive: 0 }, "unload"],
    ['an empty prompt with keep_alive "0" unloads', { keep_alive: "0" }, "unload"],
  ])("%s", async (_, fields, reason) => {
    await using server = await TestServer.start()
    const { status, type, text } = await server.post("/api/generate", { model: "tiny", ...fields })
    expect({ status, type }).toEqual({ status: 200, type: JSON_TYPE })
    expect(timeless(text)).toBe(
      `{"model":"tiny","created_at":"T","response":"","done":true,"done_reason":"${reason}"}`,
    )
    expect(server.app.loads).toHaveLength(reason === "load" ? 1 : 0)
    expect(server.app.requests).toEqual([])
    expect(server.app.leases).toBe(0)
  })

  test("loads with the options and keeps for the time of the request", async () => {
    await using server = await TestServer.start()
    const request = { model: "tiny", keep_alive: "1m", options: { num_ctx: 64 } }
    await server.post("/api/generate", request)
    expect(server.app.loads[0]?.contextTokens).toBe(64)
    expect([...server.app.timers.values()].map(({ delayMs }) => delayMs)).toEqual([60_000])
  })

  test("shows the prompt to those who debug, and answers nothing", async () => {
    await using server = await TestServer.start()
    server.app.rendering = Promise.resolve("<|user|>2+2?")
    const request = { ...GENERATE, _debug_render_only: true }
    const { text } = await server.post("/api/generate", request)
    expect(timeless(text)).toBe(
      '{"model":"tiny","created_at":"T","response":"","done":false,' +
        '"_debug_info":{"rendered_template":"<|user|>2+2?"}}',
    )
    expect(server.app.leases).toBe(0)
  })
})

describe("POST /api/chat", () => {
  test("streams thinking, content and tool calls", async () => {
    await using server = await TestServer.start()
    server.app.script = () =>
      streamOf(
        delta("", { thinking: "hm" }),
        delta("I ask."),
        toolCall("wx", '{"city":"Oslo"}', "call_k3j9x0aa"),
        done(),
      )
    const { status, type, text } = await server.post("/api/chat", CHAT)
    expect({ status, type }).toEqual({ status: 200, type: "application/x-ndjson" })
    const head = '{"model":"tiny","created_at":"T","message":{"role":"assistant","content":'
    expect(timeless(text)).toBe(
      `${head}"","thinking":"hm"},"done":false}\n` +
        `${head}"I ask."},"done":false}\n` +
        `${head}"","tool_calls":[{"id":"call_k3j9x0aa","function":{"index":0,"name":"wx","arguments":` +
        `{"city":"Oslo"}}}]},"done":true,"done_reason":"stop",${METRICS}}\n`,
    )
  })

  test("gives the whole answer to those who do not stream", async () => {
    await using server = await TestServer.start()
    const { type, text } = await server.post("/api/chat", { ...CHAT, stream: false })
    expect(type).toBe(JSON_TYPE)
    expect(timeless(text)).toBe(
      '{"model":"tiny","created_at":"T","message":{"role":"assistant","content":"4"},"done":true,' +
        `"done_reason":"stop",${METRICS}}`,
    )
  })

  test.each<[object, string]>([
    [{}, "load"],
    [{ messages: [] }, "load"],
    [{ messages: null, stream: true }, "load"],
    [{ keep_alive: 0 }, "unload"],
  ])("without messages, %j is to %s", async (fields, reason) => {
    await using server = await TestServer.start()
    const { status, type, text } = await server.post("/api/chat", { model: "tiny", ...fields })
    expect({ status, type }).toEqual({ status: 200, type: JSON_TYPE })
    expect(timeless(text)).toBe(
      '{"model":"tiny","created_at":"T","message":{"role":"assistant","content":""},"done":true,' +
        `"done_reason":"${reason}"}`,
    )
    expect(server.app.loads).toHaveLength(reason === "load" ? 1 : 0)
  })

  test("shows the prompt to those who debug", async () => {
    await using server = await TestServer.start()
    const { text } = await server.post("/api/chat", { ...CHAT, _debug_render_only: true })
    expect(timeless(text)).toBe(
      '{"model":"tiny","created_at":"T","message":{"role":"assistant","content":""},"done":false,' +
        '"_debug_info":{"rendered_template":"rendered"}}',
    )
  })
})

describe("the terms of a request", () => {
  const headers = { "X-Cria-Priority": "batch", "X-Cria-Client": "ann", "X-Cria-Scope": "team" }
  const terms = { priority: "batch", client: "ann", cacheScope: "team" } as const

  test.each([
    ["/api/generate", { prompt: "Hi" }],
    ["/api/chat", { messages: [{ role: "user", content: "Hi" }] }],
    ["/v1/chat/completions", { messages: [{ role: "user", content: "Hi" }] }],
  ])("%s passes them on to the model", async (path, fields) => {
    await using server = await TestServer.start()
    const body = JSON.stringify({ model: "tiny", stream: false, ...fields })
    await (await server.request(path, { method: "POST", headers, body })).text()
    await server.post(path, { model: "tiny", stream: false, ...fields, cache_prompt: false })
    const [first, second] = server.app.requests
    expect(first?.terms).toEqual(terms)
    expect(second?.terms).toEqual({ client: "", cacheScope: null })
  })

  test("a context shifts only when that is asked for, and keeps what num_keep says", async () => {
    await using server = await TestServer.start()
    const request = { model: "tiny", prompt: "Hi", stream: false, options: { num_keep: 5 } }
    for (const shift of [true, false, undefined]) {
      // In turns, to tell them apart.
      // oxlint-disable-next-line no-await-in-loop
      await server.post("/api/generate", { ...request, shift })
    }
    expect(server.app.requests.map((one) => one.shift)).toEqual([
      { keepTokens: 5 },
      undefined,
      undefined,
    ])
    await server.post("/api/generate", { ...request, options: {}, shift: true })
    expect(server.app.requests.at(-1)?.shift).toEqual({ keepTokens: 4 })
  })
})

describe("errors before the first line are real statuses", () => {
  const tool = { type: "function", function: { name: "wx" } }

  test.each<[string, string, object | string, number, string]>([
    ["generate: no body", "/api/generate", "", 400, "missing request body"],
    ["chat: no body", "/api/chat", " \n", 400, "missing request body"],
    ["show: no body", "/api/show", "", 400, "missing request body"],
    ["generate: no model", "/api/generate", { prompt: "x" }, 404, "model '' not found"],
    [
      "generate: blank model",
      "/api/generate",
      { model: " ", prompt: "x" },
      404,
      "model '' not found",
    ],
    ["chat: no model", "/api/chat", {}, 400, "model is required"],
    ["show: no model", "/api/show", {}, 400, "model is required"],
    [
      "generate: bad name",
      "/api/generate",
      { ...GENERATE, model: "a b" },
      400,
      "invalid model name",
    ],
    ["chat: bad name", "/api/chat", { ...CHAT, model: "../x" }, 400, "invalid model name"],
    ["show: bad name", "/api/show", { model: "a:b:c/" }, 400, "invalid model name"],
    [
      "generate: unknown",
      "/api/generate",
      { ...GENERATE, model: "Nope" },
      404,
      "model 'Nope' not found",
    ],
    [
      "generate: unknown to load",
      "/api/generate",
      { model: "nope" },
      404,
      "model 'nope' not found",
    ],
    [
      "generate: unknown to unload",
      "/api/generate",
      { model: "nope", keep_alive: 0 },
      404,
      "model 'nope' not found",
    ],
    ["chat: unknown", "/api/chat", { ...CHAT, model: "nope:7b" }, 404, "model 'nope:7b' not found"],
    ["show: unknown", "/api/show", { model: "nope" }, 404, "model 'nope:latest' not found"],
    [
      "two sources",
      "/api/chat",
      { ...CHAT, model: "m:local:cloud" },
      400,
      'use either :local or :cloud, not both: "m:local:cloud"',
    ],
    [
      "think: no level",
      "/api/chat",
      { ...CHAT, think: "x" },
      400,
      'invalid think value: "x" (must be "high", "medium", "low", "max", true, or false)',
    ],
    [
      "keep_alive: no unit",
      "/api/generate",
      { ...GENERATE, keep_alive: "10" },
      400,
      'time: missing unit in duration "10"',
    ],
    [
      "top_logprobs, before the model is looked at",
      "/api/generate",
      { top_logprobs: 21 },
      400,
      "top_logprobs must be between 0 and 20",
    ],
    [
      "format",
      "/api/chat",
      { ...CHAT, format: "xml" },
      500,
      'invalid format: "xml"; expected "json" or a valid JSON Schema object',
    ],
    [
      "raw",
      "/api/generate",
      { ...GENERATE, raw: true, system: "x" },
      400,
      "raw mode does not support template, system, or context",
    ],
    [
      "option of a wrong type",
      "/api/generate",
      { ...GENERATE, options: { top_k: "x" } },
      500,
      'option "top_k" must be of type integer',
    ],
    [
      "suffix",
      "/api/generate",
      { ...GENERATE, suffix: "x" },
      400,
      "registry.ollama.ai/library/tiny:latest does not support insert",
    ],
    [
      "tools",
      "/api/chat",
      { ...CHAT, model: "plain", tools: [tool] },
      400,
      "registry.ollama.ai/library/plain:latest does not support tools",
    ],
    [
      "thinking",
      "/api/chat",
      { ...CHAT, model: "plain", think: true },
      400,
      '"plain" does not support thinking',
    ],
    [
      "chat with an embedder",
      "/api/chat",
      { ...CHAT, model: "vector" },
      400,
      '"vector" does not support chat',
    ],
    [
      "generate with an embedder",
      "/api/generate",
      { ...GENERATE, model: "vector" },
      400,
      '"vector" does not support generate',
    ],
    [
      "weights that are gone",
      "/api/chat",
      { ...CHAT, model: "gone" },
      404,
      'model "gone" not found, try pulling it first',
    ],
  ])("%s", async (_, path, body, status, message) => {
    await using server = await TestServer.start()
    await server.app.install("plain")
    await server.app.install("vector", { metadata: { "llama.pooling_type": u32(1) } })
    await server.app.install("gone", { metadata: { "llama.block_count": u32(3) } })
    rmSync(server.app.resolver.resolve("gone").stored.modelPath)
    const reply = await server.post(path, body)
    expect({ status: reply.status, type: reply.type }).toEqual({ status, type: JSON_TYPE })
    expect((JSON.parse(reply.text) as { error: string }).error).toBe(message)
    expect(server.app.loads).toEqual([])
  })

  test.each<[string, CriaError, number]>([
    ["invalid-input", new CriaError("invalid-input", "the file is cut"), 500],
    ["insufficient-memory", new CriaError("insufficient-memory", "needs 6.2 GiB"), 500],
    ["unavailable", new CriaError("unavailable", "timed out"), 503],
    ["internal", new CriaError("internal", "the runner died"), 500],
  ])("a load that fails as %s", async (_, error, status) => {
    await using server = await TestServer.start()
    server.app.loading = Promise.reject(error)
    const reply = await server.post("/api/chat", CHAT)
    expect(reply.status).toBe(status)
    expect(JSON.parse(reply.text)).toEqual({ error: error.message } as never)
  })

  test("an answer that breaks before its first word, streaming or not", async () => {
    await using server = await TestServer.start()
    server.app.script = () =>
      breakingAfter(new CriaError("invalid-input", "the prompt is too long"))
    for (const stream of [true, false]) {
      // oxlint-disable-next-line no-await-in-loop -- one after the other
      const { status, text } = await server.post("/api/generate", { ...GENERATE, stream })
      expect({ status, text }).toEqual({ status: 400, text: '{"error":"the prompt is too long"}' })
      expect(server.app.leases).toBe(0)
    }
  })

  test("too many that wait: 503, and when to try again", async () => {
    await using server = await TestServer.start({ OLLAMA_MAX_QUEUE: "0" })
    const loading = Promise.withResolvers<void>()
    server.app.loading = loading.promise
    const first = server.post("/api/chat", CHAT)
    await server.app.firstLoad
    const response = await server.request("/api/chat", {
      method: "POST",
      body: JSON.stringify(CHAT),
    })
    expect(response.status).toBe(503)
    expect(response.headers.get("Retry-After")).toBe("1")
    expect(await response.text()).toBe(
      '{"error":"server busy, please try again.  maximum pending requests exceeded"}',
    )
    loading.resolve()
    expect((await first).status).toBe(200)
  })

  test("too many that wait for a model that is loaded: how many, and when they are through", async () => {
    await using server = await TestServer.start()
    const busy = new CriaError("busy", "Cannot queue the request: 7 wait already", {
      retryAfterSeconds: 12,
    })
    server.app.script = () => breakingAfter(busy)
    for (const [path, body] of [
      ["/api/chat", CHAT],
      ["/api/generate", GENERATE],
      ["/v1/chat/completions", CHAT],
    ] as const) {
      // oxlint-disable-next-line no-await-in-loop -- one after the other
      const response = await server.request(path, { method: "POST", body: JSON.stringify(body) })
      expect(response.status).toBe(503)
      expect(response.headers.get("Retry-After")).toBe("12")
      // oxlint-disable-next-line no-await-in-loop
      expect(await response.text()).toContain("exceeded: Cannot queue the request: 7 wait")
    }
  })

  test("hints come along", async () => {
    await using server = await TestServer.start()
    const { text } = await server.post("/api/chat", { ...CHAT, model: "nope" })
    expect(text).toBe(
      '{"error":"model \'nope\' not found","hint":"cria list shows what is installed"}',
    )
  })
})

describe("errors in mid-stream", () => {
  test.each(["/api/generate", "/api/chat"])("are the last line of %s", async (path) => {
    await using server = await TestServer.start()
    server.app.script = () =>
      breakingAfter(new CriaError("internal", "the runner died"), delta("a"))
    const body = path === "/api/chat" ? CHAT : GENERATE
    const { status, text } = await server.post(path, body)
    expect(status).toBe(200)
    const lines = text.split("\n")
    expect(lines).toHaveLength(3)
    expect(lines[1]).toBe(
      '{"error":"an error was encountered while running the model: the runner died"}',
    )
    expect(lines[2]).toBe("")
    expect(server.app.leases).toBe(0)
  })

  test("are real statuses for those who do not stream", async () => {
    await using server = await TestServer.start()
    server.app.script = () =>
      breakingAfter(new CriaError("internal", "the runner died"), delta("a"))
    const { status, text } = await server.post("/api/chat", { ...CHAT, stream: false })
    expect({ status, text }).toEqual({ status: 500, text: '{"error":"the runner died"}' })
    expect(server.app.leases).toBe(0)
  })
})

describe("a client that goes away", () => {
  test("while it waits for the model gets 499, and nothing stays behind", async () => {
    await using server = await TestServer.start()
    server.app.loading = new Promise(() => {})
    const controller = new AbortController()
    const reply = server.post("/api/chat", CHAT, controller.signal)
    await server.app.firstLoad
    controller.abort()
    expect(await reply).toEqual({
      status: 499,
      type: JSON_TYPE,
      text: '{"error":"request canceled"}',
    })
    expect(server.app.requests).toEqual([])
  })

  test.each(["/api/generate", "/api/chat"])(
    "in the middle of %s returns the answer",
    async (path) => {
      await using server = await TestServer.start()
      let isReturned = false
      server.app.script = async function* () {
        try {
          for (;;) yield delta("word ")
        } finally {
          isReturned = true
        }
      }
      const body = JSON.stringify(path === "/api/chat" ? CHAT : GENERATE)
      const response = await server.request(path, { method: "POST", body })
      const reader = response.body?.getReader()
      await reader?.read()
      expect(server.app.leases).toBe(1)
      await reader?.cancel()
      expect(isReturned).toBe(true)
      expect(server.app.leases).toBe(0)
    },
  )

  test("gives its signal to the runner", async () => {
    await using server = await TestServer.start()
    const controller = new AbortController()
    let given: AbortSignal | undefined
    server.app.script = (_request, signal) => {
      given = signal
      return streamOf(done())
    }
    await server.post("/api/chat", CHAT, controller.signal)
    expect(given?.aborted).toBe(false)
    controller.abort()
    expect(given?.aborted).toBe(true)
  })
})
