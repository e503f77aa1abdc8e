/**
 * How much pairs of requests have in common, remembered: prompts are compared at every step, and do not change.
 *
 * @module
 */

import { commonLength } from "./prefix-tier.ts"

/** What is read of a request. */
export interface Comparable {
  /** What it may share with; undefined for nothing. */
  readonly scope: string | undefined
  /** All known tokens, and how many. */
  readonly known: Int32Array
  readonly knownTokens: number
  /** Raised when tokens change that were known; others are only added at the end. */
  readonly revision: number
}

interface Remembered {
  readonly common: number
  readonly ownTokens: number
  readonly ownRevision: number
  readonly leaderTokens: number
  readonly leaderRevision: number
}

/** See the module. */
export class CommonLengths<T extends Comparable> {
  readonly #pairs = new WeakMap<T, WeakMap<T, Remembered>>()

  /** Tokens at its beginning that a request could take over from a leader: its last one it computes itself. */
  of(sequence: T, leader: T): number {
    if (sequence.scope === undefined || sequence.scope !== leader.scope) return 0
    let pairs = this.#pairs.get(sequence)
    const before = pairs?.get(leader)
    if (before !== undefined && isValid(before, sequence, leader)) return before.common
    const limit = sequence.knownTokens - 1
    const common = commonLength(leader.known, { tokens: sequence.known, limit })
    if (pairs === undefined) {
      pairs = new WeakMap<T, Remembered>()
      this.#pairs.set(sequence, pairs)
    }
    pairs.set(leader, {
      common,
      ownTokens: sequence.knownTokens,
      ownRevision: sequence.revision,
      leaderTokens: leader.knownTokens,
      leaderRevision: leader.revision,
    })
    return common
  }
}

/** Where two differ they go on differing: only a leader that agreed to its end may agree further now. */
function isValid(before: Remembered, sequence: Comparable, leader: Comparable): boolean {
  if (before.ownRevision !== sequence.revision || before.leaderRevision !== leader.revision)
    return false
  if (before.ownTokens !== sequence.knownTokens) return false
  return before.leaderTokens === leader.knownTokens || before.common < before.leaderTokens
}
