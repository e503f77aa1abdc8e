/**
 * What stays when a context shifts.
 *
 * @module
 */

/** What the answer depends on. Tokens. */
export interface ShiftFacts {
  /** Negative: the whole prompt. */
  readonly wanted: number
  readonly promptTokens: number
  readonly contextTokens: number
  /** The tokenizer puts a token in front that nobody asked for, and that models do not do without. */
  readonly hasBos: boolean
}

/**
 * Tokens at the beginning that stay. At most half of the context: a shift drops half of what follows them and has all
 * that is left computed again, which must not become necessary at every step.
 */
export function keptTokens({ wanted, promptTokens, contextTokens, hasBos }: ShiftFacts): number {
  const asked = wanted < 0 ? promptTokens : wanted + Number(hasBos)
  return Math.min(asked, Math.floor(contextTokens / 2))
}
