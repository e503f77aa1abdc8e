/**
 * Blobs that a new model is made of: where they are, and how they come into the store that is written to.
 *
 * @module
 */

import { rmSync, statSync } from "node:fs"

import type { Digest } from "../store/digest.ts"
import { placeFile } from "../store/place.ts"
import type { ModelStore } from "../store/store.ts"
import type { StoreWriter } from "../store/writer.ts"
import { CriaError } from "../util/errors.ts"
import { byteSteps, type Progress } from "./progress.ts"

/** Where blobs are looked up, and where they go. */
export interface BlobParts {
  readonly store: ModelStore
  readonly writer: StoreWriter
}

/**
 * The file of a blob, in whichever store. In the own one it counts as new, so that no prune takes it meanwhile.
 *
 * @throws {CriaError} `not-found` when no store has it as a file.
 */
export function blobFile({ store, writer }: BlobParts, digest: Digest): string {
  if (writer.touchBlob(digest)) return writer.blobPath(digest)
  const path = store.blobPath(digest)
  if (path !== undefined) return path
  throw missingBlob(digest)
}

/**
 * Makes sure that the store that is written to has a blob: one of another store is linked, or copied.
 *
 * @returns Steps while it is copied, which for a model takes minutes.
 * @throws {CriaError} `not-found` when no store has it; `unavailable` when it cannot be written.
 */
export async function* ensureOwn(
  { store, writer }: BlobParts,
  digest: Digest,
  signal?: AbortSignal,
): AsyncGenerator<Progress, void> {
  if (writer.touchBlob(digest)) return
  const path = store.blobPath(digest)
  if (path !== undefined) {
    const temporary = writer.temporaryPath()
    const step = { status: `copying ${digest.slice(7, 19)}`, digest, total: statSync(path).size }
    try {
      yield* byteSteps(placeFile(path, temporary, signal), step)
      writer.adoptBlob(temporary, digest)
    } finally {
      rmSync(temporary, { force: true })
    }
    return
  }
  // A store without files, such as the built-in one, has its texts in memory.
  const bytes = store.readBlob(digest, Number.MAX_SAFE_INTEGER)
  if (bytes === undefined) throw missingBlob(digest)
  await writer.putStream([bytes], { expected: digest })
}

function missingBlob(digest: Digest): CriaError {
  const hint = `Upload it first: POST /api/blobs/${digest}`
  return new CriaError("not-found", `blob "${digest}" not found`, { hint })
}
