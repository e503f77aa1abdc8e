import { describe, expect, test } from "bun:test"
import { truncateSync } from "node:fs"

import { blobFilePath } from "./digest.ts"
import { openStore } from "./folder-store.ts"
import { MEDIA_TYPES, parseManifest } from "./manifest.ts"
import { parseName } from "./name.ts"
import { hasBlob, type ModelStore, readConfig, readText } from "./store.ts"
import { manifestText, TestStore } from "./test-store.ts"

describe("readText()", () => {
  test("returns the text as it is", () => {
    using folder = new TestStore()
    const layer = folder.blob(MEDIA_TYPES.system, "\uFEFFséance\n")
    expect(readText(openStore(folder.root, { readOnly: true }), layer)).toBe("\uFEFFséance\n")
  })

  test("refuses a blob of more than 16 MiB", () => {
    using folder = new TestStore()
    const layer = folder.blob(MEDIA_TYPES.license, "x")
    const store = openStore(folder.root, { readOnly: true })
    truncateSync(blobFilePath(folder.root, layer.digest), 16 * 1024 * 1024)
    expect(readText(store, layer)).toHaveLength(16 * 1024 * 1024)
    truncateSync(blobFilePath(folder.root, layer.digest), 16 * 1024 * 1024 + 1)
    expect(() => readText(store, layer)).toThrow("16777217 bytes, limit 16777216")
  })

  test("names a missing blob", () => {
    using folder = new TestStore()
    using elsewhere = new TestStore()
    const layer = elsewhere.blob(MEDIA_TYPES.system, "x")
    const store = openStore(folder.root, { readOnly: true })
    expect(hasBlob(store, layer.digest)).toBe(false)
    expect(hasBlob(openStore(elsewhere.root, { readOnly: true }), layer.digest)).toBe(true)
    expect(() => readText(store, layer)).toThrow(
      expect.objectContaining({
        code: "not-found",
        message: `Cannot find blob "${layer.digest}"`,
      }),
    )
  })
})

describe("ModelStore — without a folder", () => {
  test("reads texts from memory", () => {
    const content = Buffer.from('{"model_family":"llama"}')
    using cache = new TestStore()
    const config = cache.blob(MEDIA_TYPES.config, content.toString())
    const text = manifestText({ config, layers: [cache.blob(MEDIA_TYPES.model, "weights")] })
    const { manifest, id } = parseManifest(new TextEncoder().encode(text))
    const model = { name: parseName("demo"), id, manifest, sizeBytes: 1, modifiedAt: new Date(0) }
    const store: ModelStore = {
      list: () => ({ models: [model], problems: [] }),
      find: () => model,
      blobPath: () => undefined,
      readBlob: (digest) => (digest === manifest.config.digest ? content : undefined),
    }
    expect(readConfig(store, manifest)).toEqual({ model_family: "llama" })
  })
})
