import { describe, expect, test } from "bun:test"
import { join } from "node:path"

import { blobFilePath } from "./digest.ts"
import { openStore } from "./folder-store.ts"
import { layerStores } from "./layered-store.ts"
import { MEDIA_TYPES } from "./manifest.ts"
import { parseName, shortName } from "./name.ts"
import type { ModelStore } from "./store.ts"
import { TestStore } from "./test-store.ts"

function layered(...folders: readonly TestStore[]): ModelStore {
  return layerStores(folders.map(({ root }) => openStore(root, { readOnly: true })))
}

describe("layerStores()", () => {
  test("merges the lists, newest first, each name once", () => {
    using own = new TestStore()
    using other = new TestStore()
    own.weights("shared", Date.UTC(2026, 0, 2))
    other.weights("Shared", Date.UTC(2026, 0, 9))
    own.weights("old", Date.UTC(2026, 0, 1))
    other.weights("new", Date.UTC(2026, 0, 3))
    const names = layered(own, other)
      .list()
      .models.map((model) => shortName(model.name))
    expect(names).toEqual(["new:latest", "shared:latest", "old:latest"])
  })

  test("finds a name in the first store that has it, in any casing", () => {
    using own = new TestStore()
    using other = new TestStore()
    own.weights("m", 1000)
    other.weights("M", 2000)
    other.weights("only-there", 3000)
    const store = layered(own, other)
    expect(store.find(parseName("M"))?.modifiedAt).toEqual(new Date(1000))
    expect(store.find(parseName("only-THERE"))?.modifiedAt).toEqual(new Date(3000))
    expect(store.find(parseName("nowhere"))).toBeUndefined()
  })

  test("shows a broken model instead of another of its name", () => {
    using own = new TestStore()
    using other = new TestStore()
    own.write(join("manifests", "registry.ollama.ai", "library", "m", "latest"), "{")
    other.weights("m")
    const store = layered(own, other)
    expect(store.list().models).toEqual([])
    expect(store.list().problems).toHaveLength(1)
    expect(() => store.find(parseName("m"))).toThrow(/^Cannot read manifest/)
  })

  test("takes a blob from the first store that has it", () => {
    using own = new TestStore()
    using other = new TestStore()
    const there = other.blob(MEDIA_TYPES.model, "there")
    const both = other.blob(MEDIA_TYPES.model, "both")
    own.blob(MEDIA_TYPES.model, "both")
    const store = layered(own, other)
    expect(store.blobPath(there.digest)).toBe(blobFilePath(other.root, there.digest))
    expect(store.blobPath(both.digest)).toBe(blobFilePath(own.root, both.digest))
    expect(layered(own).blobPath(there.digest)).toBeUndefined()
  })

  test("of nothing is an empty store", () => {
    expect(layered().list()).toEqual({ models: [], problems: [] })
    expect(layered().find(parseName("m"))).toBeUndefined()
  })
})
