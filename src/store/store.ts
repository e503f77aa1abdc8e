/**
 * What a place that models come from offers, and what can be done with any such place.
 *
 * The interface is four calls, so that a folder (`folder-store.ts`), several stores in a row (`layered-store.ts`) and a
 * model inside the executable look the same to those who run models. Writing is not part of it: only a folder can.
 *
 * @module
 */
import { CriaError } from "../util/errors.ts"
import type { Digest } from "./digest.ts"
import { type Layer, type Manifest, type ModelConfig, parseConfig } from "./manifest.ts"
import { fullName, type ModelName } from "./name.ts"

/** Where models come from. All calls block, for milliseconds. */
export interface ModelStore {
  /** All models, newest first, and what could not be read. A bad entry never hides the good ones. */
  list(): StoreListing
  /**
   * Finds a model by its name in any casing; when several differ by case only, an equal one wins.
   *
   * @throws {CriaError} When the model is there and cannot be read.
   */
  find(name: ModelName): StoredModel | undefined
  /** The file that holds a blob; `undefined` when the store does not have it as a file. */
  blobPath(digest: Digest): string | undefined
  /**
   * The content of a blob; `undefined` when the store does not have it.
   *
   * @throws {CriaError} `internal` when it is longer than `bytesMax`.
   */
  readBlob(digest: Digest, bytesMax: number): Buffer | undefined
}

/** An installed model. */
export interface StoredModel {
  /** In the casing in which it is installed. */
  readonly name: ModelName
  /** Hex sha256 of the manifest's bytes, without `sha256:`. */
  readonly id: string
  readonly manifest: Manifest
  /** All layers and the config, as the manifest claims. */
  readonly sizeBytes: number
  /** When the manifest was last written. */
  readonly modifiedAt: Date
}

/** A part of a store that was skipped. */
export interface StoreProblem {
  readonly path: string
  /** The model that is there and cannot be read; absent when the path is not that of a model. */
  readonly name?: ModelName
  readonly error: CriaError
}

/** Result of {@link ModelStore.list}. */
export interface StoreListing {
  readonly models: readonly StoredModel[]
  readonly problems: readonly StoreProblem[]
}

/** Longest text layer: far above templates, licences and configs, enough for messages with a few images. */
const TEXT_BYTES_MAX = 16 * 1024 * 1024

/** Whether the store has a blob. */
export function hasBlob(store: ModelStore, digest: Digest): boolean {
  return store.blobPath(digest) !== undefined
}

/**
 * Locates a blob that has to be there.
 *
 * @throws {CriaError} `not-found` with the digest.
 */
export function requireBlob(store: ModelStore, digest: Digest): string {
  const path = store.blobPath(digest)
  if (path === undefined) throw missingBlob(digest)
  return path
}

function missingBlob(digest: Digest): CriaError {
  return new CriaError("not-found", `Cannot find blob "${digest}"`)
}

/**
 * Reads a layer that is text.
 *
 * @throws {CriaError} `not-found` when the blob is missing, `internal` when it is longer than 16 MiB.
 */
export function readText(store: ModelStore, layer: Layer): string {
  const bytes = store.readBlob(layer.digest, TEXT_BYTES_MAX)
  if (bytes === undefined) throw missingBlob(layer.digest)
  return bytes.toString("utf8")
}

/**
 * Reads the config blob of a model.
 *
 * @throws {CriaError} `not-found` when the blob is missing, `internal` when it is malformed.
 */
export function readConfig(store: ModelStore, manifest: Manifest): ModelConfig {
  return parseConfig(readText(store, manifest.config))
}

/** Sorts models in the order of every list: newest first, equally old ones by name. */
export function newestFirst(models: readonly StoredModel[]): StoredModel[] {
  return models.toSorted(
    (a, b) =>
      b.modifiedAt.getTime() - a.modifiedAt.getTime() ||
      (fullName(a.name) < fullName(b.name) ? -1 : 1),
  )
}

/** All names that are taken, those of unreadable models too. */
export function installedNames(listing: StoreListing): ModelName[] {
  return [...listing.models, ...listing.problems].flatMap((entry) => entry.name ?? [])
}
