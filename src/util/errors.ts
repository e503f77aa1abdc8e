/**
 * The one error class of the project and its seven codes.
 *
 * A code says what kind of thing went wrong; the server maps codes to HTTP statuses in one table and the
 * CLI prints message and hint. Programmer errors are `assert`, cancellation is the signal's own reason.
 *
 * @module
 */

/** All codes: what kind of failure it is. */
export const ERROR_CODES = [
  "invalid-input",
  "not-found",
  "conflict",
  "busy",
  "insufficient-memory",
  "unavailable",
  "internal",
] as const

/** What kind of failure it is. Each maps to one HTTP status; see `server/errors.ts`. */
export type ErrorCode = (typeof ERROR_CODES)[number]

/** Options of {@link CriaError}. */
export interface CriaErrorOptions {
  /** What the user can do about it, as a command or an instruction. */
  readonly hint?: string
  /** When it is worth trying again, as far as that is known. */
  readonly retryAfterSeconds?: number
  readonly cause?: unknown
}

/** An error that a user or a caller can act on. The message says what was wrong and what was expected. */
export class CriaError extends Error {
  readonly code: ErrorCode
  readonly hint: string | undefined
  readonly retryAfterSeconds: number | undefined

  constructor(code: ErrorCode, message: string, options: CriaErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause })
    this.name = "CriaError"
    this.code = code
    this.hint = options.hint
    this.retryAfterSeconds = options.retryAfterSeconds
  }
}

/** The message of anything that was thrown. */
export function errorMessage(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}

/** Turns anything that was thrown into a {@link CriaError}; unknown things become `internal`. */
export function toCriaError(error: unknown): CriaError {
  if (error instanceof CriaError) return error
  return new CriaError("internal", errorMessage(error), { cause: error })
}

/**
 * Asserts an invariant of our own code.
 *
 * @throws {Error} When `condition` is false: a bug in cria, never a user's mistake.
 */
export function assert(condition: unknown, message: string): asserts condition {
  if (!condition) throw new Error(`Broken invariant: ${message}`)
}

/** Marks a branch that the types rule out. */
export function unreachable(value: never): never {
  throw new Error(`Broken invariant: unexpected ${JSON.stringify(value)}`)
}
