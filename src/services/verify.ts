/**
 * Whether the files of installed models are what their names say.
 *
 * @module
 */

import { statSync } from "node:fs"

import { type Digest, hashFile } from "../store/digest.ts"
import type { Layer } from "../store/manifest.ts"
import { parseName, sameName, shortName } from "../store/name.ts"
import type { ModelStore, StoredModel, StoreListing } from "../store/store.ts"
import { CriaError } from "../util/errors.ts"
import { type Stores, storeWriter } from "./stores.ts"

/** What was found out about a blob. */
export interface BlobVerification {
  readonly kind: "blob"
  readonly digest: Digest
  /** Bytes, as the manifest claims. */
  readonly size: number
  readonly state: BlobState
  /** Of the file that was read; undefined when there is none. */
  readonly path: string | undefined
  /** When that file was last written, in milliseconds since 1970; undefined when there is none. */
  readonly modifiedMs: number | undefined
  /** Names of the models that need it. */
  readonly models: readonly string[]
}

/** What was found out about a blob, or about a manifest that cannot be read. */
export type Verification =
  | BlobVerification
  | { readonly kind: "manifest"; readonly path: string; readonly problem: string }
  | {
      readonly kind: "done"
      readonly blobs: number
      readonly bytes: number
      readonly problems: number
    }

/** `cut off`: of another size than the manifest says. `damaged`: of another digest. */
export type BlobState = "ok" | "missing" | "cut off" | "damaged"

/**
 * Reads every file of the models and compares digests. Of a blob that several stores have, the file that is used.
 *
 * @param names Models to look at, in any form a name can have; none for all.
 * @throws {CriaError} `invalid-input` for a name that cannot be one, `not-found` when it is not installed.
 */
export async function* verifyModels(
  store: ModelStore,
  names: readonly string[],
  signal?: AbortSignal,
): AsyncGenerator<Verification, void> {
  const { models, problems } = pick(store.list(), names)
  let bad = 0
  for (const { path, error } of problems) {
    bad++
    yield { kind: "manifest", path, problem: error.message }
  }
  let bytes = 0
  const layers = layersByDigest(models)
  for (const { layer, names: users } of layers.values()) {
    const found = await lookAt(store, layer, signal)
    if (found.state !== "ok") bad++
    bytes += layer.size
    yield { kind: "blob", digest: layer.digest, size: layer.size, ...found, models: users }
  }
  yield { kind: "done", blobs: layers.size, bytes, problems: bad }
}

/** What a listing says about models that were named. */
function pick(listing: StoreListing, names: readonly string[]): StoreListing {
  if (names.length === 0) return listing
  const picked = names.map((text) => {
    const name = parseName(text)
    const models = listing.models.filter((model) => sameName(model.name, name))
    const problems = listing.problems.filter(
      (problem) => problem.name !== undefined && sameName(problem.name, name),
    )
    if (models.length + problems.length > 0) return { models, problems }
    throw new CriaError("not-found", `model '${text}' not found`)
  })
  return {
    models: picked.flatMap(({ models }) => models),
    problems: picked.flatMap(({ problems }) => problems),
  }
}

function layersByDigest(
  models: readonly StoredModel[],
): Map<Digest, { layer: Layer; names: string[] }> {
  const layers = new Map<Digest, { layer: Layer; names: string[] }>()
  for (const { name, manifest } of models) {
    for (const layer of [manifest.config, ...manifest.layers]) {
      const known = layers.get(layer.digest) ?? { layer, names: [] }
      if (!known.names.includes(shortName(name))) known.names.push(shortName(name))
      layers.set(layer.digest, known)
    }
  }
  return layers
}

async function lookAt(
  store: ModelStore,
  { digest, size }: Layer,
  signal: AbortSignal | undefined,
): Promise<Pick<BlobVerification, "state" | "path" | "modifiedMs">> {
  const path = store.blobPath(digest)
  if (path === undefined) {
    // The built-in model's texts are in memory.
    const state = store.readBlob(digest, size) === undefined ? "missing" : "ok"
    return { state, path, modifiedMs: undefined }
  }
  const stats = statSync(path)
  const file = { path, modifiedMs: stats.mtimeMs }
  if (stats.size !== size) return { state: "cut off", ...file }
  return { state: (await hashFile(path, signal)) === digest ? "ok" : "damaged", ...file }
}

/** What became of a damaged file: gone, or left because somebody has written it meanwhile. */
export type Repair = "removed" | "changed meanwhile"

/**
 * Removes a file that is not what its name says from the own store, so that a pull fetches it again.
 *
 * @returns Undefined when the file is not the own store's: nothing is done then, see {@link storeRoot}.
 * @throws {CriaError} `unavailable` when it cannot be removed.
 */
export async function removeDamaged(
  stores: Stores,
  { digest, path, modifiedMs }: BlobVerification,
): Promise<Repair | undefined> {
  if (stores.own === undefined || modifiedMs === undefined) return undefined
  if (stores.own.blobPath(digest) !== path) return undefined
  const isGone = await storeWriter(stores).removeBlob(digest, modifiedMs)
  return isGone ? "removed" : "changed meanwhile"
}

/** The folder of the store that a file was found in; undefined for one of no store that is a folder. */
export function storeRoot({ folders }: Stores, found: BlobVerification): string | undefined {
  return folders.find((store) => store.blobPath(found.digest) === found.path)?.root
}
