/**
 * Decides which tokens run in the next step.
 *
 * Pure: reads the sequences and the limits, returns a plan, touches nothing. One rule covers prefill and decode: a
 * step spends its token budget to let computed tokens catch up with known ones. Sequences that decode come first, one
 * token each, so a long prompt never stops an answer; prompts share what is left, the most urgent one first.
 *
 * A prompt that begins like a more urgent one waits for it where they agree: what one computes, the other shares.
 *
 * @module
 */

/** How soon somebody wants an answer. */
export type Priority = "interactive" | "normal" | "batch"

/** What the scheduler reads of a sequence. */
export interface Schedulable {
  readonly remainingTokens: number
  readonly computedTokens: number
  /** Number of computed tokens at which it has to stop once, for a snapshot. */
  readonly stopAt: number | undefined
  readonly isDecoding: boolean
  readonly waitedSteps: number
  /** Steps since it was admitted. */
  readonly ageSteps: number
  readonly priority: Priority
  /** Tokens that its client got computed beyond what the least served client got. */
  readonly clientLead: number
}

/** What a step has while there are both answers and prompts. */
export interface Mix {
  /** Both, or those whose turn it is, where it costs more to compute them together than one after the other. */
  readonly kind: "both" | "answers" | "prompts"
  /** Most prompt tokens: bounds how long answers stand still. */
  readonly promptTokens: number
}

/** Limits of one step. */
export interface StepLimits<T> {
  /** Tokens in all. */
  readonly stepTokens: number
  /** Gets the prompts that would be computed, the most urgent first. */
  readonly mix: (prompts: readonly T[]) => Mix
}

/** Where sequences agree, and what that is good for. */
export interface SharingRules<T> {
  /** Tokens at the beginning that `sequence` could take over from `leader` if it had computed them. */
  readonly common: (sequence: T, leader: T) => number
  /** A state can be taken over only as it is: the leader has to stop where others leave it. */
  readonly isWholeOnly: boolean
}

/** Part of a plan: the next `count` tokens of a sequence. */
export interface PlanEntry<T> {
  readonly sequence: T
  readonly count: number
  /** These are its last remaining tokens: sample the next one. */
  readonly isSampled: boolean
}

/**
 * Each step since a prompt was admitted counts like so many tokens less. Not those since its last turn: prompts that
 * came together would take turns, and all end late.
 */
export const AGING_TOKENS = 16

/** Part of a step's prompt tokens that the oldest prompt gets in any case. */
const OLDEST_SHARE = 0.25

/** How much later, in tokens, a class comes than the one before it. Aging makes up for it. */
const CLASS_TOKENS: Readonly<Record<Priority, number>> = {
  interactive: 0,
  normal: 8192,
  batch: 65_536,
}

/** A client that got much is behind others by at most so many tokens: fair, and still first come, first served. */
const LEAD_TOKENS_MAX = 16_384

/** Waiting for less than this costs more than computing it twice. */
export const SHARED_TOKENS_MIN = 32

/** Plans one step. Empty when nothing can run. */
export function schedule<T extends Schedulable>(
  sequences: readonly T[],
  limits: StepLimits<T>,
  sharing?: SharingRules<T>,
): PlanEntry<T>[] {
  const decoding = sequences.filter((sequence) => sequence.isDecoding)
  const prompts = sequences.filter((sequence) => !sequence.isDecoding)
  const chosen = leaders(byUrgency(prompts, urgency), sharing)
  const mix =
    decoding.length > 0 && chosen.length > 0
      ? limits.mix(chosen.map(({ sequence }) => sequence))
      : { kind: "both", promptTokens: limits.stepTokens }
  const plan = byUrgency(
    mix.kind === "prompts" ? [] : decoding,
    (sequence) => -sequence.waitedSteps,
  )
    .slice(0, limits.stepTokens)
    .map((sequence) => entry(sequence, 1))
  if (mix.kind === "answers") return plan
  let budget = Math.min(limits.stepTokens - plan.length, mix.promptTokens)
  // However many short ones come, the oldest goes on: some of the budget is kept for it.
  const oldest = chosen.toSorted((a, b) => b.sequence.ageSteps - a.sequence.ageSteps)[0]
  let kept = Math.min(oldest?.most ?? 0, Math.ceil(budget * OLDEST_SHARE))
  for (const { sequence, most } of chosen) {
    if (sequence === oldest?.sequence) kept = 0
    const count = Math.min(most, budget - kept)
    if (count <= 0) continue
    plan.push(entry(sequence, count))
    budget -= count
  }
  return plan
}

/** Lower is sooner, in tokens: the shortest first, but nobody waits for ever. */
function urgency(sequence: Schedulable): number {
  return (
    sequence.remainingTokens +
    CLASS_TOKENS[sequence.priority] +
    Math.min(sequence.clientLead, LEAD_TOKENS_MAX) -
    AGING_TOKENS * sequence.ageSteps
  )
}

/** Those that compute themselves, and the most that each may, so that those which wait for it can take over. */
function leaders<T extends Schedulable>(
  prompts: readonly T[],
  sharing: SharingRules<T> | undefined,
): { sequence: T; most: number }[] {
  const chosen: { sequence: T; most: number }[] = []
  for (const sequence of prompts) {
    const ahead = sharing === undefined ? undefined : leaderOf(sequence, chosen, sharing)
    if (ahead === undefined) chosen.push({ sequence, most: mostOf(sequence) })
    else if (sharing?.isWholeOnly === true) {
      ahead.leader.most = Math.min(
        ahead.leader.most,
        ahead.common - ahead.leader.sequence.computedTokens,
      )
    }
  }
  return chosen
}

function mostOf({ stopAt = 0, computedTokens, remainingTokens }: Schedulable): number {
  return stopAt > computedTokens ? stopAt - computedTokens : remainingTokens
}

function leaderOf<T extends Schedulable>(
  sequence: T,
  chosen: { sequence: T; most: number }[],
  sharing: SharingRules<T>,
): { leader: { sequence: T; most: number }; common: number } | undefined {
  for (const leader of chosen) {
    const common = sharing.common(sequence, leader.sequence)
    const isAhead = common > leader.sequence.computedTokens
    if (isAhead && common >= sequence.computedTokens + SHARED_TOKENS_MIN) return { leader, common }
  }
  return undefined
}

function byUrgency<T>(sequences: readonly T[], value: (sequence: T) => number): T[] {
  return sequences.toSorted((a, b) => value(a) - value(b))
}

function entry<T extends Schedulable>(sequence: T, count: number): PlanEntry<T> {
  return { sequence, count, isSampled: count === sequence.remainingTokens }
}
