import { describe, expect, test } from "bun:test"
import { rejects } from "node:assert/strict"
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from "node:fs"
import { dirname, join } from "node:path"

import { drain } from "../util/iterate.ts"
import { blobFilePath, type Digest, parseDigest } from "./digest.ts"
import { openStore, type Store } from "./folder-store.ts"
import { MEDIA_TYPES } from "./manifest.ts"
import { manifestPath, parseName } from "./name.ts"
import { rememberPull } from "./pending.ts"
import { manifestText, TestStore } from "./test-store.ts"
import { StoreWriter } from "./writer.ts"

/** A store on disk with its reading and its writing side. */
class Opened extends TestStore {
  readonly store: Store = openStore(this.root, { readOnly: false })
  readonly writer = new StoreWriter(this.store)

  has(digest: Digest): boolean {
    return existsSync(blobFilePath(this.root, digest))
  }

  blobNames(): string[] {
    return readdirSync(join(this.root, "blobs")).toSorted()
  }

  /** Installs a model through the writer. */
  async install(name: string, ...contents: readonly string[]): Promise<Digest[]> {
    const layers = []
    for (const content of contents) {
      const { digest, size } = await this.writer.putBytes(content)
      layers.push({ mediaType: MEDIA_TYPES.model, digest, size })
    }
    const config = { ...layers[0], mediaType: MEDIA_TYPES.config }
    const bytes = Buffer.from(manifestText({ config, layers }))
    await this.writer.writeManifest(parseName(name), bytes)
    return layers.map((layer) => layer.digest)
  }
}

const UNKNOWN = parseDigest(`sha256:${"ab".repeat(32)}`)

describe("StoreWriter — blobs", () => {
  test("a stream becomes a blob under its digest, and nothing else stays", async () => {
    using opened = new Opened()
    const put = await opened.writer.putStream([Buffer.from("hel"), Buffer.from("lo")])
    expect(put.digest).toBe(
      parseDigest("sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"),
    )
    expect(put).toMatchObject({ size: 5, isNew: true })
    expect(readFileSync(blobFilePath(opened.root, put.digest), "utf8")).toBe("hello")
    expect(opened.blobNames()).toHaveLength(1)
  })

  test("the same content again is the same blob, made young", async () => {
    using opened = new Opened()
    const { digest } = await opened.writer.putBytes("x")
    const path = blobFilePath(opened.root, digest)
    utimesSync(path, 1000, 1000)
    expect(await opened.writer.putBytes("x")).toEqual({ digest, size: 1, isNew: false })
    expect(statSync(path).mtimeMs).toBeGreaterThan(1_000_000)
  })

  test("a blob that something cut off is replaced", async () => {
    using opened = new Opened()
    const { digest } = await opened.writer.putBytes("whole")
    writeFileSync(blobFilePath(opened.root, digest), "who")
    expect(await opened.writer.putBytes("whole")).toMatchObject({ isNew: true })
    expect(readFileSync(blobFilePath(opened.root, digest), "utf8")).toBe("whole")
  })

  test("content with another digest than promised leaves nothing", async () => {
    using opened = new Opened()
    await rejects(opened.writer.putStream([Buffer.from("x")], { expected: UNKNOWN }), {
      code: "invalid-input",
      message: /^digest mismatch, expected "sha256:abab/,
    })
    expect(opened.blobNames()).toEqual([])
  })

  test("content that is too long leaves nothing", async () => {
    using opened = new Opened()
    const endless = (function* () {
      for (;;) yield new Uint8Array(1000)
    })()
    await rejects(opened.writer.putStream(endless, { bytesMax: 5000 }), { code: "invalid-input" })
    expect(opened.blobNames()).toEqual([])
  })

  test("a stream that fails or is aborted leaves nothing", async () => {
    using opened = new Opened()
    const broken = (function* () {
      yield Buffer.from("x")
      throw new Error("cut off")
    })()
    await rejects(opened.writer.putStream(broken), { message: "cut off" })
    const signal = AbortSignal.abort(new Error("enough"))
    await rejects(opened.writer.putStream([Buffer.from("x")], { signal }), { message: "enough" })
    expect(opened.blobNames()).toEqual([])
  })

  test("a download is adopted by moving it", async () => {
    using opened = new Opened()
    const { digest } = await opened.writer.putBytes("x")
    await opened.writer.removeUnreferenced([digest])
    const partial = opened.writer.partialPath(digest)
    writeFileSync(partial, "x")
    expect(opened.writer.partialPath(digest, "-3")).toBe(`${partial}-3`)
    expect(opened.writer.adoptBlob(partial, digest)).toBe(true)
    expect(opened.blobNames()).toEqual([digest.replace(":", "-")])
  })

  test.skipIf(process.getuid?.() === 0)(
    "a file that nobody may write is adopted, too (needs a user other than root)",
    async () => {
      using opened = new Opened()
      const temporary = opened.writer.temporaryPath()
      writeFileSync(temporary, "x", { mode: 0o444 })
      expect(await drain(opened.writer.adoptFile(temporary))).toMatchObject({
        size: 1,
        isNew: true,
      })
    },
  )

  test("a read-only store says so", () => {
    using opened = new Opened()
    const store = openStore(opened.root, { readOnly: true })
    expect(() => new StoreWriter(store)).toThrow("read-only store")
  })

  test("a folder that cannot be written is a clear error", async () => {
    using opened = new Opened()
    opened.write("blobs", "a file where the folder should be")
    await rejects(opened.writer.putBytes("x"), { code: "unavailable", message: /^Cannot write "/ })
  })
})

describe("StoreWriter — manifests", () => {
  test("are kept byte for byte", async () => {
    using opened = new Opened()
    const { digest, size } = await opened.writer.putBytes("{}")
    const config = { digest, size, mediaType: MEDIA_TYPES.config }
    const text = ` ${manifestText({ config, layers: null, more: [1, 2] })}\n\n`
    await opened.writer.writeManifest(parseName("m"), Buffer.from(text))
    expect(readFileSync(manifestPath(opened.root, parseName("m")), "utf8")).toBe(text)
    expect(opened.store.find(parseName("m"))?.manifest.layers).toEqual([])
  })

  test("name only blobs that are there", async () => {
    using opened = new Opened()
    const config = { digest: UNKNOWN, size: 1, mediaType: MEDIA_TYPES.config }
    const bytes = Buffer.from(manifestText({ config, layers: [] }))
    await rejects(opened.writer.writeManifest(parseName("m"), bytes), { code: "conflict" })
    expect(opened.store.list()).toEqual({ models: [], problems: [] })
  })

  test("that are none are refused", async () => {
    using opened = new Opened()
    await rejects(opened.writer.writeManifest(parseName("m"), Buffer.from("{}")), {
      message: /^Cannot read manifest/,
    })
    expect(existsSync(join(opened.root, "manifests"))).toBe(false)
  })

  test("take the casing of what is installed, and say what they replaced", async () => {
    using opened = new Opened()
    const [old] = await opened.install("Model", "old")
    const { digest, size } = await opened.writer.putBytes("new")
    const config = { digest, size, mediaType: MEDIA_TYPES.config }
    const bytes = Buffer.from(manifestText({ config, layers: [] }))
    const replaced = await opened.writer.writeManifest(parseName("mODEL"), bytes)
    expect(replaced?.config.digest).toBe(old)
    expect(opened.store.list().models.map((model) => model.name.model)).toEqual(["Model"])
  })
})

describe("StoreWriter — removal", () => {
  test("takes the blobs that only this model has, and empty folders", async () => {
    using opened = new Opened()
    const [shared, own] = await opened.install("host/ns/a:1", "shared", "own")
    await opened.install("b", "shared")
    expect(await opened.writer.removeModel(parseName("HOST/ns/A:1"))).toBe(true)
    expect(shared && opened.has(shared)).toBe(true)
    expect(own && opened.has(own)).toBe(false)
    expect(readdirSync(join(opened.root, "manifests"))).toEqual(["registry.ollama.ai"])
    expect(await opened.writer.removeModel(parseName("host/ns/a:1"))).toBe(false)
  })

  test("keeps what only Ollama's newer tree names, and manifests that are blobs there", async () => {
    using opened = new Opened()
    const [weights] = await opened.install("a", "weights")
    const text = readFileSync(manifestPath(opened.root, parseName("a")), "utf8")
    const { digest } = await opened.writer.putBytes(text)
    opened.write("manifests-v2/registry.ollama.ai/library/a/latest", text)
    await opened.writer.removeModel(parseName("a"))
    expect(weights && opened.has(weights)).toBe(true)
    expect(await opened.writer.removeUnreferenced([digest])).toEqual([])
  })

  test("keeps what a pull that runs needs, and takes it when none does", async () => {
    using opened = new Opened()
    const [shared] = await opened.install("a", "shared")
    const text = readFileSync(manifestPath(opened.root, parseName("a")))
    {
      using _ = await rememberPull(opened.root, text)
      await opened.writer.removeModel(parseName("a"))
      expect(shared && opened.has(shared)).toBe(true)
    }
    expect(await opened.writer.removeUnreferenced(shared ? [shared] : [])).toHaveLength(1)
  })

  test("keeps blobs while some manifest cannot be read at all", async () => {
    using opened = new Opened()
    const [weights] = await opened.install("a", "weights")
    opened.write("manifests/h/n/m/big", " ".repeat(5_000_000))
    expect(await opened.writer.removeModel(parseName("a"))).toBe(true)
    expect(weights && opened.has(weights)).toBe(true)
  })

  test("works for a manifest that is damaged", async () => {
    using opened = new Opened()
    await opened.install("a", "weights")
    writeFileSync(manifestPath(opened.root, parseName("a")), "{ cut o")
    expect(await opened.writer.removeModel(parseName("a"))).toBe(true)
    expect(opened.store.list()).toEqual({ models: [], problems: [] })
  })
})

describe("StoreWriter — links", () => {
  test("below the manifests are not followed, whoever made them", async () => {
    using opened = new Opened()
    using outside = new Opened()
    await outside.install("ann/m", "weights")
    const theirs = manifestPath(outside.root, parseName("ann/m"))
    const folder = dirname(dirname(dirname(manifestPath(opened.root, parseName("ann/m")))))
    mkdirSync(folder, { recursive: true })
    symlinkSync(dirname(dirname(theirs)), join(folder, "ann"))
    const refused = { code: "unavailable", message: /"ann\/m:latest": .* leads out of the store/ }
    await rejects(opened.writer.removeModel(parseName("ann/m")), refused)
    const bytes = readFileSync(theirs)
    const { digest } = await opened.writer.putBytes("weights")
    expect(opened.has(digest)).toBe(true)
    await rejects(opened.writer.writeManifest(parseName("ann/m"), bytes), refused)
    await rejects(opened.writer.writeManifest(parseName("ann/new"), bytes), /leads out of/)
    expect(readFileSync(theirs)).toEqual(bytes)
  })

  test("a blob that is a link goes, what it leads to stays", async () => {
    using opened = new Opened()
    using outside = new TestStore()
    const shared = outside.write("shared", "weights")
    const [digest] = await opened.install("m", "weights")
    if (digest === undefined) throw new Error("it has a blob")
    rmSync(blobFilePath(opened.root, digest))
    symlinkSync(shared, blobFilePath(opened.root, digest))
    expect(await opened.writer.removeModel(parseName("m"))).toBe(true)
    expect(opened.blobNames()).toEqual([])
    expect(readFileSync(shared, "utf8")).toBe("weights")
  })

  test("manifests and blobs may be folders elsewhere", async () => {
    using opened = new Opened()
    using elsewhere = new TestStore()
    for (const name of ["manifests", "blobs"]) {
      mkdirSync(join(elsewhere.root, name))
      symlinkSync(join(elsewhere.root, name), join(opened.root, name))
    }
    const [digest] = await opened.install("m", "weights")
    expect(readdirSync(join(elsewhere.root, "blobs"))).toHaveLength(1)
    expect(await opened.writer.removeModel(parseName("m"))).toBe(true)
    expect(opened.has(digest ?? UNKNOWN)).toBe(false)
  })
})
