/**
 * Quantisation in a child process.
 *
 * @module
 */

import type { QuantizeJob } from "./quantize-protocol.ts"
import { runWorker } from "./worker.ts"

/**
 * Quantises a file. Ending it early, and errors: see {@link runWorker}. The output is the caller's to remove then.
 *
 * @param command Program and arguments that start this program again.
 * @returns Fractions from 0 to 1, the last one 1.
 */
export async function* quantize(
  job: QuantizeJob,
  command: readonly string[],
  signal?: AbortSignal,
): AsyncGenerator<number, void> {
  const worker = {
    command: [...command, "quantize-worker", JSON.stringify(job)],
    action: `Cannot quantize to ${job.type}`,
  }
  for await (const { completed, total } of runWorker(worker, signal)) yield completed / total
  yield 1
}
