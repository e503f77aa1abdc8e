import { afterAll, describe, expect, test } from "bun:test"
import { hash } from "node:crypto"
import { existsSync, readdirSync, readFileSync, statSync } from "node:fs"
import { join } from "node:path"

import { TestModel } from "../../convert/test-model.ts"
import { readGguf } from "../../gguf/read.ts"
import type { CreateRequest } from "../../services/create.ts"
import { parseDigest } from "../../services/library.ts"
import { TestServer, type TestReply } from "../test-server.ts"

const server = new TestServer()

afterAll(() => server[Symbol.asyncDispose]())

/** Uploads every file of a folder; digests by name. */
async function upload(model: TestModel): Promise<Record<string, string>> {
  const files: Record<string, string> = {}
  for (const name of readdirSync(model.path, { recursive: true }) as string[]) {
    const path = join(model.path, name)
    if (name === "golden.json" || !statSync(path).isFile()) continue
    const bytes = readFileSync(path)
    files[name] = `sha256:${hash("sha256", bytes, "hex")}`
    const init = { method: "POST", body: new Blob([bytes]) }
    // oxlint-disable-next-line no-await-in-loop
    expect((await server.request(`/api/blobs/${files[name]}`, init)).ok).toBe(true)
  }
  return files
}

function create(fields: object): Promise<TestReply> {
  return server.post("/api/create", fields)
}

/** What `create({ model, files })` asks of the library. */
function requestOf(model: string, files: Readonly<Record<string, string>>): CreateRequest {
  const digests = Object.entries(files).map(([name, text]) => [name, parseDigest(text)] as const)
  return {
    model,
    files: new Map(digests),
    adapters: new Map(),
    draftFiles: new Map(),
    discard: [],
    texts: { licenses: [], parameters: {}, messages: [], info: {} },
  }
}

function statuses({ text }: TestReply): string[] {
  const lines = text.trim().split("\n")
  return [...new Set(lines.map((line) => (JSON.parse(line) as { status: string }).status))]
}

function blobs(): string[] {
  return readdirSync(join(server.app.folder.root, "blobs")).toSorted()
}

function typeOf(model: string): string {
  return server.app.resolver.resolve(model).facts.quantization
}

async function remove(model: string): Promise<void> {
  const body = JSON.stringify({ model })
  expect((await server.request("/api/delete", { method: "DELETE", body })).status).toBe(200)
}

describe("/api/create — from safetensors", () => {
  test("converts in a process of its own, and keeps what was uploaded", async () => {
    using model = new TestModel("llama-3")
    const files = await upload(model)
    const before = blobs()
    const reply = await create({ model: "converted", files })
    expect(statuses(reply)).toEqual([
      "converting model",
      "using the chat template of the model's file",
      expect.stringMatching(/^creating new layer sha256:/),
      expect.stringMatching(/^creating new layer sha256:/),
      "writing manifest",
      "success",
    ])
    const { header } = server.app.resolver.resolve("converted")
    expect(header.metadata.get("general.architecture")).toEqual({ type: "string", value: "llama" })
    await remove("converted")
    expect(blobs()).toEqual(before)
  })

  test("discards what was uploaded for the model alone", async () => {
    using model = new TestModel("qwen2")
    const before = blobs()
    const files = await upload(model)
    await create({ model: "alone", files, discard: Object.values(files) })
    // The weights, and the config.
    expect(blobs()).toHaveLength(before.length + 2)
    const again = await create({ model: "again", files })
    expect([again.status, again.text]).toEqual([404, expect.stringContaining("not found")])
    await remove("alone")
    expect(blobs()).toEqual(before)
  })

  test("does not discard what another creation reads, which comes to its end", async () => {
    using model = new TestModel("qwen2")
    const before = blobs()
    const files = await upload(model)
    const other = server.app.library.create(requestOf("other", files), new AbortController().signal)
    expect(await other.next()).toMatchObject({ value: { status: "converting model" } })
    const first = await create({ model: "first", files, discard: Object.values(files) })
    expect(statuses(first).at(-1)).toBe("success")
    const steps = await Array.fromAsync(other)
    expect(steps.at(-1)).toEqual({ status: "success" })
    // Nobody reads them now.
    await create({ model: "first", files, discard: Object.values(files) })
    await remove("first")
    await remove("other")
    expect(blobs()).toEqual(before)
  })

  test("does not discard what the model has", async () => {
    using model = new TestModel("qwen2")
    const files = await upload(model)
    await create({ model: "one", files })
    const { modelPath } = server.app.resolver.resolve("one").stored
    const digest = `sha256:${modelPath.slice(-64)}`
    await create({ model: "two", files: { "m.gguf": digest }, discard: [digest] })
    await remove("one")
    expect(server.app.resolver.resolve("two").stored.modelPath).toBe(modelPath)
    expect(existsSync(modelPath)).toBe(true)
    await remove("two")
  })

  test("keeps 8 bits in 8 bits, unless another type is wanted", async () => {
    using model = new TestModel("fp8-blocks")
    const files = await upload(model)
    await create({ model: "eight", files })
    await create({ model: "sixteen", files, quantize: "bf16" })
    expect([typeOf("eight"), typeOf("sixteen")]).toEqual(["Q8_0", "BF16"])
    await remove("eight")
    await remove("sixteen")
  })

  test("speaks of files by the names that the client gave them", async () => {
    using model = new TestModel("llama-spm")
    model.change("config.json", { vocab_size: 2 ** 31 - 1 })
    const files = await upload(model)
    const before = blobs()
    const { "config.json": config = "", ...others } = files
    const errors = await Promise.all(
      [files, others, { ...files, "config.json": Object.values(others)[0] ?? config }].map(
        async (some) =>
          (await create({ model: "bad", files: some })).text.trim().split("\n").at(-1),
      ),
    )
    expect(errors).toEqual([
      expect.stringContaining(
        '"error":"Cannot use \\"config.json\\": \\"vocab_size\\" is 2147483647',
      ),
      expect.stringContaining('"error":"Cannot find \\"config.json\\" in \\"bad\\""'),
      expect.stringContaining('"error":"Cannot use \\"config.json\\": it is not '),
    ])
    expect(blobs()).toEqual(before)
  })

  test("adapters are converted for the model that they come with, even while that is made", async () => {
    using base = new TestModel("llama-spm")
    using lora = new TestModel("lora-llama")
    const files = await upload(base)
    const adapters = await upload(lora)
    const reply = await create({ model: "adapted", files, adapters })
    expect(statuses(reply)).toContain("converting adapter")
    const { stored } = server.app.resolver.resolve("adapted")
    expect(stored.adapterPaths).toHaveLength(1)
    const [path = ""] = stored.adapterPaths
    expect(readGguf(path).metadata.get("general.type")).toEqual({
      type: "string",
      value: "adapter",
    })
    const onto = await create({ model: "later", from: "adapted", adapters })
    expect(statuses(onto).at(-1)).toBe("success")
    expect(server.app.resolver.resolve("later").stored.adapterPaths).toHaveLength(1)
  })

  test("an adapter for another model is refused, and that model is named", async () => {
    using base = new TestModel("qwen3")
    using lora = new TestModel("lora-llama")
    const files = await upload(base)
    const adapters = await upload(lora)
    const before = blobs()
    const reply = await create({ model: "adapted2", files, adapters })
    expect(reply.text).toContain(
      '"error":"Cannot use \\"the adapter of adapted2\\": it is for another',
    )
    expect(blobs()).toEqual(before)
  })
})
