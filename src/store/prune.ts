/**
 * What a store does when a server starts: removes what interrupted downloads and creations have left.
 *
 * Only files that are older than the grace period go, so that another process that is at work keeps its own; what a
 * creation reads stays until it has ended, what a pull has fetched for days, and while it is being fetched. None go when
 * some manifest cannot be read, because then nobody knows what it needs.
 *
 * @module
 */
import { type Dirent, lstatSync, renameSync, rmSync, type Stats, statSync } from "node:fs"
import { join } from "node:path"

import { digestsInCreation } from "./creations.ts"
import { type Digest, toDigest } from "./digest.ts"
import { readFolder } from "./files.ts"
import type { Store } from "./folder-store.ts"
import { tryFileLock, withStoreLock } from "./lock.ts"
import { manifestsFolder } from "./name.ts"
import { pendingDigests } from "./pending.ts"
import { collectReferences, isTemporaryManifest } from "./references.ts"
import { removeEmptyFolders } from "./writer.ts"

/** Ollama's: an hour since the file was last written. */
export const GRACE_MS = 60 * 60 * 1000

/** So long an interrupted pull can be gone on with. */
export const PULL_GRACE_MS: number = 7 * 24 * GRACE_MS

/** What a prune has done. */
export interface Pruned {
  /** Names of files in `blobs`. */
  readonly removed: readonly string[]
  /** Bytes. */
  readonly freed: number
  /** False when nothing was looked at because some manifest is unreadable. */
  readonly isDone: boolean
}

/**
 * Removes blobs that no manifest names and what has no blob's name, both older than the grace period, partial blobs
 * that are older than {@link PULL_GRACE_MS}, and folders without manifests. Does nothing to a read-only store.
 *
 * @param nowMs Milliseconds since 1970.
 * @throws {CriaError} `unavailable` when the store cannot be read or locked.
 */
export async function pruneStore(
  store: Store,
  nowMs: number,
  graceMs: number = GRACE_MS,
): Promise<Pruned> {
  const blobs = join(store.root, "blobs")
  // A store that nobody has written to stays as it is: an empty folder gets no lock file.
  if (store.readOnly || readFolder(blobs).length === 0) return { ...NOTHING, isDone: true }
  return withStoreLock(store.root, () => {
    renameLegacyBlobs(blobs)
    const { digests: named, areSound } = collectReferences(store.root)
    if (!areSound) return { ...NOTHING, isDone: false }
    const pulled = pendingDigests(store.root, nowMs - PULL_GRACE_MS)
    const used = new Set([...named, ...pulled, ...digestsInCreation(store.root, nowMs)])
    const { partials, others } = sorted(readFolder(blobs))
    const unused = others.filter(({ name }) => {
      const digest = toDigest(name)
      return digest === undefined || !used.has(digest)
    })
    const files = removeAged(blobs, unused, nowMs - graceMs)
    const parts = prunePartials(store.root, partials, nowMs - PULL_GRACE_MS)
    pruneManifestFolders(manifestsFolder(store.root), nowMs - graceMs)
    return {
      removed: [...files.removed, ...parts.removed],
      freed: files.freed + parts.freed,
      isDone: true,
    }
  })
}

type Removed = Pick<Pruned, "removed" | "freed">

const NOTHING: Removed = { removed: [], freed: 0 }

/** Files of partial blobs by their digest, and all other entries. */
function sorted(entries: readonly Dirent[]): {
  partials: ReadonlyMap<Digest, readonly Dirent[]>
  others: readonly Dirent[]
} {
  const byDigest = Map.groupBy(entries, ({ name }) => {
    const [, blob = ""] = /^(.*)-partial(?:-\d+)?$/.exec(name) ?? []
    return toDigest(blob)
  })
  const others = byDigest.get(undefined) ?? []
  byDigest.delete(undefined)
  // Without that key, all are digests.
  return { partials: byDigest as Map<Digest, Dirent[]>, others }
}

/** Removes those files that were last written before `before`. */
function removeAged(folder: string, entries: readonly Dirent[], before: number): Removed {
  const removed: string[] = []
  let freed = 0
  for (const entry of entries) {
    const path = join(folder, entry.name)
    const stats = agedStats(path, entry, before)
    if (stats === undefined) continue
    rmSync(path, { force: true })
    removed.push(entry.name)
    if (stats.isFile()) freed += stats.size
  }
  return { removed, freed }
}

/** A partial blob and its notes are as old as the youngest of them, and nobody may be fetching it. */
function prunePartials(
  root: string,
  partials: ReadonlyMap<Digest, readonly Dirent[]>,
  before: number,
): Removed {
  const folder = join(root, "blobs")
  const pruned = [...partials].map(([digest, entries]) => {
    const isAged = entries.every(
      (entry) => agedStats(join(folder, entry.name), entry, before) !== undefined,
    )
    using lock = isAged ? tryFileLock(root, digest) : undefined
    return lock === undefined ? NOTHING : removeAged(folder, entries, before)
  })
  return {
    removed: pruned.flatMap(({ removed }) => removed),
    freed: pruned.reduce((sum, { freed }) => sum + freed, 0),
  }
}

/** Stores of Ollama's first versions have `sha256:<hex>`. */
function renameLegacyBlobs(blobs: string): void {
  for (const { name } of readFolder(blobs)) {
    if (!name.startsWith("sha256:") || toDigest(name) === undefined) continue
    renameSync(join(blobs, name), join(blobs, name.replace(":", "-")))
  }
}

/**
 * Of a file that was last written before `before`; of a link that leads nowhere, or to a file, when both were. Folders,
 * and what leads to them, stay.
 */
function agedStats(path: string, entry: Dirent, before: number): Stats | undefined {
  const stats = lstatSync(path, { throwIfNoEntry: false })
  if (stats === undefined || stats.mtimeMs >= before) return undefined
  if (entry.isFile()) return stats
  return entry.isSymbolicLink() && isTargetAged(path, before) ? stats : undefined
}

function isTargetAged(link: string, before: number): boolean {
  try {
    const target = statSync(link, { throwIfNoEntry: false })
    return target === undefined || (target.isFile() && target.mtimeMs < before)
  } catch {
    // Nobody can tell what it leads to: it stays.
    return false
  }
}

function pruneManifestFolders(top: string, before: number): void {
  for (const entry of readFolder(top)) {
    const path = join(top, entry.name)
    if (isTemporaryManifest(entry.name) && agedStats(path, entry, before) !== undefined) {
      rmSync(path, { force: true })
    }
  }
  for (const folder of foldersBelow(top).toReversed()) removeEmptyFolders(folder, top)
}

/** Outermost first. Links are not followed. */
function foldersBelow(folder: string): string[] {
  return readFolder(folder)
    .filter((entry) => entry.isDirectory())
    .flatMap((entry) => {
      const path = join(folder, entry.name)
      return [path, ...foldersBelow(path)]
    })
}
