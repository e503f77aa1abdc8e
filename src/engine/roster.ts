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
import { admissionOrder, FairShare, outranks, victimOf } from "./admission.ts"
import type { Backend } from "./backend.ts"
import { PrefixMemory } from "./prefix-memory.ts"
import { commonLength, type PrefixTier } from "./prefix-tier.ts"
import { type PlanEntry, schedule, SHARED_TOKENS_MIN, type StepLimits } from "./scheduler.ts"
import type { Sequence } from "./sequence.ts"

/** Cells per request that stay free at admission, so that it is not pushed out at once. */
const HEADROOM_CELLS = 32

/** The headroom of all together is at most this part of all cells. */
const HEADROOM_SHARE = 1 / 8

/** See the module. */
export class Roster {
  readonly memory: PrefixMemory
  readonly #backend: Backend
  readonly #parallelMax: number
  readonly #fairShare = new FairShare()
  #waiting: Sequence[] = []
  #running: Sequence[] = []
  /** The backend has less room than its cells say: nobody is admitted until somebody is done. */
  #isCramped = false
  preemptions = 0

  constructor(backend: Backend, options: { tier?: PrefixTier; parallelMax?: number }) {
    this.#backend = backend
    this.#parallelMax = Math.min(options.parallelMax ?? Infinity, backend.info.rows)
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
    this.#running = this.#running.filter((other) => other !== sequence)
    this.#waiting = this.#waiting.filter((other) => other !== sequence)
    this.#fairShare.leave(sequence.client)
    this.#isCramped = false
    const { branch } = sequence
    sequence.branch = undefined
    if (branch === undefined) return
    if (cells === "keep") this.memory.retire(branch)
    else if (cells === "discard") this.memory.discard(branch)
    else this.memory.abandon(branch)
  }

  /** Admits who fits, and plans a step for which there is room. Empty when nobody runs. */
  plan(
    limits: (answers: number, prompts: number) => StepLimits,
    now: number,
  ): PlanEntry<Sequence>[] {
    this.#admit(now)
    for (;;) {
      for (const sequence of this.#running) this.#takeOver(sequence)
      const answers = this.#running.filter(({ isDecoding }) => isDecoding).length
      const plan = schedule(this.#running, limits(answers, this.#running.length - answers), {
        common: (sequence, leader) => this.#common(sequence, leader),
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
      const { branch, computedTokens: from } = sequence
      assert(branch !== undefined, "a planned sequence is admitted")
      this.memory.extend(branch, sequence.tokens(from, from + count))
      sequence.waitedSteps = 0
      this.#fairShare.charge(sequence.client, count)
      if (branch.end === sequence.stopAt) this.memory.snapshot(branch)
    }
  }

  /** A step was cut short. */
  repair(plan: readonly PlanEntry<Sequence>[]): void {
    for (const { sequence } of plan) {
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

  /** Takes a request's cells away and puts it back into the queue: it begins anew with other tokens. */
  requeue(sequence: Sequence): void {
    assert(sequence.branch !== undefined, "only what runs can be put back")
    this.memory.retire(sequence.branch)
    sequence.branch = undefined
    this.#running = this.#running.filter((other) => other !== sequence)
    this.#waiting.unshift(sequence)
  }

  #admit(now: number): void {
    if (this.#waiting.length === 0 || (this.#isCramped && this.#running.length > 0)) return
    for (const sequence of admissionOrder(this.#waiting, this.#fairShare, now)) {
      while (!this.#start(sequence)) {
        const victim = victimOf(this.#running)
        // Nobody overtakes: what does not fit yet keeps those behind it waiting.
        if (victim === undefined || !outranks(sequence, victim)) return
        this.#preempt()
      }
    }
  }

  #start(sequence: Sequence): boolean {
    if (this.#running.length >= this.#parallelMax) return false
    const { scope, known } = sequence
    sequence.sharedTokens = Math.max(0, ...this.#running.map((one) => this.#common(sequence, one)))
    if (this.#running.length > 0) {
      const own = Math.min(this.memory.cost(scope, known), known.length - sequence.sharedTokens)
      const wanted = this.memory.activeCells + this.#expectedCells() + own
      if (wanted + this.#headroom() > this.memory.totalCells) return false
    }
    const branch = this.memory.open(scope)
    if (branch === undefined) return false
    sequence.branch = branch
    this.#takeOver(sequence)
    const before = branch.end
    this.memory.restore(branch, known, known.length - 1)
    // Less than before when the tier's state could not be used: what it shared is taken over again at the next step.
    sequence.markCached(branch.end - before)
    if (this.#backend.info.sharing === "whole") {
      // Where it leaves what is known, others will too: it leaves a state there that they can take over.
      const agreeing = this.memory.agreeing(scope, known)
      sequence.stopAt = agreeing >= branch.end + SHARED_TOKENS_MIN ? agreeing : undefined
    }
    sequence.ageSteps = 0
    this.#waiting = this.#waiting.filter((other) => other !== sequence)
    this.#running.push(sequence)
    return true
  }

  /** Cells that running requests will take for what they know already. */
  #expectedCells(): number {
    return this.#running.reduce((sum, { knownTokens, computedTokens, sharedTokens }) => {
      return sum + Math.max(0, knownTokens - Math.max(computedTokens, sharedTokens))
    }, 0)
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

  #common(sequence: Sequence, leader: Sequence): number {
    if (sequence.scope === undefined || sequence.scope !== leader.scope) return 0
    return commonLength(leader.known, { tokens: sequence.known, limit: sequence.knownTokens - 1 })
  }

  #preempt(): void {
    const victim = victimOf(this.#running)
    assert(victim !== undefined, "somebody runs")
    this.preemptions++
    victim.markPreempted()
    this.requeue(victim)
  }
}
