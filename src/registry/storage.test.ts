import { expect, test } from "bun:test"
import { randomBytes } from "node:crypto"
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"

import { FakeRegistry } from "./fake-registry.ts"
import { PartBody } from "./part-body.ts"
import { StorageParts } from "./storage.ts"

const NETWORK = { userAgent: "test", replyMs: 5000, sendMs: 5000, storeMs: 5000, bodyMs: 5000 }
const PATIENCE = { tries: 4, pauseMs: 1, pauseMsMax: 20, stallMs: 5000, stealMs: 60_000 }

test("StorageParts sends sixteen parts at once, and no more", async () => {
  await using storage = new FakeRegistry()
  const folder = mkdtempSync(join(tmpdir(), "cria-storage-"))
  const path = join(folder, "blob")
  const content = randomBytes(40 * 1000)
  writeFileSync(path, content)
  const signal = new AbortController().signal
  await using parts = new StorageParts(NETWORK, PATIENCE, signal)
  const sixteen = Promise.withResolvers<void>()
  let running = 0
  let most = 0
  storage.fault = async () => {
    most = Math.max(most, ++running)
    if (running === 16) sixteen.resolve()
    await sixteen.promise
    running--
    return undefined
  }
  for (let i = 0; i < 40; i++) {
    await parts.ready()
    const body = new PartBody(path, { start: i * 1000, end: (i + 1) * 1000 })
    parts.start(new URL(`/bucket/1/${String(i).padStart(2, "0")}`, storage.origin), body)
  }
  await parts.finished()
  expect(most).toBe(16)
  expect(parts.sentBytes).toBe(40 * 1000)
  const sent = [...storage.parts].toSorted(([a], [b]) => (a < b ? -1 : 1)).map(([, bytes]) => bytes)
  expect(Buffer.concat(sent).equals(content)).toBe(true)
  rmSync(folder, { recursive: true })
})
