import { describe, expect, test } from "bun:test"
import { rejects } from "node:assert/strict"
import { readdirSync } from "node:fs"
import { join } from "node:path"

import { parseDigest } from "./digest.ts"
import { tryFileLock, withStoreLock } from "./lock.ts"
import { TestStore } from "./test-store.ts"

/** Takes the lock in another process, says so, and holds it until that process ends. */
async function holder(root: string): Promise<Bun.Subprocess<"ignore", "pipe", "inherit">> {
  const script = `import { withStoreLock } from ${JSON.stringify(`${import.meta.dir}/lock.ts`)}
    await withStoreLock(${JSON.stringify(root)}, () => { console.log("mine"); Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0) })`
  const child = Bun.spawn([process.execPath, "-e", script], {
    stdin: "ignore",
    stdout: "pipe",
    stderr: "inherit",
  })
  const { value } = await child.stdout.getReader().read()
  expect(new TextDecoder().decode(value)).toBe("mine\n")
  return child
}

describe("withStoreLock()", () => {
  test("lets one at a time in, within a process too", async () => {
    using store = new TestStore()
    let inside = 0
    const turns = Array.from({ length: 8 }, () =>
      withStoreLock(store.root, () => {
        inside++
        expect(inside).toBe(1)
        inside--
      }),
    )
    await Promise.all(turns)
  })

  test("is free again after an error", async () => {
    using store = new TestStore()
    const broken = withStoreLock(store.root, () => {
      throw new Error("broken")
    })
    await rejects(broken, { message: "broken" })
    expect(await withStoreLock(store.root, () => 1)).toBe(1)
  })

  test("is not left behind by kill -9, and waiting for it can be given up", async () => {
    using store = new TestStore()
    const child = await holder(store.root)
    const controller = new AbortController()
    const waiting = withStoreLock(store.root, () => 1, { signal: controller.signal })
    controller.abort()
    await rejects(waiting, { name: "AbortError" })
    child.kill("SIGKILL")
    expect(await withStoreLock(store.root, () => 2)).toBe(2)
    await child.exited
  })
})

/** Takes the lock on a blob again and again, and fails when somebody else is inside. Says how often it was inside. */
const CONTENDER = `
  import { rmSync, writeFileSync } from "node:fs"
  import { tryFileLock } from ${JSON.stringify(`${import.meta.dir}/lock.ts`)}
  const [root, digest, mark] = process.argv.slice(-3)
  let turns = 0
  for (let attempts = 0; attempts < 3000; attempts++) {
    using lock = tryFileLock(root, digest)
    if (lock === undefined) continue
    writeFileSync(mark, "", { flag: "wx" })
    rmSync(mark)
    turns++
  }
  console.log(turns)
`

describe("tryFileLock()", () => {
  const digest = parseDigest(`sha256:${"ab".repeat(32)}`)

  test("is held by one at a time, also in one process, and leaves no file", () => {
    using store = new TestStore()
    const lock = tryFileLock(store.root, digest)
    expect(lock).toBeDefined()
    expect(tryFileLock(store.root, digest)).toBeUndefined()
    const other = tryFileLock(store.root, parseDigest(`sha256:${"cd".repeat(32)}`))
    expect(other).toBeDefined()
    for (const held of [lock, other]) held?.[Symbol.dispose]()
    expect(readdirSync(join(store.root, ".cria-locks"))).toEqual([])
    using again = tryFileLock(store.root, digest)
    expect(again).toBeDefined()
  })

  test("is free when its owner was killed", async () => {
    using store = new TestStore()
    const script = `import { tryFileLock } from ${JSON.stringify(`${import.meta.dir}/lock.ts`)}
      const lock = tryFileLock(${JSON.stringify(store.root)}, ${JSON.stringify(digest)})
      console.log(lock === undefined ? "not mine" : "mine")
      setInterval(() => lock, 1000)`
    const child = Bun.spawn([process.execPath, "-e", script], { stdout: "pipe" })
    const { value } = await child.stdout.getReader().read()
    expect(new TextDecoder().decode(value)).toBe("mine\n")
    expect(tryFileLock(store.root, digest)).toBeUndefined()
    child.kill("SIGKILL")
    await child.exited
    using lock = tryFileLock(store.root, digest)
    expect(lock).toBeDefined()
  })

  test("is a lock on the file that is there, not on one that its owner has just removed", async () => {
    using store = new TestStore()
    const mark = join(store.root, "inside")
    const contenders = Array.from({ length: 4 }, () =>
      Bun.spawn([process.execPath, "-e", CONTENDER, store.root, digest, mark], {
        stdout: "pipe",
        stderr: "pipe",
      }),
    )
    const ends = await Promise.all(
      contenders.map(async ({ stdout, stderr, exited }) => ({
        code: await exited,
        turns: Number(await stdout.text()),
        error: await stderr.text(),
      })),
    )
    expect(ends.map(({ error }) => error).join("")).toBe("")
    expect(ends.every(({ code }) => code === 0)).toBe(true)
    expect(ends.reduce((sum, { turns }) => sum + turns, 0)).toBeGreaterThan(10)
  })
})
