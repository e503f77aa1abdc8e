/**
 * Reads what waiting requests can take over from a tier that takes a while, such as a disk.
 *
 * For a few at a time, since what was read lies in memory until its request starts. Who comes next takes the place of
 * one that was read for and still waits: that one is read for again.
 *
 * @module
 */

import type { TierPart } from "./prefix-tier.ts"

/** More at once would not make a disk faster. */
const READS_MAX = 2

/** Parts of a prefix, with their states; undefined where one could not be read. */
export interface ReadParts {
  readonly parts: readonly TierPart[]
  readonly states: readonly (Uint8Array | undefined)[]
}

/** Options of {@link TierReads}. */
export interface TierReadOptions<T> {
  /** What the tier has for a request beyond the cells. */
  readonly lookUp: (request: T) => readonly TierPart[]
  /** A request may have become able to start. */
  readonly onReady: () => void
}

/** See the module. */
export class TierReads<T> {
  readonly #options: TierReadOptions<T>
  readonly #reads = new Map<T, ReadParts | "reading">()
  /** Their turn comes when another is over. */
  readonly #queued = new Set<T>()

  constructor(options: TierReadOptions<T>) {
    this.#options = options
  }

  /** Whether a request is being read for, or will be. */
  isWaiting(request: T): boolean {
    return this.#queued.has(request) || this.#reads.get(request) === "reading"
  }

  /** Whether all that the tier has for a request is at hand. Begins to read it if not. */
  prepare(request: T): boolean {
    if (this.isWaiting(request)) return false
    if (this.#reads.has(request)) return true
    const parts = this.#options.lookUp(request)
    if (parts.every(({ entry }) => entry.isSlow !== true)) return true
    if (this.#hasRoom()) void this.#read(request, parts)
    else this.#queued.add(request)
    return false
  }

  /** Gives what there is for a request, which starts now. */
  take(request: T): ReadParts {
    const read = this.#reads.get(request)
    this.drop(request)
    if (read !== undefined && read !== "reading") return read
    const parts = this.#options.lookUp(request)
    const states = readAll(parts).map((state) => (state instanceof Promise ? undefined : state))
    return { parts, states }
  }

  /** A request is gone. */
  drop(request: T): void {
    this.#queued.delete(request)
    if (this.#reads.delete(request)) this.#queued.clear()
  }

  #hasRoom(): boolean {
    if (this.#reads.size < READS_MAX) return true
    const [ready] = [...this.#reads].find(([, read]) => read !== "reading") ?? []
    return ready !== undefined && this.#reads.delete(ready)
  }

  async #read(request: T, parts: readonly TierPart[]): Promise<void> {
    this.#reads.set(request, "reading")
    const reads = readAll(parts).map(async (state) => await state)
    const results = await Promise.allSettled(reads)
    // It may have gone away meanwhile.
    if (this.#reads.get(request) !== "reading") return
    const states = results.map((one) => (one.status === "fulfilled" ? one.value : undefined))
    this.#reads.set(request, { parts, states })
    this.#queued.clear()
    this.#options.onReady()
  }
}

/** The first part is read last: it is the one that a tier is to keep longest. */
function readAll(parts: readonly TierPart[]) {
  return parts
    .toReversed()
    .map(({ entry }) => entry.read())
    .toReversed()
}
