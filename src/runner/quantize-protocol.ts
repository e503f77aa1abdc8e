/**
 * What a quantising child process is told.
 *
 * @module
 */

import { z } from "zod"

/** What to write, as the child's only argument. */
export interface QuantizeJob {
  readonly input: string
  readonly output: string
  readonly type: string
  readonly threads?: number
  readonly imatrix?: string
}

const job: z.ZodType<QuantizeJob> = z.object({
  input: z.string(),
  output: z.string(),
  type: z.string(),
  threads: z.number().exactOptional(),
  imatrix: z.string().exactOptional(),
})

/** @throws {Error} When the text is not a job: a bug, both sides are ours. */
export function parseQuantizeJob(text: string): QuantizeJob {
  return job.parse(JSON.parse(text))
}
