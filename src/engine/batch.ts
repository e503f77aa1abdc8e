/**
 * Writes a step plan into the arrays of a backend.
 *
 * @module
 */

import { assert } from "../util/errors.ts"
import type { StepArrays } from "./backend.ts"
import type { PlanEntry } from "./scheduler.ts"
import type { Sequence } from "./sequence.ts"

/** How much of the arrays a step uses, and whose token each row is. */
export interface Batch {
  readonly tokens: number
  readonly rows: readonly Sequence[]
}

/** Fills the arrays. Row r of the step samples for `rows[r]`. */
export function fillBatch(arrays: StepArrays, plan: readonly PlanEntry<Sequence>[]): Batch {
  let tokens = 0
  const rows: Sequence[] = []
  for (const { sequence, count, isSampled } of plan) {
    const { branch, sampler, computedTokens: from } = sequence
    assert(branch !== undefined && sampler !== undefined, "a planned sequence is admitted")
    arrays.token.set(sequence.tokens(from, from + count), tokens)
    for (let i = 0; i < count; i++) arrays.position[tokens + i] = from + i
    arrays.sequence.fill(branch.id, tokens, tokens + count)
    tokens += count
    if (!isSampled) continue
    arrays.rowIndex[rows.length] = tokens - 1
    arrays.rowSampler[rows.length] = sampler
    arrays.rowTop[rows.length] = sequence.request.logprobs ?? -1
    rows.push(sequence)
  }
  return { tokens, rows }
}
