/**
 * Reads the terms of a request from its headers and body.
 *
 * A client that shows a key shares prompts with those that show the same key, and with nobody else, so that nobody
 * can find out from response times what others ask. `X-Cria-Scope` names another scope, `X-Cria-Client` whose share
 * of the machine a request takes, `X-Cria-Priority` how soon it is wanted.
 *
 * @module
 */

import { createHash } from "node:crypto"

import { z } from "zod"

import type { RequestTerms } from "../chat/terms.ts"
import { CriaError } from "../util/errors.ts"

/** What a body can say about terms. */
export interface BodyTerms {
  readonly priority?: RequestTerms["priority"] | undefined
  /** False keeps the prompt out of the cache, both ways. */
  readonly cachePrompt?: boolean | undefined
  readonly user?: string | undefined
}

const PRIORITIES = ["interactive", "normal", "batch"] as const

/** @throws {CriaError} `invalid-input` for a priority that there is not. */
export function termsOf(headers: Headers, body: BodyTerms): RequestTerms {
  const key = headers.get("Authorization")
  const owner = key === null ? "" : createHash("sha256").update(key).digest("hex").slice(0, 16)
  const scope = headers.get("X-Cria-Scope") ?? owner
  const client = headers.get("X-Cria-Client") ?? body.user ?? owner
  const priority = priorityOf(headers.get("X-Cria-Priority")) ?? body.priority
  return {
    client,
    cacheScope: body.cachePrompt === false ? null : scope,
    ...(priority === undefined ? {} : { priority }),
  }
}

function priorityOf(value: string | null): RequestTerms["priority"] {
  if (value === null) return undefined
  const parsed = z.enum(PRIORITIES).safeParse(value.toLowerCase())
  if (parsed.success) return parsed.data
  throw new CriaError(
    "invalid-input",
    `Cannot use priority "${value}": expected ${PRIORITIES.join(", ")}`,
  )
}
