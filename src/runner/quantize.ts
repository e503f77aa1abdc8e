/**
 * The parent's side of quantisation: starts the child, passes its progress on, ends it when nobody wants the file.
 *
 * @module
 */

import { CriaError } from "../util/errors.ts"
import { linesOf } from "../util/lines.ts"
import { fromFailure } from "./protocol.ts"
import { parseQuantizeFrame, type QuantizeJob } from "./quantize-protocol.ts"

/** Characters of stderr kept to explain a crash. */
const STDERR_CHARS_MAX = 2000

/**
 * Quantises a file in a child process.
 *
 * Leaving the iteration early, or aborting, ends the child. The output is the caller's to remove then.
 *
 * @param command Program and arguments that start this program again.
 * @returns Fractions from 0 to 1, the last one 1.
 * @throws {CriaError} What the child says; `internal` when it dies; the signal's reason when aborted.
 */
export async function* quantize(
  job: QuantizeJob,
  command: readonly string[],
  signal?: AbortSignal,
): AsyncGenerator<number, void> {
  signal?.throwIfAborted()
  const child = Bun.spawn([...command, "quantize-worker", JSON.stringify(job)], {
    // Its other end closes with us, and then the child ends.
    stdin: "pipe",
    stdout: "pipe",
    stderr: "pipe",
  })
  const kill = () => child.kill("SIGKILL")
  signal?.addEventListener("abort", kill)
  const complaints = new Response(child.stderr).text()
  try {
    for await (const line of linesOf(child.stdout)) {
      const frame = parseQuantizeFrame(line)
      if (frame?.type === "failed") throw fromFailure(frame.failure)
      if (frame?.type === "progress") yield frame.fraction
      if (frame?.type !== "done") continue
      yield 1
      return
    }
    signal?.throwIfAborted()
    const code = await child.exited
    const reason = (await complaints).trim().slice(-STDERR_CHARS_MAX)
    const text = `Cannot quantize to ${job.type}: the quantizer ended with ${child.signalCode ?? code}`
    throw new CriaError("internal", text, reason === "" ? {} : { hint: reason })
  } finally {
    signal?.removeEventListener("abort", kill)
    kill()
    await child.exited
  }
}
