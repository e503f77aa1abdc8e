/**
 * The KV cells of a backend: who holds which, what is shared, what is forgotten first.
 *
 * A running request holds a branch of the token tree. When it ends, its branch stays as cache, and a later request
 * that begins with the same tokens shares those cells instead of computing them. Cells that no running request needs
 * are given up from the end of the branch that was used longest ago.
 *
 * What is legal depends on how the model remembers (`Backend.info.sharing`). With `prefix`, any beginning of any
 * branch can be shared, and branches that hold the same tokens come to hold the same cells. With `whole`, a state
 * exists only at the end of a branch and only all of it can be taken over; the request that leads others stops where
 * they part, so that they can.
 *
 * @module
 */

import { assert } from "../util/errors.ts"
import type { Backend } from "./backend.ts"
import type { PrefixTier } from "./prefix-tier.ts"
import { type Branch, TokenTree } from "./token-tree.ts"

/** Cached cells that may slow steps down: measured 1 % for one answer of a 0.5B model on two cores, 2 % for sixteen. */
const CACHED_CELLS_MAX = 1024

/** Fewer cells at once are not worth a call to the backend. */
const EVICTED_CELLS_MIN = 32

/** Shorter prefixes are computed again sooner than they are written and read. */
export const TIER_TOKENS_MIN = 64

/** What the memory did, for metrics. Tokens. */
export interface MemoryCounters {
  evictedTokens: number
  savedTokens: number
  restoredTokens: number
}

/** See the module. Legal only between steps. */
export class PrefixMemory {
  readonly counters: MemoryCounters = { evictedTokens: 0, savedTokens: 0, restoredTokens: 0 }
  readonly #backend: Backend
  readonly #tier: PrefixTier | undefined
  readonly #tree = new TokenTree()
  /** Highest first, so that `pop` gives the lowest. */
  readonly #freeIds: number[]
  /** Branches of no running request, longest unused first. */
  readonly #cached = new Set<Branch>()
  readonly #saved = new WeakSet<Branch>()

  constructor(backend: Backend, tier?: PrefixTier) {
    this.#backend = backend
    this.#tier = tier
    const { firstSequence, sequences } = backend.info
    assert(sequences > 0, "a backend has a sequence id for a request")
    this.#freeIds = Array.from({ length: sequences }, (_, i) => firstSequence + sequences - 1 - i)
  }

  get totalCells(): number {
    return this.#backend.info.cells
  }

  get freeCells(): number {
    return this.totalCells - this.#tree.cells
  }

  /** Cells of running requests, shared ones once. */
  get activeCells(): number {
    return this.#tree.activeCells
  }

  /** Cells that can be given up. */
  get cachedCells(): number {
    return this.#tree.cells - this.#tree.activeCells
  }

  /** Cells beside those of running requests that a request over these tokens would take. */
  cost(scope: string | undefined, tokens: ArrayLike<number>): number {
    const lookup = { tokens, limit: tokens.length - 1 }
    if (this.#backend.info.sharing === "prefix") {
      return tokens.length - this.#tree.activeCellsOf(this.#tree.find(scope, lookup))
    }
    const source = scope === undefined ? undefined : this.#tree.findWhole(scope, lookup)
    return tokens.length - (source?.isActive === true ? source.end : 0)
  }

  /** Tokens that agree with what somebody holds, even where their state cannot be taken over. */
  agreeing(scope: string | undefined, tokens: ArrayLike<number>): number {
    return this.#tree.find(scope, { tokens, limit: tokens.length - 1 }).end
  }

  /** Begins an empty branch; undefined when all sequence ids are of running requests. */
  open(scope: string | undefined): Branch | undefined {
    if (this.#freeIds.length === 0) {
      const [oldest] = this.#cached
      if (oldest !== undefined) this.#evictWhole(oldest)
    }
    const id = this.#freeIds.pop()
    return id === undefined ? undefined : this.#tree.plant(id, scope)
  }

  /**
   * Lets a branch take over the longest beginning of `tokens` that is there, if that is longer than what it has.
   * Its own tokens have to be such a beginning.
   *
   * @param limit Most tokens to take over: at least the last one has to be computed to be sampled.
   */
  reuse(branch: Branch, tokens: ArrayLike<number>, limit: number): void {
    const { scope } = branch
    if (scope === undefined) return
    const lookup = { tokens, limit }
    if (this.#backend.info.sharing === "prefix") {
      const from = branch.end
      const match = this.#tree.findFrom(branch, lookup)
      if (match.end <= from) return
      this.#share(this.#tree.holderOf(match), branch, { from, to: match.end })
      this.#tree.move(branch, match)
    } else if (this.#backend.info.sharing === "whole") {
      const source = this.#tree.findWhole(scope, lookup, branch)
      if (source === undefined || source.end <= branch.end) return
      this.#touch(source)
      if (branch.end > 0) this.#backend.removeSequence(branch.id, 0, -1)
      this.#backend.copySequence(source.id, branch.id, 0, -1)
      this.#tree.move(branch, { node: source.node, end: source.end })
    }
  }

  /** Takes over from the slower tier what is not in the cells; for a branch that just began. */
  restore(branch: Branch, tokens: ArrayLike<number>, limit: number): void {
    const { scope } = branch
    const { sharing } = this.#backend.info
    if (scope === undefined || this.#tier === undefined || sharing === "none") return
    const entry = this.#tier.find(scope, { tokens, limit }, sharing)
    if (entry === undefined || entry.agreeing < branch.end + TIER_TOKENS_MIN) return
    if (this.activeCells + entry.tokens.length > this.totalCells) return
    if (!this.makeRoom(entry.tokens.length)) return
    const state = entry.read()
    if (state === undefined) return
    this.#clear(branch)
    if (!this.#backend.restoreSequence(branch.id, state)) return
    if (entry.agreeing < entry.tokens.length)
      this.#backend.removeSequence(branch.id, entry.agreeing, -1)
    this.extend(branch, entry.tokens.slice(0, entry.agreeing))
    this.counters.restoredTokens += entry.agreeing
  }

  /** Enters tokens that the backend computed at the end of a branch; shares their cells if others hold the same. */
  extend(branch: Branch, tokens: Int32Array): void {
    if (this.#backend.info.sharing !== "prefix" || branch.scope === undefined) {
      this.#tree.grow(branch, tokens)
      return
    }
    const from = branch.end
    const match = this.#tree.findBelow(branch, tokens)
    if (match.end > from) {
      this.#backend.removeSequence(branch.id, from, match.end)
      this.#share(this.#tree.holderOf(match), branch, { from, to: match.end })
      this.#tree.move(branch, match)
    }
    this.#tree.grow(branch, tokens.subarray(match.end - from))
  }

  /** A step was cut short: forgets what may be half computed. */
  repair(branch: Branch): void {
    if (this.#backend.info.sharing !== "prefix") this.#clear(branch)
    else if (this.#backend.lastPosition(branch.id) >= branch.end)
      this.#backend.removeSequence(branch.id, branch.end, -1)
  }

  /** Keeps the state that a running request has now for others, beside the request itself. */
  snapshot(branch: Branch): void {
    if (branch.scope === undefined || branch.end === 0) return
    const copy = this.open(branch.scope)
    if (copy === undefined) return
    this.#backend.copySequence(branch.id, copy.id, 0, -1)
    this.#tree.move(copy, { node: branch.node, end: branch.end })
    this.retire(copy)
  }

  /** The request of a branch is over: it becomes cache, or is freed when it has no scope or nothing of its own. */
  retire(branch: Branch): void {
    this.#tree.setActive(branch, false)
    const isShared = this.#backend.info.sharing === "prefix" && this.#tree.isRedundant(branch)
    if (branch.scope === undefined || branch.end === 0 || isShared) this.discard(branch)
    else this.#cached.add(branch)
  }

  /** Frees a branch; the state of its last step may be broken. */
  discard(branch: Branch): void {
    this.#cached.delete(branch)
    this.#backend.removeSequence(branch.id, 0, -1)
    this.abandon(branch)
  }

  /** As {@link discard}, without touching a backend that is broken. */
  abandon(branch: Branch): void {
    this.#tree.remove(branch)
    this.#freeIds.push(branch.id)
    this.#freeIds.sort((a, b) => b - a)
  }

  /** Gives cache up until so many cells are free. False when running requests hold too many. */
  makeRoom(cells: number): boolean {
    while (this.freeCells < cells) if (!this.evict(cells - this.freeCells)) return false
    return true
  }

  /** Gives up cells of what was used longest ago. False when there is nothing left to give up. */
  evict(cells: number): boolean {
    const [oldest] = this.#cached
    if (oldest === undefined) return false
    const own = this.#tree.ownTail(oldest)
    const count = Math.min(own, Math.max(cells, EVICTED_CELLS_MIN))
    if (this.#backend.info.sharing !== "prefix" || count === 0) {
      this.#evictWhole(oldest)
      return true
    }
    this.#save(oldest)
    this.counters.evictedTokens += count
    this.#backend.removeSequence(oldest.id, oldest.end - count, -1)
    this.#tree.cut(oldest, count)
    if (oldest.end === 0 || this.#tree.isRedundant(oldest)) this.discard(oldest)
    return true
  }

  /**
   * Where cells in use slow every step, moves what nobody runs on to the tier, one branch at a time. What comes back
   * is copied in milliseconds.
   */
  trim(): void {
    if (this.#tier === undefined || !this.#backend.info.isSlowedByCells) return
    const excess = this.cachedCells - CACHED_CELLS_MAX
    if (excess > 0) this.evict(excess)
  }

  /** Hands all that is cached to the slower tier, before the backend goes away. */
  saveAll(): void {
    for (const branch of this.#cached) this.#save(branch)
  }

  #evictWhole(branch: Branch): void {
    this.#save(branch)
    this.counters.evictedTokens += this.#tree.ownTail(branch)
    this.discard(branch)
  }

  #save(branch: Branch): void {
    const { scope, end } = branch
    if (this.#tier === undefined || scope === undefined || end < TIER_TOKENS_MIN) return
    const { sharing } = this.#backend.info
    // Who holds more has it too, but of a longer state only all can be used.
    const isPart = sharing === "prefix" && this.#tree.isRedundant(branch)
    if (this.#saved.has(branch) || isPart) return
    this.#saved.add(branch)
    const tokens = this.#tree.tokensOf(branch)
    if (this.#tier.has(scope, tokens, sharing)) return
    const state = this.#backend.saveSequence(branch.id)
    if (state === undefined) return
    this.#tier.put(scope, tokens, state)
    this.counters.savedTokens += tokens.length
  }

  #share(source: Branch, target: Branch, { from, to }: { from: number; to: number }): void {
    assert(source !== target, "a branch shares with others")
    this.#touch(source)
    this.#backend.copySequence(source.id, target.id, from, to)
  }

  /** Moves a cached branch to the end of the queue for eviction. */
  #touch(branch: Branch): void {
    if (this.#cached.delete(branch)) this.#cached.add(branch)
  }

  #clear(branch: Branch): void {
    this.#backend.removeSequence(branch.id, 0, -1)
    this.#tree.reset(branch)
  }
}
