import { expect, test } from "bun:test"
import { join } from "node:path"

import { linesOf } from "../util/lines.ts"

const MODULE = JSON.stringify(join(import.meta.dirname, "interrupt.ts"))

/** Starts a command that waits for a signal, and then does something. */
function start(afterwards: string) {
  const program = `
    import { interruptible } from ${MODULE}
    await interruptible(async (signal) => {
      setInterval(() => {}, 1000)
      console.log("ready")
      await new Promise((resolve) => signal.addEventListener("abort", resolve))
      ${afterwards}
    })
    console.log("not reached")`
  return Bun.spawn([process.execPath, "-e", program], { stdout: "pipe", stderr: "pipe" })
}

test.each([
  ["SIGINT", 130],
  ["SIGTERM", 143],
] as const)("%s lets a command clean up, and ends it with %d", async (signal, status) => {
  const child = start('console.log("cleaned"); signal.throwIfAborted()')
  const lines = linesOf(child.stdout)
  expect((await lines.next()).value).toBe("ready")
  child.kill(signal)
  expect(await Array.fromAsync(lines)).toEqual(["cleaned"])
  expect(await child.exited).toBe(status)
  expect(await child.stderr.text()).toBe("")
})

test("a second signal ends a command that takes too long", async () => {
  const child = start('console.log("busy"); await new Promise(() => {})')
  const lines = linesOf(child.stdout)
  expect((await lines.next()).value).toBe("ready")
  child.kill("SIGINT")
  expect((await lines.next()).value).toBe("busy")
  child.kill("SIGINT")
  expect(await child.exited).toBe(130)
})
