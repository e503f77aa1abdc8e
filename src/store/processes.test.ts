/** Several processes change one store at once: whatever they do, and however they end, it stays sound. */

import { describe, expect, test } from "bun:test"
import { hash } from "node:crypto"
import { readdirSync, readFileSync } from "node:fs"
import { join } from "node:path"

import { blobFilePath } from "./digest.ts"
import { openStore } from "./folder-store.ts"
import { pruneStore } from "./prune.ts"
import { TestStore } from "./test-store.ts"
import { blobsOf } from "./writer.ts"

/** Installs, replaces, removes and prunes models that share blobs, in a random order, until it is killed. */
const WORKER = `
import { openStore } from "${import.meta.dir}/folder-store.ts"
import { pruneStore } from "${import.meta.dir}/prune.ts"
import { StoreWriter, blobsOf } from "${import.meta.dir}/writer.ts"
import { withStoreLock } from "${import.meta.dir}/lock.ts"
import { parseName } from "${import.meta.dir}/name.ts"
const [root, seed, rounds] = process.argv.slice(-3)
let state = Number(seed)
const random = (below) => (state = (state * 1103515245 + 12345) % 2 ** 31) % below
const store = openStore(root, { readOnly: false })
const writer = new StoreWriter(store)
console.log("ready")
let conflicts = 0
for (let round = 0; round < Number(rounds); round++) {
  const name = parseName("m" + random(2))
  const what = random(10)
  if (what < 6) {
    try {
      const { digest, size } = await writer.putBytes("shared " + random(3) + "x".repeat(20000))
      const layer = { mediaType: "application/vnd.ollama.image.model", digest, size }
      const manifest = { schemaVersion: 2, config: layer, layers: [layer] }
      const replaced = await writer.writeManifest(name, Buffer.from(JSON.stringify(manifest)))
      if (replaced) await writer.removeUnreferenced(blobsOf(replaced))
    } catch (error) {
      // Who writes for longer than the grace period finds its file gone.
      if (error.code !== "conflict" && error.cause?.code !== "ENOENT") throw error
      conflicts++
    }
  } else if (what < 9) await writer.removeModel(name)
  else await pruneStore(store, Date.now(), 200)
  await withStoreLock(root, () => {
    for (const { manifest } of store.list().models) {
      for (const digest of blobsOf(manifest)) {
        if (store.blobPath(digest) === undefined) throw new Error("missing " + digest)
      }
    }
  })
}
console.log("done " + conflicts)
`

function worker(
  root: string,
  seed: number,
  rounds: number,
): Bun.Subprocess<"ignore", "pipe", "pipe"> {
  return Bun.spawn([process.execPath, "-e", WORKER, root, String(seed), String(rounds)], {
    stdin: "ignore",
    stdout: "pipe",
    stderr: "pipe",
  })
}

/** Everything that is wrong with a store. */
function faults(root: string): string[] {
  const { models, problems } = openStore(root, { readOnly: true }).list()
  const missing = models.flatMap((model) =>
    blobsOf(model.manifest).flatMap((digest) => {
      try {
        const bytes = readFileSync(blobFilePath(root, digest))
        return `sha256:${hash("sha256", bytes, "hex")}` === digest ? [] : [`damaged ${digest}`]
      } catch {
        return [`missing ${digest} of ${model.name.model}`]
      }
    }),
  )
  return [...problems.map(({ path }) => `unreadable ${path}`), ...missing]
}

describe("several processes at one store", () => {
  test("create, replace, remove and prune without harm", async () => {
    using store = new TestStore()
    const workers = [1, 2, 3, 4].map((seed) => worker(store.root, seed, 100))
    const outputs = await Promise.all(
      workers.map(async (child) => [await child.stdout.text(), await child.stderr.text()]),
    )
    expect(outputs.map(([, stderr]) => stderr)).toEqual(["", "", "", ""])
    for (const [stdout] of outputs) expect(stdout).toMatch(/^ready\ndone \d+\n$/)
    expect(faults(store.root)).toEqual([])
    await pruneStore(openStore(store.root, { readOnly: false }), Date.now() + 10_000, 0)
    const named = openStore(store.root, { readOnly: true })
      .list()
      .models.flatMap((model) => blobsOf(model.manifest))
    // What is left is what the models need, to the file.
    expect(readdirSync(join(store.root, "blobs"))).toHaveLength(new Set(named).size)
  })

  test("kill -9 at any moment leaves models that are whole, and nothing locked", async () => {
    using store = new TestStore()
    for (let turn = 0; turn < 12; turn++) {
      const child = worker(store.root, turn + 100, 1_000_000)
      // oxlint-disable-next-line no-await-in-loop
      await child.stdout.getReader().read()
      // The moment differs from turn to turn; which one it is does not matter.
      // oxlint-disable-next-line no-await-in-loop
      await Bun.sleep(turn * 7)
      child.kill("SIGKILL")
      // oxlint-disable-next-line no-await-in-loop
      await child.exited
      expect(faults(store.root)).toEqual([])
    }
    const own = openStore(store.root, { readOnly: false })
    expect((await pruneStore(own, Date.now() + 10_000, 0)).isDone).toBe(true)
    expect(faults(store.root)).toEqual([])
    expect(
      readdirSync(join(store.root, "manifests")).filter((name) => name.startsWith(".")),
    ).toEqual([])
  })
})
