import { describe, expect, test } from "bun:test"
import { existsSync, mkdirSync, readdirSync, utimesSync } from "node:fs"
import { dirname, join } from "node:path"

import { blobFilePath } from "./digest.ts"
import { openStore } from "./folder-store.ts"
import { MEDIA_TYPES } from "./manifest.ts"
import { GRACE_MS, pruneStore } from "./prune.ts"
import { TestStore } from "./test-store.ts"

const NOW = Date.UTC(2026, 5, 1)

/** Writes a file of the folder of blobs that is so old. */
function aged(store: TestStore, name: string, ageMs: number): string {
  const file = store.write(`blobs/${name}`, name)
  const seconds = (NOW - ageMs) / 1000
  utimesSync(file, seconds, seconds)
  return file
}

function prune(store: TestStore, readOnly = false) {
  return pruneStore(openStore(store.root, { readOnly }), NOW)
}

const HEX = "cd".repeat(32)

describe("pruneStore()", () => {
  test("removes old blobs that nobody names, and what has no blob's name", async () => {
    using store = new TestStore()
    const kept = store.blob(MEDIA_TYPES.model, "weights")
    store.model("m", [kept])
    utimesSync(blobFilePath(store.root, kept.digest), 1, 1)
    const names = [`sha256-${HEX}`, `sha256-${HEX}-partial`, `sha256-${HEX}-partial-0`, "rubbish"]
    for (const name of names) aged(store, name, GRACE_MS + 1000)
    expect(await prune(store)).toEqual({
      removed: expect.arrayContaining(names),
      freed: names.join("").length,
      isDone: true,
    })
    expect(existsSync(blobFilePath(store.root, kept.digest))).toBe(true)
    expect(readdirSync(join(store.root, "blobs"))).toHaveLength(2)
  })

  test("leaves what is younger than the grace period: another process may be at it", async () => {
    using store = new TestStore()
    const files = [`sha256-${HEX}`, `sha256-${HEX}-partial`].map((name) =>
      aged(store, name, GRACE_MS - 1000),
    )
    expect((await prune(store)).removed).toEqual([])
    expect(files.every((file) => existsSync(file))).toBe(true)
  })

  test.each(["{ cut o", ""])("removes nothing when a manifest is damaged: %j", async (text) => {
    using store = new TestStore()
    const file = aged(store, `sha256-${HEX}`, 2 * GRACE_MS)
    store.write("manifests/h/n/m/t", text)
    expect(await prune(store)).toEqual({ removed: [], freed: 0, isDone: false })
    expect(existsSync(file)).toBe(true)
  })

  test("removes nothing from a read-only store, and makes no file in an empty one", async () => {
    using store = new TestStore()
    expect((await prune(store)).removed).toEqual([])
    expect(readdirSync(store.root)).toEqual([])
    aged(store, `sha256-${HEX}`, 2 * GRACE_MS)
    expect((await prune(store, true)).removed).toEqual([])
    expect(readdirSync(store.root)).toEqual(["blobs"])
  })

  test("renames the blobs of Ollama's first versions", async () => {
    using store = new TestStore()
    aged(store, `sha256:${HEX}`, 0)
    await prune(store)
    expect(readdirSync(join(store.root, "blobs"))).toEqual([`sha256-${HEX}`])
  })

  test("removes folders without manifests and leaves folders among the blobs alone", async () => {
    using store = new TestStore()
    const file = store.weights("host/ns/m:t")
    mkdirSync(join(store.root, "manifests/a/b/c"), { recursive: true })
    mkdirSync(join(store.root, "blobs/folder"))
    utimesSync(join(store.root, "blobs/folder"), 1, 1)
    await prune(store)
    expect(existsSync(join(store.root, "manifests/a"))).toBe(false)
    expect(existsSync(dirname(file))).toBe(true)
    expect(existsSync(join(store.root, "blobs/folder"))).toBe(true)
  })
})
