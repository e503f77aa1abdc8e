/**
 * What a converting child process is told.
 *
 * @module
 */

import { z } from "zod"

import { CONVERT_TYPES, type ConvertType } from "../convert/convert.ts"
import type { ListedFiles } from "../convert/folder.ts"

/** What to write, as the first line of the child's stdin: it may name thousands of files. */
export interface ConvertJob {
  readonly source: ListedFiles
  readonly target: string
  readonly type: ConvertType
  /** Of an adapter: the GGUF file of the model that it is for, and what errors call that. */
  readonly base?: { readonly path: string; readonly label: string }
}

const job: z.ZodType<ConvertJob> = z.object({
  source: z.object({
    name: z.string(),
    label: z.string(),
    paths: z.record(z.string(), z.string()),
  }),
  target: z.string(),
  type: z.enum(CONVERT_TYPES),
  base: z.object({ path: z.string(), label: z.string() }).exactOptional(),
})

/** @throws {Error} When the text is not a job: a bug, both sides are ours. */
export function parseConvertJob(text: string): ConvertJob {
  return job.parse(JSON.parse(text))
}
