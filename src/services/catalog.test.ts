import { describe, expect, test } from "bun:test"
import { rmSync, utimesSync, writeFileSync } from "node:fs"

import { f32, packNumbers, packStrings, text, u32 } from "../gguf/write.ts"
import { TEST_STATUS, TestApp } from "./test-app.ts"

const NO_OVERLAY = { system: undefined, options: {} }

describe("Catalog — installed models", () => {
  test("are listed newest first, with what their configs say", async () => {
    await using app = new TestApp()
    const old = await app.install("old", { config: { model_type: "1.2B" } })
    const fresh = await app.install("me/fresh:7b", { config: { capabilities: ["tools"] } })
    utimesSync(old, 1000, 1000)
    utimesSync(fresh, 2000, 2000)
    expect(app.catalog.installed()).toMatchObject([
      {
        name: "me/fresh:7b",
        namespace: "me",
        modifiedAt: new Date(2_000_000),
        config: { capabilities: ["tools"] },
      },
      { name: "old:latest", namespace: "library", config: { model_type: "1.2B" } },
    ])
    expect(app.complaints).toEqual([])
  })

  test("are fine to have none of", async () => {
    await using app = new TestApp()
    expect(app.catalog.installed()).toEqual([])
    expect(app.catalog.loaded()).toEqual([])
  })

  test("that cannot be read are logged and hide no others", async () => {
    await using app = new TestApp()
    await app.install("good")
    await app.install("bad-config", { config: { model_type: 5 } })
    app.folder.write("manifests/registry.ollama.ai/library/bad-manifest/latest", "{")
    expect(app.catalog.installed().map(({ name }) => name)).toEqual(["good:latest"])
    expect(app.complaints).toHaveLength(2)
    expect(app.complaints.join("\n")).toContain("bad-config:latest")
    expect(app.complaints.join("\n")).toContain("bad-manifest")
  })
})

describe("Catalog — watching", () => {
  test("follows models as they are loaded and unloaded, and keeps none", async () => {
    await using app = new TestApp()
    await app.install("a")
    await app.install("b")
    const load = (model: string) => app.generator.load({ model, options: {} })
    const controller = new AbortController()
    const statuses = app.catalog.watch({ intervalMs: 0, signal: controller.signal })
    const next = async () => (await statuses.next()).value
    await load("a")
    expect(await next()).toEqual({ model: "a:latest", status: TEST_STATUS })
    const later = next()
    await load("b")
    expect(await later).toEqual({ model: "b:latest", status: TEST_STATUS })
    app.generator.unload("a")
    expect(await next()).toEqual({ model: "a:latest", status: undefined })
    await load("a")
    expect(await next()).toEqual({ model: "a:latest", status: TEST_STATUS })
    expect(app.leases).toBe(0)
    const last = next()
    controller.abort()
    expect(await last).toBeUndefined()
  })
})

describe("Catalog — loaded models", () => {
  const request = { options: {} }

  test("have what they were loaded with, the one that stays longest first", async () => {
    await using app = new TestApp()
    await app.install("short", { params: { num_ctx: 1024 } })
    await app.install("long")
    await app.install("forever")
    const now = Date.now()
    await app.generator.load({ ...request, model: "short", keepAliveMs: 60_000 })
    await app.generator.load({ ...request, model: "forever", keepAliveMs: Infinity })
    await app.generator.load({ ...request, model: "long" })
    const loaded = app.catalog.loaded()
    expect(loaded.map(({ model }) => model.name)).toEqual([
      "forever:latest",
      "long:latest",
      "short:latest",
    ])
    expect(loaded.at(-1)).toMatchObject({ totalBytes: 1500, gpuBytes: 500, contextTokens: 1024 })
    const [forever = NaN, long = NaN, short = NaN] = loaded.map(({ expiresAt }) => expiresAt)
    expect(forever).toBe(Infinity)
    expect(Math.abs(long - now - 5 * 60_000)).toBeLessThan(10_000)
    expect(Math.abs(short - now - 60_000)).toBeLessThan(10_000)
  })

  test("on their way have the size of their files", async () => {
    await using app = new TestApp()
    await app.install("tiny")
    const loading = Promise.withResolvers<void>()
    app.loading = loading.promise
    const load = app.generator.load({ ...request, model: "tiny" })
    const [entry] = app.catalog.loaded()
    expect(entry?.totalBytes).toBe(entry?.model.facts.fileBytes ?? NaN)
    expect(entry).toMatchObject({ gpuBytes: 0, contextTokens: 0 })
    loading.resolve()
    await load
  })

  test("whose files were removed are logged and hide no others", async () => {
    await using app = new TestApp()
    const gone = await app.install("gone")
    await app.install("here", { metadata: { "general.author": text("me") } })
    for (const model of ["gone", "here"]) {
      // oxlint-disable-next-line no-await-in-loop -- one load at a time
      await app.generator.load({ ...request, model })
    }
    rmSync(gone)
    expect(app.catalog.loaded().map(({ model }) => model.name)).toEqual(["here:latest"])
    expect(app.complaints).toEqual([
      "loaded model cannot be described gone:latest model 'gone:latest' not found",
    ])
  })
})

describe("Catalog — one model", () => {
  const arrays = {
    metadata: {
      "general.author": text("me"),
      "general.weight": f32(0.5),
      "tokenizer.ggml.tokens": packStrings(["a", "b", "c"]),
      "llama.numbers": packNumbers("i32", [1, -2]),
      "llama.empty": packNumbers("i32", []),
      "llama.big": { type: "u64", value: 2n ** 40n } as const,
      "llama.small": u32(7),
    },
  }

  test("is described without its arrays, which can be megabytes", async () => {
    await using app = new TestApp()
    await app.install("tiny", arrays)
    const { model, metadata, modelfile } = app.catalog.describe("TINY", NO_OVERLAY, false)
    expect(model.name).toBe("tiny:latest")
    expect(modelfile).toContain("# FROM tiny:latest\n")
    expect(metadata).toMatchObject({
      "general.author": "me",
      "general.weight": 0.5,
      "tokenizer.ggml.tokens": null,
      "llama.numbers": null,
      "llama.empty": [],
      "llama.big": 2 ** 40,
      "llama.small": 7,
    })
    expect(() => JSON.stringify(metadata)).not.toThrow()
  })

  test("is described with its arrays on request", async () => {
    await using app = new TestApp()
    await app.install("tiny", arrays)
    expect(app.catalog.describe("tiny", NO_OVERLAY, true).metadata).toMatchObject({
      "tokenizer.ggml.tokens": ["a", "b", "c"],
      "llama.numbers": [1, -2],
      "llama.empty": [],
    })
  })

  test("has numbers in single precision with the digits that they have", async () => {
    await using app = new TestApp()
    await app.install("tiny", {
      metadata: {
        "llama.epsilon": f32(1e-6),
        "llama.base": f32(1e6),
        "llama.odd": f32(0.123456789),
        "llama.many": packNumbers("f32", [0.1, -2.5, 1e-38]),
        "llama.double": { type: "f64", value: 0.1 + 0.2 },
      },
    })
    expect(app.catalog.describe("tiny", NO_OVERLAY, true).metadata).toMatchObject({
      "llama.epsilon": 1e-6,
      "llama.base": 1e6,
      "llama.odd": 0.12345679,
      "llama.many": [0.1, -2.5, 1e-38],
      "llama.double": 0.30000000000000004,
    })
  })

  test("is described with its projector, which may be one that cannot be read", async () => {
    await using app = new TestApp()
    const projector = {
      "general.architecture": text("clip"),
      "general.name": text("eyes"),
      "clip.vision.embedding_length": u32(1152),
      "clip.vision.image_mean": packNumbers("f32", [0.5, 0.5, 0.5]),
    }
    await app.install("seeing", { projector })
    const described = app.catalog.describe("seeing", NO_OVERLAY, false)
    expect(described.projector).toEqual({
      "general.architecture": "clip",
      "general.name": "eyes",
      "clip.vision.embedding_length": 1152,
      "clip.vision.image_mean": null,
      "general.parameter_count": 0,
    })
    expect(app.catalog.describe("seeing", NO_OVERLAY, true).projector).toMatchObject({
      "clip.vision.image_mean": [0.5, 0.5, 0.5],
    })
    writeFileSync(described.model.stored.projectorPaths[0] ?? "", "GGUF")
    expect(app.catalog.describe("seeing", NO_OVERLAY, false).projector).toBeUndefined()
    expect(app.complaints.join()).toContain("projector cannot be read seeing:latest")
    await app.install("blind")
    expect(app.catalog.describe("blind", NO_OVERLAY, false).projector).toBeUndefined()
  })

  test.each<[string, string, string]>([
    ["nope", "not-found", "model 'nope:latest' not found"],
    ["me/nope:7b", "not-found", "model 'me/nope:7b' not found"],
    ["a b", "invalid-input", "invalid model name"],
    [
      "nope:cloud",
      "invalid-input",
      "ollama cloud is disabled: remote model details are unavailable",
    ],
  ])("%p that is not there is named in full", async (name, code, message) => {
    await using app = new TestApp()
    expect(() => app.catalog.describe(name, NO_OVERLAY, false)).toThrow(
      expect.objectContaining({ code, message }),
    )
  })
})
