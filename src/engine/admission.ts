/**
 * Who is next: the order in which waiting requests are admitted, who has to give way, and what is fair among clients.
 *
 * Pure but for {@link FairShare}, which counts.
 *
 * @module
 */

import type { Priority } from "./scheduler.ts"

/** What admission reads of a request. */
export interface Applicant {
  readonly priority: Priority
  readonly client: string
  /** On the engine's clock, milliseconds. */
  readonly submittedAt: number
  /** It ran before and had to give way. */
  readonly wasPreempted: boolean
}

const RANK: Readonly<Record<Priority, number>> = { interactive: 0, normal: 1, batch: 2 }

/** So long a request waits until it counts as one class higher. */
const PROMOTION_MS = 30_000

/** Waiting requests in the order in which they are admitted. */
export function admissionOrder<T extends Applicant>(
  waiting: readonly T[],
  fairShare: FairShare,
  now: number,
): T[] {
  const rank = (a: T) =>
    Math.max(0, RANK[a.priority] - Math.floor((now - a.submittedAt) / PROMOTION_MS))
  return waiting.toSorted(
    (a, b) =>
      rank(a) - rank(b) ||
      Number(b.wasPreempted) - Number(a.wasPreempted) ||
      fairShare.lead(a.client) - fairShare.lead(b.client) ||
      a.submittedAt - b.submittedAt,
  )
}

/** Who gives way when cells run out: the youngest of the lowest class. */
export function victimOf<T extends Applicant>(running: readonly T[]): T | undefined {
  let victim: T | undefined
  for (const candidate of running) {
    if (victim === undefined || isLess(candidate, victim)) victim = candidate
  }
  return victim
}

/** Whether a request may push another one out to start. */
export function outranks(applicant: Applicant, running: Applicant): boolean {
  return RANK[applicant.priority] < RANK[running.priority]
}

function isLess(a: Applicant, b: Applicant): boolean {
  const rank = RANK[a.priority] - RANK[b.priority]
  return rank > 0 || (rank === 0 && a.submittedAt >= b.submittedAt)
}

/**
 * Tokens that were computed for each client. One that comes back after a while begins at the level of those that are
 * there: time away is not saved up. The idea is that of virtual token counters (Sheng et al., "Fairness in Serving
 * Large Language Models", 2024).
 */
export class FairShare {
  readonly #served = new Map<string, number>()
  readonly #requests = new Map<string, number>()
  #leastServed: number | undefined

  /** A request of a client arrives. */
  arrive(client: string): void {
    const requests = this.#requests.get(client) ?? 0
    if (requests === 0) {
      this.#served.set(client, this.#least())
      this.#leastServed = undefined
    }
    this.#requests.set(client, requests + 1)
  }

  /** A request of a client is over. */
  leave(client: string): void {
    const requests = (this.#requests.get(client) ?? 1) - 1
    if (requests > 0) {
      this.#requests.set(client, requests)
      return
    }
    this.#leastServed = undefined
    this.#requests.delete(client)
    this.#served.delete(client)
  }

  /** Tokens were computed for a client. */
  charge(client: string, tokens: number): void {
    const served = this.#served.get(client)
    if (served === undefined) return
    this.#leastServed = undefined
    this.#served.set(client, served + tokens)
  }

  /** Tokens that a client got beyond the least served one. */
  lead(client: string): number {
    return (this.#served.get(client) ?? 0) - this.#least()
  }

  #least(): number {
    this.#leastServed ??= this.#served.size === 0 ? 0 : Math.min(...this.#served.values())
    return this.#leastServed
  }
}
