/**
 * Where prefixes go that no longer fit into the KV cells: a slower place, such as RAM or a disk.
 *
 * An entry is the state of a stretch of a sequence, together with all tokens before it, which it depends on. Stretches
 * that follow each other make up a prefix, so what leaves the cells piece by piece is kept once, and what branches have
 * in common is too. Where a model's state has no parts, an entry is the state of a whole sequence.
 *
 * The engine decides what to put here and when to look; what holds the bytes decides what to forget.
 *
 * @module
 */

import type { Lookup } from "./token-tree.ts"

/** The state of positions `from` … `tokens.length` − 1. */
export interface TierEntry {
  /** All tokens from the beginning of the sequence to the end of the stretch. */
  readonly tokens: Int32Array
  /** Where the stretch begins. */
  readonly from: number
  /** Reading takes a while. */
  readonly isSlow?: boolean
  /** The state; undefined when it cannot be read any more, or is damaged. A promise where it takes a while. */
  read(): Uint8Array | undefined | Promise<Uint8Array | undefined>
  /** The state is of no use: it does not fit the context that it was made for. */
  forget(): void
}

/** A bounded store of saved states. */
export interface PrefixTier {
  /** What is put here outlives the process. */
  readonly persists: boolean
  /** Entries of a scope. */
  entries(scope: string): Iterable<TierEntry>
  /** Whether a state of so many bytes would be kept now. */
  accepts(bytes: number): boolean
  /** Whether there is room for so many bytes without forgetting anything. */
  hasRoom(bytes: number): boolean
  /** Takes ownership of both arrays; forgets older entries to stay within its bounds. */
  put(scope: string, entry: Pick<TierEntry, "tokens" | "from">, state: Uint8Array): void
  /** Resolves when all that was put is where it will be kept; for tiers that take a while. Never fails. */
  flush?(): Promise<void>
}

/** A part of a prefix that a tier can give: positions `from` … `to` − 1 out of an entry. */
export interface TierPart {
  readonly entry: TierEntry
  readonly from: number
  readonly to: number
}

/** Tokens at the beginning that two sequences share, at most the lookup's limit. */
export function commonLength(tokens: ArrayLike<number>, lookup: Lookup): number {
  const most = Math.min(tokens.length, lookup.limit)
  let count = 0
  while (count < most && tokens[count] === lookup.tokens[count]) count++
  return count
}

/** Stretches that follow each other from position `from` of a sequence on, as far as entries go. */
export function partsFrom(
  entries: Iterable<TierEntry>,
  lookup: Lookup,
  from: number,
): readonly TierPart[] {
  const candidates = [...entries]
    .map((entry) => ({ entry, to: commonLength(entry.tokens, lookup) }))
    .filter(({ entry, to }) => to > Math.max(from, entry.from))
  const parts: TierPart[] = []
  for (let at = from; ;) {
    let best: TierPart | undefined
    for (const { entry, to } of candidates) {
      if (entry.from <= at && to > (best?.to ?? at)) best = { entry, from: at, to }
    }
    if (best === undefined) return parts
    parts.push(best)
    at = best.to
  }
}

/** The longest whole sequence with which a lookup begins, and that is longer than `from`. */
export function wholeBeyond(
  entries: Iterable<TierEntry>,
  lookup: Lookup,
  from: number,
): TierPart | undefined {
  let best: TierPart | undefined
  for (const entry of entries) {
    const { length } = entry.tokens
    if (length <= (best?.to ?? from) || commonLength(entry.tokens, lookup) < length) continue
    best = { entry, from: 0, to: length }
  }
  return best
}

interface MemoryEntry extends TierEntry {
  readonly scope: string
  readonly bytes: number
}

/** A tier in this process's memory; forgets what was used longest ago. */
export class MemoryTier implements PrefixTier {
  readonly persists: boolean = false
  readonly #bytesMax: number
  /** Longest unused first. */
  readonly #entries = new Set<MemoryEntry>()
  #bytes = 0

  constructor(bytesMax: number) {
    this.#bytesMax = bytesMax
  }

  /** Bytes of states and tokens. */
  get bytes(): number {
    return this.#bytes
  }

  *entries(scope: string): Iterable<TierEntry> {
    for (const entry of this.#entries) if (entry.scope === scope) yield entry
  }

  accepts(bytes: number): boolean {
    return bytes <= this.#bytesMax
  }

  hasRoom(bytes: number): boolean {
    return this.#bytes + bytes <= this.#bytesMax
  }

  put(
    scope: string,
    { tokens, from }: Pick<TierEntry, "tokens" | "from">,
    state: Uint8Array,
  ): void {
    const bytes = tokens.byteLength + state.byteLength
    if (bytes > this.#bytesMax) return
    for (const entry of this.#entries) {
      if (this.#bytes + bytes <= this.#bytesMax) break
      entry.forget()
    }
    const entry: MemoryEntry = {
      scope,
      tokens,
      from,
      bytes,
      read: () => {
        if (this.#entries.delete(entry)) this.#entries.add(entry)
        return state
      },
      forget: () => {
        if (this.#entries.delete(entry)) this.#bytes -= bytes
      },
    }
    this.#entries.add(entry)
    this.#bytes += bytes
  }
}

/** Several tiers as one: what is put goes to all that accept it. */
export function joinTiers(tiers: readonly PrefixTier[]): PrefixTier {
  return {
    persists: tiers.some(({ persists }) => persists),
    *entries(scope) {
      for (const tier of tiers) yield* tier.entries(scope)
    },
    accepts: (bytes) => tiers.some((tier) => tier.accepts(bytes)),
    hasRoom: (bytes) => tiers.some((tier) => tier.hasRoom(bytes)),
    put(scope, entry, state) {
      for (const tier of tiers) if (tier.accepts(state.byteLength)) tier.put(scope, entry, state)
    },
    async flush() {
      await Promise.all(tiers.map(async (tier) => await tier.flush?.()))
    },
  }
}
