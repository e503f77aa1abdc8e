/**
 * Adds models to a folder store and takes them away.
 *
 * A model appears when its manifest does, in one rename, and only when all its blobs are there. Blobs are written
 * beside their place and renamed, so a file under a blob's name is always whole. Nothing else needs to be undone
 * after a crash: what no manifest names is removed by `prune.ts` when it is old enough.
 *
 * Rename is enough for blobs; what decides about existence (a manifest that comes, a blob that goes) runs under the
 * lock of `lock.ts`. A blob that was there when a creation began may therefore be gone when it ends: then
 * {@link StoreWriter.writeManifest} says `conflict` and changes nothing.
 *
 * @module
 */
import { createHash, randomBytes } from "node:crypto"
import {
  mkdirSync,
  realpathSync,
  rmdirSync,
  rmSync,
  statSync,
  unlinkSync,
  utimesSync,
} from "node:fs"
import { type FileHandle, open } from "node:fs/promises"
import { basename, dirname, join, relative } from "node:path"

import { CriaError } from "../util/errors.ts"
import { drain } from "../util/iterate.ts"
import { requireRoom } from "../util/room.ts"
import { digestsInCreation } from "./creations.ts"
import { blobFilePath, type Digest, hashSteps, parseDigest } from "./digest.ts"
import { cannotWrite, moveIntoPlace, systemErrorCode, syncFolder, writeWhole } from "./durable.ts"
import { isRegularFile, readFolder } from "./files.ts"
import type { Store } from "./folder-store.ts"
import { withStoreLock } from "./lock.ts"
import { type Layer, type Manifest, parseManifest, readManifest } from "./manifest.ts"
import { manifestPath, manifestsFolder, type ModelName, shortName } from "./name.ts"
import { runningDigests } from "./pending.ts"
import { collectReferences } from "./references.ts"
import { resolveName } from "./resolve.ts"

/** A blob that is in the store now. */
export interface PutBlob {
  readonly digest: Digest
  /** Bytes. */
  readonly size: number
  /** False when the store had it already. */
  readonly isNew: boolean
}

/** What is known of a content that is to be stored. */
export interface PutOptions {
  /** What the content has to hash to. */
  readonly expected?: Digest | undefined
  /** Bytes that the content will have, when they are known: without room for them it is not begun. */
  readonly size?: number | undefined
  /** Longest content. */
  readonly bytesMax?: number | undefined
  readonly signal?: AbortSignal | undefined
}

type ByteSource = Iterable<Uint8Array> | AsyncIterable<Uint8Array>

/** The writing side of a folder store. Holds nothing open. */
export class StoreWriter {
  readonly root: string
  readonly #store: Store

  /** @throws {CriaError} `unavailable` when the store is read-only. */
  constructor(store: Store) {
    if (store.readOnly) {
      const hint = "Set OLLAMA_MODELS to a folder of your own; models of this one stay visible"
      throw new CriaError("unavailable", `Cannot write "${store.root}": read-only store`, { hint })
    }
    this.root = store.root
    this.#store = store
  }

  /** Where the store keeps a blob, present or not. */
  blobPath(digest: Digest): string {
    return blobFilePath(this.root, digest)
  }

  /** The content of a short blob; undefined when it is not there. */
  readBlob(digest: Digest, bytesMax: number): Buffer | undefined {
    return this.#store.readBlob(digest, bytesMax)
  }

  /** Where a download of a blob collects its bytes; `suffix` is for files beside it, such as `-0`. */
  partialPath(digest: Digest, suffix = ""): string {
    return `${this.blobPath(digest)}-partial${suffix}`
  }

  /** The folder of blobs, which is made when it is not there. */
  blobsFolder(): string {
    const folder = join(this.root, "blobs")
    try {
      mkdirSync(folder, { recursive: true })
    } catch (error) {
      throw cannotWrite(folder, error)
    }
    return folder
  }

  /** A new name in the folder of blobs, for a file that is to be adopted. */
  temporaryPath(): string {
    return join(this.blobsFolder(), `sha256-tmp-${randomBytes(12).toString("hex")}`)
  }

  /**
   * Makes a finished file a blob by moving it. The caller has checked that it hashes to `digest`.
   *
   * @param path A file on the same file system: a partial or a temporary one.
   * @returns False when the store had the blob already; the file is removed then.
   * @throws {CriaError} `unavailable` when it cannot be moved.
   */
  adoptBlob(path: string, digest: Digest): boolean {
    const target = this.blobPath(digest)
    try {
      // A blob of another size is one that something has damaged.
      if (fileSize(target) === statSync(path).size) {
        unlinkSync(path)
        this.touchBlob(digest)
        return false
      }
    } catch (error) {
      throw cannotWrite(target, error)
    }
    moveIntoPlace(path, target)
    return true
  }

  /**
   * Makes a finished file a blob, hashing it first.
   *
   * @param path A file on the same file system: a temporary one.
   * @returns Bytes that are hashed so far.
   * @throws {CriaError} `unavailable` when it cannot be read or moved; the signal's reason.
   */
  async *adoptFile(path: string, signal?: AbortSignal): AsyncGenerator<number, PutBlob> {
    const digest = yield* hashSteps(path, signal)
    const { size } = statSync(path)
    return { digest, size, isNew: this.adoptBlob(path, digest) }
  }

  /** Removes a temporary file and whatever has a name that begins with its own. Missing ones are fine. */
  removeTemporary(path: string): void {
    const folder = dirname(path)
    for (const { name } of readFolder(folder)) {
      if (name.startsWith(basename(path))) rmSync(join(folder, name), { force: true })
    }
  }

  /** Makes a blob that no manifest names yet look new, so that no prune takes it. False when it is not there. */
  touchBlob(digest: Digest): boolean {
    const path = this.blobPath(digest)
    if (!isRegularFile(path)) return false
    try {
      const now = new Date()
      utimesSync(path, now, now)
    } catch {
      // The blob belongs to another user or lies on a read-only share: nobody prunes it then either.
    }
    return true
  }

  /** Stores a small content as a blob. */
  async putBytes(content: string | Uint8Array): Promise<PutBlob> {
    const bytes = typeof content === "string" ? Buffer.from(content) : content
    return this.putStream([bytes])
  }

  /**
   * Stores a stream as a blob, hashing while it writes. What is half-written when it ends early is removed.
   *
   * @throws {CriaError} `invalid-input` when the content is longer than allowed or hashes to something else,
   *   `unavailable` when it cannot be written; whatever the stream throws.
   */
  putStream(source: ByteSource, options: PutOptions = {}): Promise<PutBlob> {
    return drain(this.putSteps(source, options))
  }

  /** Like {@link putStream}; yields how many bytes are written. */
  async *putSteps(source: ByteSource, options: PutOptions = {}): AsyncGenerator<number, PutBlob> {
    const temporary = this.temporaryPath()
    try {
      const { digest, size } = yield* this.stage(temporary, source, options)
      if (options.expected !== undefined && options.expected !== digest) {
        const text = `digest mismatch, expected "${options.expected}", got "${digest}"`
        throw new CriaError("invalid-input", text)
      }
      return { digest, size, isNew: this.adoptBlob(temporary, digest) }
    } finally {
      rmSync(temporary, { force: true })
    }
  }

  /**
   * Writes a stream to a temporary file, which is the caller's to adopt or to remove.
   *
   * @returns Bytes that are written so far; in the end the digest.
   * @throws {CriaError} Like {@link putStream}, but for the digest.
   */
  async *stage(
    path: string,
    source: ByteSource,
    { size: announced = 0, bytesMax = Number.MAX_SAFE_INTEGER, signal }: PutOptions = {},
  ): AsyncGenerator<number, Pick<PutBlob, "digest" | "size">> {
    requireRoom(dirname(path), announced, "Cannot store a file")
    const hash = createHash("sha256")
    let size = 0
    await using file = await openNew(path)
    for await (const chunk of source) {
      signal?.throwIfAborted()
      size += chunk.length
      if (size > bytesMax) throw new CriaError("invalid-input", `Longer than ${bytesMax} bytes`)
      hash.update(chunk)
      await writeAll(file, chunk, path)
      yield size
    }
    return { digest: parseDigest(`sha256:${hash.digest("hex")}`), size }
  }

  /**
   * Makes a model appear, or replaces it. The bytes are kept exactly: their hash is the model's id.
   *
   * @returns The manifest that was replaced, so that its blobs can go: {@link removeUnreferenced}.
   * @throws {CriaError} `conflict` when a blob is missing, or was removed by somebody in the meantime; `internal` when
   *   the bytes are no manifest; `unavailable` when they cannot be written. The store is as before then.
   */
  async writeManifest(
    name: ModelName,
    bytes: Uint8Array,
    options: { readonly signal?: AbortSignal | undefined } = {},
  ): Promise<Manifest | undefined> {
    const { manifest } = parseManifest(bytes)
    return withStoreLock(
      this.root,
      () => {
        const missing = blobsOf(manifest).find((digest) => !isRegularFile(this.blobPath(digest)))
        if (missing !== undefined) throw missingBlob(name, missing)
        const path = this.#manifestPath(name)
        const replaced = readableManifest(path)
        const temporary = `.cria-${randomBytes(12).toString("hex")}`
        writeWhole(path, bytes, join(manifestsFolder(this.root), temporary))
        return replaced
      },
      options,
    )
  }

  /**
   * Removes a model, in whatever casing, with the blobs that only it has. Works for manifests that cannot be read.
   *
   * @returns False when there is no such model.
   */
  async removeModel(name: ModelName): Promise<boolean> {
    return withStoreLock(this.root, () => {
      const path = this.#manifestPath(name)
      const manifest = readableManifest(path)
      if (!this.#removeManifestFile(path)) return false
      if (manifest !== undefined) this.#removeUnreferenced(blobsOf(manifest))
      return true
    })
  }

  /**
   * Removes those blobs that no manifest names, and neither a pull nor a creation that runs. Missing ones are fine.
   *
   * @returns Those that were removed.
   */
  async removeUnreferenced(digests: readonly Digest[]): Promise<Digest[]> {
    return withStoreLock(this.root, () => {
      const read = digestsInCreation(this.root)
      return this.#removeUnreferenced(digests.filter((digest) => !read.has(digest)))
    })
  }

  /**
   * Removes a blob that models may need, because it is damaged.
   *
   * @param modifiedMs When it was last written, in milliseconds since 1970, by whom found it damaged.
   * @returns False when it is not there, or was written since.
   */
  async removeBlob(digest: Digest, modifiedMs: number): Promise<boolean> {
    return withStoreLock(this.root, () => {
      const path = this.blobPath(digest)
      const stats = statSync(path, { throwIfNoEntry: false })
      if (stats?.isFile() !== true || stats.mtimeMs !== modifiedMs) return false
      removeFile(path)
      return true
    })
  }

  #removeUnreferenced(digests: readonly Digest[]): Digest[] {
    const { digests: inUse, areKnown } = collectReferences(this.root)
    if (!areKnown) return []
    const running = runningDigests(this.root)
    return [...new Set(digests)].filter((digest) => {
      if (inUse.has(digest) || running.has(digest)) return false
      const path = this.blobPath(digest)
      if (!isRegularFile(path)) return false
      removeFile(path)
      return true
    })
  }

  /**
   * Where a model's manifest is, or would be.
   *
   * @throws {CriaError} `unavailable` when it would be somewhere else, by a link on the way.
   */
  #manifestPath(name: ModelName): string {
    const path = manifestPath(this.root, resolveName(this.#store, name))
    const top = manifestsFolder(this.root)
    let folder = dirname(path)
    while (folder !== top && realPath(folder) === undefined) folder = dirname(folder)
    // The folder of all manifests may be a link: whoever can make one there owns the store.
    const expected = join(realPath(top) ?? top, relative(top, folder))
    if ((realPath(folder) ?? expected) === expected) return path
    const text = `Cannot change "${shortName(name)}": a link in "${folder}" leads out of the store`
    throw new CriaError("unavailable", text, { hint: "Remove the link, or the model where it is" })
  }

  /** Removes the file and the folders above it that are empty then. */
  #removeManifestFile(path: string): boolean {
    if (fileSize(path) === undefined) return false
    removeFile(path)
    removeEmptyFolders(dirname(path), manifestsFolder(this.root))
    return true
  }
}

/** All blobs that a manifest names, each once. */
export function blobsOf(manifest: Manifest): Digest[] {
  const layers: readonly Layer[] = [manifest.config, ...manifest.layers]
  return [...new Set(layers.map((layer) => layer.digest))]
}

/** Removes a folder when it is empty, then those above it, up to `top`, which stays. */
export function removeEmptyFolders(folder: string, top: string): void {
  for (let path = folder; path !== top && path.startsWith(top); path = dirname(path)) {
    try {
      rmdirSync(path)
    } catch {
      return // Not empty, or somebody else has removed it.
    }
  }
}

async function openNew(path: string): Promise<FileHandle> {
  try {
    return await open(path, "wx")
  } catch (error) {
    throw cannotWrite(path, error)
  }
}

async function writeAll(file: FileHandle, bytes: Uint8Array, path: string): Promise<void> {
  try {
    for (let done = 0; done < bytes.length;) {
      // Each write begins where the one before has ended.
      // oxlint-disable-next-line no-await-in-loop
      done += (await file.write(bytes, done)).bytesWritten
    }
  } catch (error) {
    throw cannotWrite(path, error)
  }
}

/** Undefined when there is nothing. */
function realPath(path: string): string | undefined {
  try {
    return realpathSync(path)
  } catch {
    return undefined
  }
}

function readableManifest(path: string): Manifest | undefined {
  try {
    return readManifest(path).manifest
  } catch {
    return undefined
  }
}

/** Undefined when there is no such file. */
function fileSize(path: string): number | undefined {
  const stats = statSync(path, { throwIfNoEntry: false })
  return stats?.isFile() === true ? stats.size : undefined
}

function removeFile(path: string): void {
  try {
    unlinkSync(path)
    syncFolder(dirname(path))
  } catch (error) {
    if (systemErrorCode(error) !== "ENOENT") throw cannotWrite(path, error)
  }
}

function missingBlob(name: ModelName, digest: Digest): CriaError {
  const text = `Cannot install "${shortName(name)}": blob "${digest}" is not in the store`
  const hint = "Another process may have removed it in the meantime: try again"
  return new CriaError("conflict", text, { hint })
}
