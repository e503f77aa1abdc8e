/**
 * Changes which models are installed: create, copy, remove, upload.
 *
 * @module
 */

import { type Digest, parseDigest } from "../store/digest.ts"
import { readRegularFile } from "../store/files.ts"
import type { Store } from "../store/folder-store.ts"
import { MANIFEST_BYTES_MAX } from "../store/manifest.ts"
import { manifestPath, type ModelName, parseName, sameName, shortName } from "../store/name.ts"
import type { ModelStore, StoredModel } from "../store/store.ts"
import { blobsOf, type PutBlob } from "../store/writer.ts"
import { assert, CriaError } from "../util/errors.ts"
import { ensureOwn } from "./blobs.ts"
import { type CreateContext, createModel, type CreateRequest } from "./create.ts"
import type { Progress } from "./progress.ts"
import { type Stores, storeWriter } from "./stores.ts"

export { type Digest, parseDigest }

/** Settings of a {@link Library}. */
export type LibraryOptions = Pick<CreateContext, "keepsUnused" | "pull" | "command">

/** See the module. */
export class Library {
  readonly #stores: Stores
  readonly #options: LibraryOptions

  /**
   * @param options.keepsUnused Leave blobs that only a replaced model had.
   * @param options.pull Installs the base of a model that is not here.
   */
  constructor(stores: Stores, options: LibraryOptions) {
    this.#stores = stores
    this.#options = options
  }

  /**
   * Creates a model. The last step is `success`.
   *
   * @throws {CriaError} Before the first step for whatever is wrong with the request itself.
   */
  create(request: CreateRequest, signal: AbortSignal): AsyncGenerator<Progress, void> {
    const context = {
      store: this.#stores.all,
      writer: storeWriter(this.#stores),
      ...this.#options,
    }
    return createModel(context, request, signal)
  }

  /**
   * Gives a model another name. The manifest is copied byte for byte; blobs of other stores are linked, or copied. The
   * last step is `success`.
   *
   * @throws {CriaError} `invalid-input` for a name that cannot be one, `not-found`.
   */
  async *copy(
    source: string,
    destination: string,
    signal: AbortSignal,
  ): AsyncGenerator<Progress, void> {
    const from = nameOr(source, `source ${JSON.stringify(source)} is invalid`)
    const to = nameOr(destination, `destination ${JSON.stringify(destination)} is invalid`)
    const model = this.#stores.all.find(from)
    if (model === undefined) {
      throw new CriaError("not-found", `model ${JSON.stringify(source)} not found`)
    }
    if (!sameName(model.name, to)) yield* this.#copyTo(to, model, signal)
    yield { status: "success" }
  }

  async *#copyTo(
    to: ModelName,
    model: StoredModel,
    signal: AbortSignal,
  ): AsyncGenerator<Progress, void> {
    const writer = storeWriter(this.#stores)
    const parts = { store: this.#stores.all, writer }
    for (const digest of blobsOf(model.manifest)) yield* ensureOwn(parts, digest, signal)
    const replaced = await writer.writeManifest(to, manifestBytes(this.#stores.folders, model), {
      signal,
    })
    if (replaced !== undefined && !this.#options.keepsUnused) {
      await writer.removeUnreferenced(blobsOf(replaced))
    }
  }

  /**
   * Removes a model and the blobs that only it has.
   *
   * @returns Where there is another of this name, which is listed now: `"<folder>", which is only read`. Undefined when
   *   there is none.
   * @throws {CriaError} `invalid-input`, `not-found`; `unavailable` when it is only in a store that is only read.
   */
  async remove(text: string): Promise<string | undefined> {
    const name = nameOr(text, `name ${JSON.stringify(text)} is invalid`)
    const isOwn = this.#stores.own !== undefined
    const isRemoved = isOwn && (await storeWriter(this.#stores).removeModel(name))
    const place = this.#placeOfAnother(name)
    if (isRemoved) return place
    if (place === undefined) throw new CriaError("not-found", `model '${text}' not found`)
    throw new CriaError("unavailable", `Cannot remove "${shortName(name)}": it is in ${place}`)
  }

  /** Of what can be listed and not removed. */
  #placeOfAnother(name: ModelName): string | undefined {
    const other = this.#stores.folders.find((store) => store.readOnly && isIn(store, name))
    if (other !== undefined) return `"${other.root}", which is only read`
    return isIn(this.#stores.all, name) ? "the executable" : undefined
  }

  /** Whether some store has a blob. */
  hasBlob(digest: Digest): boolean {
    return this.#stores.all.blobPath(digest) !== undefined
  }

  /**
   * Stores an upload.
   *
   * @param options.size Bytes that the client has announced.
   * @throws {CriaError} `invalid-input` when it has another digest, `unavailable` without room for it; nothing is stored
   *   then.
   */
  async putBlob(
    digest: Digest,
    content: AsyncIterable<Uint8Array>,
    { size, signal }: { readonly size: number; readonly signal: AbortSignal },
  ): Promise<PutBlob> {
    return storeWriter(this.#stores).putStream(content, { expected: digest, size, signal })
  }
}

/** The bytes of a model's manifest; of a model without a file, what Ollama would have written. */
export function manifestBytes(
  folders: readonly Store[],
  { name, id, manifest }: StoredModel,
): Buffer {
  const folder = folders.find((store) => {
    const found = store.find(name)
    return found?.id === id
  })
  if (folder === undefined) return Buffer.from(`${JSON.stringify(manifest)}\n`)
  const { bytes } = readRegularFile(manifestPath(folder.root, name), MANIFEST_BYTES_MAX)
  assert(bytes.length > 0, "a manifest that was read is not empty")
  return bytes
}

function isIn(store: ModelStore, name: ModelName): boolean {
  try {
    return store.find(name) !== undefined
  } catch {
    // It is there and cannot be read.
    return true
  }
}

function nameOr(text: string, message: string): ModelName {
  try {
    return parseName(text)
  } catch (cause) {
    throw new CriaError("invalid-input", message, { cause })
  }
}
