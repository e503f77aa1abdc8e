/**
 * From errors to HTTP statuses: the one table.
 *
 * @module
 */

import { type CriaError, type ErrorCode, toCriaError } from "../util/errors.ts"

/** A client that went away while it waited; nginx's number, which Ollama uses too. */
const CLIENT_CLOSED = 499

/** Statuses that we send with a body. */
export type ErrorStatus = 400 | 404 | 409 | 499 | 500 | 503

const STATUSES: Readonly<Record<ErrorCode, ErrorStatus>> = {
  "invalid-input": 400,
  "not-found": 404,
  conflict: 409,
  busy: 503,
  // What Ollama answers when a model does not fit.
  "insufficient-memory": 500,
  unavailable: 503,
  internal: 500,
}

/** An error as a reply. */
export interface ErrorReply {
  readonly status: ErrorStatus
  readonly message: string
  readonly hint: string | undefined
  /** For status 503. */
  readonly retryAfterSeconds?: number | undefined
}

/** Status and text for anything that was thrown. */
export function toReply(error: unknown, signal?: AbortSignal): ErrorReply {
  if (signal?.aborted === true) {
    return { status: CLIENT_CLOSED, message: "request canceled", hint: undefined }
  }
  const known: CriaError = toCriaError(error)
  const { code, message, hint, retryAfterSeconds } = known
  return {
    status: STATUSES[code],
    message: code === "busy" ? busyText(message) : message,
    hint,
    retryAfterSeconds,
  }
}

/** Ollama's words, two spaces included: its clients look for them. Then what we know beyond. */
const BUSY_TEXT = "server busy, please try again.  maximum pending requests exceeded"

function busyText(message: string): string {
  return message.startsWith(BUSY_TEXT) ? message : `${BUSY_TEXT}: ${message}`
}

/** An error that ends a stream whose status is out. What is not the client's fault is said in Ollama's words. */
export function toStreamReply(error: unknown): ErrorReply {
  const reply = toReply(error)
  if (toCriaError(error).code !== "internal") return reply
  return { ...reply, message: `an error was encountered while running the model: ${reply.message}` }
}
