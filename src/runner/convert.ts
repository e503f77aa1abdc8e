/**
 * Conversion of safetensors in a child process.
 *
 * @module
 */

import type { ConvertJob } from "./convert-protocol.ts"
import { runWorker, type WorkerProgress } from "./worker.ts"

/**
 * Converts a model or an adapter to a GGUF file. Ending it early, and errors: see {@link runWorker}. Files whose names
 * begin with the target's are the caller's to remove then.
 *
 * @param command Program and arguments that start this program again.
 * @returns Bytes that are written, and that will be in all.
 */
export function convert(
  job: ConvertJob,
  command: readonly string[],
  signal?: AbortSignal,
): AsyncGenerator<WorkerProgress, void> {
  const worker = {
    command: [...command, "convert-worker"],
    input: JSON.stringify(job),
    action: `Cannot convert "${job.source.label}"`,
  }
  return runWorker(worker, signal)
}
