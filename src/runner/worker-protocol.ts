/**
 * What a child process that does one job says to its parent: one JSON object a line.
 *
 * @module
 */

import { z } from "zod"

import { toCriaError } from "../util/errors.ts"
import { failure, toFailure } from "./protocol.ts"

/** Progress frames, at most so often. */
const PROGRESS_INTERVAL_MS = 100

const frame = z.discriminatedUnion("type", [
  z.object({ type: z.literal("progress"), completed: z.number(), total: z.number() }),
  z.object({ type: z.literal("done") }),
  z.object({ type: z.literal("failed"), failure }),
])

type WorkerFrame = z.infer<typeof frame>

/** The frame of a line; undefined when it is something else, such as a stray print of a native library. */
export function parseWorkerFrame(line: string): WorkerFrame | undefined {
  return line.startsWith('{"type"') ? frame.parse(JSON.parse(line)) : undefined
}

/** Says how far a job is; see {@link reportJob}. */
export type ReportProgress = (completed: number, total: number) => void

/** Does a job and says on stdout how it goes, at last how it went. Does not throw. */
export async function reportJob(job: (report: ReportProgress) => Promise<void>): Promise<void> {
  let shownMs = -Infinity
  let last: WorkerFrame | undefined
  try {
    await job((completed, total) => {
      last = { type: "progress", completed, total }
      const nowMs = performance.now()
      if (nowMs - shownMs < PROGRESS_INTERVAL_MS) return
      shownMs = nowMs
      send(last)
      last = undefined
    })
    if (last !== undefined) send(last)
    send({ type: "done" })
  } catch (error) {
    send({ type: "failed", failure: toFailure(toCriaError(error)) })
  }
}

function send(message: WorkerFrame): void {
  process.stdout.write(`${JSON.stringify(message)}\n`)
}
