/**
 * What a quantising child process is told, and what it says: one JSON object a line.
 *
 * @module
 */

import { z } from "zod"

import { failure } from "./protocol.ts"

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

const frame = z.discriminatedUnion("type", [
  z.object({ type: z.literal("progress"), fraction: z.number() }),
  z.object({ type: z.literal("done") }),
  z.object({ type: z.literal("failed"), failure }),
])

/** From the child to its parent. */
export type QuantizeFrame = z.infer<typeof frame>

/** @throws {Error} When the text is not a job: a bug, both sides are ours. */
export function parseJob(text: string): QuantizeJob {
  return job.parse(JSON.parse(text))
}

/** The frame of a line; undefined when it is something else, such as a stray print of a native library. */
export function parseQuantizeFrame(line: string): QuantizeFrame | undefined {
  return line.startsWith('{"type"') ? frame.parse(JSON.parse(line)) : undefined
}
