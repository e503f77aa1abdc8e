/**
 * Whether the files of installed models are what their names say.
 *
 * @module
 */

import { rmSync, statSync } from "node:fs"

import { type Digest, hashFile } from "../store/digest.ts"
import type { Layer } from "../store/manifest.ts"
import { shortName } from "../store/name.ts"
import type { ModelStore, StoredModel } from "../store/store.ts"
import { CriaError, errorMessage } from "../util/errors.ts"

/** What was found out about a blob, or about a manifest that cannot be read. */
export type Verification =
  | {
      readonly kind: "blob"
      readonly digest: Digest
      /** Bytes, as the manifest claims. */
      readonly size: number
      readonly state: BlobState
      /** Of the file; undefined when there is none. */
      readonly path: string | undefined
      /** Names of the models that need it. */
      readonly models: readonly string[]
    }
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
 * Reads every file of the models and compares digests.
 *
 * @param names Models to look at; none for all.
 * @throws {CriaError} `not-found` when a named model is not installed.
 */
export async function* verifyModels(
  store: ModelStore,
  names: readonly string[],
  signal?: AbortSignal,
): AsyncGenerator<Verification, void> {
  const { models, problems } = store.list()
  const wanted = names.length === 0 ? models : pick(models, names)
  let bad = 0
  for (const { path, error } of names.length === 0 ? problems : []) {
    bad++
    yield { kind: "manifest", path, problem: error.message }
  }
  let bytes = 0
  const layers = layersByDigest(wanted)
  for (const { layer, names: users } of layers.values()) {
    const path = store.blobPath(layer.digest)
    const state = await stateOf(store, layer, path, signal)
    if (state !== "ok") bad++
    bytes += layer.size
    const { digest, size } = layer
    yield { kind: "blob", digest, size, state, path, models: users }
  }
  yield { kind: "done", blobs: layers.size, bytes, problems: bad }
}

function pick(models: readonly StoredModel[], names: readonly string[]): StoredModel[] {
  return names.map((name) => {
    const lower = name.toLowerCase()
    const found = models.find((model) => {
      const short = shortName(model.name).toLowerCase()
      return short === lower || short === `${lower}:latest`
    })
    if (found === undefined) throw new CriaError("not-found", `model '${name}' not found`)
    return found
  })
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

async function stateOf(
  store: ModelStore,
  { digest, size }: Layer,
  path: string | undefined,
  signal: AbortSignal | undefined,
): Promise<BlobState> {
  // The built-in model's texts are in memory.
  if (path === undefined) return store.readBlob(digest, size) === undefined ? "missing" : "ok"
  if (statSync(path).size !== size) return "cut off"
  return (await hashFile(path, signal)) === digest ? "ok" : "damaged"
}

/**
 * Removes a file that is not what its name says, so that a pull fetches it again.
 *
 * @throws {CriaError} `unavailable` when it cannot be removed, as from a store of somebody else.
 */
export function removeDamaged(path: string): void {
  try {
    rmSync(path)
  } catch (cause) {
    throw new CriaError("unavailable", `Cannot remove "${path}": ${errorMessage(cause)}`, { cause })
  }
}
