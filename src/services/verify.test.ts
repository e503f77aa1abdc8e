import { describe, expect, test } from "bun:test"
import { rejects } from "node:assert/strict"
import { existsSync, utimesSync, writeFileSync } from "node:fs"

import { blobFilePath, type Digest } from "../store/digest.ts"
import { openStore } from "../store/folder-store.ts"
import { layerStores } from "../store/layered-store.ts"
import { MEDIA_TYPES } from "../store/manifest.ts"
import { manifestPath, parseName } from "../store/name.ts"
import { TestStore } from "../store/test-store.ts"
import type { Stores } from "./stores.ts"
import {
  type BlobVerification,
  removeDamaged,
  storeRoot,
  type Verification,
  verifyModels,
} from "./verify.ts"

/** Two models that share a blob. */
class TwoModels extends TestStore {
  readonly shared: Digest

  constructor() {
    super()
    const shared = this.blob(MEDIA_TYPES.model, "shared weights")
    this.shared = shared.digest
    this.model("one", [shared, this.blob(MEDIA_TYPES.system, "Be brief.")])
    this.model("host:5000/you/two:q4", [shared], { model_family: "x" })
  }

  /** Writes something else into the blob that both have. */
  spoil(content = "Shared weights"): string {
    const path = blobFilePath(this.root, this.shared)
    writeFileSync(path, content)
    return path
  }
}

/** Stores of a process whose own one is `own`. */
function storesOf(own: TestStore, ...others: readonly TestStore[]): Stores {
  const first = openStore(own.root, { readOnly: false })
  const folders = [first, ...others.map(({ root }) => openStore(root, { readOnly: true }))]
  return { own: first, folders, all: layerStores(folders) }
}

async function found(stores: Stores, ...names: string[]): Promise<Verification[]> {
  return Array.fromAsync(verifyModels(stores.all, names))
}

/** What a verification finds, in words. */
async function findings(store: TestStore, ...names: string[]): Promise<string[]> {
  const all = await found(storesOf(store), ...names)
  return all.map((item) => {
    if (item.kind === "blob") return `${item.state}: ${item.models.join(" ")}`
    return item.kind === "done" ? `${item.problems} of ${item.blobs}` : `unreadable`
  })
}

async function firstBad(stores: Stores): Promise<BlobVerification> {
  for (const item of await found(stores)) {
    if (item.kind === "blob" && item.state !== "ok") return item
  }
  throw new Error("all well")
}

describe("verifyModels()", () => {
  test("finds nothing wrong with a sound store", async () => {
    using store = new TwoModels()
    expect((await findings(store)).at(-1)).toBe("0 of 4")
    expect((await findings(store, "one")).at(-1)).toBe("0 of 3")
  })

  test("tells missing, cut off and damaged files, and whose they are", async () => {
    using store = new TwoModels()
    const path = store.spoil()
    expect(await findings(store)).toContain("damaged: host:5000/you/two:q4 one:latest")
    store.spoil("shared")
    expect(await findings(store, "one")).toContain("cut off: one:latest")
    await Bun.file(path).delete()
    const missing = await findings(store, "one:latest")
    expect(missing).toContain("missing: one:latest")
    expect(missing.at(-1)).toBe("1 of 3")
  })

  test.each([
    ["one", "0 of 3"],
    ["library/One:LATEST", "0 of 3"],
    ["registry.ollama.ai/library/one", "0 of 3"],
    ["host:5000/you/two:q4", "0 of 2"],
    ["https://HOST:5000/you/two:q4", "0 of 2"],
  ])("knows a model by the name %s", async (name, last) => {
    using store = new TwoModels()
    expect((await findings(store, name)).at(-1)).toBe(last)
  })

  test("counts manifests that cannot be read, also of a model that is named", async () => {
    using store = new TwoModels()
    writeFileSync(manifestPath(store.root, parseName("one")), "{")
    const sound = "ok: host:5000/you/two:q4"
    expect(await findings(store)).toEqual(["unreadable", sound, sound, "1 of 2"])
    expect(await findings(store, "one")).toEqual(["unreadable", "1 of 0"])
  })

  test("a model that is not there is an error", async () => {
    using store = new TwoModels()
    await rejects(findings(store, "nope"), { code: "not-found" })
    await rejects(findings(store, "../nope"), { code: "invalid-input" })
  })
})

describe("removeDamaged()", () => {
  test("removes a file of the own store", async () => {
    using store = new TwoModels()
    const path = store.spoil()
    const stores = storesOf(store)
    expect(await removeDamaged(stores, await firstBad(stores))).toBe("removed")
    expect(existsSync(path)).toBe(false)
  })

  test("leaves a file that somebody has written since it was read", async () => {
    using store = new TwoModels()
    const path = store.spoil()
    const stores = storesOf(store)
    const bad = await firstBad(stores)
    utimesSync(path, 1000, 1000)
    expect(await removeDamaged(stores, bad)).toBe("changed meanwhile")
    expect(existsSync(path)).toBe(true)
  })

  test("leaves files of stores that are only read, and tells whose they are", async () => {
    using own = new TestStore()
    using theirs = new TwoModels()
    const path = theirs.spoil()
    const stores = storesOf(own, theirs)
    const bad = await firstBad(stores)
    expect(await removeDamaged(stores, bad)).toBeUndefined()
    expect(existsSync(path)).toBe(true)
    expect(storeRoot(stores, bad)).toBe(theirs.root)
  })
})
