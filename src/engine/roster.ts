/**
 * Who waits, who runs, and who has to give way; keeps the cells of all of them in step.
 *
 * Requests are admitted by the cells that they need now, not by the most they could ever need. When cells run out,
 * the least urgent request gives way: it keeps its tokens and its sampler, its cells become cache, and it goes on
 * later as if nothing had happened.
 *
 * @module
 */

import { assert } from "../util/errors.ts"
import { FairShare, inOrder, nextOf, Pressure, victimOf } from "./admission.ts"
import { type Backend, movesStates } from "./backend.ts"
import { CommonLengths } from "./common-lengths.ts"
import { PrefixMemory } from "./prefix-memory.ts"
import type { PrefixTier, TierPart } from "./prefix-tier.ts"
import { type PlanEntry, schedule, SHARED_TOKENS_MIN, type StepLimits } from "./scheduler.ts"
import type { Sequence } from "./sequence.ts"
import { TierReads } from "./tier-reads.ts"

/** Cells per request that stay free at admission, so that it is not pushed out at once. */
const HEADROOM_CELLS = 32

/** The headroom of all together is at most this part of all cells. */
const HEADROOM_SHARE = 1 / 8

/** When so many cannot be admitted, those behind them are not tried in this step. */
const BARRED_MAX = 4

/** Looking at all that wait at every step would cost more than the rest of a plan. */
const NEWCOMER_MS = 250

/** Options of {@link Roster}. */
export interface RosterOptions {
  readonly tier?: PrefixTier
  readonly parallelMax?: number
  /** A request may have become able to run. */
  readonly onReady: () => void
}

/** What a plan depends on. */
export interface PlanOptions {
  readonly limits: (running: readonly Sequence[]) => StepLimits<Sequence>
  readonly now: number
  /** A running request that has the step to itself. */
  readonly only: Sequence | undefined
}

/** A part of a prefix, and its state. */
type Restore = readonly [TierPart, Uint8Array | undefined]

/** See the module. */
export class Roster {
  readonly memory: PrefixMemory
  readonly #backend: Backend
  readonly #parallelMax: number
  readonly #fairShare = new FairShare()
  readonly #commons = new CommonLengths<Sequence>()
  readonly #reads: TierReads<Sequence>
  /** What is put back for requests that run already. */
  readonly #restores = new Map<Sequence, Restore[]>()
  #waiting: Sequence[] = []
  #running: Sequence[] = []
  /** The backend has less room than its cells say: nobody is admitted until somebody is done. */
  #isCramped = false
  #admitted = 0
  /** When to look for clients that have nothing running. */
  #lookAt = -Infinity
  preemptions = 0

  constructor(backend: Backend, options: RosterOptions) {
    this.#backend = backend
    const { rows, sequences } = backend.info
    this.#parallelMax = Math.min(options.parallelMax ?? Infinity, rows, sequences)
    assert(this.#parallelMax >= 1, "at least one request can run")
    this.#reads = new TierReads({
      lookUp: (sequence) => this.#inTier(sequence),
      onReady: options.onReady,
    })
    this.memory = new PrefixMemory(backend, options.tier)
  }

  get waiting(): readonly Sequence[] {
    return this.#waiting
  }

  get running(): readonly Sequence[] {
    return this.#running
  }

  /** Requests that could run beside those that do, cells aside. */
  get freePlaces(): number {
    return Math.max(0, this.#parallelMax - this.#running.length)
  }

  /** Waiting requests in the order in which they would be admitted now. */
  get queue(): readonly Sequence[] {
    return inOrder(this.#waiting, this.#fairShare)
  }

  /** A request arrives. */
  add(sequence: Sequence): void {
    this.#fairShare.arrive(sequence.client)
    this.#waiting.push(sequence)
  }

  /**
   * A request is over.
   *
   * @param cells What becomes of its cells: cache for others; freed, as they may be wrong; or not touched, because the
   * backend is broken.
   */
  remove(sequence: Sequence, cells: "keep" | "discard" | "abandon"): void {
    this.#waiting = this.#waiting.filter((other) => other !== sequence)
    this.#fairShare.leave(sequence.client)
    this.#reads.drop(sequence)
    this.#unwant(sequence)
    const { branch } = sequence
    if (branch === undefined) return
    this.#leave(sequence)
    this.#isCramped = false
    if (cells === "keep") this.memory.retire(branch)
    else if (cells === "discard") this.memory.discard(branch)
    else this.memory.abandon(branch)
  }

  /** Admits who fits, and plans a step for which there is room. Empty when nobody runs. */
  plan({ limits, now, only }: PlanOptions): PlanEntry<Sequence>[] {
    this.#admit(now)
    this.#restoreNext()
    for (;;) {
      for (const sequence of this.#running) this.#takeOver(sequence)
      // It may have had to give way itself.
      const wanted = only?.branch === undefined ? this.#running : [only]
      const candidates = wanted.filter((sequence) => !this.#restores.has(sequence))
      if (candidates.length === 0 && this.#restoreNext()) continue
      const plan = schedule(candidates, limits(candidates), {
        common: (sequence, leader) => this.#commons.of(sequence, leader),
        isWholeOnly: this.#backend.info.sharing === "whole",
      })
      const tokens = plan.reduce((sum, { count }) => sum + count, 0)
      if (this.memory.makeRoom(tokens)) {
        if (plan.length > 0) this.memory.trim()
        return plan
      }
      if (this.#running.length <= 1) return []
      this.#preempt()
    }
  }

  /** A step was computed: enters its tokens. */
  advance(plan: readonly PlanEntry<Sequence>[]): void {
    for (const sequence of this.#running) {
      sequence.waitedSteps++
      sequence.ageSteps++
    }
    for (const { sequence, count } of plan) {
      const { branch, computedTokens: from, isDecoding } = sequence
      assert(branch !== undefined, "a planned sequence is admitted")
      this.memory.extend(branch, sequence.tokens(from, from + count), isDecoding)
      sequence.waitedSteps = 0
      this.#fairShare.charge(sequence.client, count)
      if (sequence.stops.includes(branch.end)) this.memory.snapshot(branch)
    }
  }

  /** A step was cut short. */
  repair(plan: readonly PlanEntry<Sequence>[]): void {
    const isAnyLost = plan.length > 1 && movesStates(this.#backend.info)
    if (isAnyLost) this.memory.forget()
    for (const sequence of isAnyLost ? this.#running : plan.map((entry) => entry.sequence)) {
      if (sequence.branch === undefined) continue
      this.memory.repair(sequence.branch)
      if (sequence.computedTokens === 0) sequence.markLost()
    }
  }

  /**
   * The backend found no cells although the books said so: sliding windows and recurrent states have limits of their
   * own. Gives up cache, then requests.
   *
   * @returns False when one request alone does not fit.
   */
  relieve(plan: readonly PlanEntry<Sequence>[]): boolean {
    const tokens = plan.reduce((sum, { count }) => sum + count, 0)
    if (this.memory.evict(tokens)) return true
    if (this.#running.length <= 1) return false
    this.#isCramped = true
    this.#preempt()
    return true
  }

  /** A running request has other tokens now: it keeps its place, and what of its cells still holds. */
  restart(sequence: Sequence): void {
    assert(sequence.branch !== undefined, "only what runs can begin anew")
    this.memory.retire(sequence.branch)
    sequence.branch = this.memory.open(sequence.scope)
    assert(sequence.branch !== undefined, "what was given up leaves an id")
    this.#takeOver(sequence)
  }

  #admit(now: number): void {
    if (this.#waiting.length === 0 || (this.#isCramped && this.#running.length > 0)) return
    if (!this.#isWorthLooking(now)) return
    const barred = new Set<Sequence>()
    while (barred.size < BARRED_MAX) {
      const pressure = new Pressure(this.#running, now)
      // Nobody overtakes: what does not fit keeps those behind it waiting, but for who may push others out.
      const isFull = barred.size > 0 || this.freePlaces === 0
      const candidates = this.#waiting.filter(
        (one) =>
          (!isFull || pressure.canPush(one)) && !barred.has(one) && !this.#reads.isWaiting(one),
      )
      const next = nextOf(candidates, {
        fairShare: this.#fairShare,
        now,
        admitted: this.#admitted,
      })
      if (next === undefined) return
      const victims = this.#victimsFor(next.applicant, pressure)
      if (victims === undefined || (barred.size > 0 && victims.length === 0)) {
        barred.add(next.applicant)
      } else if (this.#reads.prepare(next.applicant)) {
        for (const victim of victims) this.#giveWay(victim)
        this.#start(next.applicant, next.isElder)
      }
    }
  }

  /** When all places are taken, only who may push others out matters; newcomers are looked for now and then. */
  #isWorthLooking(now: number): boolean {
    if (this.freePlaces > 0 || now >= this.#lookAt) {
      this.#lookAt = now + NEWCOMER_MS
      return true
    }
    const pressure = new Pressure(this.#running, now)
    return this.#waiting.some((one) => pressure.outranks(one))
  }

  /** Who has to give way so that a request can start; undefined when it cannot, whoever did. */
  #victimsFor(sequence: Sequence, pressure: Pressure<Sequence>): Sequence[] | undefined {
    let places = this.freePlaces
    let cells = this.#missingCells(sequence)
    const victims: Sequence[] = []
    if (places > 0 && cells <= 0) return victims
    for (const victim of pressure.victimsFor(sequence)) {
      victims.push(victim)
      places++
      cells -= this.#cellsOf(victim)
      if (places > 0 && (cells <= 0 || victims.length === this.#running.length)) return victims
    }
    return undefined
  }

  /** Cells that are missing for a request to start. Alone, it starts in any case. */
  #missingCells(sequence: Sequence): number {
    const { scope, known } = sequence
    sequence.sharedTokens = Math.max(
      0,
      ...this.#running.map((one) => this.#commons.of(sequence, one)),
    )
    if (this.#running.length === 0) return 0
    const own = Math.min(this.memory.cost(scope, known), known.length - sequence.sharedTokens)
    const wanted = this.memory.activeCells + this.#expectedCells() + own
    return wanted + this.#headroom() - this.memory.totalCells
  }

  /** Cells that a running request has to itself, or will take. */
  #cellsOf(sequence: Sequence): number {
    const { branch } = sequence
    const held = branch === undefined ? 0 : this.memory.soleCells(branch)
    return held + expectedCells(sequence) + HEADROOM_CELLS
  }

  #start(sequence: Sequence, isElder: boolean): void {
    const branch = this.memory.open(sequence.scope)
    assert(branch !== undefined, "there are as many ids as can run")
    sequence.branch = branch
    sequence.isElder = isElder
    sequence.ageSteps = 0
    this.#admitted++
    this.#waiting = this.#waiting.filter((other) => other !== sequence)
    this.#running.push(sequence)
    this.#takeOver(sequence)
    const { parts, states } = this.#reads.take(sequence)
    const restores = parts.map((part, i): Restore => [part, states[i]])
    if (this.#backend.info.sharing === "whole") {
      // A state has one part.
      for (const restore of restores) this.#restore(sequence, restore)
      sequence.stops = this.#stopsOf(sequence)
    } else if (restores.length > 0) this.#restores.set(sequence, restores)
    this.#unwant(sequence)
  }

  /**
   * Where a request leaves a state that others can take over: where it leaves what is known, as others will too, and
   * where turns end.
   */
  #stopsOf(sequence: Sequence): number[] {
    const { scope, known, computedTokens, wasPreempted } = sequence
    const ends = wasPreempted ? [] : sequence.turnEnds()
    const stops = new Set([this.memory.agreeing(scope, known), ...ends])
    return [...stops]
      .filter((stop) => stop >= computedTokens + SHARED_TOKENS_MIN)
      .toSorted((a, b) => a - b)
  }

  /**
   * Puts the next part of what a tier has back, for one request: a long prefix takes longer to copy than a step.
   *
   * @returns False when there is none.
   */
  #restoreNext(): boolean {
    const [next] = this.#restores
    if (next === undefined) return false
    const [sequence, restores] = next
    let hasNext: boolean
    do {
      const restore = restores.shift()
      hasNext = restore !== undefined && this.#restore(sequence, restore) && restores.length > 0
    } while (hasNext && this.#isHeld(sequence, restores))
    if (!hasNext) this.#restores.delete(sequence)
    return true
  }

  /** Whether the next part is there already: others came to have it meanwhile. */
  #isHeld({ computedTokens }: Sequence, [next]: readonly Restore[]): boolean {
    return next !== undefined && next[0].to <= computedTokens
  }

  #restore(sequence: Sequence, [part, state]: Restore): boolean {
    const { branch } = sequence
    assert(branch !== undefined, "only what runs takes over")
    const before = branch.end
    const isThere = this.memory.restore(branch, part, state)
    // Less than before when the tier's state could not be used: what it shared is taken over again at the next step.
    sequence.markCached(branch.end - before)
    return isThere
  }

  /** What a tier has beyond the cells. */
  #inTier({ scope, known, branch }: Sequence): readonly TierPart[] {
    const from = branch?.end ?? this.memory.reusable(scope, known)
    return this.memory.inTier(scope, { tokens: known, limit: known.length - 1 }, from)
  }

  /** Cells that running requests will take for what they know already. */
  #expectedCells(): number {
    return this.#running.reduce((sum, sequence) => sum + expectedCells(sequence), 0)
  }

  #headroom(): number {
    const all = (this.#running.length + 1) * HEADROOM_CELLS
    return Math.min(all, Math.floor(this.memory.totalCells * HEADROOM_SHARE))
  }

  #takeOver(sequence: Sequence): void {
    const { branch, known, isDecoding } = sequence
    if (branch === undefined || isDecoding) return
    const before = branch.end
    this.memory.reuse(branch, known, known.length - 1)
    sequence.markCached(branch.end - before)
    sequence.clientLead = this.#fairShare.lead(sequence.client)
  }

  #preempt(): void {
    const victim = victimOf(this.#running)
    assert(victim !== undefined, "somebody runs")
    this.#giveWay(victim)
  }

  /** Takes a request's cells away and puts it back into the queue. */
  #giveWay(sequence: Sequence): void {
    const { branch } = sequence
    assert(branch !== undefined, "only what runs can give way")
    this.preemptions++
    sequence.markPreempted()
    this.memory.retire(branch, true)
    sequence.wanted = branch
    this.#leave(sequence)
    this.#waiting.push(sequence)
  }

  /** It does not run any more. */
  #leave(sequence: Sequence): void {
    sequence.branch = undefined
    this.#restores.delete(sequence)
    this.#running = this.#running.filter((other) => other !== sequence)
  }

  #unwant(sequence: Sequence): void {
    if (sequence.wanted !== undefined) this.memory.unwant(sequence.wanted)
    sequence.wanted = undefined
  }
}

/** Cells that a running request will take for what it knows already. */
function expectedCells({ knownTokens, computedTokens, sharedTokens }: Sequence): number {
  return Math.max(0, knownTokens - Math.max(computedTokens, sharedTokens))
}
