/**
 * Where prefixes go that no longer fit into the KV cells: a slower place, such as RAM or a disk.
 *
 * The engine decides what to put there and when to look; what holds the bytes decides what to forget.
 *
 * @module
 */

import type { Sharing } from "./backend.ts"
import type { Lookup } from "./token-tree.ts"

/** A prefix that a tier has. */
export interface TierEntry {
  /** All tokens whose state it is. */
  readonly tokens: Int32Array
  /** Tokens at its beginning that agree with what was looked up. */
  readonly agreeing: number
  /** The state; undefined when it cannot be read any more, or is damaged. */
  read(): Uint8Array | undefined
}

/** A bounded store of saved states. Calls block, so they have to be quick: a copy in memory, a file on a fast disk. */
export interface PrefixTier {
  /** The entry of the scope that agrees longest; where only whole states can be used, of those that agree entirely. */
  find(scope: string, lookup: Lookup, sharing: Sharing): TierEntry | undefined
  /** Whether saving this again would add nothing. */
  has(scope: string, tokens: Int32Array, sharing: Sharing): boolean
  /** Takes ownership of both arrays; forgets older entries to stay within its bounds. */
  put(scope: string, tokens: Int32Array, state: Uint8Array): void
}

/** Tokens at the beginning that two sequences share, at most the lookup's limit. */
export function commonLength(tokens: ArrayLike<number>, lookup: Lookup): number {
  const most = Math.min(tokens.length, lookup.limit)
  let count = 0
  while (count < most && tokens[count] === lookup.tokens[count]) count++
  return count
}

interface MemoryEntry {
  readonly scope: string
  readonly tokens: Int32Array
  readonly state: Uint8Array
}

/** A tier in this process's memory; forgets what was used longest ago. */
export class MemoryTier implements PrefixTier {
  readonly #bytesMax: number
  /** Longest unused first. */
  readonly #entries = new Set<MemoryEntry>()
  #bytes = 0

  constructor(bytesMax: number) {
    this.#bytesMax = bytesMax
  }

  get bytes(): number {
    return this.#bytes
  }

  find(scope: string, lookup: Lookup, sharing: Sharing): TierEntry | undefined {
    let best: TierEntry | undefined
    for (const entry of this.#entries) {
      if (entry.scope !== scope) continue
      const agreeing = commonLength(entry.tokens, lookup)
      if (agreeing <= (best?.agreeing ?? 0)) continue
      if (sharing === "whole" && agreeing < entry.tokens.length) continue
      const read = () => {
        if (this.#entries.delete(entry)) this.#entries.add(entry)
        return entry.state
      }
      best = { tokens: entry.tokens, agreeing, read }
    }
    return best
  }

  has(scope: string, tokens: Int32Array, sharing: Sharing): boolean {
    const lookup = { tokens, limit: tokens.length }
    return this.find(scope, lookup, sharing)?.agreeing === tokens.length
  }

  put(scope: string, tokens: Int32Array, state: Uint8Array): void {
    if (state.length > this.#bytesMax) return
    for (const entry of this.#entries) {
      if (this.#bytes + state.length <= this.#bytesMax) break
      this.#entries.delete(entry)
      this.#bytes -= entry.state.length
    }
    this.#entries.add({ scope, tokens, state })
    this.#bytes += state.length
  }
}
