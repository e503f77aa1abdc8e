/**
 * Reads the terms of a request from its headers and body.
 *
 * A client that shows a key shares prompts with those that show the same key, and with nobody else, so that nobody can
 * find out from response times what others ask. `X-Cria-Scope` names another scope, `X-Cria-Client` whose share of the
 * machine a request takes; both only within what belongs to the key, so that nobody can join the scope of another, or
 * get more by having many names. `X-Cria-Priority` says how soon it is wanted, and everybody may say what he likes.
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

/** Longer names are replaced by their digests. */
const NAME_CHARS_MAX = 256

/** Names of owners begin so. A name that a client gives cannot pass for one. */
const OWNER = "key-"

/** @throws {CriaError} `invalid-input` for a priority that there is not. */
export function termsOf(headers: Headers, body: BodyTerms): RequestTerms {
  const key = headers.get("Authorization")
  const owner = key === null ? "" : `${OWNER}${digest(key).slice(0, 16)}`
  const scope = within(owner, headers.get("X-Cria-Scope") ?? "")
  const client = within(owner, headers.get("X-Cria-Client") ?? body.user ?? "")
  const priority = priorityOf(headers.get("X-Cria-Priority")) ?? body.priority
  return {
    client,
    cacheScope: body.cachePrompt === false ? null : scope,
    ...(priority === undefined ? {} : { priority }),
  }
}

/** A name under that of its owner; without an owner as it is. */
function within(owner: string, given: string): string {
  const isOpaque = given.length > NAME_CHARS_MAX || given.startsWith(OWNER)
  const name = isOpaque ? `sha256:${digest(given)}` : given
  if (owner === "") return name
  return name === "" ? owner : `${owner}/${name}`
}

function digest(text: string): string {
  return createHash("sha256").update(text).digest("hex")
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
