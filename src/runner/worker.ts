/**
 * The parent's side of a child process that does one job: starts it, passes its progress on, ends it when nobody wants
 * the result.
 *
 * @module
 */

import { CriaError } from "../util/errors.ts"
import { linesOf } from "../util/lines.ts"
import { fromFailure } from "./protocol.ts"
import { parseWorkerFrame } from "./worker-protocol.ts"

/** Characters of stderr kept to explain a crash. */
const STDERR_CHARS_MAX = 2000

/** How to start a child. */
export interface WorkerJob {
  /** Program and all its arguments. */
  readonly command: readonly string[]
  /** First line of its stdin, which stays open as long as we live. */
  readonly input?: string
  /** What cannot be done when it dies, for the message: `Cannot quantize to Q4_0`. */
  readonly action: string
}

/** How far a job is, in units of its own. */
export interface WorkerProgress {
  readonly completed: number
  readonly total: number
}

/**
 * Has a child process do a job.
 *
 * Leaving the iteration early, or aborting, kills the child. What it has written so far is the caller's to remove.
 *
 * @throws {CriaError} What the child says; `internal` when it dies; the signal's reason when aborted.
 */
export async function* runWorker(
  { command, input, action }: WorkerJob,
  signal?: AbortSignal,
): AsyncGenerator<WorkerProgress, void> {
  signal?.throwIfAborted()
  const child = Bun.spawn([...command], {
    // Its other end closes with us, and then the child ends.
    stdin: "pipe",
    stdout: "pipe",
    stderr: "pipe",
  })
  const kill = () => child.kill("SIGKILL")
  signal?.addEventListener("abort", kill)
  const complaints = new Response(child.stderr).text()
  try {
    if (input !== undefined) {
      void child.stdin.write(`${input}\n`)
      await child.stdin.flush()
    }
    for await (const line of linesOf(child.stdout)) {
      const frame = parseWorkerFrame(line)
      if (frame?.type === "failed") throw fromFailure(frame.failure)
      if (frame?.type === "done") return
      if (frame !== undefined) yield { completed: frame.completed, total: frame.total }
    }
    signal?.throwIfAborted()
    const code = await child.exited
    const reason = (await complaints).trim().slice(-STDERR_CHARS_MAX)
    const text = `${action}: its process ended with ${child.signalCode ?? code}`
    throw new CriaError("internal", text, reason === "" ? {} : { hint: reason })
  } finally {
    signal?.removeEventListener("abort", kill)
    kill()
    await child.exited
  }
}
