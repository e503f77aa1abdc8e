/**
 * Decides which tokens run in the next step.
 *
 * Pure: reads the sequences and the limits, returns a plan, touches nothing. One rule covers prefill and decode: a
 * step spends its token budget to let computed tokens catch up with known ones. Sequences that decode come first, one
 * token each, so a long prompt never stops an answer; prompts share what is left, the one that needs least first, and
 * each step of waiting counts like {@link AGING_TOKENS} tokens less, so that none waits for ever.
 *
 * @module
 */

/** What the scheduler reads of a sequence. */
export interface Schedulable {
  readonly remainingTokens: number
  readonly isDecoding: boolean
  readonly waitedSteps: number
}

/** Limits of one step, in tokens. */
export interface StepLimits {
  readonly stepTokens: number
  /** Most prompt tokens in a step that also decodes: bounds how long answers stand still. */
  readonly mixedPromptTokens: number
}

/** Part of a plan: the next `count` tokens of a sequence. */
export interface PlanEntry<T> {
  readonly sequence: T
  readonly count: number
  /** These are its last remaining tokens: sample the next one. */
  readonly isSampled: boolean
}

/** A prompt of 8,000 tokens is first after 32 steps, however many short ones keep arriving. */
export const AGING_TOKENS = 256

/** Plans one step. Empty when nothing can run. */
export function schedule<T extends Schedulable>(
  sequences: readonly T[],
  limits: StepLimits,
): PlanEntry<T>[] {
  const decoding = sequences.filter((sequence) => sequence.isDecoding)
  const prompts = sequences.filter((sequence) => !sequence.isDecoding)
  const plan = byUrgency(decoding, (sequence) => -sequence.waitedSteps)
    .slice(0, limits.stepTokens)
    .map((sequence) => entry(sequence, 1))
  const left = limits.stepTokens - plan.length
  let budget = plan.length === 0 ? left : Math.min(left, limits.mixedPromptTokens)
  const urgency = (sequence: T) => sequence.remainingTokens - AGING_TOKENS * sequence.waitedSteps
  for (const sequence of byUrgency(prompts, urgency)) {
    if (budget === 0) break
    const count = Math.min(sequence.remainingTokens, budget)
    plan.push(entry(sequence, count))
    budget -= count
  }
  return plan
}

function byUrgency<T>(sequences: readonly T[], value: (sequence: T) => number): T[] {
  return sequences.toSorted((a, b) => value(a) - value(b))
}

function entry<T extends Schedulable>(sequence: T, count: number): PlanEntry<T> {
  return { sequence, count, isSampled: count === sequence.remainingTokens }
}
