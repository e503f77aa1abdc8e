import { describe, expect, test } from "bun:test"
import { rejects } from "node:assert/strict"
import { createHash, randomBytes } from "node:crypto"
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"

import { parseDigest } from "../store/digest.ts"
import { parseName } from "../store/name.ts"
import { RegistryClient } from "./client.ts"
import { FakeRegistry } from "./fake-registry.ts"
import type { Lookup } from "./redirect.ts"
import { UploadNotes } from "./upload-notes.ts"
import { Upload, type UploadJob } from "./upload.ts"

const MIB = 2 ** 20
const PATIENCE = { tries: 4, pauseMs: 1, pauseMsMax: 500, stallMs: 5000, stealMs: 60_000 }
const NEVER = new AbortController().signal

interface UploadOptions {
  readonly replyMs?: number
  readonly sendMs?: number
  readonly storeMs?: number
  readonly pauseMs?: number
  readonly partBytesMin?: number
}

/** A blob on disk that goes to a registry as me/m, in parts of a megabyte. */
class Sender implements Disposable {
  readonly folder = mkdtempSync(join(tmpdir(), "cria-upload-"))
  readonly content: Buffer
  readonly #registry: FakeRegistry
  readonly #lookup: Lookup | undefined

  /** @param lookup Makes names mean something; the registry is called by a name then. */
  constructor(registry: FakeRegistry, bytes = 5 * MIB + 99, lookup?: Lookup) {
    this.#registry = registry
    this.#lookup = lookup
    this.content = randomBytes(bytes)
    writeFileSync(join(this.folder, "blob"), this.content)
  }

  get digest(): string {
    return `sha256:${createHash("sha256").update(this.content).digest("hex")}`
  }

  /** A new upload, as a process begins one; what earlier ones have noted is there. */
  upload(options: UploadOptions = {}): Upload {
    const { partBytesMin = MIB, pauseMs = 1, ...waits } = options
    const network = {
      userAgent: "test",
      replyMs: 5000,
      sendMs: 5000,
      storeMs: 5000,
      bodyMs: 5000,
      ...waits,
    }
    const auth = {
      credential: () => Promise.resolve(undefined),
      identity: () => ({ path: "/k", isNew: false, publicKey: "key", sign: () => "signature" }),
      realms: [],
    }
    const lookup = this.#lookup === undefined ? {} : { lookup: this.#lookup }
    const { host } = this.#registry
    const named = this.#lookup === undefined ? host : host.replace("127.0.0.1", "localhost")
    const name = parseName(`${named}/me/m`)
    const job: UploadJob = {
      client: new RegistryClient(name, { network, auth, insecure: true, ...lookup }),
      network,
      digest: parseDigest(this.digest),
      size: this.content.length,
      path: join(this.folder, "blob"),
      patience: { ...PATIENCE, pauseMs },
      notes: new UploadNotes(join(this.folder, "cache")),
      partBytesMin,
    }
    return new Upload(job)
  }

  /** Whether the registry has the blob, byte for byte. */
  hasArrived(): boolean {
    return this.content.equals(this.#registry.blobs.get(this.digest) ?? Buffer.alloc(0))
  }

  [Symbol.dispose](): void {
    rmSync(this.folder, { recursive: true, force: true })
  }
}

/** The tag that the finished upload of parts of a megabyte has. */
function etagOf(content: Buffer): string {
  const parts: Buffer[] = []
  for (let at = 0; at < content.length; at += MIB) {
    parts.push(
      createHash("md5")
        .update(content.subarray(at, at + MIB))
        .digest(),
    )
  }
  return `${createHash("md5").update(Buffer.concat(parts)).digest("hex")}-${parts.length}`
}

describe("Upload — a registry that takes the parts", () => {
  test("gets them one after the other, and their tag", async () => {
    await using registry = new FakeRegistry()
    using sender = new Sender(registry)
    await sender.upload().run(NEVER)
    expect(sender.hasArrived()).toBe(true)
    expect(registry.count(/^PATCH/)).toBe(6)
    expect(registry.etags).toEqual([etagOf(sender.content)])
  })

  test.each([0, 1, 2])("a blob of %d bytes", async (bytes) => {
    await using registry = new FakeRegistry()
    using sender = new Sender(registry, bytes)
    await sender.upload().run(NEVER)
    expect(sender.hasArrived()).toBe(true)
    expect(registry.count(/^POST/)).toBe(1)
  })

  test("one that takes parts and has nothing of them is given up", async () => {
    await using registry = new FakeRegistry()
    using sender = new Sender(registry)
    registry.fault = ({ method, path }) =>
      method === "PATCH"
        ? new Response(null, { status: 202, headers: { Location: path, Range: "0-0" } })
        : undefined
    await rejects(sender.upload().run(NEVER), { message: /^max retries exceeded: / })
  })

  test("may read more slowly than it has to answer: what counts is that it goes on", async () => {
    await using registry = new FakeRegistry()
    using sender = new Sender(registry, 24 * MIB)
    // Three seconds for all of it, never long for a piece.
    let read = 0
    registry.onPiece = (_, bytes) => {
      const ms = (3000 * (bytes - read)) / sender.content.length
      read = bytes
      return Bun.sleep(ms)
    }
    await sender.upload({ replyMs: 500, sendMs: 1500, partBytesMin: 24 * MIB }).run(NEVER)
    expect(sender.hasArrived()).toBe(true)
    expect(registry.count(/^PATCH/)).toBe(1)
  })

  test("one that takes no more is given up, and goes on where it is", async () => {
    await using registry = new FakeRegistry()
    using sender = new Sender(registry, 24 * MIB)
    let isStuck = true
    registry.onPiece = (_, bytes) => {
      if (!isStuck || bytes < MIB / 2) return undefined
      isStuck = false
      return new Promise(() => {})
    }
    // A part so large that it does not fit into the buffers on the way.
    await sender.upload({ sendMs: 1000, partBytesMin: 24 * MIB }).run(NEVER)
    expect(sender.hasArrived()).toBe(true)
  })

  test("may take its time to store what it has", async () => {
    await using registry = new FakeRegistry()
    using sender = new Sender(registry)
    registry.fault = async ({ method }) => {
      if (method === "PUT") await Bun.sleep(1500)
      return undefined
    }
    await sender.upload({ replyMs: 500, sendMs: 500 }).run(NEVER)
    expect(sender.hasArrived()).toBe(true)
    expect(registry.count(/^PUT/)).toBe(1)
  })

  test("an answer that is lost is no reason to send anything again", async () => {
    await using registry = new FakeRegistry()
    using sender = new Sender(registry)
    registry.fault = ({ method }) => {
      if (method !== "PUT") return undefined
      registry.blobs.set(sender.digest, sender.content)
      registry.uploads.clear()
      return new Response("the upstream did not answer", { status: 504 })
    }
    await sender.upload().run(NEVER)
    expect(registry.count(/^PUT/)).toBe(1)
    expect(registry.count(/^PATCH/)).toBe(6)
    expect(registry.count(/^HEAD/)).toBe(2)
  })

  test.each(["HEAD", "POST", "PATCH", "PUT"])("a %s that fails is sent again", async (verb) => {
    await using registry = new FakeRegistry()
    using sender = new Sender(registry)
    let failures = 2
    registry.fault = ({ method }) =>
      method === verb && failures-- > 0 ? new Response("not now", { status: 503 }) : undefined
    await sender.upload().run(NEVER)
    expect(sender.hasArrived()).toBe(true)
  })

  test("one that is away for a moment is waited for", async () => {
    await using registry = new FakeRegistry()
    using sender = new Sender(registry)
    let restarted: Promise<void> | undefined
    registry.fault = ({ method }) => {
      if (method === "PATCH") restarted ??= registry.restart(10)
      return undefined
    }
    await sender.upload({ pauseMs: 300 }).run(NEVER)
    await restarted
    expect(sender.hasArrived()).toBe(true)
  })

  test("one that was never there is not", async () => {
    const registry = new FakeRegistry()
    using sender = new Sender(registry)
    await registry[Symbol.asyncDispose]()
    await rejects(sender.upload().run(NEVER), {
      code: "unavailable",
      message: /^Cannot reach/,
      hint: /^Check the name/,
    })
  })

  test("one that never recovers is given up, with a word about going on", async () => {
    await using registry = new FakeRegistry()
    using sender = new Sender(registry)
    registry.fault = ({ method, nth }) =>
      method === "PATCH" && nth > 1 ? new Response("broken", { status: 500 }) : undefined
    await rejects(sender.upload().run(NEVER), {
      code: "unavailable",
      message: /^max retries exceeded: 500: /,
      hint: /Push again to go on/,
    })
  })

  test("another process goes on where one was killed, in the first part too", async () => {
    for (const [part, kept] of [
      [0, MIB / 2],
      [2, 2 * MIB + MIB / 2],
    ] as const) {
      await using registry = new FakeRegistry()
      using sender = new Sender(registry)
      const kill = new AbortController()
      registry.fault = ({ method, path, nth }) => {
        if (method !== "PATCH" || nth !== part) return undefined
        registry.uploads.set(path.split("/").at(-1) ?? "", sender.content.subarray(0, kept))
        kill.abort(new Error("killed"))
        return new Response(null, { status: 500 })
      }
      await rejects(sender.upload().run(kill.signal), { message: "killed" })
      registry.fault = () => undefined
      registry.log.length = 0
      await sender.upload().run(NEVER)
      expect(sender.hasArrived()).toBe(true)
      expect(registry.count(/^POST/)).toBe(0)
      const { range } = registry.log.find(({ line }) => line.startsWith("PATCH")) ?? {}
      expect(range).toStartWith(`${kept}-`)
      // Of what the first process has sent nothing is known.
      expect(registry.etags).toEqual([null])
    }
  })
})

/** A registry and its storage. */
function withStorage() {
  const registry = new FakeRegistry()
  const storage = new FakeRegistry()
  registry.uploadStorage = storage
  return {
    registry,
    storage,
    async [Symbol.asyncDispose]() {
      await registry[Symbol.asyncDispose]()
      await storage[Symbol.asyncDispose]()
    },
  }
}

describe("Upload — a registry that points to its storage", () => {
  test("the storage gets each part once, without authorization, at the same time", async () => {
    await using both = withStorage()
    const { registry, storage } = both
    using sender = new Sender(registry)
    const all = Promise.withResolvers<void>()
    // Nobody is answered before all are there.
    storage.fault = async () => {
      if (storage.count(/^PUT/) === 6) all.resolve()
      await all.promise
      return undefined
    }
    await sender.upload().run(NEVER)
    expect(sender.hasArrived()).toBe(true)
    expect(storage.count(/^PUT/)).toBe(6)
    expect(storage.log.every(({ authorization }) => authorization === null)).toBe(true)
    expect(registry.etags).toEqual([etagOf(sender.content)])
  })

  test("a part that fails is sent again, the others are not, and the upload stays", async () => {
    await using both = withStorage()
    const { registry, storage } = both
    using sender = new Sender(registry)
    storage.fault = ({ path, nth }) =>
      path.endsWith(String(2 * MIB)) && nth < 2 ? new Response("busy", { status: 503 }) : undefined
    await sender.upload().run(NEVER)
    expect(sender.hasArrived()).toBe(true)
    expect(storage.count(/^PUT/)).toBe(8)
    expect(registry.count(/^POST/)).toBe(1)
    expect(registry.count(/^PATCH/)).toBe(6)
    expect(registry.etags).toEqual([etagOf(sender.content)])
  })

  test("a registry that fails meanwhile is asked again, and no part is sent twice", async () => {
    await using both = withStorage()
    const { registry, storage } = both
    using sender = new Sender(registry)
    let failures = 2
    registry.fault = ({ method, nth }) =>
      method === "PATCH" && nth >= 2 && failures-- > 0
        ? new Response("busy", { status: 502 })
        : undefined
    await sender.upload().run(NEVER)
    expect(sender.hasArrived()).toBe(true)
    expect(storage.count(/^PUT/)).toBe(6)
    expect(registry.count(/^POST/)).toBe(1)
  })

  test("a storage that is away for good ends the push, with its name", async () => {
    await using both = withStorage()
    const { registry, storage } = both
    using sender = new Sender(registry)
    storage.fault = () => new Response("no", { status: 503 })
    await rejects(sender.upload().run(NEVER), {
      code: "unavailable",
      message: "max retries exceeded: 503: no",
    })
    expect(storage.count(/^PUT/)).toBeLessThanOrEqual(6 * PATIENCE.tries)
  })

  test("addresses that have expired are asked for anew", async () => {
    await using both = withStorage()
    const { registry, storage } = both
    using sender = new Sender(registry)
    let isExpired = false
    storage.fault = ({ path }) => {
      if (isExpired || !path.endsWith(String(3 * MIB))) return undefined
      isExpired = true
      return new Response("expired", { status: 403 })
    }
    await sender.upload().run(NEVER)
    expect(sender.hasArrived()).toBe(true)
    expect(registry.count(/^POST/)).toBe(2)
  })

  test("progress is that of the storage, and does not run ahead of it", async () => {
    await using both = withStorage()
    const { registry, storage } = both
    using sender = new Sender(registry, 40 * MIB)
    const gate = Promise.withResolvers<void>()
    storage.onPiece = () => gate.promise
    // Parts so large that they do not fit into the buffers on the way.
    const upload = sender.upload({ partBytesMin: 20 * MIB })
    const done = upload.run(NEVER)
    while (storage.count(/^PUT/) < 2) await Bun.sleep(5)
    expect(upload.completedBytes).toBeLessThan(upload.totalBytes)
    gate.resolve()
    await done
    expect(upload.completedBytes).toBe(upload.totalBytes)
  })

  test.each([
    ["http://[", /redirects to "http:\/\/\[", which is no web address/],
    ["file:///etc/passwd", /which is no web address/],
    ["http://10.0.0.1/x", /which is on a private network/],
    ["http://169.254.169.254/latest", /which is on a private network/],
  ])("is not followed to %s", async (location, message) => {
    await using registry = new FakeRegistry()
    // The registry counts as one of the internet.
    using sender = new Sender(registry, MIB, () => Promise.resolve(["93.184.216.34"]))
    registry.fault = ({ method, path }) =>
      method === "PATCH"
        ? new Response(null, {
            status: 307,
            headers: { Location: location, "Docker-Upload-Location": path },
          })
        : undefined
    await rejects(sender.upload().run(NEVER), { code: "unavailable", message })
  })
})
