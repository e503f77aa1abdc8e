import { describe, expect, test } from "bun:test"
import { hash } from "node:crypto"
import { readdirSync, readFileSync } from "node:fs"
import { join } from "node:path"

import { pair, type RawTensor, rawBytes, string, tensor as rawTensor } from "../../gguf/raw-file.ts"
import { encodeGguf, type GgufInput, packStrings, text, u32 } from "../../gguf/write.ts"
import { manifestPath, parseName } from "../../store/name.ts"
import { TestServer, type TestReply } from "../test-server.ts"

/** Bytes of a GGUF file of some kind. */
async function gguf(
  fields: Readonly<Record<string, GgufInput>> = {},
): Promise<Buffer<ArrayBuffer>> {
  const metadata = new Map<string, GgufInput>([
    ["general.architecture", text("llama")],
    ["general.file_type", u32(1)],
    ["llama.block_count", u32(1)],
    ["tokenizer.ggml.tokens", packStrings(["a", "b"])],
    ...Object.entries(fields),
  ])
  const tensor = { name: "w", type: "F16" as const, dims: [2], chunks: [new Uint8Array(4)] }
  return Buffer.concat(await Array.fromAsync(encodeGguf({ metadata, tensors: [tensor] })))
}

/** The fields of a part of two. */
function split(no: number): Record<string, GgufInput> {
  return {
    "split.no": { type: "u16", value: no },
    "split.count": { type: "u16", value: 2 },
    "split.tensors.count": { type: "i32", value: 2 },
  }
}

function digestOf(bytes: Uint8Array): string {
  return `sha256:${hash("sha256", bytes, "hex")}`
}

async function put(server: TestServer, bytes: Buffer<ArrayBuffer>): Promise<string> {
  const digest = digestOf(bytes)
  const body = new Blob([bytes])
  const reply = await server.request(`/api/blobs/${digest}`, { method: "POST", body })
  expect(reply.status).toBe(201)
  return digest
}

function create(server: TestServer, fields: object): Promise<TestReply> {
  return server.post("/api/create", { stream: false, ...fields })
}

function statuses(reply: TestReply): string[] {
  return reply.text
    .trim()
    .split("\n")
    .map((line) => (JSON.parse(line) as { status: string; error?: string }).status)
}

async function shown(server: TestServer, model: string): Promise<Record<string, unknown>> {
  const reply = await server.post("/api/show", { model })
  expect(reply.status).toBe(200)
  // The documented shape.
  return JSON.parse(reply.text) as Record<string, unknown>
}

async function names(server: TestServer): Promise<string[]> {
  const { models } = JSON.parse((await server.get("/api/tags")).text) as {
    models: { name: string }[]
  }
  return models.map(({ name }) => name).toSorted()
}

function blobs(server: TestServer): string[] {
  return readdirSync(join(server.app.folder.root, "blobs")).toSorted()
}

describe("/api/blobs", () => {
  test("an upload is there afterwards, and is taken once", async () => {
    await using server = await TestServer.start()
    const bytes = Buffer.from("hello")
    const path = `/api/blobs/${digestOf(bytes)}`
    expect((await server.get(path, "HEAD")).status).toBe(404)
    const first = await server.request(path, { method: "POST", body: "hello" })
    expect([first.status, await first.text()]).toEqual([201, ""])
    expect((await server.get(path, "HEAD")).status).toBe(200)
    expect((await server.get(path.replace("sha256:", "sha256-"), "HEAD")).status).toBe(200)
    const again = await server.request(path, { method: "POST", body: "whatever" })
    expect([again.status, await again.text()]).toEqual([200, ""])
  })

  test("one with another digest is refused and not kept", async () => {
    await using server = await TestServer.start()
    const before = blobs(server)
    const wanted = `sha256:${"ab".repeat(32)}`
    const reply = await server.post(`/api/blobs/${wanted}`, "hello")
    expect(reply.status).toBe(400)
    expect(reply.text).toStartWith(
      `{"error":"digest mismatch, expected \\"${wanted}\\", got \\"sha256:`,
    )
    expect(blobs(server)).toEqual(before)
  })

  test.each(["sha256:abc", "sha256:../../../etc/passwd", `sha256:${"g".repeat(64)}`, "md5:1", "x"])(
    "%s is no digest",
    async (digest) => {
      await using server = await TestServer.start()
      const path = `/api/blobs/${encodeURIComponent(digest)}`
      for (const method of ["HEAD", "POST"]) {
        expect((await server.get(path, method)).status).toBe(400)
      }
    },
  )

  test("they cannot be read back", async () => {
    await using server = await TestServer.start()
    const path = `/api/blobs/sha256:${"ab".repeat(32)}`
    expect((await server.get(path)).status).toBe(405)
  })
})

describe("/api/create — from a model", () => {
  test("inherits what it does not replace", async () => {
    await using server = new TestServer()
    await server.app.install("base", {
      system: "Be brief.",
      template: "{{ .Prompt }}!",
      params: { temperature: 1, seed: 7 },
      messages: [{ role: "user", content: "Hi" }],
      licenses: ["MIT"],
      config: { renderer: "qwen3.5", requires: "0.1.0" },
    })
    const reply = await server.post("/api/create", {
      model: "me/new:1",
      from: "base",
      parameters: { temperature: 0.3, stop: ["<x>"] },
      license: "Apache",
      system: "",
    })
    expect(reply.type).toBe("application/x-ndjson")
    expect(statuses(reply).slice(-2)).toEqual(["writing manifest", "success"])
    const model = server.app.resolver.resolve("me/new:1").stored
    expect(model).toMatchObject({
      system: "Be brief.",
      template: "{{ .Prompt }}!",
      params: { temperature: 0.3, seed: 7, stop: ["<x>"] },
      messages: [{ role: "user", content: "Hi" }],
      licenses: ["MIT", "Apache"],
      config: { renderer: "qwen3.5", requires: "0.1.0", model_family: "llama" },
    })
    const written = readFileSync(
      manifestPath(server.app.folder.root, parseName("me/new:1")),
      "utf8",
    )
    expect(written).toEndWith("}\n")
    expect(JSON.parse(written).layers[0].from).toBe("base:latest")
  })

  test("keeps a DRAFT, and says that nothing uses it yet", async () => {
    await using server = await TestServer.start()
    const draft = await put(server, await gguf())
    const fields = { model: "fast", from: "tiny", draft_files: { "draft.gguf": draft } }
    const reply = await server.post("/api/create", fields)
    expect(statuses(reply).slice(-3)).toEqual([
      "writing manifest",
      "the DRAFT model is kept, but not used yet",
      "success",
    ])
    expect(server.app.resolver.resolve("fast").stored.draftPath).toBeDefined()
  })

  test("replaces system, template and messages", async () => {
    await using server = await TestServer.start()
    const fields = {
      system: "You are a pirate.",
      template: "{{ .System }}{{ .Prompt }}",
      messages: [{ role: "user", content: "Ahoy", images: ["aGk="] }],
    }
    expect((await create(server, { model: "p", from: "tiny", ...fields })).text).toBe(
      '{"status":"success"}',
    )
    expect(server.app.resolver.resolve("p").stored).toMatchObject(fields)
    expect((await shown(server, "p"))["system"]).toBe(fields.system)
  })

  test("over another model removes what only that had", async () => {
    await using server = await TestServer.start()
    await create(server, { model: "p", from: "tiny", system: "one" })
    const before = blobs(server)
    await create(server, { model: "p", from: "tiny", system: "two" })
    expect(blobs(server)).toHaveLength(before.length)
    expect(blobs(server)).not.toEqual(before)
  })

  test.each<[object, number, string]>([
    [{ model: "", from: "tiny" }, 400, "invalid model name"],
    [{ model: "a b", from: "tiny" }, 400, "invalid model name"],
    [{ model: "../x", from: "tiny" }, 400, "invalid model name"],
    [{ model: "p" }, 400, "neither 'from' or 'files' was specified"],
    [{ model: "p", from: "a b" }, 400, "invalid model name"],
    [
      { model: "p", from: "tiny", template: "{{ if }}" },
      400,
      "template error: template: :1: missing value for if",
    ],
    [{ model: "p", from: "nope" }, 404, "model 'nope' not found"],
    [
      { model: "p", from: "gpt:cloud" },
      400,
      "ollama cloud is disabled: remote model is unavailable",
    ],
    [{ model: "p", files: { a: "" } }, 400, "invalid digest format"],
    [{ model: "p", files: { a: "sha256:../x" } }, 400, "invalid digest format"],
    [
      { model: "p", from: "tiny", draft_quantize: "Q4_0" },
      400,
      "--draft-quantize requires a DRAFT model",
    ],
    [
      { model: "p", from: "tiny", requires: "new" },
      400,
      "requires must be a valid semver (e.g. 0.14.0)",
    ],
    [
      { model: "p", from: "tiny", parameters: { stop: 3 } },
      400,
      'option "stop" must be of type array',
    ],
    [
      { model: "p", from: "tiny", info: { base_name: 1 } },
      400,
      'info field "base_name" must be a string',
    ],
    [
      { model: "p", from: "tiny", info: { context_length: "x" } },
      400,
      'info field "context_length" must be a number',
    ],
    [
      { model: "p", from: "tiny", info: { context_length: -1 } },
      400,
      'info field "context_length" must be a non-negative integer',
    ],
  ])("%j: %d %s", async (fields, status, message) => {
    await using server = await TestServer.start()
    const before = blobs(server)
    for (const stream of [false, true]) {
      const reply = await create(server, { ...fields, stream })
      expect([reply.status, JSON.parse(reply.text).error]).toEqual([status, message])
    }
    expect(await names(server)).toEqual(["tiny:latest"])
    expect(blobs(server)).toEqual(before)
  })

  test("an unknown type of quantisation names the known ones", async () => {
    await using server = await TestServer.start()
    const reply = await create(server, { model: "p", from: "tiny", quantize: "q9" })
    expect(reply.text).toContain("unsupported quantization type Q9 - supported types are F32, ")
  })

  test("what is quantised already cannot be quantised, but to its own type", async () => {
    await using server = await TestServer.start()
    const reply = await create(server, { model: "p", from: "tiny", quantize: "q8_0" })
    expect([reply.status, JSON.parse(reply.text).error]).toEqual([
      400,
      "quantization is only supported for F16, BF16 and F32 models",
    ])
    expect((await create(server, { model: "p", from: "tiny", quantize: "q4_k" })).status).toBe(200)
  })
})

describe("/api/create — from files", () => {
  test("a GGUF is a model that says what it is", async () => {
    await using server = new TestServer()
    const digest = await put(server, await gguf())
    const reply = await server.post("/api/create", { model: "m", files: { "m.gguf": digest } })
    expect(statuses(reply).slice(0, 3)).toEqual([
      "parsing GGUF",
      "no chat template: the model gets prompts as they are",
      `using existing layer ${digest}`,
    ])
    expect((await shown(server, "m"))["details"]).toMatchObject({
      format: "gguf",
      family: "llama",
      quantization_level: "F16",
    })
  })

  test("answers stop where the format of its chat template says, unless the request does", async () => {
    await using server = new TestServer()
    const chatml = "<|im_start|>user\n{{ messages[0].content }}<|im_end|>"
    const digest = await put(server, await gguf({ "tokenizer.chat_template": text(chatml) }))
    const files = { "m.gguf": digest }
    const reply = await server.post("/api/create", { model: "m", files })
    expect(statuses(reply)).toContain("using autodetected template chatml")
    const stops = (name: string) => server.app.resolver.resolve(name).stored.params?.["stop"]
    expect(stops("m")).toEqual(["<|im_start|>", "<|im_end|>"])
    await create(server, { model: "own", files, parameters: { stop: ["x"] } })
    expect(stops("own")).toEqual(["x"])
    await create(server, { model: "go", files, template: "{{ .Prompt }}!" })
    expect(stops("go")).toBeUndefined()
    await create(server, { model: "none", files, template: "{{ .Prompt }}" })
    expect(stops("none")).toEqual(stops("m"))
    const other = await put(server, await gguf({ "tokenizer.chat_template": text("{{ x }}") }))
    const unknown = await server.post("/api/create", { model: "u", files: { "u.gguf": other } })
    expect(statuses(unknown)).toContain("using the chat template of the model's file")
    expect(stops("u")).toBeUndefined()
  })

  test("projectors and adapters are told from models", async () => {
    await using server = new TestServer()
    const model = await put(server, await gguf())
    const projector = await put(server, await gguf({ "general.architecture": text("clip") }))
    const adapter = await put(server, await gguf({ "general.type": text("adapter") }))
    const files = { "m.gguf": model, "mmproj.gguf": projector }
    await create(server, { model: "m", files, adapters: { "lora.gguf": adapter } })
    const { stored } = server.app.resolver.resolve("m")
    expect([stored.projectorPaths.length, stored.adapterPaths.length]).toEqual([1, 1])
    const load = server.app.generator.load({ model: "m", options: {}, keepAliveMs: 0 })
    await load
    expect(server.app.loads[0]?.adapters).toEqual([...stored.adapterPaths])
  })

  test("the parts of a split model become one file", async () => {
    await using server = new TestServer()
    const first = await put(server, await gguf(split(0)))
    const tensor = { name: "v", type: "F16" as const, dims: [2], chunks: [new Uint8Array(4)] }
    const content = { metadata: new Map(Object.entries(split(1))), tensors: [tensor] }
    const second = await put(server, Buffer.concat(await Array.fromAsync(encodeGguf(content))))
    const files = { "m-00001-of-00002.gguf": first, "m-00002-of-00002.gguf": second }
    const merged = await server.post("/api/create", { model: "m", files })
    expect(merged.text).toMatch(/"status":"merging 2 parts","digest":"0{19}","total":\d+/)
    expect(server.app.resolver.resolve("m").header.tensors.map(({ name }) => name)).toEqual([
      "w",
      "v",
    ])
    const part = await create(server, { model: "n", files: { "m-00001-of-00002.gguf": first } })
    expect([part.status, await names(server)]).toEqual([400, ["m:latest"]])
    const swapped = { "x-00002-of-00002.gguf": first, "x-00001-of-00002.gguf": second }
    const reply = await create(server, { model: "n", files: swapped })
    expect(JSON.parse(reply.text).error).toStartWith('split GGUF "x": ')
  })

  test.each([
    "../m.gguf",
    "/etc/passwd",
    "a//b",
    "./m.gguf",
    "a/../b",
    String.raw`a\b`,
    "c:m.gguf",
    "m\0.gguf",
    "",
  ])("%j is no name of a file", async (name) => {
    await using server = new TestServer()
    const digest = await put(server, await gguf())
    for (const field of ["files", "adapters", "draft_files"]) {
      const from = field === "files" ? {} : { files: { "m.gguf": digest } }
      const reply = await create(server, { model: "m", ...from, [field]: { [name]: digest } })
      expect([reply.status, JSON.parse(reply.text).error]).toEqual([
        400,
        "file path must be relative",
      ])
    }
  })

  test("what is no model is refused", async () => {
    await using server = new TestServer()
    const adapter = await put(server, await gguf({ "general.type": text("adapter") }))
    const cut = await put(server, (await gguf()).subarray(0, 100))
    const rubbish = await put(server, Buffer.from("rubbish"))
    const missing = `sha256:${"ab".repeat(32)}`
    const errors = await Promise.all(
      [adapter, cut, rubbish, missing].map(async (digest) => {
        const reply = await create(server, { model: "m", files: { "m.gguf": digest } })
        return [reply.status, (JSON.parse(reply.text) as { error: string }).error.slice(0, 42)]
      }),
    )
    expect(errors).toEqual([
      [400, "no files provided to convert"],
      [400, expect.stringContaining('Cannot read "m.gguf"')],
      [400, "supplied file was not in GGUF format"],
      [404, `blob "${missing}" not found`.slice(0, 42)],
    ])
    expect(await names(server)).toEqual([])
  })
})

describe("/api/create — quantising what is damaged", () => {
  const head = { pairs: [pair("general.architecture", "string", string("llama"))], dataBytes: 64 }
  test.each<[string, RawTensor[]]>([
    ["beyond the end", [{ offset: 2n ** 40n }]],
    ["past the largest number", [{ offset: 2n ** 64n - 32n }]],
    ["over another", [{ name: "a" }, { name: "b", offset: 0n }]],
    ["of a size that wraps", [{ dims: [2n ** 32n, 2n ** 32n] }]],
    ["of no known type", [{ type: 999 }]],
    ["larger than the file", [{ dims: [2n ** 20n] }]],
  ])("a tensor %s fails before anything is read", async (_, tensors) => {
    await using server = await TestServer.start()
    const bytes = rawBytes({ ...head, tensors: tensors.map(rawTensor) })
    const digest = await put(server, Buffer.from(bytes))
    const before = blobs(server)
    for (const field of ["files", "draft_files"]) {
      const from = field === "files" ? {} : { from: "tiny" }
      const quantize = field === "files" ? { quantize: "q4_0" } : { draft_quantize: "q4_0" }
      const request = { model: "m", ...from, ...quantize, [field]: { "m.gguf": digest } }
      const reply = await server.post("/api/create", request)
      expect(reply.text).toContain('"error":"Cannot read \\"m.gguf\\"')
      expect(reply.text).not.toContain("quantizing")
    }
    expect(blobs(server)).toEqual(before)
    expect(await names(server)).toEqual(["tiny:latest"])
  })
})

describe("/api/copy and /api/delete", () => {
  test("a copy has the same bytes and outlives the original", async () => {
    await using server = await TestServer.start()
    const { root } = server.app.folder
    const bytes = readFileSync(manifestPath(root, parseName("tiny")))
    const reply = await server.post("/api/copy", { source: "TINY", destination: "me/copy:2" })
    expect([reply.status, reply.text]).toEqual([200, ""])
    expect(readFileSync(manifestPath(root, parseName("me/copy:2")))).toEqual(bytes)
    const init = { method: "DELETE", body: JSON.stringify({ model: "tiny" }) }
    expect((await server.request("/api/delete", init)).status).toBe(200)
    expect(await names(server)).toEqual(["me/copy:2"])
    expect((await shown(server, "me/copy:2"))["capabilities"]).toContain("completion")
  })

  test("a copy says how it goes when it is asked to", async () => {
    await using server = await TestServer.start()
    const fields = { source: "tiny", destination: "copy", stream: true }
    const reply = await server.post("/api/copy", fields)
    expect([reply.status, reply.type, reply.text]).toEqual([
      200,
      "application/x-ndjson",
      '{"status":"success"}\n',
    ])
    expect((await server.post("/api/copy", { ...fields, source: "nope" })).status).toBe(404)
    expect(await names(server)).toEqual(["copy:latest", "tiny:latest"])
  })

  test("onto itself nothing happens", async () => {
    await using server = await TestServer.start()
    expect(
      (await server.post("/api/copy", { source: "tiny", destination: "tiny:latest" })).status,
    ).toBe(200)
    expect(await names(server)).toEqual(["tiny:latest"])
  })

  test("deleting the last model leaves no blobs", async () => {
    await using server = await TestServer.start()
    const init = { method: "DELETE", body: JSON.stringify({ name: "tiny" }) }
    expect((await server.request("/api/delete", init)).status).toBe(200)
    expect(blobs(server)).toEqual([])
  })

  test.each<[string, object, number, string]>([
    ["copy", { source: "", destination: "x" }, 400, 'source "" is invalid'],
    ["copy", { source: "tiny", destination: "" }, 400, 'destination "" is invalid'],
    ["copy", { source: "tiny", destination: "a b" }, 400, 'destination "a b" is invalid'],
    ["copy", { source: "nope", destination: "x" }, 404, 'model "nope" not found'],
    ["delete", {}, 400, "model is required"],
    ["delete", { model: "../../etc" }, 400, 'name "../../etc" is invalid'],
    ["delete", { model: "nope" }, 404, "model 'nope' not found"],
  ])("%s %j: %d %s", async (route, body, status, message) => {
    await using server = await TestServer.start()
    const method = route === "copy" ? "POST" : "DELETE"
    const reply = await server.request(`/api/${route}`, { method, body: JSON.stringify(body) })
    expect([reply.status, ((await reply.json()) as { error: string }).error]).toEqual([
      status,
      message,
    ])
    expect(await names(server)).toEqual(["tiny:latest"])
  })

  test.each(["create", "copy"])("/api/%s wants a body", async (route) => {
    await using server = await TestServer.start()
    const reply = await server.post(`/api/${route}`, "")
    expect([reply.status, reply.text]).toEqual([400, '{"error":"missing request body"}'])
  })
})

describe("bodies", () => {
  test("over 256 MiB are refused unless they are uploads", async () => {
    await using server = new TestServer()
    const headers = { "Content-Length": String(2 ** 29) }
    const reply = await server.request("/api/create", { method: "POST", body: "x", headers })
    expect(reply.status).toBe(413)
    const digest = digestOf(Buffer.from("x"))
    const init = { method: "POST", body: "x", headers }
    expect((await server.request(`/api/blobs/${digest}`, init)).status).toBe(201)
  })
})
