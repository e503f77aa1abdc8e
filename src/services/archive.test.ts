import { describe, expect, test } from "bun:test"
import { rejects } from "node:assert/strict"
import { hash } from "node:crypto"
import { existsSync, readdirSync, readFileSync } from "node:fs"
import { join } from "node:path"

import { blobFilePath, parseDigest } from "../store/digest.ts"
import { openStore } from "../store/folder-store.ts"
import { MEDIA_TYPES } from "../store/manifest.ts"
import { type TestLayer, TestStore } from "../store/test-store.ts"
import { StoreWriter } from "../store/writer.ts"
import { drain } from "../util/iterate.ts"
import { readTar, type TarSource, writeTar } from "../util/tar.ts"
import { exportModels, importModels } from "./archive.ts"

function exported(store: TestStore, ...names: string[]): AsyncGenerator<Uint8Array, void> {
  const folder = openStore(store.root, { readOnly: true })
  return exportModels(folder, [folder], names).chunks
}

/** Imports to the end; the names. */
async function imported(
  store: TestStore,
  archive: AsyncIterable<Uint8Array>,
  name?: string,
): Promise<readonly string[]> {
  const writer = new StoreWriter(openStore(store.root, { readOnly: false }))
  return drain(importModels(writer, archive, { rename: name }))
}

/** Every file below a store with its content. */
function content(store: TestStore): Record<string, string> {
  return Object.fromEntries(
    ["manifests", "blobs"].flatMap((top) =>
      readdirSync(join(store.root, top), { recursive: true, withFileTypes: true })
        .filter((entry) => entry.isFile())
        .map((entry) => {
          const path = join(entry.parentPath, entry.name)
          return [path.slice(store.root.length), readFileSync(path, "latin1")] as const
        }),
    ),
  )
}

/** Two models that share a blob. */
function twoModels(): TestStore {
  const store = new TestStore()
  const shared = store.blob(MEDIA_TYPES.model, "shared weights")
  store.model("one", [shared, store.blob(MEDIA_TYPES.system, "Be brief.")])
  store.model("host:5000/you/two:q4", [shared], { model_family: "x" })
  return store
}

describe("exportModels() and importModels()", () => {
  test("a store becomes an archive and the same store again", async () => {
    using source = twoModels()
    using target = new TestStore()
    const archive = exported(source, "one", "host:5000/you/two:q4")
    expect(await imported(target, archive)).toEqual(["one:latest", "host:5000/you/two:q4"])
    expect(content(target)).toEqual(content(source))
  })

  test("its size is known before it is written", async () => {
    using source = twoModels()
    const folder = openStore(source.root, { readOnly: true })
    const { bytes, chunks: written } = exportModels(folder, [folder], ["one"])
    expect(Buffer.concat(await Array.fromAsync(written))).toHaveLength(bytes)
  })

  test("an import that is cancelled leaves the store as it was", async () => {
    using source = twoModels()
    using target = new TestStore()
    const writer = new StoreWriter(openStore(target.root, { readOnly: false }))
    const controller = new AbortController()
    const steps = importModels(writer, exported(source, "one"), { signal: controller.signal })
    expect(await steps.next()).toMatchObject({ value: { completed: 0 } })
    const { value } = await steps.next()
    expect(value).toMatchObject({ status: expect.stringMatching(/^importing [0-9a-f]{12}$/) })
    controller.abort(new Error("enough"))
    await rejects(drain(steps), /enough/)
    expect(readdirSync(join(target.root, "blobs"))).toEqual([])
  })

  test("a file that does not fit on the disk is not begun", async () => {
    using target = new TestStore()
    const source = { name: `blobs/sha256/${"ab".repeat(32)}`, size: 5e14, content: [] }
    await rejects(imported(target, writeTar([source])), {
      code: "unavailable",
      message: /^Cannot store a file: it takes 500 TB/,
    })
    expect(readdirSync(join(target.root, "blobs"))).toEqual([])
  })

  test("a single model can get another name", async () => {
    using source = twoModels()
    using target = new TestStore()
    expect(await imported(target, exported(source, "one"), "new:1")).toEqual(["new:1"])
    await rejects(imported(target, exported(source, "one", "host:5000/you/two:q4"), "new"), {
      message: 'Cannot import 2 models as "new:latest"',
    })
  })

  test("an unknown model, or one that is not whole, is no archive", async () => {
    using source = twoModels()
    await rejects(async () => Array.fromAsync(exported(source, "nope")), { code: "not-found" })
    const { digest } = source.blob(MEDIA_TYPES.model, "shared weights")
    await Bun.file(blobFilePath(source.root, digest)).delete()
    await rejects(async () => Array.fromAsync(exported(source, "one")), {
      message: /^Cannot export: blob "sha256:/,
    })
  })

  test("a damaged archive leaves the store as it was", async () => {
    using source = twoModels()
    using target = twoModels()
    target.model("three", [target.blob(MEDIA_TYPES.model, "other")])
    const before = content(target)
    const bytes = Buffer.concat(await Array.fromAsync(exported(source, "one")))
    const at = bytes.indexOf("Be brief.")
    bytes.write("Be wordy!", at)
    using empty = new TestStore()
    for (const store of [target, empty]) {
      await rejects(imported(store, chunks(bytes)), { message: /^digest mismatch/ })
    }
    await rejects(imported(target, chunks(bytes.subarray(0, at))), { message: /it ends early/ })
    expect(content(target)).toEqual(before)
    expect(readdirSync(join(empty.root, "blobs"))).toEqual([])
  })

  test.each<[string, (layer: TestLayer) => readonly TestLayer[], RegExp]>([
    ["no layers", () => [], /^Cannot import "[^"]*bad:latest": its manifest has no layers$/],
    [
      "a size that is another",
      (layer) => [{ ...layer, size: 1000 }],
      /^Cannot import "[^"]*bad:latest": sha256:\w+ has 7 bytes, its manifest says 1000$/,
    ],
    [
      "a file that is not there",
      (layer) => [layer, { ...layer, digest: parseDigest(`sha256:${"ab".repeat(32)}`) }],
      /^Cannot import "[^"]*bad:latest": sha256:(ab)+ is not in the archive$/,
    ],
  ])("installs nothing when one of its models has %s", async (_, change, message) => {
    using source = twoModels()
    using target = new TestStore()
    const layer = source.blob(MEDIA_TYPES.model, "weights")
    source.model("bad", [layer])
    const sources = await sourcesOf(exported(source, "one", "bad"))
    const index = sources.get("index.json")
    if (index === undefined) throw new Error("an archive has an index")
    const { manifests } = JSON.parse(index) as { manifests: { digest: string }[] }
    const old = `blobs/${manifests[1]?.digest.replace(":", "/")}`
    const manifest = JSON.parse(sources.get(old) ?? "") as { layers: TestLayer[] }
    const changed = JSON.stringify({ ...manifest, layers: change(layer) })
    const digest = `sha256:${hash("sha256", changed, "hex")}`
    sources.delete(old)
    sources.set(`blobs/${digest.replace(":", "/")}`, changed)
    const entry = { ...manifests[1], digest }
    sources.set("index.json", JSON.stringify({ manifests: [manifests[0], entry] }))
    const archive = writeTar([...sources].map(([name, text]) => textSource(name, text)))
    await rejects(imported(target, archive), { code: "invalid-input", message })
    expect(readdirSync(join(target.root, "blobs"))).toEqual([])
    expect(openStore(target.root, { readOnly: true }).list().models).toEqual([])
  })

  test("a model that takes the place of another takes its blobs away, unless they are to stay", async () => {
    using source = twoModels()
    for (const keepsUnused of [false, true]) {
      using target = new TestStore()
      const old = target.blob(MEDIA_TYPES.model, "old weights")
      target.model("one", [old])
      const writer = new StoreWriter(openStore(target.root, { readOnly: false }))
      // oxlint-disable-next-line no-await-in-loop
      await drain(importModels(writer, exported(source, "one"), { keepsUnused }))
      expect(existsSync(blobFilePath(target.root, old.digest))).toBe(keepsUnused)
    }
  })

  test.each([
    ["no index", []],
    ["no models", [json("index.json", { schemaVersion: 2, manifests: [] })]],
    [
      "a manifest that is not in it",
      [json("index.json", { manifests: [{ digest: "sha256:" + "ab".repeat(32) }] })],
    ],
    ["a digest with a path", [json("index.json", { manifests: [{ digest: "sha256:../../x" }] })]],
    ["an index that is a list", [json("index.json", [])]],
  ])("refuses an archive with %s", async (_, sources) => {
    using target = new TestStore()
    await rejects(imported(target, writeTar(sources)), { code: "invalid-input" })
  })

  test("names in an archive never become paths", async () => {
    using target = new TestStore()
    const evil = ["../escape", "/etc/escape", "blobs/sha256/../../x", "manifests/a/b/c/d"]
    const sources = evil.map((name) => json(name, { evil: true }))
    await rejects(imported(target, writeTar(sources)), { message: /has no models/ })
    expect(readdirSync(target.root)).toEqual([".cria.lock"])
  })
})

function json(name: string, value: unknown): TarSource {
  return textSource(name, JSON.stringify(value))
}

function textSource(name: string, text: string): TarSource {
  const bytes = Buffer.from(text)
  return { name, size: bytes.length, content: [bytes] }
}

/** The files of an archive of texts. */
async function sourcesOf(archive: AsyncIterable<Uint8Array>): Promise<Map<string, string>> {
  const sources = new Map<string, string>()
  for await (const { name, content: bytes } of readTar(archive)) {
    sources.set(name, Buffer.concat(await Array.fromAsync(bytes)).toString())
  }
  return sources
}

async function* chunks(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += 1000) yield bytes.subarray(at, at + 1000)
}
