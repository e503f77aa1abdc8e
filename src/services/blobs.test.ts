import { describe, expect, test } from "bun:test"
import { rejects } from "node:assert/strict"
import { lstatSync, mkdirSync, readdirSync, renameSync, symlinkSync } from "node:fs"
import { join } from "node:path"

import { blobFilePath } from "../store/digest.ts"
import { openStore } from "../store/folder-store.ts"
import { layerStores } from "../store/layered-store.ts"
import { MEDIA_TYPES } from "../store/manifest.ts"
import { TestStore } from "../store/test-store.ts"
import { StoreWriter } from "../store/writer.ts"
import { drain } from "../util/iterate.ts"
import { type BlobParts, ensureOwn } from "./blobs.ts"

/** The own store, and one that is only read. */
function partsOf(own: TestStore, theirs: TestStore): BlobParts {
  const first = openStore(own.root, { readOnly: false })
  const store = layerStores([first, openStore(theirs.root, { readOnly: true })])
  return { store, writer: new StoreWriter(first) }
}

describe("ensureOwn()", () => {
  test("a blob of another store that is a relative link becomes a file of the own one", async () => {
    using own = new TestStore()
    using theirs = new TestStore()
    const { digest } = theirs.blob(MEDIA_TYPES.model, "weights")
    const path = blobFilePath(theirs.root, digest)
    renameSync(path, join(theirs.root, "shared"))
    symlinkSync("../shared", path)
    await drain(ensureOwn(partsOf(own, theirs), digest))
    expect(lstatSync(blobFilePath(own.root, digest)).isFile()).toBe(true)
  })

  test("leaves nothing behind when it fails", async () => {
    using own = new TestStore()
    using theirs = new TestStore()
    const { digest } = theirs.blob(MEDIA_TYPES.model, "weights")
    // A folder is in the way.
    mkdirSync(join(blobFilePath(own.root, digest), "x"), { recursive: true })
    await rejects(drain(ensureOwn(partsOf(own, theirs), digest)), { code: "unavailable" })
    expect(readdirSync(join(own.root, "blobs"))).toHaveLength(1)
  })
})
