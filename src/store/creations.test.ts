import { describe, expect, test } from "bun:test"
import { readdirSync, utimesSync } from "node:fs"
import { join } from "node:path"

import { beginCreation, digestsInCreation } from "./creations.ts"
import { blobFilePath, parseDigest } from "./digest.ts"
import { openStore } from "./folder-store.ts"
import { MEDIA_TYPES } from "./manifest.ts"
import { pruneStore } from "./prune.ts"
import { TestStore } from "./test-store.ts"
import { StoreWriter } from "./writer.ts"

const HOUR_MS = 60 * 60 * 1000
const ONE = parseDigest(`sha256:${"ab".repeat(32)}`)
const TWO = parseDigest(`sha256:${"cd".repeat(32)}`)

function notes(store: TestStore): string[] {
  return readdirSync(join(store.root, ".cria-creations"))
}

describe("beginCreation()", () => {
  test("notes what is read until it is disposed", async () => {
    using store = new TestStore()
    expect(digestsInCreation(store.root)).toEqual(new Set())
    const first = await beginCreation(store.root, [ONE, TWO, ONE])
    const second = await beginCreation(store.root, [TWO])
    expect(digestsInCreation(store.root)).toEqual(new Set([ONE, TWO]))
    first[Symbol.dispose]()
    expect(digestsInCreation(store.root)).toEqual(new Set([TWO]))
    second[Symbol.dispose]()
    expect(notes(store)).toEqual([])
  })

  test("one that has died keeps its files for an hour", async () => {
    using store = new TestStore()
    await beginCreation(store.root, [ONE])
    const seconds = (Date.now() - HOUR_MS) / 1000 + 30
    utimesSync(join(store.root, ".cria-creations", notes(store)[0] ?? ""), seconds, seconds)
    expect(digestsInCreation(store.root)).toEqual(new Set([ONE]))
    expect(digestsInCreation(store.root, Date.now() + 60_000)).toEqual(new Set())
    expect(notes(store)).toEqual([])
  })

  test("one that goes on keeps them, however long it takes", async () => {
    using store = new TestStore()
    using creation = await beginCreation(store.root, [ONE])
    utimesSync(join(store.root, ".cria-creations", notes(store)[0] ?? ""), 1, 1)
    creation.renew()
    expect(digestsInCreation(store.root)).toEqual(new Set([ONE]))
  })

  test("neither a prune nor a discard takes what is read, however old it is", async () => {
    using store = new TestStore()
    const { digest } = store.blob(MEDIA_TYPES.model, "upload")
    utimesSync(blobFilePath(store.root, digest), 1, 1)
    const folder = openStore(store.root, { readOnly: false })
    const writer = new StoreWriter(folder)
    const creation = await beginCreation(store.root, [digest])
    expect((await pruneStore(folder, Date.now())).removed).toEqual([])
    expect(await writer.removeUnreferenced([digest])).toEqual([])
    creation[Symbol.dispose]()
    expect(await writer.removeUnreferenced([digest])).toEqual([digest])
  })
})
