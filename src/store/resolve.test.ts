import { describe, expect, test } from "bun:test"
import { readFileSync, rmSync } from "node:fs"
import { join } from "node:path"

import { blobFilePath } from "./digest.ts"
import { openStore } from "./folder-store.ts"
import { MEDIA_TYPES, parseManifest } from "./manifest.ts"
import { fullName, parseName } from "./name.ts"
import { resolveModel, type ResolvedModel, resolveName } from "./resolve.ts"
import type { ModelStore } from "./store.ts"
import { manifestText, TestStore } from "./test-store.ts"

const CONFIG = { mediaType: MEDIA_TYPES.config, digest: `sha256:${"0".repeat(64)}`, size: 0 }

function resolve(folder: TestStore, text: string, requested?: string): ResolvedModel {
  return resolveModel(openStore(folder.root, { readOnly: true }), parseName(text), requested)
}

function contentOf(path: string | undefined): string | undefined {
  return path && readFileSync(path, "utf8")
}

/** A store that can only be listed. */
function storeOf(names: readonly string[]): ModelStore {
  const models = names.map((text) => ({
    name: parseName(text),
    id: "",
    manifest: parseManifest(Buffer.from(manifestText({ config: CONFIG, layers: [] }))).manifest,
    sizeBytes: 0,
    modifiedAt: new Date(0),
  }))
  return {
    list: () => ({ models, problems: [] }),
    find: () => undefined,
    blobPath: () => undefined,
    readBlob: () => undefined,
  }
}

describe("resolveName()", () => {
  test.each([
    // The whole name is installed: its casing.
    ["LLAMA3:8B", "registry.ollama.ai/library/Llama3:8b"],
    ["Registry.OLLAMA.ai/LIBRARY/llama3:8b", "registry.ollama.ai/library/Llama3:8b"],
    ["hf.co/user/repo:q4_k_m", "hf.co/User/Repo:Q4_K_M"],
    // It is not: each part that some model has.
    ["llama3:q4_K_M", "registry.ollama.ai/library/Llama3:Q4_K_M"],
    ["HF.CO/LIBRARY/New:8B", "hf.co/library/New:8b"],
    ["uSER/Other:New", "registry.ollama.ai/User/Other:New"],
    // A model that cannot be read has a name as well.
    ["BROKEN", "registry.ollama.ai/library/Broken:latest"],
  ])("%s becomes %s", (text, expected) => {
    using folder = new TestStore()
    folder.weights("Llama3:8b")
    folder.weights("hf.co/User/Repo:Q4_K_M")
    folder.write(join("manifests", "registry.ollama.ai", "library", "Broken", "latest"), "{")
    const store = openStore(folder.root, { readOnly: true })
    expect(fullName(resolveName(store, parseName(text)))).toBe(expected)
  })

  test.each([
    ["me/m:t", "me/m:t"],
    ["me/M:t", "me/M:t"],
    ["you/m:x", "you/m:x"],
    ["you/M:T", "you/M:t"],
  ])("%s becomes %s where names differ by case only, in whatever order", (text, expected) => {
    const names = ["me/m:t", "me/M:t"]
    for (const order of [names, names.toReversed()]) {
      expect(resolveName(storeOf(order), parseName(text))).toEqual(parseName(expected))
    }
  })

  test("takes the casing of a whole name before that of parts", () => {
    const name = resolveName(storeOf(["other/m:T", "me/M:t"]), parseName("ME/m:T"))
    expect(name).toEqual(parseName("me/M:t"))
  })

  test("keeps the scheme", () => {
    const name = resolveName(storeOf(["h/n/M:t"]), parseName("http://H/N/m:T"))
    expect(name).toEqual(parseName("http://h/n/M:t"))
  })
})

describe("resolveModel()", () => {
  test("reads every kind of layer", () => {
    using folder = new TestStore()
    folder.model(
      "Me/Full:v1",
      [
        folder.blob(MEDIA_TYPES.model, "weights 1"),
        { ...folder.blob(MEDIA_TYPES.model, "weights 2"), from: "base:latest" },
        folder.blob(MEDIA_TYPES.projector, "projector 1"),
        folder.blob(MEDIA_TYPES.projector, "projector 2"),
        folder.blob(MEDIA_TYPES.adapter, "adapter"),
        folder.blob(MEDIA_TYPES.draft, "draft"),
        folder.blob(MEDIA_TYPES.template, "{{ .Prompt }}"),
        folder.blob(MEDIA_TYPES.system, "Be brief."),
        folder.blob(MEDIA_TYPES.params, '{"temperature":0.7,"stop":["<eot>"]}\n'),
        folder.blob(MEDIA_TYPES.messages, '[{"role":"user","content":"Hi","images":["aGk="]}]\n'),
        folder.blob(MEDIA_TYPES.license, "MIT"),
        folder.blob(MEDIA_TYPES.license, "Apache"),
        folder.blob("application/vnd.ollama.image.embed", "obsolete"),
        folder.blob("application/x-unknown", "?"),
      ],
      { model_family: "llama", file_type: "Q4_K_M" },
    )
    const model = resolve(folder, "me/full:V1")
    const { modelPath, projectorPaths, adapterPaths, draftPath, ...rest } = model
    expect(contentOf(modelPath)).toBe("weights 2")
    expect(projectorPaths.map(contentOf)).toEqual(["projector 1", "projector 2"])
    expect(adapterPaths.map(contentOf)).toEqual(["adapter"])
    expect(contentOf(draftPath)).toBe("draft")
    expect(rest).toEqual({
      name: parseName("Me/Full:v1"),
      id: expect.stringMatching(/^[0-9a-f]{64}$/),
      modifiedAt: expect.any(Date),
      sizeBytes: expect.any(Number),
      parentModel: "base:latest",
      template: "{{ .Prompt }}",
      system: "Be brief.",
      params: { temperature: 0.7, stop: ["<eot>"] },
      messages: [{ role: "user", content: "Hi", images: ["aGk="] }],
      licenses: ["MIT", "Apache"],
      config: { model_family: "llama", file_type: "Q4_K_M" },
    })
  })

  test("leaves out what a model of weights alone does not have", () => {
    using folder = new TestStore()
    folder.weights("m")
    expect(resolve(folder, "m")).toMatchObject({
      parentModel: undefined,
      projectorPaths: [],
      adapterPaths: [],
      draftPath: undefined,
      template: undefined,
      system: undefined,
      params: undefined,
      messages: undefined,
      licenses: [],
    })
  })

  test("reads the template of the oldest manifests", () => {
    using folder = new TestStore()
    const weights = folder.blob(MEDIA_TYPES.model, "w")
    folder.model("m", [weights, folder.blob(MEDIA_TYPES.prompt, "{{ .Old }}")])
    expect(resolve(folder, "m").template).toBe("{{ .Old }}")
  })

  test("says in the text of the API that a model is missing, with its name as it was sent", () => {
    using folder = new TestStore()
    expect(() => resolve(folder, "Nope", "Nope")).toThrow(
      expect.objectContaining({
        code: "not-found",
        message: "model 'Nope' not found",
        hint: "cria list shows what is installed",
      }),
    )
  })

  test.each([
    MEDIA_TYPES.model,
    MEDIA_TYPES.projector,
    MEDIA_TYPES.adapter,
    MEDIA_TYPES.draft,
    MEDIA_TYPES.template,
    MEDIA_TYPES.system,
    MEDIA_TYPES.params,
    MEDIA_TYPES.messages,
    MEDIA_TYPES.license,
  ])("says the same when the blob of %s is missing, with its digest in the hint", (type) => {
    using folder = new TestStore()
    const lost = folder.blob(type, '"lost"')
    folder.model("m", [folder.blob(MEDIA_TYPES.model, "weights"), lost])
    rmSync(blobFilePath(folder.root, lost.digest))
    expect(() => resolve(folder, "m")).toThrow(
      expect.objectContaining({
        code: "not-found",
        message: 'model "m:latest" not found, try pulling it first',
        hint: `Cannot find blob "${lost.digest}"`,
      }),
    )
  })

  test("does not miss a blob that it does not need", () => {
    using folder = new TestStore()
    const lost = folder.blob("application/x-unknown", "lost")
    folder.model("m", [folder.blob(MEDIA_TYPES.model, "weights"), lost])
    rmSync(blobFilePath(folder.root, lost.digest))
    expect(contentOf(resolve(folder, "m").modelPath)).toBe("weights")
  })

  test.each([
    [MEDIA_TYPES.params, "[]", "Cannot read params"],
    [MEDIA_TYPES.params, "{", "Cannot read params"],
    [MEDIA_TYPES.messages, "{}", "Cannot read messages"],
    [MEDIA_TYPES.messages, '[{"content":"x"}]', 'Cannot read messages at "0.role"'],
    [MEDIA_TYPES.messages, "[null]", 'Cannot read messages at "0"'],
  ])("refuses %s of %s", (type, text, message) => {
    using folder = new TestStore()
    folder.model("m", [folder.blob(MEDIA_TYPES.model, "w"), folder.blob(type, text)])
    expect(() => resolve(folder, "m")).toThrow(
      expect.objectContaining({ code: "internal", message: expect.stringContaining(message) }),
    )
  })

  test("refuses models without weights, with the reason", () => {
    using folder = new TestStore()
    folder.model("stub", [])
    folder.model("mlx", [folder.blob(MEDIA_TYPES.tensor, "t")], { model_format: "safetensors" })
    expect(() => resolve(folder, "stub")).toThrow('Cannot run "stub:latest": it has no weights')
    expect(() => resolve(folder, "mlx")).toThrow(
      "this model requires MLX support, but the MLX runtime is not available",
    )
  })

  test("refuses models that answer elsewhere, and says where", () => {
    using folder = new TestStore()
    folder.model("far", [], { remote_host: "https://ollama.com:443", remote_model: "gpt-oss:120b" })
    expect(() => resolve(folder, "far")).toThrow(
      expect.objectContaining({
        code: "invalid-input",
        message: "ollama cloud is disabled: remote model is unavailable",
        hint: '"far:latest" is "gpt-oss:120b" of https://ollama.com:443; cria runs models on this machine',
      }),
    )
  })
})
