/**
 * Saved prefixes in a folder, so that they outlive the process: a chat that is taken up again after a restart reads
 * only its new tokens.
 *
 * One file a prefix: a line of JSON (what it is, sizes, digest of all that follows), the tokens, the state. A folder
 * is for one model with one set of context parameters: a state is worth nothing to another. Files appear whole, by
 * rename; one that is damaged, of another version or not ours is not used, and removed. The oldest go when there are
 * too many bytes.
 *
 * @module
 */

import { createHash, randomBytes } from "node:crypto"
import {
  closeSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  renameSync,
  rmSync,
  statSync,
  utimesSync,
} from "node:fs"
import { open } from "node:fs/promises"
import { join } from "node:path"

import { z } from "zod"

import type { Sharing } from "../engine/backend.ts"
import { commonLength, type PrefixTier, type TierEntry } from "../engine/prefix-tier.ts"
import type { Lookup } from "../engine/token-tree.ts"

/** Raised when the layout of a file changes. */
const FORMAT = 1

const ENDING = ".prefix"

/** While it is written. */
const PARTIAL = ".partial"

/** No state takes longer to write. */
const PARTIAL_GRACE_MS = 10 * 60_000

/** Longest first line: a scope is a name or a hash. */
const HEADER_BYTES_MAX = 4096

/** Most tokens that a file may claim. */
const TOKENS_MAX = 2 ** 27

const header = z.object({
  format: z.literal(FORMAT),
  scope: z.string(),
  tokens: z.int().min(1).max(TOKENS_MAX),
  stateBytes: z.int().min(1),
  sha256: z.string(),
})

interface Entry {
  readonly path: string
  readonly scope: string
  readonly tokens: Int32Array
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
  /** Gets a sentence when a file cannot be written. */
  readonly warn?: (message: string) => void
}

/** See the module. */
export class DiskTier implements PrefixTier {
  readonly #options: DiskTierOptions
  readonly #entries = new Map<string, Entry>()
  #writing: Promise<void> = Promise.resolve()

  /** Reads the first lines and tokens of all files, not the states. */
  constructor(options: DiskTierOptions) {
    this.#options = options
    mkdirSync(options.folder, { recursive: true, mode: 0o700 })
    for (const name of readdirSync(options.folder)) {
      const path = join(options.folder, name)
      // Another process may be writing it.
      if (name.endsWith(PARTIAL) && Date.now() - statSync(path).mtimeMs < PARTIAL_GRACE_MS) continue
      const entry = name.endsWith(ENDING) ? readEntry(path) : undefined
      if (entry === undefined) rmSync(path, { force: true, recursive: true })
      else this.#entries.set(path, entry)
    }
    this.#forgetOldest(0)
  }

  /** Bytes of all files. */
  get bytes(): number {
    return [...this.#entries.values()].reduce((sum, { bytes }) => sum + bytes, 0)
  }

  find(scope: string, lookup: Lookup, sharing: Sharing): TierEntry | undefined {
    let best: TierEntry | undefined
    for (const entry of this.#entries.values()) {
      if (entry.scope !== scope) continue
      const agreeing = commonLength(entry.tokens, lookup)
      if (agreeing <= (best?.agreeing ?? 0)) continue
      if (sharing === "whole" && agreeing < entry.tokens.length) continue
      best = { tokens: entry.tokens, agreeing, read: () => this.#read(entry) }
    }
    return best
  }

  has(scope: string, tokens: Int32Array, sharing: Sharing): boolean {
    const lookup = { tokens, limit: tokens.length }
    return this.find(scope, lookup, sharing)?.agreeing === tokens.length
  }

  put(scope: string, tokens: Int32Array, state: Uint8Array): void {
    const { folder, bytesMax } = this.#options
    const bytes = tokens.byteLength + state.length
    if (bytes > bytesMax) return
    this.#forgetOldest(bytes)
    const path = join(folder, `${randomBytes(12).toString("hex")}${ENDING}`)
    const entry: Entry = { path, scope, tokens, bytes, usedAtMs: Date.now(), state }
    this.#entries.set(path, entry)
    this.#writing = this.#writing.then(() => this.#write(entry))
  }

  /** Resolves when everything is on the disk. */
  async flush(): Promise<void> {
    await this.#writing
  }

  async #write(entry: Entry): Promise<void> {
    const { state, tokens, path } = entry
    if (state === undefined || this.#entries.get(path) !== entry) return
    const tokenBytes = new Uint8Array(tokens.buffer, tokens.byteOffset, tokens.byteLength)
    const line = JSON.stringify({
      format: FORMAT,
      scope: entry.scope,
      tokens: tokens.length,
      stateBytes: state.length,
      sha256: digest(tokenBytes, state),
    })
    const partial = `${path}${PARTIAL}`
    try {
      await writeParts(partial, [Buffer.from(`${line}\n`), tokenBytes, state])
      renameSync(partial, path)
      entry.state = undefined
    } catch (error) {
      rmSync(partial, { force: true })
      this.#entries.delete(path)
      this.#options.warn?.(`Cannot keep a prefix on disk: ${String(error)}`)
    }
  }

  #read(entry: Entry): Uint8Array | undefined {
    entry.usedAtMs = Date.now()
    if (entry.state !== undefined) return entry.state
    try {
      const file = readFileSync(entry.path)
      const parts = partsOf(file)
      if (parts !== undefined && digest(parts.tokens, parts.state) === parts.sha256) {
        utimesSync(entry.path, new Date(), new Date())
        return parts.state
      }
    } catch {
      // Another process may have made room, or the disk fails: what is lost is computed again.
    }
    this.#remove(entry)
    return undefined
  }

  #forgetOldest(bytesNeeded: number): void {
    const { bytesMax } = this.#options
    let { bytes } = this
    const oldest = [...this.#entries.values()].toSorted((a, b) => a.usedAtMs - b.usedAtMs)
    for (const entry of oldest) {
      if (bytes + bytesNeeded <= bytesMax) return
      bytes -= entry.bytes
      this.#remove(entry)
    }
  }

  #remove(entry: Entry): void {
    this.#entries.delete(entry.path)
    rmSync(entry.path, { force: true })
  }
}

/** Several tiers as one: what is put goes to all, and the first that has most answers. */
export function joinTiers(tiers: readonly PrefixTier[]): PrefixTier {
  return {
    find(scope, lookup, sharing) {
      let best: TierEntry | undefined
      for (const tier of tiers) {
        const entry = tier.find(scope, lookup, sharing)
        if (entry !== undefined && entry.agreeing > (best?.agreeing ?? 0)) best = entry
      }
      return best
    },
    has: (scope, tokens, sharing) => tiers.every((tier) => tier.has(scope, tokens, sharing)),
    put(scope, tokens, state) {
      for (const tier of tiers)
        if (!tier.has(scope, tokens, "whole")) tier.put(scope, tokens, state)
    },
  }
}

/** Not `writeFile` with a list: Bun 1.4.5 writes more bytes than it is given when parts are large. */
async function writeParts(path: string, parts: readonly Uint8Array[]): Promise<void> {
  await using file = await open(path, "w", 0o600)
  for (const part of parts) {
    for (let done = 0; done < part.length;) {
      // In order.
      // oxlint-disable-next-line no-await-in-loop
      done += (await file.write(part, done, part.length - done)).bytesWritten
    }
  }
}

/** What a file says about itself; undefined when it is none of ours, or cut off. */
function readEntry(path: string): Entry | undefined {
  const file = openSync(path, "r")
  try {
    const { size, mtimeMs } = statSync(path)
    const start = Buffer.alloc(Math.min(size, HEADER_BYTES_MAX))
    readSync(file, start, 0, start.length, 0)
    const first = parseHeader(start)
    if (first === undefined) return undefined
    const { headerBytes, scope, tokens: count, stateBytes } = first
    const bytes = count * 4 + stateBytes
    if (headerBytes + bytes !== size) return undefined
    const tokens = new Int32Array(count)
    readSync(file, new Uint8Array(tokens.buffer), 0, count * 4, headerBytes)
    return { path, scope, tokens, bytes, usedAtMs: mtimeMs, state: undefined }
  } finally {
    closeSync(file)
  }
}

function parseHeader(
  start: Buffer,
): (z.infer<typeof header> & { headerBytes: number }) | undefined {
  const end = start.indexOf(10)
  if (end === -1) return undefined
  try {
    const parsed = header.safeParse(JSON.parse(start.toString("utf8", 0, end)))
    return parsed.success ? { ...parsed.data, headerBytes: end + 1 } : undefined
  } catch {
    return undefined
  }
}

function partsOf(
  file: Buffer,
): { tokens: Uint8Array; state: Uint8Array; sha256: string } | undefined {
  const first = parseHeader(file.subarray(0, HEADER_BYTES_MAX))
  if (first === undefined) return undefined
  const { headerBytes, tokens, stateBytes, sha256 } = first
  const states = headerBytes + tokens * 4
  if (file.length !== states + stateBytes) return undefined
  return { tokens: file.subarray(headerBytes, states), state: file.subarray(states), sha256 }
}

function digest(...parts: readonly Uint8Array[]): string {
  const hash = createHash("sha256")
  for (const part of parts) hash.update(part)
  return hash.digest("hex")
}
