/**
 * Where the prefixes of a loaded model go that no longer fit into its KV cells.
 *
 * @module
 */

import { createHash } from "node:crypto"
import {
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  readSync,
  rmSync,
  statSync,
  utimesSync,
} from "node:fs"
import { basename, join } from "node:path"

import { joinTiers, MemoryTier, type PrefixTier } from "../engine/prefix-tier.ts"
import { DiskTier } from "./disk-tier.ts"
import type { LoadOptions } from "./request.ts"

/** Folders of models that were not loaded for so long are removed: of old versions, of models that are gone. */
const UNUSED_MS = 30 * 24 * 3600 * 1000

const BLOB_NAME = /^sha256-[0-9a-f]{64}$/

/** Blocks of a file that are looked at, and bytes of each. */
const SAMPLES = 64
const SAMPLE_BYTES = 16_384

/** Everything that a saved state depends on, beside what it says itself. */
export interface StateIdentity {
  /** The files that were loaded: weights, adapters. */
  readonly files: readonly string[]
  /** What else changes the values or their layout. */
  readonly settings: Readonly<Record<string, string | number | boolean>>
}

/** The tiers of a model, and what has to be waited for before they go away. */
export interface Tiers {
  readonly all: PrefixTier | undefined
  readonly disk: DiskTier | undefined
}

/** What is said while tiers are used. */
export interface TierHooks {
  /** Gets a sentence when something goes on without a part of it. */
  readonly warn?: (message: string) => void
  /** Called after each piece of a state that is written to where it outlives the process. */
  readonly onSaving?: () => void
}

/** Makes the tiers that the options ask for. A disk that cannot be used is warned about and done without. */
export function createTiers(
  { prefixRamBytes, prefixDisk }: LoadOptions,
  identity: StateIdentity,
  hooks: TierHooks,
): Tiers {
  const ram = prefixRamBytes === undefined ? [] : [new MemoryTier(prefixRamBytes)]
  const disk = prefixDisk === undefined ? undefined : openDisk(prefixDisk, identity, hooks)
  const tiers = disk === undefined ? ram : [...ram, disk]
  return { all: tiers.length === 0 ? undefined : joinTiers(tiers), disk }
}

function openDisk(
  { folder: parent, bytesMax }: NonNullable<LoadOptions["prefixDisk"]>,
  identity: StateIdentity,
  { warn = () => {}, onSaving = () => {} }: TierHooks,
): DiskTier | undefined {
  try {
    mkdirSync(parent, { recursive: true, mode: 0o700 })
    const folder = join(parent, stateKey(identity))
    const disk = new DiskTier({ folder, bytesMax, warn, onProgress: onSaving })
    utimesSync(folder, new Date(), new Date())
    removeUnused(parent, warn)
    return disk
  } catch (error) {
    warn(`Cannot keep prefixes on disk: ${String(error)}`)
    return undefined
  }
}

function removeUnused(parent: string, warn: (message: string) => void): void {
  for (const name of readdirSync(parent)) {
    const path = join(parent, name)
    try {
      if (Date.now() - statSync(path).mtimeMs > UNUSED_MS)
        rmSync(path, { recursive: true, force: true })
    } catch (error) {
      // Another process may be removing it too.
      if (existsSync(path)) warn(`Cannot remove unused prefixes: ${String(error)}`)
    }
  }
}

/** What tells a model from another one of the same shape, without reading all of it: samples from everywhere. */
function sampleDigest(path: string, size: number): string {
  const hash = createHash("sha256")
  const block = Buffer.alloc(Math.min(size, SAMPLE_BYTES))
  const file = openSync(path, "r")
  try {
    for (let i = 0; i < SAMPLES; i++) {
      const position = Math.floor(((size - block.length) * i) / (SAMPLES - 1))
      hash.update(block.subarray(0, readSync(file, block, 0, block.length, position)))
    }
  } finally {
    closeSync(file)
  }
  return hash.digest("hex")
}

/** Names a folder: states of another identity are in another one. */
export function stateKey({ files, settings }: StateIdentity): string {
  const described = files.map((path) => {
    const { size, mtimeMs } = statSync(path)
    // Blobs are named for their content.
    return BLOB_NAME.test(basename(path))
      ? [basename(path), size]
      : [path, size, mtimeMs, sampleDigest(path, size)]
  })
  const sorted = Object.entries(settings).toSorted(([a], [b]) => (a < b ? -1 : 1))
  return createHash("sha256")
    .update(JSON.stringify([described, sorted]))
    .digest("hex")
    .slice(0, 32)
}
