/**
 * Who is next: which waiting request is admitted first, who has to give way for it, and what is fair among clients.
 *
 * Classes come in their order, with one exception so that none starves: every eighth place goes to the request that
 * waited longest. Within a class those go first that had to give way, then the client that got least.
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
  /** While it runs: it got its place by waiting, and keeps it as if it were of the highest class. */
  readonly isElder: boolean
}

/** Classes, the most urgent first. */
export const RANK: Readonly<Record<Priority, number>> = { interactive: 0, normal: 1, batch: 2 }

/** So long a request waits until it may get a place out of its turn. */
const ELDER_MS = 30_000

/** One of so many places goes to the request that waited longest. */
const ELDER_TURNS = 8

/** A client that has nothing running takes a place from one that has many, after so long. */
const PATIENCE_MS = 2000

/** Whose turn it is, by the number of requests that were admitted so far. */
function isElderTurn(admitted: number): boolean {
  return admitted % ELDER_TURNS === ELDER_TURNS - 1
}

/** Who of the waiting requests comes next. */
export function nextOf<T extends Applicant>(
  waiting: readonly T[],
  { fairShare, now, admitted }: { fairShare: FairShare; now: number; admitted: number },
): { applicant: T; isElder: boolean } | undefined {
  let best: T | undefined
  let elder: T | undefined
  for (const applicant of waiting) {
    if (best === undefined || isBefore(applicant, best, fairShare)) best = applicant
    if (elder === undefined || applicant.submittedAt < elder.submittedAt) elder = applicant
  }
  if (best === undefined || elder === undefined) return undefined
  const isElder = isElderTurn(admitted) && now - elder.submittedAt >= ELDER_MS
  return isElder ? { applicant: elder, isElder } : { applicant: best, isElder }
}

/** All waiting requests in their order, longest waits aside. */
export function inOrder<T extends Applicant>(waiting: readonly T[], fairShare: FairShare): T[] {
  return waiting.toSorted((a, b) =>
    isBefore(a, b, fairShare) ? -1 : isBefore(b, a, fairShare) ? 1 : 0,
  )
}

function isBefore(a: Applicant, b: Applicant, fairShare: FairShare): boolean {
  if (a.priority !== b.priority) return RANK[a.priority] < RANK[b.priority]
  if (a.wasPreempted !== b.wasPreempted) return a.wasPreempted
  const turn = fairShare.compare(a.client, b.client)
  return turn === 0 ? a.submittedAt < b.submittedAt : turn < 0
}

/** Who gives way when cells run out: the youngest of the lowest class. */
export function victimOf<T extends Applicant>(running: readonly T[]): T | undefined {
  return bySacrifice(running)[0]
}

/** What of the running requests decides who may push whom out; made once for many who wait. */
export class Pressure<T extends Applicant> {
  readonly #running: readonly T[]
  readonly #now: number
  readonly #lowestRank: number
  readonly #counts = new Map<string, number>()
  readonly #most: number

  constructor(running: readonly T[], now: number) {
    this.#running = running
    this.#now = now
    this.#lowestRank = Math.max(0, ...running.map(rankOf))
    for (const { client } of running) {
      const group = groupOf(client)
      this.#counts.set(group, (this.#counts.get(group) ?? 0) + 1)
    }
    this.#most = Math.max(0, ...this.#counts.values())
  }

  /** Whether somebody of a lower class runs. */
  outranks(applicant: Applicant): boolean {
    return RANK[applicant.priority] < this.#lowestRank
  }

  /** Whether {@link victimsFor} might name somebody. */
  canPush(applicant: Applicant): boolean {
    return this.outranks(applicant) || this.#isOwedPlace(applicant)
  }

  /**
   * Who may be made to give way for a request, in this order: lower classes; and when its client has nothing running,
   * the youngest of the client that has most, so that all come to have equally many.
   */
  victimsFor(applicant: Applicant): T[] {
    const rank = RANK[applicant.priority]
    const lower = bySacrifice(this.#running.filter((one) => rankOf(one) > rank))
    if (lower.length > 0 || !this.#isOwedPlace(applicant)) return lower
    const equals = this.#running.filter(
      (one) =>
        !one.isElder &&
        one.priority === applicant.priority &&
        this.#counts.get(groupOf(one.client)) === this.#most,
    )
    return bySacrifice(equals).slice(0, 1)
  }

  #isOwedPlace({ client, submittedAt }: Applicant): boolean {
    const isAway = !this.#counts.has(groupOf(client))
    return this.#most > 1 && isAway && this.#now - submittedAt >= PATIENCE_MS
  }
}

/** The class in which a request runs. */
function rankOf({ priority, isElder }: Applicant): number {
  return isElder ? 0 : RANK[priority]
}

/** The lowest class first, the youngest of it first; of those that arrived together the last. */
function bySacrifice<T extends Applicant>(running: readonly T[]): T[] {
  return running
    .toReversed()
    .toSorted((a, b) => rankOf(b) - rankOf(a) || b.submittedAt - a.submittedAt)
}

/**
 * A client has parts when there is a slash in its name: `team/ann` is of the same group as `team/bob`. Groups share the
 * machine, and clients what their group gets: nobody gets more by using many names.
 */
function groupOf(client: string): string {
  const end = client.indexOf("/")
  return end === -1 ? client : client.slice(0, end)
}

/** Tokens that were computed for each group of clients, and in it for each client. */
export class FairShare {
  readonly #groups = new Shares()
  readonly #members = new Map<string, Shares>()

  /** A request of a client arrives. */
  arrive(client: string): void {
    const group = groupOf(client)
    this.#groups.arrive(group)
    const members = this.#members.get(group) ?? new Shares()
    this.#members.set(group, members)
    members.arrive(client)
  }

  /** A request of a client is over. */
  leave(client: string): void {
    const group = groupOf(client)
    this.#groups.leave(group)
    const members = this.#members.get(group)
    members?.leave(client)
    if (members?.isEmpty === true) this.#members.delete(group)
  }

  /** Tokens were computed for a client. */
  charge(client: string, tokens: number): void {
    const group = groupOf(client)
    this.#groups.charge(group, tokens)
    this.#members.get(group)?.charge(client, tokens)
  }

  /** Tokens that a client got beyond those who got least: its group beyond others, and itself beyond its group's. */
  lead(client: string): number {
    return this.#groups.lead(groupOf(client)) + this.#leadInGroup(client)
  }

  /** Whose turn comes first: negative when it is that of `a`. */
  compare(a: string, b: string): number {
    if (a === b) return 0
    const byGroup = this.#groups.lead(groupOf(a)) - this.#groups.lead(groupOf(b))
    return byGroup === 0 ? this.#leadInGroup(a) - this.#leadInGroup(b) : byGroup
  }

  #leadInGroup(client: string): number {
    return this.#members.get(groupOf(client))?.lead(client) ?? 0
  }
}

/**
 * Tokens that were computed for each of several. One that comes back after a while begins at the level of those that are
 * there: time away is not saved up. The idea is that of virtual token counters (Sheng et al., "Fairness in Serving
 * Large Language Models", 2024).
 */
class Shares {
  readonly #served = new Map<string, number>()
  readonly #requests = new Map<string, number>()
  #leastServed: number | undefined

  get isEmpty(): boolean {
    return this.#requests.size === 0
  }

  arrive(name: string): void {
    const requests = this.#requests.get(name) ?? 0
    if (requests === 0) {
      this.#served.set(name, this.#least())
      this.#leastServed = undefined
    }
    this.#requests.set(name, requests + 1)
  }

  leave(name: string): void {
    const requests = (this.#requests.get(name) ?? 1) - 1
    if (requests > 0) {
      this.#requests.set(name, requests)
      return
    }
    this.#leastServed = undefined
    this.#requests.delete(name)
    this.#served.delete(name)
  }

  charge(name: string, tokens: number): void {
    const served = this.#served.get(name)
    if (served === undefined) return
    this.#leastServed = undefined
    this.#served.set(name, served + tokens)
  }

  lead(name: string): number {
    return (this.#served.get(name) ?? 0) - this.#least()
  }

  #least(): number {
    this.#leastServed ??= this.#served.size === 0 ? 0 : Math.min(...this.#served.values())
    return this.#leastServed
  }
}
