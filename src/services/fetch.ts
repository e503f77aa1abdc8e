/**
 * Brings blobs into the own store, from a registry or from another store of this machine.
 *
 * @module
 */

import { statSync } from "node:fs"

import type { BlobSource } from "../registry/download.ts"
import type { Downloads } from "../registry/downloads.ts"
import { checkRoom, notedBytes } from "../registry/partial.ts"
import type { Patience } from "../registry/retry.ts"
import type { Digest } from "../store/digest.ts"
import type { StoreWriter } from "../store/writer.ts"
import { ensureOwn } from "./blobs.ts"
import { type Progress, watched } from "./progress.ts"
import type { Stores } from "./stores.ts"

/** What fetching works with. */
export interface FetchContext {
  readonly stores: Stores
  readonly writer: StoreWriter
  readonly downloads: Downloads
  readonly patience: Patience
}

/** A blob that is wanted. */
export interface WantedBlob {
  readonly digest: Digest
  readonly size: number
}

/**
 * Finds out before a pull whether there is room for all that it has to fetch.
 *
 * @param moreBytes That it will write besides.
 * @throws {CriaError} `unavailable` when there is not.
 */
export async function checkPullRoom(
  context: FetchContext,
  blobs: readonly WantedBlob[],
  moreBytes = 0,
): Promise<void> {
  const { writer } = context
  const missing = blobs.reduce((sum, { digest, size }) => {
    if (placeOf(context, { digest, size }) !== "nowhere") return sum
    return sum + Math.max(0, size - notedBytes(writer.partialPath(digest)))
  }, moreBytes)
  if (missing > 0) await checkRoom(writer.blobsFolder(), missing)
}

/**
 * Brings a blob into the store; says how far it is.
 *
 * @throws {CriaError} What `Download` throws; the signal's reason.
 */
export async function* fetchBlob(
  context: FetchContext,
  { digest, size }: WantedBlob,
  source: BlobSource,
  signal: AbortSignal | undefined,
): AsyncGenerator<Progress, undefined> {
  const { stores, writer, downloads, patience } = context
  const line = { status: `pulling ${digest.slice(7, 19)}`, digest, total: size }
  const place = placeOf(context, { digest, size })
  if (place === "nowhere") {
    const job = { source, digest, size, writer, patience }
    await using download = downloads.join(job)
    for await (const completed of watched(download, signal)) yield { ...line, completed }
  } else if (place === "own") writer.touchBlob(digest)
  else {
    // One that another store has is linked or copied.
    for await (const { completed = 0 } of ensureOwn({ store: stores.all, writer }, digest, signal))
      yield { ...line, completed }
  }
  yield { ...line, completed: size }
}

/** Where a blob is. One of another size is damaged, and counts as none. */
function placeOf(
  { stores, writer }: FetchContext,
  { digest, size }: WantedBlob,
): "own" | "other" | "nowhere" {
  const { own, all } = stores
  if (fileBytes(own?.blobPath(digest)) === size) return "own"
  const other = all.blobPath(digest)
  const isOther = other !== undefined && other !== writer.blobPath(digest)
  return isOther && fileBytes(other) === size ? "other" : "nowhere"
}

/** Undefined when there is no such file. */
function fileBytes(path: string | undefined): number | undefined {
  return path === undefined ? undefined : statSync(path, { throwIfNoEntry: false })?.size
}
