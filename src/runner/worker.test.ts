import { describe, expect, test } from "bun:test"
import { rejects } from "node:assert/strict"

import { runWorker, type WorkerProgress } from "./worker.ts"

/** A child that runs this program. */
function child(program: string, input?: string) {
  return {
    command: [process.execPath, "-e", program],
    action: "Cannot do it",
    ...(input === undefined ? {} : { input }),
  }
}

function say(frame: object): string {
  return `console.log(${JSON.stringify(JSON.stringify(frame))});`
}

const DONE = say({ type: "done" })

/** Says its process id as progress, and never ends. */
const ENDLESS = `console.log(JSON.stringify({ type: "progress", completed: process.pid, total: 1 }));
  setInterval(() => {}, 1000);`

function isAlive(pid: number): boolean {
  try {
    return process.kill(pid, 0)
  } catch {
    return false
  }
}

/** The process id that {@link ENDLESS} says. */
async function pidOf(steps: AsyncGenerator<WorkerProgress, void>): Promise<number> {
  const { value } = await steps.next()
  return value?.completed ?? 0
}

describe("runWorker()", () => {
  test("passes progress on and leaves other prints out", async () => {
    const program = `console.log("hello"); ${say({ type: "progress", completed: 1, total: 2 })} ${DONE}`
    expect(await Array.fromAsync(runWorker(child(program)))).toEqual([{ completed: 1, total: 2 }])
  })

  test("gives the child its input as a line, and keeps stdin open", async () => {
    const program = `for await (const line of console) {
      console.log(JSON.stringify({ type: "progress", completed: line.length, total: 0 })); ${DONE}
    }`
    const steps = await Array.fromAsync(runWorker(child(program, "x".repeat(300_000))))
    expect(steps).toEqual([{ completed: 300_000, total: 0 }])
  })

  test("fails as the child does", async () => {
    const failure = { code: "invalid-input", message: "no good", hint: "another" }
    await rejects(Array.fromAsync(runWorker(child(say({ type: "failed", failure })))), {
      code: "invalid-input",
      message: "no good",
      hint: "another",
    })
  })

  test("says how a child died, and its last words", async () => {
    await rejects(Array.fromAsync(runWorker(child("process.kill(process.pid, 'SIGSEGV')"))), {
      code: "internal",
      message: "Cannot do it: its process ended with SIGSEGV",
    })
    await rejects(Array.fromAsync(runWorker(child("console.error('ouch'); process.exit(3)"))), {
      message: "Cannot do it: its process ended with 3",
      hint: "ouch",
    })
  })

  test("leaving the iteration ends the child", async () => {
    const steps = runWorker(child(ENDLESS))
    const pid = await pidOf(steps)
    expect(isAlive(pid)).toBe(true)
    await steps.return()
    expect(isAlive(pid)).toBe(false)
  })

  test("aborting ends the child", async () => {
    const controller = new AbortController()
    const steps = runWorker(child(ENDLESS), controller.signal)
    const pid = await pidOf(steps)
    controller.abort(new Error("enough"))
    await rejects(steps.next(), /enough/)
    expect(isAlive(pid)).toBe(false)
    await rejects(runWorker(child(DONE), controller.signal).next(), /enough/)
  })
})
