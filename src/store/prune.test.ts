import { describe, expect, test } from "bun:test"
import { existsSync, lutimesSync, mkdirSync, readdirSync, symlinkSync, utimesSync } from "node:fs"
import { dirname, join } from "node:path"

import { blobFilePath, parseDigest } from "./digest.ts"
import { openStore } from "./folder-store.ts"
import { tryFileLock } from "./lock.ts"
import { MEDIA_TYPES } from "./manifest.ts"
import { forgetPull, rememberPull } from "./pending.ts"
import { GRACE_MS, PULL_GRACE_MS, pruneStore } from "./prune.ts"
import { manifestText, TestStore } from "./test-store.ts"

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
    const names = [`sha256-${HEX}`, "rubbish", "sha256-short-partial"]
    for (const name of names) aged(store, name, GRACE_MS + 1000)
    expect(await prune(store)).toEqual({
      removed: expect.arrayContaining(names),
      freed: names.join("").length,
      isDone: true,
    })
    expect(existsSync(blobFilePath(store.root, kept.digest))).toBe(true)
    expect(readdirSync(join(store.root, "blobs"))).toHaveLength(2)
  })

  test("removes old links that nobody names, not what they lead to", async () => {
    using store = new TestStore()
    const shared = store.write("shared", "weights")
    utimesSync(shared, 1, 1)
    const links = {
      [`sha256-${HEX}`]: shared,
      "sha256-tmp-1": "../gone",
      "sha256-tmp-2": store.root,
      "sha256-tmp-3": "sha256-tmp-3",
    }
    mkdirSync(join(store.root, "blobs"))
    for (const [name, target] of Object.entries(links)) {
      const path = join(store.root, "blobs", name)
      symlinkSync(target, path)
      lutimesSync(path, 1, 1)
    }
    expect(await prune(store)).toEqual({
      removed: expect.arrayContaining([`sha256-${HEX}`, "sha256-tmp-1"]),
      freed: 0,
      isDone: true,
    })
    expect(readdirSync(join(store.root, "blobs")).toSorted()).toEqual([
      "sha256-tmp-2",
      "sha256-tmp-3",
    ])
    expect(existsSync(shared)).toBe(true)
  })

  test("leaves what is younger than the grace period: another process may be at it", async () => {
    using store = new TestStore()
    const files = [`sha256-${HEX}`, `sha256-${HEX}-partial`].map((name) =>
      aged(store, name, GRACE_MS - 1000),
    )
    expect((await prune(store)).removed).toEqual([])
    expect(files.every((file) => existsSync(file))).toBe(true)
  })

  test("what a pull has fetched stays for days: none of its files is older than the youngest", async () => {
    using store = new TestStore()
    const names = ["-partial", "-partial-0", "-partial-1"].map((end) => `sha256-${HEX}${end}`)
    // The first part was done long ago; the connection of the second one goes on.
    for (const name of names) aged(store, name, 2 * PULL_GRACE_MS)
    aged(store, names[2] ?? "", PULL_GRACE_MS - 1000)
    expect((await prune(store)).removed).toEqual([])
    aged(store, names[2] ?? "", PULL_GRACE_MS + 1000)
    expect((await prune(store)).removed.toSorted()).toEqual(names)
    expect(readdirSync(join(store.root, ".cria-locks"))).toEqual([])
  })

  test("what is being fetched stays, however old its files are", async () => {
    using store = new TestStore()
    aged(store, `sha256-${HEX}-partial`, 2 * PULL_GRACE_MS)
    const lock = tryFileLock(store.root, parseDigest(`sha256:${HEX}`))
    expect((await prune(store)).removed).toEqual([])
    lock?.[Symbol.dispose]()
    expect((await prune(store)).removed).toEqual([`sha256-${HEX}-partial`])
  })

  test("a blob that is there while its pull fetches others stays for days, too", async () => {
    using store = new TestStore()
    const file = aged(store, `sha256-${HEX}`, 2 * GRACE_MS)
    const layer = { mediaType: MEDIA_TYPES.model, digest: `sha256:${HEX}`, size: 1 }
    const manifest = Buffer.from(manifestText({ config: layer, layers: [layer] }))
    using _ = await rememberPull(store.root, manifest)
    const [note = ""] = readdirSync(join(store.root, ".cria-pulls"))
    const setAge = (ageMs: number) => {
      const seconds = (NOW - ageMs) / 1000
      utimesSync(join(store.root, ".cria-pulls", note), seconds, seconds)
    }
    setAge(PULL_GRACE_MS - 1000)
    expect((await prune(store)).removed).toEqual([])
    setAge(PULL_GRACE_MS + 1000)
    expect((await prune(store)).removed).toEqual([`sha256-${HEX}`])
    expect(existsSync(file)).toBe(false)
    expect(readdirSync(join(store.root, ".cria-pulls"))).toEqual([])
  })

  test("a pull that has ended is forgotten; one that was noted badly names nothing", async () => {
    using store = new TestStore()
    aged(store, `sha256-${HEX}`, 2 * GRACE_MS)
    const layer = { mediaType: MEDIA_TYPES.model, digest: `sha256:${HEX}`, size: 1 }
    const manifest = Buffer.from(manifestText({ config: layer, layers: [layer] }))
    using _ = await rememberPull(store.root, manifest)
    ;(await rememberPull(store.root, manifest.subarray(0, 100)))[Symbol.dispose]()
    forgetPull(store.root, manifest)
    // One that ends while its note is looked at.
    symlinkSync("nowhere", join(store.root, ".cria-pulls", "gone"))
    expect((await prune(store)).removed).toEqual([`sha256-${HEX}`])
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
