import { describe, expect, test } from "bun:test"
import { rejects } from "node:assert/strict"
import { execFileSync } from "node:child_process"
import { appendFileSync, linkSync, readFileSync, statSync, writeFileSync } from "node:fs"
import { join } from "node:path"

import { Client } from "../client/client.ts"
import { readConfig } from "../config.ts"
import { TestServer } from "../server/test-server.ts"
import { blobFilePath, type Digest, hashFile } from "../store/digest.ts"
import { TestStore } from "../store/test-store.ts"
import type { Progress } from "./progress.ts"
import { Uploader } from "./upload.ts"

/** An uploader to a server, which believes that it is far away or on this machine. */
class Uploads implements AsyncDisposable {
  readonly server = new TestServer()
  readonly files = new TestStore()
  readonly steps: Progress[] = []
  readonly controller = new AbortController()
  readonly uploader: Uploader
  /** Called before each upload that is sent. */
  onSend: () => void = () => {}

  constructor(origin: string) {
    const client = new Client(origin, async (url, init) => {
      if (init.method === "POST") this.onSend()
      return this.server.request(url.slice(origin.length), init)
    })
    const config = readConfig({ CRIA_MODELS: this.server.app.folder.root })
    const { signal } = this.controller
    this.uploader = new Uploader({
      client,
      config,
      signal,
      report: (step) => this.steps.push(step),
    })
  }

  /** Where the server keeps a blob. */
  blob(digest: Digest | undefined): string {
    return digest === undefined ? "" : blobFilePath(this.server.app.folder.root, digest)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.files[Symbol.dispose]()
    await this.server[Symbol.asyncDispose]()
  }
}

const FAR = "http://far:11434"
const HERE = "http://127.0.0.1:11434"

describe("Uploader", () => {
  test("sends files to a server far away, and tells how much of them", async () => {
    await using uploads = new Uploads(FAR)
    const content = "x".repeat(3_000_000)
    const files = new Map([
      ["b", uploads.files.write("b", content)],
      ["a/c", uploads.files.write("c", "short")],
    ])
    const sent = await uploads.uploader.putAll(files)
    expect([...sent.keys()]).toEqual(["b", "a/c"])
    expect([...sent.values()].map(({ isNew }) => isNew)).toEqual([true, true])
    const digest = sent.get("b")?.digest
    expect(readFileSync(uploads.blob(digest), "utf8")).toBe(content)
    const status = `copying file ${digest}`
    const steps = uploads.steps.filter((step) => step.status === status)
    expect(steps[0]).toMatchObject({ digest, total: 3_000_000, completed: 0 })
    expect(steps.at(-1)).toMatchObject({ total: 3_000_000, completed: 3_000_000 })
    expect(steps.length).toBeGreaterThan(3)
  })

  test("sends nothing that the server has", async () => {
    await using uploads = new Uploads(FAR)
    const files = new Map([["a", uploads.files.write("a", "content")]])
    await uploads.uploader.putAll(files)
    const count = uploads.steps.length
    const again = await uploads.uploader.putAll(files)
    expect(again.get("a")?.isNew).toBe(false)
    expect(uploads.steps).toHaveLength(count)
  })

  test("links files into the store of a server on this machine", async () => {
    await using uploads = new Uploads(HERE)
    const path = uploads.files.write("a", "content")
    const sent = await uploads.uploader.putAll(new Map([["a", path]]))
    const [step] = uploads.steps
    expect(step?.status).toMatch(/^using a in place \((reflink|hard link)\)$/)
    const isSame = statSync(uploads.blob(sent.get("a")?.digest)).ino === statSync(path).ino
    expect(isSame || step?.status.includes("reflink")).toBe(true)
  })

  test("takes regular files only", async () => {
    await using uploads = new Uploads(FAR)
    const pipe = join(uploads.files.root, "pipe")
    execFileSync("mkfifo", [pipe])
    for (const path of ["/dev/zero", pipe, uploads.files.root]) {
      // oxlint-disable-next-line no-await-in-loop
      await rejects(uploads.uploader.putAll(new Map([["imatrix", path]])), {
        code: "invalid-input",
        message: `Cannot use "${path}": expected a regular file`,
      })
    }
    await rejects(uploads.uploader.putAll(new Map([["x", "/nope"]])), { code: "not-found" })
  })

  test("a file that changes while it is sent is an error", async () => {
    await using uploads = new Uploads(FAR)
    const path = uploads.files.write("a", "content")
    uploads.onSend = () => appendFileSync(path, "more")
    await rejects(uploads.uploader.putAll(new Map([["a", path]])))
  })

  test("ends with the first file that fails, and when it is cancelled", async () => {
    await using uploads = new Uploads(FAR)
    const good = uploads.files.write("a", "content")
    const files = new Map([
      ["x", "/nope"],
      ["a", good],
    ])
    await rejects(uploads.uploader.putAll(files), { code: "not-found" })
    uploads.controller.abort(new Error("enough"))
    await rejects(uploads.uploader.putAll(new Map([["a", good]])), /enough/)
  })
})

test("a file with two names is one blob", async () => {
  await using uploads = new Uploads(FAR)
  const path = uploads.files.write("a", "content")
  linkSync(path, `${path}2`)
  writeFileSync(path, "other")
  const sent = await uploads.uploader.putAll(
    new Map([
      ["a", path],
      ["b", `${path}2`],
    ]),
  )
  expect(sent.get("a")?.digest).toBe(sent.get("b")?.digest)
  expect(sent.get("a")?.digest).toBe(await hashFile(path))
})
