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
import { partsFrom, type PrefixTier, type TierPart, wholeBeyond } from "./prefix-tier.ts"
import { type Branch, type Lookup, TokenTree } from "./token-tree.ts"

/** Fewer cells at once are not worth a call to the backend. */
const EVICTED_CELLS_MIN = 32

/** With a tier more is given up at once, as it comes back at little cost: small states are slow to copy. */
const SAVED_CELLS_MIN = 256

/** Longer stretches are copied piece by piece: nobody is kept waiting for long. */
const SAVED_CELLS_MAX = 1024

/** Between two steps so much is copied out of cells that slow them: some hundredths of a second. */
const TRIMMED_BYTES = 64 * 2 ** 20

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
  /** Of those, the ones that a request which had to give way will go on with: given up last. */
  readonly #wanted = new Set<Branch>()
  /** Of those, the ones that a tier which outlives the process may not have. */
  readonly #unsaved = new Set<Branch>()
  /** Branches whose end is in the tier: it is of no use without the beginning, however short. */
  readonly #cut = new WeakSet<Branch>()
  /** What is cached moves to the tier. */
  #isTrimming = false

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

  /** Tokens that a request could take over from the cells now. */
  reusable(scope: string | undefined, tokens: ArrayLike<number>): number {
    const lookup = { tokens, limit: tokens.length - 1 }
    const { sharing } = this.#backend.info
    if (sharing === "prefix") return this.#tree.find(scope, lookup).end
    return sharing === "none" || scope === undefined
      ? 0
      : (this.#tree.findWhole(scope, lookup)?.end ?? 0)
  }

  /** Cells that only this running request needs. */
  soleCells(branch: Branch): number {
    return this.#tree.soleActiveCells(branch)
  }

  /** Tokens that agree with what somebody holds, even where their state cannot be taken over. */
  agreeing(scope: string | undefined, tokens: ArrayLike<number>): number {
    return this.#tree.find(scope, { tokens, limit: tokens.length - 1 }).end
  }

  /** Begins an empty branch; undefined when all sequence ids are of running requests. */
  open(scope: string | undefined): Branch | undefined {
    const oldest = this.#freeIds.length === 0 ? this.#oldest() : undefined
    if (oldest !== undefined) this.#evictWhole(oldest)
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

  /** What the slower tier has of these tokens beyond the first `from`, in its order. */
  inTier(scope: string | undefined, lookup: Lookup, from: number): readonly TierPart[] {
    const { sharing } = this.#backend.info
    if (scope === undefined || this.#tier === undefined || sharing === "none") return []
    const entries = this.#tier.entries(scope)
    if (sharing === "prefix") {
      const parts = partsFrom(entries, lookup, from)
      return (parts.at(-1)?.to ?? from) < from + TIER_TOKENS_MIN ? [] : parts
    }
    const whole = wholeBeyond(entries, lookup, from + TIER_TOKENS_MIN - 1)
    return whole === undefined ? [] : [whole]
  }

  /**
   * Puts a part out of the slower tier into cells at the end of a branch, if it goes on from there, there is room, and
   * the state is what it was.
   *
   * @returns Whether the branch has it now.
   */
  restore(branch: Branch, { entry, from, to }: TierPart, state: Uint8Array | undefined): boolean {
    if (to <= branch.end) return true
    if (state === undefined || from > branch.end) return false
    // All of the state comes into cells before the part that is not wanted leaves them.
    const cells = entry.tokens.length - entry.from
    if (this.activeCells + cells > this.totalCells || !this.makeRoom(cells)) return false
    if (this.#backend.info.sharing !== "prefix") this.#clear(branch)
    const begin = branch.end
    if (!this.#backend.restoreSequence(branch.id, state, { from: begin, to })) {
      entry.forget()
      return false
    }
    this.extend(branch, entry.tokens.slice(begin, to))
    this.counters.restoredTokens += to - begin
    return true
  }

  /**
   * Enters tokens that the backend computed at the end of a branch; shares their cells if others hold the same.
   *
   * @param isAnswer They are not looked up, as they come one by one: two that say the same are joined when one is over.
   */
  extend(branch: Branch, tokens: Int32Array, isAnswer = false): void {
    const isShared = this.#backend.info.sharing === "prefix" && branch.scope !== undefined
    if (!isShared || isAnswer) {
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

  /**
   * The request of a branch is over, or has to wait: the branch becomes cache, or is freed when it has no scope or
   * nothing of its own.
   *
   * @param isWanted The request will go on with it.
   */
  retire(branch: Branch, isWanted = false): void {
    this.#tree.setActive(branch, false)
    const { sharing } = this.#backend.info
    if (sharing === "prefix") {
      this.#joinTwins(branch)
      // What it goes on from is held by it too.
      for (const part of this.#tree.endsBefore(branch))
        if (this.#cached.has(part) && !this.#wanted.has(part)) this.discard(part)
    }
    const isShared = sharing === "prefix" && this.#tree.isRedundant(branch)
    // It leaves no trace but this: what it shared was used now.
    if (isShared) this.#touch(this.#tree.holderOf(branch, branch))
    if (branch.scope === undefined || branch.end === 0 || isShared) {
      this.discard(branch)
      return
    }
    this.#cached.add(branch)
    if (isWanted) this.#wanted.add(branch)
    if (this.#tier?.persists === true) this.#unsaved.add(branch)
  }

  /** The request that wanted a retired branch is over, or has taken over what it needs. */
  unwant(branch: Branch): void {
    this.#wanted.delete(branch)
  }

  /** Frees a branch; the state of its last step may be broken. */
  discard(branch: Branch): void {
    for (const set of [this.#cached, this.#wanted, this.#unsaved]) set.delete(branch)
    this.#backend.removeSequence(branch.id, 0, -1)
    this.abandon(branch)
  }

  /** Frees all that no running request holds: its states may be broken. */
  forget(): void {
    for (const branch of this.#cached) this.discard(branch)
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
    const oldest = this.#oldest()
    if (oldest === undefined) return false
    const own = this.#tree.ownTail(oldest)
    const least = this.#tier === undefined ? EVICTED_CELLS_MIN : SAVED_CELLS_MIN
    const count = Math.min(own, Math.max(cells, least))
    if (this.#backend.info.sharing !== "prefix" || count === 0) {
      this.#evictWhole(oldest)
      return true
    }
    const from = oldest.end - count
    this.#saveAllOf(oldest, from)
    this.counters.evictedTokens += count
    this.#backend.removeSequence(oldest.id, from, -1)
    this.#tree.cut(oldest, count)
    this.#cut.add(oldest)
    if (oldest.end === 0 || this.#tree.isRedundant(oldest)) this.discard(oldest)
    return true
  }

  /**
   * Where cells in use slow every step, moves what nobody runs on to the tier once it is too much. All of it, before a
   * step is computed: llama.cpp looks at every cell up to the last one in use, so a few that stay behind others cost as
   * much as many, and what is computed next shall take their places. What comes back is copied in milliseconds.
   * Nothing is lost for it: what the tier has no room for stays.
   */
  trim(): void {
    this.#isTrimming ||= this.cachedCells > this.#backend.info.cachedCellsMax
    for (let bytes = 0; this.#isTrimming && bytes < TRIMMED_BYTES;) {
      const moved = this.#trimOldest()
      this.#isTrimming = moved > 0
      bytes += moved
    }
  }

  /**
   * Copies what is cached to a tier that outlives the process, one stretch at a time.
   *
   * @returns False when all of it is there.
   */
  saveNext(): boolean {
    for (const branch of this.#unsaved) {
      if (this.#save(branch, 0)) return true
      this.#unsaved.delete(branch)
    }
    return false
  }

  /** What was used longest ago; what somebody will go on with, last. */
  #oldest(): Branch | undefined {
    let first: Branch | undefined
    for (const branch of this.#cached) {
      if (!this.#wanted.has(branch)) return branch
      first ??= branch
    }
    return first
  }

  /** @returns Bytes that were moved; 0 when there is nothing left to move, or no room for it. */
  #trimOldest(): number {
    const oldest = this.#oldest()
    if (oldest === undefined || this.#wanted.has(oldest) || this.#tier === undefined) return 0
    const { sharing } = this.#backend.info
    const from = sharing === "prefix" ? Math.max(0, oldest.end - SAVED_CELLS_MIN) : 0
    const tokenBytes = oldest.end * Int32Array.BYTES_PER_ELEMENT
    const bytes = tokenBytes + this.#backend.stateBytes(oldest.id, from, oldest.end)
    return this.#tier.hasRoom(bytes) && this.evict(1) ? bytes : 0
  }

  #evictWhole(branch: Branch): void {
    const own = this.#tree.ownTail(branch)
    this.#saveAllOf(branch, this.#backend.info.sharing === "prefix" ? branch.end - own : 0)
    this.counters.evictedTokens += own
    this.discard(branch)
  }

  #saveAllOf(branch: Branch, from: number): void {
    while (this.#save(branch, from));
  }

  /**
   * Copies a stretch of the positions from `from` on to the tier; where a state has no parts, all of it.
   *
   * @returns Whether there was something that the tier had not, and has now.
   */
  #save(branch: Branch, from: number): boolean {
    const { scope, id } = branch
    const isLong = branch.end >= TIER_TOKENS_MIN || this.#cut.has(branch)
    if (this.#tier === undefined || scope === undefined || !isLong) return false
    const tokens = this.#tree.tokensOf(branch)
    const begin = this.#unsavedFrom(scope, tokens, from)
    if (begin >= branch.end) return false
    const end = this.#acceptedEnd(branch, begin)
    if (end === undefined) return false
    const state = this.#backend.saveSequence(id, begin, end)
    if (state === undefined) return false
    this.#tier.put(scope, { tokens: tokens.slice(0, end), from: begin }, state)
    const isKept = this.#unsavedFrom(scope, tokens, begin) >= end
    if (isKept) this.counters.savedTokens += end - begin
    return isKept
  }

  /** Where a stretch ends that the tier has room for; undefined when it has none. */
  #acceptedEnd({ id, end }: Branch, begin: number): number | undefined {
    const hasParts = this.#backend.info.sharing === "prefix"
    let count = hasParts ? Math.min(end - begin, SAVED_CELLS_MAX) : end - begin
    while (this.#tier?.accepts(this.#backend.stateBytes(id, begin, begin + count)) !== true) {
      if (!hasParts || count <= TIER_TOKENS_MIN) return undefined
      count = Math.floor(count / 2)
    }
    return begin + count
  }

  /** Where the part of a branch begins that the tier does not have. */
  #unsavedFrom(scope: string, tokens: Int32Array, from: number): number {
    const entries = this.#tier?.entries(scope) ?? []
    const lookup = { tokens, limit: tokens.length }
    if (this.#backend.info.sharing === "prefix")
      return partsFrom(entries, lookup, from).at(-1)?.to ?? from
    return wholeBeyond(entries, lookup, tokens.length - 1)?.to ?? 0
  }

  /** Lets a branch share what others hold in cells of their own, and gives its own up. */
  #joinTwins(branch: Branch): void {
    const match = this.#tree.findBeside(branch)
    const from = branch.end - this.#tree.ownTail(branch)
    if (match.end <= from) return
    const rest = this.#tree.tokensOf(branch).subarray(match.end)
    this.#backend.removeSequence(branch.id, from, match.end)
    this.#share(this.#tree.holderOf(match), branch, { from, to: match.end })
    this.#tree.move(branch, match)
    this.#tree.grow(branch, rest)
  }

  #share(source: Branch, target: Branch, { from, to }: { from: number; to: number }): void {
    assert(source !== target, "a branch shares with others")
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
