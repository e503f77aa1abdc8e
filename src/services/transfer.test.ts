import { describe, expect, test } from "bun:test"
import { rejects } from "node:assert/strict"
import { hash, randomBytes } from "node:crypto"
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statfsSync,
  statSync,
  writeFileSync,
} from "node:fs"
import { dirname, join } from "node:path"

import { encodeGguf, type GgufInput, packStrings, text, u32 } from "../gguf/write.ts"
import { CuttingProxy } from "../registry/cutting-proxy.ts"
import { rangeReply } from "../registry/fake-hub.ts"
import { FakeRegistry, type SeenRequest, slowReply } from "../registry/fake-registry.ts"
import { formatNote } from "../registry/parts.ts"
import { PATIENCE } from "../registry/retry.ts"
import type { Device } from "../runner/devices.ts"
import { parseManifest } from "../store/manifest.ts"
import { StoreWriter } from "../store/writer.ts"
import { Chooser } from "./choose.ts"
import { challenge, isMonotonic, Machine, statuses } from "./test-machine.ts"

const MIB = 2 ** 20

const LARGE = randomBytes(40 * MIB + 12_345)

/** Lets the first piece through and no other. */
function quiet(index: number): Promise<void> {
  return index === 0 ? Promise.resolve() : new Promise<void>(() => {})
}

/** Whether a note says that bytes of its part have come. */
function hasBegun(note: string): boolean {
  try {
    return (JSON.parse(readFileSync(note, "utf8")) as { Completed: number }).Completed > 0
  } catch {
    // It is not there yet, or just written.
    return false
  }
}

describe("pull", () => {
  test("brings the manifest and all blobs, byte for byte, and says what Ollama says", async () => {
    await using registry = new FakeRegistry()
    await using machine = new Machine()
    const contents = [LARGE, Buffer.from("small"), Buffer.alloc(0)]
    const digests = registry.add("me/m:latest", contents)
    const progress = await machine.pull(`${registry.host}/me/m`)
    const config = `sha256:${hash("sha256", "{}", "hex")}`
    expect(statuses(progress)).toEqual([
      "pulling manifest",
      ...[...digests, config].map((digest) => `pulling ${digest.slice(7, 19)}`),
      "verifying sha256 digest",
      "writing manifest",
      "success",
    ])
    expect(isMonotonic(progress)).toBe(true)
    expect(machine.manifest(`${registry.host}/me/m`)).toEqual(
      Buffer.from(registry.manifests.get("me/m:latest") ?? []),
    )
    expect(digests.map((digest) => machine.blob(digest).equals(contents.shift() ?? LARGE))).toEqual(
      [true, true, true],
    )
    expect(machine.files()).toHaveLength(4)
    expect(readdirSync(join(machine.store.root, ".cria-locks"))).toEqual([])
  })

  test("what is there is not fetched again; a blob of the wrong size is", async () => {
    await using registry = new FakeRegistry()
    await using machine = new Machine()
    const [digest = ""] = registry.add("me/m:latest", [Buffer.from("weights")])
    await machine.pull(`${registry.host}/me/m`)
    registry.log.length = 0
    const again = await machine.pull(`${registry.host}/me/m`)
    expect(registry.log.map(({ line }) => line)).toEqual([
      "GET /v2/me/m/tags/list",
      "GET /v2/me/m/manifests/latest",
    ])
    expect(again.find((line) => line.digest === digest)?.completed).toBe(7)
    writeFileSync(machine.path(digest), "weig")
    await machine.pull(`${registry.host}/me/m`)
    expect(machine.blob(digest).toString()).toBe("weights")
  })

  test("a new version replaces the old one and removes what nobody needs any more", async () => {
    await using registry = new FakeRegistry()
    await using machine = new Machine()
    const [old = ""] = registry.add("me/m:latest", [Buffer.from("old")])
    await machine.pull(`${registry.host}/me/m`)
    registry.add("me/m:latest", [Buffer.from("new")])
    const progress = await machine.pull(`${registry.host}/me/m`)
    expect(statuses(progress).slice(-3)).toEqual([
      "writing manifest",
      "removing unused layers",
      "success",
    ])
    expect(existsSync(machine.path(old))).toBe(false)
  })

  test("what it has in common with a model that is removed meanwhile stays", async () => {
    await using registry = new FakeRegistry()
    await using machine = new Machine()
    registry.add("me/old:latest", [Buffer.from("shared")])
    registry.add("me/new:latest", [Buffer.from("shared"), Buffer.from("own")])
    await machine.pull(`${registry.host}/me/old`)
    const old = machine.parse(`${registry.host}/me/old`)
    const progress: string[] = []
    for await (const { status } of machine.transfers.pull(`${registry.host}/me/new`, {
      insecure: true,
    })) {
      if (status.startsWith("verifying")) await new StoreWriter(machine.store).removeModel(old)
      progress.push(status)
    }
    expect(progress.at(-1)).toBe("success")
  })

  test("a manifest that lies about a size gets nothing from the pull of one that does not", async () => {
    await using registry = new FakeRegistry()
    await using machine = new Machine()
    const [digest = ""] = registry.add("me/m:latest", [LARGE])
    const honest = registry.manifests.get("me/m:latest") ?? new Uint8Array()
    const lie = Buffer.from(honest).toString().replace(`:${LARGE.length}`, ":12345")
    registry.manifests.set("me/lie:latest", Buffer.from(lie))
    const started = Promise.withResolvers<void>()
    registry.fault = async ({ path }) => {
      if (path.includes(digest)) started.resolve()
      if (path.includes("lie/manifests")) await started.promise
      return undefined
    }
    const both = ["m", "lie"].map((name) => machine.pull(`${registry.host}/me/${name}`))
    const [good, bad] = await Promise.allSettled(both)
    expect(good?.status).toBe("fulfilled")
    expect(bad).toMatchObject({ status: "rejected", reason: { code: "unavailable" } })
    expect(machine.blob(digest).equals(LARGE)).toBe(true)
  })

  test("two pulls at once share one download; the one that stays gets it", async () => {
    await using registry = new FakeRegistry()
    await using machine = new Machine()
    const [digest = ""] = registry.add("me/a:latest", [LARGE])
    registry.add("me/b:latest", [LARGE])
    const gate = Promise.withResolvers<void>()
    registry.fault = ({ path, headers }) => {
      if (!path.includes(digest)) return undefined
      const [, from = "0", to = "0"] = /(\d+)-(\d+)/.exec(headers.get("Range") ?? "") ?? []
      const bytes = LARGE.subarray(Number(from), Number(to) + 1)
      const { headers: head, status } = rangeReply(LARGE, Number(from), Number(to) + 1)
      return slowReply([bytes], () => gate.promise, { status, headers: head })
    }
    const leaving = machine.transfers.pull(`${registry.host}/me/a`, { insecure: true })
    const staying = machine.transfers.pull(`${registry.host}/me/b`, { insecure: true })
    // "pulling manifest", then the first line of the blob: the download runs.
    for (const pull of [leaving, staying]) {
      await pull.next()
      expect((await pull.next()).value?.digest).toBe(digest)
    }
    await leaving.return(undefined)
    gate.resolve()
    expect((await Array.fromAsync(staying)).at(-1)).toEqual({ status: "success" })
    expect(machine.blob(digest).equals(LARGE)).toBe(true)
    // 40 MiB are three parts.
    expect(registry.count(new RegExp(digest))).toBe(3)
  })

  test("cancelling keeps what was fetched, and the next pull goes on from there", async () => {
    await using registry = new FakeRegistry()
    await using machine = new Machine()
    const [digest = ""] = registry.add("me/m:latest", [LARGE])
    const half = 8 * MIB
    const forever = new Promise<void>(() => {})
    registry.fault = ({ path, headers }) => {
      if (!path.includes(digest)) return undefined
      const [, from = "0", to = "0"] = /(\d+)-(\d+)/.exec(headers.get("Range") ?? "") ?? []
      const [start, end] = [Number(from), Number(to) + 1]
      const { headers: head, status } = rangeReply(LARGE, start, end)
      const pieces = [LARGE.subarray(start, start + half), LARGE.subarray(start + half, end)]
      return slowReply(pieces, (i) => (i === 0 ? Promise.resolve() : forever), {
        status,
        headers: head,
      })
    }
    const cancel = new AbortController()
    const seen: number[] = []
    const pulling = machine.transfers.pull(`${registry.host}/me/m`, {
      insecure: true,
      signal: cancel.signal,
    })
    await rejects(async () => {
      for await (const { completed = 0 } of pulling) {
        seen.push(completed)
        if (completed >= 3 * half - 3 * MIB) cancel.abort(new Error("enough"))
      }
    }, /enough/)
    expect(machine.files().filter((name) => name.includes("-partial-")).length).toBeGreaterThan(0)
    const pulls = join(machine.store.root, ".cria-pulls")
    expect(readdirSync(pulls)).toHaveLength(1)
    registry.fault = () => undefined
    registry.log.length = 0
    const progress = await machine.pull(`${registry.host}/me/m`)
    expect(machine.blob(digest).equals(LARGE)).toBe(true)
    const fetched = registry.log.reduce((sum, { range }) => {
      const [, from = "0", to = "-1"] = /(\d+)-(\d+)/.exec(range ?? "") ?? []
      return sum + Number(to) + 1 - Number(from)
    }, 0)
    expect(fetched).toBeLessThan(LARGE.length - 3 * half + 4 * MIB)
    expect(isMonotonic(progress)).toBe(true)
    expect(machine.files()).toHaveLength(2)
    expect(readdirSync(pulls)).toEqual([])
  })

  test("goes on from what Ollama has left", async () => {
    await using registry = new FakeRegistry()
    await using machine = new Machine()
    const [digest = ""] = registry.add("me/m:latest", [LARGE])
    const partial = `${machine.path(digest)}-partial`
    mkdirSync(dirname(partial), { recursive: true })
    writeFileSync(partial, LARGE)
    writeFileSync(`${partial}-0`, `{"N":0,"Offset":0,"Size":${30 * MIB},"Completed":${30 * MIB}}`)
    writeFileSync(
      `${partial}-1`,
      `{"N":1,"Offset":${30 * MIB},"Size":${LARGE.length - 30 * MIB},"Completed":0}`,
    )
    await machine.pull(`${registry.host}/me/m`)
    expect(machine.blob(digest).equals(LARGE)).toBe(true)
    const ranges = registry.log.flatMap(({ line, range }) => (line.includes(digest) ? [range] : []))
    expect(ranges).toEqual([`bytes=${30 * MIB}-${LARGE.length - 1}`])
  })

  test("a partial file that was tampered with is found out, and removed", async () => {
    await using registry = new FakeRegistry()
    await using machine = new Machine()
    const [digest = ""] = registry.add("me/m:latest", [LARGE])
    const partial = `${machine.path(digest)}-partial`
    mkdirSync(dirname(partial), { recursive: true })
    const size = 20 * MIB
    writeFileSync(partial, Buffer.alloc(LARGE.length, 1))
    writeFileSync(`${partial}-0`, formatNote({ index: 0, offset: 0, size, completed: size }))
    await rejects(machine.pull(`${registry.host}/me/m`), {
      message: new RegExp(`^digest mismatch, file must be downloaded again: want ${digest}, got`),
    })
    expect(machine.files()).toEqual([])
    expect(existsSync(join(machine.store.root, "manifests"))).toBe(false)
    expect((await machine.pull(`${registry.host}/me/m`)).at(-1)?.status).toBe("success")
  })

  test("a registry that ignores ranges is read from the beginning, once", async () => {
    await using registry = new FakeRegistry()
    await using machine = new Machine()
    registry.ignoresRanges = true
    const [digest = ""] = registry.add("me/m:latest", [LARGE])
    const progress = await machine.pull(`${registry.host}/me/m`)
    expect(machine.blob(digest).equals(LARGE)).toBe(true)
    expect(registry.count(new RegExp(digest))).toBe(1)
    expect(isMonotonic(progress)).toBe(true)
  })

  test("connections that are cut are replaced, ranges or not", async () => {
    for (const ignoresRanges of [false, true]) {
      await using registry = new FakeRegistry()
      // Of what arrives just before a cut some may be lost, so that there is no progress.
      await using machine = new Machine({ tries: 20 })
      registry.ignoresRanges = ignoresRanges
      const [digest = ""] = registry.add("me/m:latest", [LARGE])
      const limits = ignoresRanges ? [9 * MIB, 30 * MIB] : Array<number>(12).fill(MIB)
      const cuts = limits.length
      await using proxy = await CuttingProxy.start(registry.host, limits)
      const progress = await machine.pull(`${proxy.host}/me/m`)
      expect(machine.blob(digest).equals(LARGE)).toBe(true)
      expect(proxy.cuts).toBe(cuts)
      expect(isMonotonic(progress)).toBe(true)
    }
  })

  test("the end of a slow part is taken over by connections that have nothing to do", async () => {
    await using registry = new FakeRegistry()
    await using machine = new Machine({ stealMs: 100 })
    const [digest = ""] = registry.add("me/m:latest", [LARGE])
    const ends: number[] = []
    const taken = Promise.withResolvers<void>()
    registry.fault = ({ path, headers }) => {
      if (!path.includes(digest)) return undefined
      const [, from = "0", to = "0"] = /(\d+)-(\d+)/.exec(headers.get("Range") ?? "") ?? []
      const [start, end] = [Number(from), Number(to) + 1]
      ends.push(end)
      if (start > 0 && end === 16 * MIB) taken.resolve()
      if (start > 0) return undefined
      // The first part comes in two pieces, the second when somebody else has asked for its end.
      const { headers: head, status } = rangeReply(LARGE, start, end)
      const pieces = [LARGE.subarray(0, end / 8), LARGE.subarray(end / 8, end)]
      const next = (i: number) => (i === 0 ? Promise.resolve() : taken.promise)
      return slowReply(pieces, next, { status, headers: head })
    }
    const progress = await machine.pull(`${registry.host}/me/m`)
    expect(machine.blob(digest).equals(LARGE)).toBe(true)
    expect(ends.filter((end) => end === 16 * MIB).length).toBeGreaterThan(1)
    expect(isMonotonic(progress)).toBe(true)
  })

  test("a connection that goes quiet is replaced", async () => {
    await using registry = new FakeRegistry()
    await using machine = new Machine({ stallMs: 1000 })
    const [digest = ""] = registry.add("me/m:latest", [LARGE])
    registry.fault = ({ path, headers, nth }) => {
      if (!path.includes(digest) || nth > 1) return undefined
      const [, from = "0", to = "0"] = /(\d+)-(\d+)/.exec(headers.get("Range") ?? "") ?? []
      const { headers: head, status } = rangeReply(LARGE, Number(from), Number(to) + 1)
      const pieces = [LARGE.subarray(Number(from), Number(from) + 100_000), Buffer.from("x")]
      return slowReply(pieces, quiet, { status, headers: head })
    }
    await machine.pull(`${registry.host}/me/m`)
    expect(machine.blob(digest).equals(LARGE)).toBe(true)
  })

  test.each([408, 416, 429, 500, 502, 503])("status %d passes", async (status) => {
    await using registry = new FakeRegistry()
    await using machine = new Machine()
    const [digest = ""] = registry.add("me/m:latest", [LARGE])
    registry.fault = ({ path, nth }) =>
      nth % 2 === 0 && (path.includes(digest) || status !== 416)
        ? new Response("not now", { status, headers: { "Retry-After": "0" } })
        : undefined
    await machine.pull(`${registry.host}/me/m`)
    expect(machine.blob(digest).equals(LARGE)).toBe(true)
  })

  test("a registry that never recovers is given up, and what has arrived is kept", async () => {
    await using registry = new FakeRegistry()
    await using machine = new Machine({ pauseMs: 100 })
    const [digest = ""] = registry.add("me/m:latest", [LARGE])
    registry.fault = async ({ path, headers }) => {
      if (!path.includes(digest) || (headers.get("Range") ?? "").startsWith("bytes=0-"))
        return undefined
      // By then something has arrived, and is noted.
      while (!hasBegun(`${machine.path(digest)}-partial-0`)) await Bun.sleep(5)
      return new Response("broken", { status: 500 })
    }
    await rejects(machine.pull(`${registry.host}/me/m`), {
      code: "unavailable",
      message: "max retries exceeded: 500: broken",
      hint: /go on from there/,
    })
    registry.fault = () => undefined
    registry.log.length = 0
    await machine.pull(`${registry.host}/me/m`)
    const lines = registry.log.filter(({ line }) => line.includes(digest))
    expect(lines.some(({ range }) => range?.startsWith("bytes=0-") === true)).toBe(false)
  })

  test("wrong bytes are found out and leave nothing", async () => {
    await using registry = new FakeRegistry()
    await using machine = new Machine()
    const [digest = ""] = registry.add("me/m:latest", [LARGE])
    const wrong = Buffer.from(LARGE)
    wrong[12_345_678] = (wrong[12_345_678] ?? 0) ^ 1
    registry.blobs.set(digest, wrong)
    await rejects(machine.pull(`${registry.host}/me/m`), { message: /^digest mismatch/ })
    expect(machine.files()).toEqual([])
  })

  test.each([
    ["longer than the manifest says", (b: Buffer) => Buffer.concat([b, b])],
    ["shorter than the manifest says", (b: Buffer) => b.subarray(0, b.length - 1)],
  ])("a blob that is %s", async (_, change) => {
    for (const ignoresRanges of [false, true]) {
      await using registry = new FakeRegistry()
      await using machine = new Machine()
      registry.ignoresRanges = ignoresRanges
      const [digest = ""] = registry.add("me/m:latest", [Buffer.from("weights")])
      registry.blobs.set(digest, change(Buffer.from("weights")))
      await rejects(machine.pull(`${registry.host}/me/m`), {
        message: /the registry has \d+ bytes, its manifest says 7$/,
      })
      expect(existsSync(join(machine.store.root, "manifests"))).toBe(false)
    }
  })

  test("a range that is not the one asked for is not believed", async () => {
    await using registry = new FakeRegistry()
    await using machine = new Machine()
    const [digest = ""] = registry.add("me/m:latest", [LARGE])
    registry.fault = ({ path }) => (path.includes(digest) ? rangeReply(LARGE, 5, 100) : undefined)
    await rejects(machine.pull(`${registry.host}/me/m`), {
      message: /^max retries exceeded: .*sent range "bytes 5-99\/\d+" for bytes 0-/,
    })
  })

  test("a name that is not there", async () => {
    await using registry = new FakeRegistry()
    await using machine = new Machine()
    await rejects(machine.pull(`${registry.host}/me/none`), {
      code: "not-found",
      message: "pull model manifest: file does not exist",
    })
    expect(machine.files()).toEqual([])
  })

  test("http:// needs to be asked for; a registry has to be allowed; offline means no request", async () => {
    await using registry = new FakeRegistry()
    await using machine = new Machine()
    expect(() =>
      machine.transfers.pull(`http://${registry.host}/me/m`, { insecure: false }),
    ).toThrow("insecure protocol http")
    await using picky = new Machine({ registries: ["registry.ollama.ai"] })
    expect(() => picky.transfers.pull(`${registry.host}/me/m`, { insecure: true })).toThrow(
      "not allowed",
    )
    await using offline = new Machine({ isOffline: true })
    expect(() => offline.transfers.pull("m", { insecure: false })).toThrow("offline")
    expect(registry.log).toEqual([])
  })
})

describe("pull — manifests that nobody should send", () => {
  const digest = `sha256:${"ab".repeat(32)}`
  const layer = { mediaType: "application/vnd.ollama.image.model", digest, size: 4 }
  const whole = { schemaVersion: 2, config: layer, layers: [layer] }

  test.each<[string, unknown]>([
    ["no layers", { ...whole, layers: [] }],
    ["null for layers", { ...whole, layers: null }],
    ["null as a layer", { ...whole, layers: [null] }],
    ["a million layers", { ...whole, layers: Array.from({ length: 1_000_000 }, () => 0) }],
    [
      "a digest that is a path",
      { ...whole, layers: [{ ...layer, digest: "sha256:../../../etc/passwd" }] },
    ],
    ["a digest that is too short", { ...whole, layers: [{ ...layer, digest: "sha256:ab" }] }],
    [
      "a digest of another kind",
      { ...whole, layers: [{ ...layer, digest: `sha512:${"ab".repeat(64)}` }] },
    ],
    ["a negative size", { ...whole, layers: [{ ...layer, size: -1 }] }],
    ["a size past 2^53", { ...whole, layers: [{ ...layer, size: 2 ** 60 }] }],
    ["half a byte", { ...whole, layers: [{ ...layer, size: 0.5 }] }],
    ["two sizes for one digest", { ...whole, config: { ...layer, size: 5 } }],
    ["no config", { schemaVersion: 2, layers: [layer] }],
    ["version 1", { ...whole, schemaVersion: 1 }],
    ["an index", { schemaVersion: 2, manifests: [layer] }],
    ["a number", 7],
    [
      "tensors for MLX",
      { ...whole, layers: [{ ...layer, mediaType: "application/vnd.ollama.image.tensor" }] },
    ],
  ])("%s", async (_, manifest) => {
    await using registry = new FakeRegistry()
    await using machine = new Machine()
    registry.manifests.set("me/m:latest", Buffer.from(JSON.stringify(manifest)))
    await rejects(machine.pull(`${registry.host}/me/m`), { name: "CriaError" })
    expect(machine.files()).toEqual([])
    expect(registry.count(/blobs/)).toBe(0)
  })

  test("5 MiB, a gzip bomb, an unknown encoding, and text that is no JSON", async () => {
    await using registry = new FakeRegistry()
    await using machine = new Machine()
    const bomb = Bun.gzipSync(Buffer.alloc(50 * MIB, 32))
    const replies = [
      () => new Response(Buffer.alloc(5 * MIB, 32)),
      () => new Response(bomb, { headers: { "Content-Encoding": "gzip" } }),
      () => new Response("x", { headers: { "Content-Encoding": "x-unknown" } }),
      () => new Response("<html>"),
    ]
    for (const reply of replies) {
      registry.fault = reply
      await rejects(machine.pull(`${registry.host}/me/m`), { name: "CriaError" })
    }
    expect(machine.files()).toEqual([])
  })

  test("a manifest may be compressed; a blob may not", async () => {
    await using registry = new FakeRegistry()
    await using machine = new Machine()
    const [weights = ""] = registry.add("me/m:latest", [Buffer.from("weights")])
    const gzip = { headers: { "Content-Encoding": "gzip" } }
    const manifest = Bun.gzipSync(Buffer.from(registry.manifests.get("me/m:latest") ?? []))
    registry.fault = ({ path }) =>
      path.includes("manifests") ? new Response(manifest, gzip) : undefined
    await machine.pull(`${registry.host}/me/m`)
    registry.add("me/n:latest", [Buffer.from("others")])
    registry.fault = ({ path }) =>
      path.includes("blobs") ? new Response(Bun.gzipSync(Buffer.from("others")), gzip) : undefined
    await rejects(machine.pull(`${registry.host}/me/n`), { message: /sends it as gzip$/ })
    expect(statSync(machine.path(weights)).size).toBe(7)
  })

  test("a disk without room is said before anything is fetched", async () => {
    await using registry = new FakeRegistry()
    await using machine = new Machine()
    const size = 2 ** 52
    const huge = { ...whole, layers: [{ ...layer, digest: `sha256:${"cd".repeat(32)}`, size }] }
    registry.manifests.set("me/m:latest", Buffer.from(JSON.stringify(huge)))
    await rejects(machine.pull(`${registry.host}/me/m`), {
      code: "unavailable",
      message: /^Cannot download to ".*": needs 4503 TB, .* free$/,
      hint: /Free some space/,
    })
    expect(registry.count(/blobs/)).toBe(0)
  })
})

describe("pull — room", () => {
  test("has to be there for all blobs together", async () => {
    await using registry = new FakeRegistry()
    await using machine = new Machine()
    const { bavail, bsize } = statfsSync(machine.store.root)
    const size = Math.round(bavail * bsize * 0.7)
    const layer = (hex: string) => ({
      mediaType: "application/vnd.ollama.image.model",
      digest: `sha256:${hex.repeat(32)}`,
      size,
    })
    const manifest = { schemaVersion: 2, config: layer("ab"), layers: [layer("cd")] }
    registry.manifests.set("me/m:latest", Buffer.from(JSON.stringify(manifest)))
    await rejects(machine.pull(`${registry.host}/me/m`), {
      code: "unavailable",
      message: /^Cannot download to ".*blobs": needs .*, .* free$/,
    })
    expect(registry.count(/blobs/)).toBe(0)
  })
})

/** A GGUF of a small model with a context of 32768 tokens. */
async function smallModel(): Promise<Uint8Array> {
  const metadata = new Map<string, GgufInput>([
    ["general.architecture", text("llama")],
    ["llama.context_length", u32(32_768)],
    ["llama.embedding_length", u32(2048)],
    ["llama.block_count", u32(16)],
    ["llama.attention.head_count", u32(32)],
    ["llama.attention.head_count_kv", u32(8)],
    ["tokenizer.ggml.tokens", packStrings(["a", "b"])],
  ])
  return Buffer.concat(await Array.fromAsync(encodeGguf({ metadata, tensors: [] })))
}

/** A registry with a tag for each. */
async function severalQuants() {
  const registry = new FakeRegistry()
  const content = await smallModel()
  const pad = (bytes: number) => Buffer.concat([content, Buffer.alloc(bytes)])
  registry.add("me/m:q8_0", [pad(3000)])
  registry.add("me/m:q4_K_M", [pad(2000)])
  registry.add("me/m:f16", [pad(4000)])
  registry.add("me/m:latest", [pad(100)])
  return { registry, name: `${registry.host}/me/m` }
}

describe("pull — a repository with several quantisations", () => {
  test("without a tag the largest that fits is taken, said and installed as latest", async () => {
    const { registry, name } = await severalQuants()
    await using _ = registry
    await using machine = new Machine({
      devices: [{ name: "GPU", type: "gpu", totalBytes: 8 * 2 ** 30 }],
    })
    const progress = await machine.pull(name)
    expect(progress[1]?.status).toMatch(
      /^chose Q8_0 \(3\.\d KB\): the largest that fits on the GPU, with 32768 tokens of context$/,
    )
    expect(machine.manifest(name)).toEqual(Buffer.from(registry.manifests.get("me/m:q8_0") ?? []))
    const table = await machine.transfers.fits(name, { insecure: true })
    expect(table.map(({ label, place, isChosen }) => [label, place, isChosen])).toEqual([
      ["F16", "gpu", false],
      ["Q8_0", "gpu", true],
      ["Q4_K_M", "gpu", false],
    ])
  })

  test("a tag or a wish decides instead", async () => {
    const { registry, name } = await severalQuants()
    await using _ = registry
    await using machine = new Machine()
    await machine.pull(`${name}:latest`)
    expect(machine.manifest(name)).toEqual(Buffer.from(registry.manifests.get("me/m:latest") ?? []))
    expect(registry.count(/tags/)).toBe(0)
    const wish = machine.transfers.pull(name, { insecure: true, quant: "Q4_k_m" })
    await Array.fromAsync(wish)
    expect(machine.manifest(`${name}:q4_K_M`)).toEqual(
      Buffer.from(registry.manifests.get("me/m:q4_K_M") ?? []),
    )
    const unknown = machine.transfers.pull(name, { insecure: true, quant: "Q2_K" })
    await rejects(Array.fromAsync(unknown), {
      code: "not-found",
      message: /^Cannot find "Q2_K" of ".*"$/,
      hint: "There are F16, Q8_0, Q4_K_M",
    })
    registry.fault = ({ path }) => tagsReply(path, 403)
    const hidden = machine.transfers.pull(name, { insecure: true, quant: "q8_0" })
    expect((await Array.fromAsync(hidden)).at(-1)).toEqual({ status: "success" })
    const evil = machine.transfers.pull("m", { insecure: true, quant: "../x" })
    await rejects(Array.fromAsync(evil), { message: "invalid model name" })
  })

  test("tags of different models are no choice, nor is a registry that does not list them", async () => {
    const { registry, name } = await severalQuants()
    await using _ = registry
    registry.add("me/m:70b-q8_0", [Buffer.from("large")])
    for (const [fault, status] of [
      [() => undefined, /^pulling /],
      [({ path }: SeenRequest) => tagsReply(path, 404), /^pulling /],
      [
        ({ path }: SeenRequest) => tagsReply(path, 403),
        /^cannot choose a quantisation, taking latest: unauthorized: access denied$/,
      ],
      // Whoever may not see the list learns why nothing was chosen.
      [noTags, /^cannot choose a quantisation, taking latest: unauthorized: access denied$/],
    ] as const) {
      await using machine = new Machine()
      registry.fault = fault
      const progress = await machine.pull(name)
      expect(progress[1]?.status).toMatch(status)
      expect(machine.manifest(name)).toEqual(
        Buffer.from(registry.manifests.get("me/m:latest") ?? []),
      )
    }
  })
})

describe("pull — a choice with obstacles", () => {
  const devices: Device[] = [{ name: "GPU", type: "gpu", totalBytes: 8 * 2 ** 30 }]

  test("a tag whose manifest is missing or damaged does not stand in the way of the others", async () => {
    const { registry, name } = await severalQuants()
    await using _ = registry
    await using machine = new Machine({ devices })
    registry.manifests.set("me/m:q6_K", Buffer.from("{}"))
    registry.manifests.set("me/m:q5_K_M", Buffer.from("{}"))
    registry.fault = ({ path }) =>
      path.endsWith("/q5_K_M") ? new Response(null, { status: 404 }) : undefined
    const progress = await machine.pull(name)
    expect(progress[1]?.status).toMatch(/^chose Q8_0 /)
  })

  test.each<[string, () => Response]>([
    ["that is not there", () => new Response(null, { status: 404 })],
    ["that is none", () => new Response("x".repeat(9000))],
    [
      "that does not come",
      () => new Response(new ReadableStream({ pull: () => new Promise(() => {}) })),
    ],
  ])("a header %s: the sizes decide", async (_, reply) => {
    const { registry, name } = await severalQuants()
    await using owned = registry
    expect(owned.log).toEqual([])
    await using machine = new Machine({ devices, stallMs: 100 })
    const smallest = Buffer.from(registry.manifests.get("me/m:q4_K_M") ?? [])
    const { manifest } = parseManifest(smallest)
    registry.fault = ({ path }) =>
      path.endsWith(manifest.layers[0]?.digest ?? "?") ? reply() : undefined
    const progress = await machine.pull(name)
    expect(progress[1]?.status).toMatch(/^chose Q8_0 .* with 8192 tokens of context$/)
  })

  test("only one quantisation, which is too large, is said to be that", async () => {
    await using registry = new FakeRegistry()
    await using machine = new Machine({ devices })
    registry.add("me/m:q8_0", [Buffer.from("weights")])
    const manifest = JSON.parse(String(registry.manifests.get("me/m:q8_0"))) as {
      layers: { size: number }[]
    }
    manifest.layers[0] = { ...manifest.layers[0], size: 2 ** 50 }
    registry.manifests.set("me/m:q8_0", Buffer.from(JSON.stringify(manifest)))
    const seen: string[] = []
    await rejects(async () => {
      for await (const { status } of machine.transfers.pull(`${registry.host}/me/m`, {
        insecure: true,
      })) {
        seen.push(status)
      }
    }, /needs 112[56] TB/)
    expect(seen[1]).toBe(
      "chose Q8_0 (1125 TB): the only one, but too large for the memory of this machine",
    )
  })

  test("devices that could not be asked are asked again", async () => {
    let fails = true
    const chooser = new Chooser({
      cacheType: "f16",
      cache: "/nowhere",
      patience: PATIENCE,
      devices: () => (fails ? Promise.reject(new Error("no")) : Promise.resolve(devices)),
    })
    await rejects(chooser.memory(), { message: "no" })
    fails = false
    expect((await chooser.memory()).gpuBytes).toBe(8 * 2 ** 30)
  })
})

function tagsReply(path: string, status: number): Response | undefined {
  return path.includes("/tags/") ? new Response("no", { status }) : undefined
}

function noTags({ path }: { path: string }): Response | undefined {
  return tagsReply(path, 401)
}

/** The head of a reply, a few bytes, and no more. */
function endless(): Response {
  return slowReply([Buffer.from('{"to'), Buffer.from("")], quiet, {})
}

describe("small replies that do not end", () => {
  test.each<[string, RegExp]>([
    ["a manifest", /manifests/],
    ["a token", /^\/token$/],
    ["a list of tags", /tags/],
    ["the text of an error", /blobs/],
  ])("%s: the pull ends", async (_, pattern) => {
    await using registry = new FakeRegistry()
    await using machine = new Machine({ bodyMs: 50 })
    registry.add("me/m:latest", [Buffer.from("weights")])
    registry.fault = ({ path, headers }) => {
      if (pattern.test(path)) {
        return path.includes("blobs") ? new Response(endless().body, { status: 400 }) : endless()
      }
      const isOpen = headers.has("Authorization") || path === "/token"
      return isOpen || !pattern.test("/token") ? undefined : challenge(registry)
    }
    const pull = machine.pull(`${registry.host}/me/m`)
    if (pattern.test("tags")) expect(statuses(await pull)[1]).toContain("no answer in time")
    else await rejects(pull, { code: "unavailable" })
  })

  test.each(["token", "manifest"])("a %s: the pull can be cancelled", async (kind) => {
    await using registry = new FakeRegistry()
    await using machine = new Machine({ bodyMs: 60_000 })
    registry.add("me/m:q", [Buffer.from("weights")])
    const cancel = new AbortController()
    registry.fault = ({ path, headers }) => {
      if (path === "/token" && kind !== "token") return Response.json({ token: "t" })
      if (path !== "/token" && !headers.has("Authorization")) return challenge(registry)
      setTimeout(() => cancel.abort(new Error("enough")), 20)
      return endless()
    }
    await rejects(machine.pull(`${registry.host}/me/m:q`, cancel.signal), { message: "enough" })
  })
})

describe("tokens", () => {
  test("one token serves all requests, and goes to nobody else", async () => {
    await using registry = new FakeRegistry()
    await using storage = new FakeRegistry()
    await using machine = new Machine()
    const [digest = ""] = registry.add("me/m:latest", [LARGE])
    storage.add("x:y", [LARGE])
    storage.blobs.set(`sha256:${hash("sha256", "{}", "hex")}`, Buffer.from("{}"))
    registry.storage = storage.origin
    registry.fault = ({ path, headers }) => {
      if (path === "/token") return Response.json({ token: "secret" })
      return headers.get("Authorization") === "Bearer secret" ? undefined : challenge(registry)
    }
    await machine.pull(`${registry.host}/me/m`)
    expect(machine.blob(digest).equals(LARGE)).toBe(true)
    expect(registry.count(/token/)).toBe(1)
    expect(machine.signatures).toBe(1)
    expect(storage.log.every(({ authorization }) => authorization === null)).toBe(true)
    expect(storage.log.length).toBeGreaterThan(3)
    const asked = registry.log.find(({ line }) => line === "GET /token")
    expect(asked?.authorization).toBe("key:signature")
  })

  test("a direct address that expires is asked for again", async () => {
    await using registry = new FakeRegistry()
    await using storage = new FakeRegistry()
    await using machine = new Machine()
    const [digest = ""] = registry.add("me/m:latest", [LARGE])
    storage.add("x:y", [LARGE])
    registry.storage = storage.origin
    storage.blobs.set(`sha256:${hash("sha256", "{}", "hex")}`, Buffer.from("{}"))
    storage.fault = ({ nth, path }) =>
      nth === 1 && path.includes(digest) ? new Response(null, { status: 403 }) : undefined
    await machine.pull(`${registry.host}/me/m`)
    expect(machine.blob(digest).equals(LARGE)).toBe(true)
  })

  test("a realm of somebody else gets neither key nor token", async () => {
    await using registry = new FakeRegistry()
    await using thief = new FakeRegistry()
    await using machine = new Machine()
    registry.add("me/m:latest", [LARGE])
    registry.fault = () => challenge(thief)
    await rejects(machine.pull(`${registry.host}/me/m`), {
      message: `pull model manifest: realm host "${thief.host}" does not match original host "${registry.host}"`,
    })
    expect(thief.log).toEqual([])
    expect(machine.signatures).toBe(0)
  })

  test("without a key, what is public can be pulled, and what is not says what is missing", async () => {
    await using registry = new FakeRegistry()
    await using machine = new Machine({ key: "none" })
    registry.add("me/m:latest", [Buffer.from("weights")])
    let isStrict = false
    registry.fault = ({ path, headers }) => {
      if (path === "/token" && isStrict) return new Response("who are you?", { status: 401 })
      if (path === "/token") return Response.json({ token: "for-all" })
      return headers.get("Authorization") === "Bearer for-all" ? undefined : challenge(registry)
    }
    expect((await machine.pull(`${registry.host}/me/m`)).at(-1)?.status).toBe("success")
    const asked = registry.log.filter(({ line }) => line === "GET /token")
    expect(asked.map(({ authorization }) => authorization)).toEqual([null])
    isStrict = true
    await using other = new Machine({ key: "none" })
    await rejects(other.pull(`${registry.host}/me/m`), {
      message: "pull model manifest: unauthorized: access denied",
      hint: new RegExp(
        `^"${registry.host}" says: who are you\\?\nLog in with docker login ${registry.host}, .*; there is no key to sign with: Cannot write the key "/k"$`,
      ),
    })
  })

  test("a key that the registry does not know is named", async () => {
    await using registry = new FakeRegistry()
    await using machine = new Machine()
    registry.fault = ({ path }) =>
      path === "/token" ? Response.json({ token: "useless" }) : challenge(registry)
    await rejects(machine.pull(`${registry.host}/me/m`), {
      message: "pull model manifest: unauthorized: access denied",
      hint: /; or add the key in "\/k.pub" to your account there$/,
    })
  })

  test("a token that does not help, one that is no header, and a bomb", async () => {
    await using registry = new FakeRegistry()
    await using machine = new Machine()
    const tokens = [
      () => Response.json({ token: "wrong" }),
      () => Response.json({ token: "a\r\nX: y" }),
      () => Response.json({}),
      () => new Response(Buffer.alloc(MIB, 32)),
      () =>
        new Response(Bun.gzipSync(Buffer.alloc(50 * MIB)), {
          headers: { "Content-Encoding": "gzip" },
        }),
      () => new Response(null, { status: 302, headers: { Location: "http://127.0.0.1:1/" } }),
    ]
    for (const token of tokens) {
      registry.fault = ({ path }) => (path === "/token" ? token() : challenge(registry))
      await rejects(machine.pull(`${registry.host}/me/m`), { name: "CriaError" })
    }
    expect(machine.files()).toEqual([])
  })
})
