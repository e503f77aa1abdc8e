/**
 * Reads JSON of the store against a schema, with errors that say where the text is wrong.
 *
 * @module
 */
import type { z } from "zod"

import { CriaError, errorMessage } from "../util/errors.ts"

/**
 * Parses `text` and checks it.
 *
 * @param subject What the text is, for the error: `manifest`, `config`.
 * @throws {CriaError} `internal` with the first thing that is wrong.
 */
export function parseJson<T>(schema: z.ZodType<T>, text: string, subject: string): T {
  const result = schema.safeParse(decode(text, subject))
  if (result.success) return result.data
  const issue = result.error.issues[0]
  const where = issue?.path.length ? ` at "${issue.path.join(".")}"` : ""
  throw new CriaError("internal", `Cannot read ${subject}${where}: ${issue?.message}`)
}

function decode(text: string, subject: string): unknown {
  try {
    return JSON.parse(text)
  } catch (cause) {
    throw new CriaError("internal", `Cannot read ${subject}: ${errorMessage(cause)}`, { cause })
  }
}
