/**
 * Saved prefixes in a folder, so that they outlive the process: a chat that is taken up again after a restart reads
 * only its new tokens.
 *
 * One file a stretch (`prefix-file.ts`). A folder is for one model with one set of context parameters: a state is worth
 * nothing to another. A file that is damaged, of another version or not ours is not used, and removed. The oldest go
 * when there are too many bytes. Nothing here fails a request: what is lost is computed again.
 *
 * @module
 */

import { createHash, randomBytes } from "node:crypto"
import { mkdirSync, readdirSync, rmSync, statSync, utimesSync } from "node:fs"
import { join } from "node:path"

import type { PrefixTier, TierEntry } from "../engine/prefix-tier.ts"
import { PARTIAL, readHeader, readState, writePrefix } from "./prefix-file.ts"

const ENDING = ".prefix"

/** No state takes longer to write. */
const PARTIAL_GRACE_MS = 10 * 60_000

/** States that wait to be written are in memory: when a disk does not keep up, it gets no more. */
const PENDING_BYTES_MAX = 512 * 2 ** 20

/** A longer name of a scope is replaced by its digest. */
const SCOPE_CHARS_MAX = 256

interface DiskEntry extends TierEntry {
  readonly path: string
  readonly scope: string
  readonly bytes: number
  usedAtMs: number
  /** Until it is written. */
  state: Uint8Array | undefined
}

/** Options of {@link DiskTier}. */
export interface DiskTierOptions {
  /** For this model and these context parameters alone. Made when it is not there. */
  readonly folder: string
  readonly bytesMax: number
  /** Gets a sentence when a file cannot be written or removed. */
  readonly warn?: (message: string) => void
  /** Called after each piece of a file that is being written. */
  readonly onProgress?: () => void
}

/** See the module. */
export class DiskTier implements PrefixTier {
  readonly persists = true
  readonly #options: DiskTierOptions
  readonly #entries = new Map<string, DiskEntry>()
  #pendingBytes = 0
  #writing: Promise<void> = Promise.resolve()

  /** Reads the first lines and tokens of all files, not the states. @throws {Error} When there can be no folder. */
  constructor(options: DiskTierOptions) {
    this.#options = options
    mkdirSync(options.folder, { recursive: true, mode: 0o700 })
    for (const name of readdirSync(options.folder)) this.#adopt(join(options.folder, name))
    this.#forgetOldest(0)
  }

  /** Bytes of all files. */
  get bytes(): number {
    return [...this.#entries.values()].reduce((sum, { bytes }) => sum + bytes, 0)
  }

  *entries(scope: string): Iterable<TierEntry> {
    const name = scopeName(scope)
    for (const entry of this.#entries.values()) if (entry.scope === name) yield entry
  }

  accepts(bytes: number): boolean {
    const isAlone = this.#pendingBytes === 0
    const isInTime = isAlone || this.#pendingBytes + bytes <= PENDING_BYTES_MAX
    return bytes <= this.#options.bytesMax && isInTime
  }

  hasRoom(bytes: number): boolean {
    return this.accepts(bytes) && this.bytes + bytes <= this.#options.bytesMax
  }

  put(
    scope: string,
    { tokens, from }: Pick<TierEntry, "tokens" | "from">,
    state: Uint8Array,
  ): void {
    const bytes = tokens.byteLength + state.length
    if (bytes > this.#options.bytesMax) return
    this.#forgetOldest(bytes)
    const path = join(this.#options.folder, `${randomBytes(12).toString("hex")}${ENDING}`)
    const entry = this.#add({ path, scope: scopeName(scope), tokens, from, bytes, state })
    this.#pendingBytes += bytes
    this.#writing = this.#writing.then(() => this.#write(entry))
  }

  /** Resolves when everything is on the disk. */
  async flush(): Promise<void> {
    await this.#writing
  }

  #add(
    parts: Omit<DiskEntry, "isSlow" | "read" | "forget" | "usedAtMs"> & {
      readonly usedAtMs?: number
    },
  ): DiskEntry {
    const entry: DiskEntry = {
      usedAtMs: Date.now(),
      ...parts,
      get isSlow() {
        return entry.state === undefined
      },
      read: () => entry.state ?? this.#read(entry),
      forget: () => this.#remove(entry),
    }
    this.#entries.set(entry.path, entry)
    return entry
  }

  /** Takes in a file that was there before. */
  #adopt(path: string): void {
    try {
      // Another process may be writing it.
      if (path.endsWith(PARTIAL) && Date.now() - statSync(path).mtimeMs < PARTIAL_GRACE_MS) return
      const header = path.endsWith(ENDING) ? readHeader(path) : undefined
      if (header === undefined) rmSync(path, { force: true, recursive: true })
      else {
        const bytes = header.tokens.byteLength + header.stateBytes
        this.#add({ ...header, path, bytes, state: undefined })
      }
    } catch (error) {
      this.#options.warn?.(`Cannot use a prefix on disk: ${String(error)}`)
    }
  }

  async #write(entry: DiskEntry): Promise<void> {
    const { state, path } = entry
    try {
      if (state !== undefined && this.#entries.get(path) === entry)
        await writePrefix(path, { ...entry, state }, this.#options.onProgress)
      // It may have been forgotten meanwhile.
      if (this.#entries.get(path) !== entry) rmSync(path, { force: true })
    } catch (error) {
      this.#entries.delete(path)
      this.#options.warn?.(`Cannot keep a prefix on disk: ${String(error)}`)
    }
    entry.state = undefined
    this.#pendingBytes -= entry.bytes
  }

  async #read(entry: DiskEntry): Promise<Uint8Array | undefined> {
    entry.usedAtMs = Date.now()
    try {
      const state = await readState(entry.path)
      if (state === undefined) this.#remove(entry)
      else
        for (const path of [entry.path, this.#options.folder])
          utimesSync(path, new Date(), new Date())
      return state
    } catch {
      // Another process may have made room; or the file cannot be read now, and may be after a restart.
      this.#entries.delete(entry.path)
      return undefined
    }
  }

  /** Of what was used at the same time, ends go before beginnings: these are of use without them. */
  #forgetOldest(bytesNeeded: number): void {
    const { bytesMax } = this.#options
    let { bytes } = this
    const oldest = [...this.#entries.values()].toSorted(
      (a, b) => a.usedAtMs - b.usedAtMs || b.from - a.from,
    )
    for (const entry of oldest) {
      if (bytes + bytesNeeded <= bytesMax) return
      bytes -= entry.bytes
      this.#remove(entry)
    }
  }

  #remove(entry: DiskEntry): void {
    this.#entries.delete(entry.path)
    try {
      rmSync(entry.path, { force: true })
    } catch (error) {
      this.#options.warn?.(`Cannot remove a prefix from disk: ${String(error)}`)
    }
  }
}

function scopeName(scope: string): string {
  if (scope.length <= SCOPE_CHARS_MAX) return scope
  return `sha256:${createHash("sha256").update(scope).digest("hex")}`
}
