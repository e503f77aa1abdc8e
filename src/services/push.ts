/**
 * Sends a model to a registry: its blobs, then its manifest.
 *
 * @module
 */

import { statSync } from "node:fs"

import type { Network } from "../registry/http.ts"
import type { Repository } from "../registry/repository.ts"
import { type Patience, retrying } from "../registry/retry.ts"
import type { UploadNotes } from "../registry/upload-notes.ts"
import { Upload } from "../registry/upload.ts"
import { type Layer, uniqueBlobs } from "../store/manifest.ts"
import { type ModelName, parseName, shortName } from "../store/name.ts"
import { CriaError } from "../util/errors.ts"
import { manifestBytes } from "./library.ts"
import { type Progress, watched } from "./progress.ts"
import type { Stores } from "./stores.ts"

/** What a push works with. */
export interface PushContext {
  readonly stores: Stores
  readonly network: Network
  readonly patience: Patience
  readonly notes: UploadNotes
}

/**
 * Sends an installed model. The last step is `success`.
 *
 * @throws {CriaError} `not-found` for a model or a blob that is not here, `unavailable` when the registry does not take
 *   it; the signal's reason.
 */
export async function* pushModel(
  context: PushContext,
  repository: Repository,
  signal: AbortSignal | undefined,
): AsyncGenerator<Progress, undefined> {
  yield { status: "retrieving manifest" }
  const { name, client } = repository
  const { folders, all } = context.stores
  const model = all.find(name)
  if (model === undefined) {
    yield { status: "couldn't retrieve manifest" }
    const hint = "cria list shows what is installed"
    throw new CriaError("not-found", `model '${shortName(name)}' not found`, { hint })
  }
  const bytes = manifestBytes(folders, model)
  for (const layer of uniqueBlobs(model.manifest)) {
    yield* pushBlob(context, repository, layer, signal)
  }
  yield { status: "pushing manifest" }
  await retrying(() => client.putManifest(name.tag, bytes, signal), context.patience, signal)
  yield { status: "success" }
}

async function* pushBlob(
  { stores, network, patience, notes }: PushContext,
  { name, client }: Repository,
  layer: Layer,
  signal: AbortSignal | undefined,
): AsyncGenerator<Progress, undefined> {
  const { digest, size } = layer
  const line = { status: `pushing ${digest.slice(7, 19)}`, digest, total: size }
  const path = stores.all.blobPath(digest)
  if (path === undefined || statSync(path, { throwIfNoEntry: false })?.size !== size) {
    const text = `Cannot push "${shortName(name)}": blob "${digest}" is missing or damaged`
    throw new CriaError("not-found", text, { hint: `cria pull ${shortName(name)}` })
  }
  const mountFrom = mountSource(layer, name)
  const upload = new Upload({ client, network, digest, size, path, mountFrom, patience, notes })
  const stop = new AbortController()
  const both = signal === undefined ? stop.signal : AbortSignal.any([signal, stop.signal])
  const done = upload.run(both)
  const work = {
    get completedBytes() {
      return upload.completedBytes
    },
    done,
  }
  try {
    for await (const completed of watched(work, signal)) yield { ...line, completed }
    yield { ...line, completed: size }
  } finally {
    stop.abort(new CriaError("unavailable", "the push was cancelled"))
    await done.catch(() => {})
  }
}

/** The repository that a derived model took a layer from, when it is one of the same registry. */
function mountSource({ from }: Layer, { host }: ModelName): string | undefined {
  if (from === undefined || from === "") return undefined
  try {
    const source = parseName(from)
    return source.host === host ? `${source.namespace}/${source.model}` : undefined
  } catch {
    // A path, or a name of another kind: the blob is sent.
    return undefined
  }
}
