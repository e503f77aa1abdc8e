/**
 * Pieces that the wire schemas share: Go's habits with null and missing fields, and readable complaints.
 *
 * @module
 */

import { z } from "zod"

import { CriaError } from "../util/errors.ts"

/** A text that may be missing or null, which both mean "". */
export const text: z.ZodType<string, string | null | undefined> = z
  .string()
  .nullish()
  .transform((value) => value ?? "")

/** A flag with a default for missing and null. */
export function flag(fallback: boolean): z.ZodType<boolean, boolean | null | undefined> {
  return z
    .boolean()
    .nullish()
    .transform((value) => value ?? fallback)
}

/** A list that may be missing or null, which both mean empty. */
export function list<T, I>(item: z.ZodType<T, I>): z.ZodType<T[], I[] | null | undefined> {
  return z
    .array(item)
    .nullish()
    .transform((value) => value ?? [])
}

/** Most alternatives of a token that may be asked for. */
const TOP_LOGPROBS_MAX = 20

/** How many alternatives to report beside each token. */
export const topLogprobs: z.ZodType<number, number | null | undefined> = z
  .int()
  .nullish()
  .transform((value) => value ?? 0)
  .refine(
    (count) => count >= 0 && count <= TOP_LOGPROBS_MAX,
    `top_logprobs must be between 0 and ${TOP_LOGPROBS_MAX}`,
  )

/** On what terms a request wants to be served; beyond all the APIs. */
export const terms = {
  /** False: neither take the prompt from the cache nor leave it there. */
  cache_prompt: flag(true),
  priority: z
    .enum(["interactive", "normal", "batch"])
    .nullish()
    .transform((value) => value ?? undefined),
}

/**
 * Reads a request body.
 *
 * Names of top-level fields match in any case, as in Go; unknown fields are ignored. Text after the JSON is an error,
 * where Ollama does not look at it: it is more likely a mistake than meant.
 *
 * @throws {CriaError} `invalid-input` that names the field, what is there and what was expected.
 */
export function parseBody<T>(schema: z.ZodObject, body: string, emptyText: string): T {
  if (body.trim() === "") throw new CriaError("invalid-input", emptyText)
  const result = schema.safeParse(withKnownCase(parseJson(body), Object.keys(schema.shape)))
  if (!result.success) throw describe(result.error)
  // The schema's own output type; ZodObject without parameters has lost it.
  return result.data as T
}

/** The complaint of a schema in one line. Those that we word ourselves are texts that clients know. */
function describe(error: z.ZodError): CriaError {
  const [issue] = error.issues
  if (issue?.code === "custom") return new CriaError("invalid-input", issue.message)
  const path =
    issue === undefined || issue.path.length === 0 ? "the request" : `"${issue.path.join(".")}"`
  const message = issue?.message ?? "not understood"
  return new CriaError("invalid-input", `Cannot read ${path}: ${message}`)
}

function parseJson(body: string): unknown {
  try {
    return JSON.parse(body)
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause)
    throw new CriaError("invalid-input", `Cannot read the request as JSON: ${reason}`, { cause })
  }
}

function withKnownCase(value: unknown, known: readonly string[]): unknown {
  if (typeof value !== "object" || value === null || Array.isArray(value)) return value
  const byLower = new Map(known.map((key) => [key.toLowerCase(), key]))
  const entries = Object.entries(value).map(([key, field]) => [
    byLower.get(key.toLowerCase()) ?? key,
    field,
  ])
  // Made of the entries of an object.
  return Object.fromEntries(entries) as unknown
}
