/**
 * What a store does when a server starts: removes what interrupted downloads and creations have left.
 *
 * Only files that are older than the grace period go, so that another process that is at work keeps its own; and
 * none go when some manifest cannot be read, because then nobody knows what it needs.
 *
 * @module
 */
import { type Dirent, renameSync, rmSync, type Stats, statSync } from "node:fs"
import { join } from "node:path"

import { toDigest } from "./digest.ts"
import { readFolder } from "./files.ts"
import type { Store } from "./folder-store.ts"
import { withStoreLock } from "./lock.ts"
import { manifestsFolder } from "./name.ts"
import { collectReferences, isTemporaryManifest } from "./references.ts"
import { removeEmptyFolders } from "./writer.ts"

/** Ollama's: an hour since the file was last written. */
export const GRACE_MS = 60 * 60 * 1000

/** How the names of folders for the time of one operation begin. They lie beside `blobs`. */
export const TEMPORARY_FOLDER = ".cria-tmp-"

/** Such folders hold little but links, and a conversion can take hours. */
const FOLDER_GRACE_FACTOR = 24

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
 * Removes blobs that no manifest names and what has no blob's name, both older than the grace period, and folders
 * without manifests. Does nothing to a read-only store.
 *
 * @param nowMs Milliseconds since 1970.
 * @throws {CriaError} `unavailable` when the store cannot be read or locked.
 */
export async function pruneStore(
  store: Store,
  nowMs: number,
  graceMs: number = GRACE_MS,
): Promise<Pruned> {
  const nothing = { removed: [], freed: 0, isDone: true }
  const blobs = join(store.root, "blobs")
  // A store that nobody has written to stays as it is: an empty folder gets no lock file.
  if (store.readOnly || readFolder(blobs).length === 0) return nothing
  return withStoreLock(store.root, () => {
    renameLegacyBlobs(blobs)
    pruneTemporaryFolders(store.root, nowMs - FOLDER_GRACE_FACTOR * graceMs)
    const { digests, areSound } = collectReferences(store.root)
    if (!areSound) return { ...nothing, isDone: false }
    const removed: string[] = []
    let freed = 0
    for (const entry of readFolder(blobs)) {
      const digest = toDigest(entry.name)
      if (digest !== undefined && digests.has(digest)) continue
      const stats = agedStats(join(blobs, entry.name), entry, nowMs - graceMs)
      if (stats === undefined) continue
      rmSync(join(blobs, entry.name), { force: true })
      removed.push(entry.name)
      freed += stats.size
    }
    pruneManifestFolders(manifestsFolder(store.root), nowMs - graceMs)
    return { removed, freed, isDone: true }
  })
}

/** What an operation that was killed has left. */
function pruneTemporaryFolders(root: string, before: number): void {
  for (const entry of readFolder(root)) {
    const path = join(root, entry.name)
    if (!entry.isDirectory() || !entry.name.startsWith(TEMPORARY_FOLDER)) continue
    if (statSync(path).mtimeMs < before) rmSync(path, { recursive: true, force: true })
  }
}

/** Stores of Ollama's first versions have `sha256:<hex>`. */
function renameLegacyBlobs(blobs: string): void {
  for (const { name } of readFolder(blobs)) {
    if (!name.startsWith("sha256:") || toDigest(name) === undefined) continue
    renameSync(join(blobs, name), join(blobs, name.replace(":", "-")))
  }
}

/** Of a file, or a link that leads nowhere or to one, that was last written before `before`. Folders stay. */
function agedStats(path: string, entry: Dirent, before: number): Stats | undefined {
  if (!entry.isFile()) return undefined
  const stats = statSync(path, { throwIfNoEntry: false })
  return stats !== undefined && stats.mtimeMs < before ? stats : undefined
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
