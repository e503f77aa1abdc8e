import { describe, expect, test } from "bun:test"
import { rejects } from "node:assert/strict"

import { withStoreLock } from "./lock.ts"
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
