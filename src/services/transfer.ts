/**
 * Models from and to registries: the use cases behind `pull` and `push`.
 *
 * Owns the order of things and the words of progress, which are Ollama's. A pull changes the store in one step at its
 * end: until then there are only blobs that no model names.
 *
 * @module
 */

import { statSync } from "node:fs"
import { setTimeout as delay } from "node:timers/promises"

import type { AuthSources } from "../registry/auth.ts"
import { RegistryClient } from "../registry/client.ts"
import { Downloads } from "../registry/downloads.ts"
import type { Network } from "../registry/http.ts"
import { PATIENCE, type Patience, retrying } from "../registry/retry.ts"
import { UploadNotes } from "../registry/upload-notes.ts"
import { Upload } from "../registry/upload.ts"
import type { Digest } from "../store/digest.ts"
import { type Layer, type Manifest, MEDIA_TYPES, parseManifest } from "../store/manifest.ts"
import { fullName, type ModelName, parseName, shortName } from "../store/name.ts"
import { blobsOf, type StoreWriter } from "../store/writer.ts"
import { CriaError, errorMessage, toCriaError } from "../util/errors.ts"
import { ensureOwn } from "./blobs.ts"
import { Chooser, type ChooserParts } from "./choose.ts"
import { chosenQuant, explainChoice, type QuantFit } from "./fit.ts"
import { manifestBytes } from "./library.ts"
import type { Progress } from "./progress.ts"
import { type Stores, storeWriter } from "./stores.ts"

/** Settings of a pull or push. */
export interface TransferOptions {
  /** Plain HTTP. */
  readonly insecure: boolean
  readonly signal?: AbortSignal | undefined
}

/** Settings of a pull. */
export interface PullOptions extends TransferOptions {
  /** Quantisation to take of those that the repository has; undefined takes what fits. */
  readonly quant?: string | undefined
}

/** What {@link Transfers} work with. */
export interface TransferParts {
  readonly stores: Stores
  readonly network: Network
  readonly auth: AuthSources
  /** Folder for files that can be made again. */
  readonly cache: string
  readonly policy: RegistryPolicy
  readonly hardware: Omit<ChooserParts, "network" | "cache">
  readonly patience?: Patience
}

/** Which registries may be asked. */
export interface RegistryPolicy {
  readonly isOffline: boolean
  /** Hosts with their ports; empty for all. */
  readonly registries: readonly string[]
  /** Whether layers that nobody needs any more are kept. */
  readonly keepsUnused: boolean
}

/** Between two lines of progress, as in Ollama. */
const PROGRESS_MS = 60

/** See the module. Dispose it to end what runs. */
export class Transfers implements AsyncDisposable {
  readonly #parts: TransferParts
  readonly #patience: Patience
  readonly chooser: Chooser
  readonly #downloads = new Downloads()
  readonly #notes: UploadNotes

  constructor(parts: TransferParts) {
    this.#parts = parts
    this.#patience = parts.patience ?? PATIENCE
    this.#notes = new UploadNotes(parts.cache)
    this.chooser = new Chooser({
      network: parts.network,
      cache: parts.cache,
      ...parts.hardware,
    })
  }

  /**
   * Fetches a model.
   *
   * @param requested The client's own text.
   * @throws {CriaError} As the stream goes on; `invalid-input` at once for a name that cannot be one.
   */
  pull(requested: string, options: PullOptions): AsyncGenerator<Progress, undefined> {
    const text = requested.trim()
    const name = parseName(text)
    const hasTag = text.lastIndexOf(":") > text.lastIndexOf("/")
    return this.#pull(name, this.client(name, options.insecure), { ...options, hasTag })
  }

  /** Like {@link pull}, of a name that was parsed before: `latest` counts as no tag. */
  pullName(name: ModelName, options: PullOptions): AsyncGenerator<Progress, undefined> {
    const hasTag = name.tag !== "latest"
    return this.#pull(name, this.client(name, options.insecure), { ...options, hasTag })
  }

  /**
   * The quantisations of a repository on this machine, largest first; [] when the registry does not tell.
   *
   * @throws {CriaError} Like {@link pull}.
   */
  async fits(
    requested: string,
    { insecure, signal }: TransferOptions,
  ): Promise<readonly QuantFit[]> {
    const name = parseName(requested.trim())
    return this.chooser.fits(name, this.client(name, insecure), signal)
  }

  /**
   * Sends a model.
   *
   * @throws {CriaError} Like {@link pull}.
   */
  push(requested: string, options: TransferOptions): AsyncGenerator<Progress, undefined> {
    const name = parseName(requested.trim())
    const client = this.client(name, options.insecure)
    return this.#push(name, client, options)
  }

  /**
   * The registry of a name.
   *
   * @throws {CriaError} `unavailable` when it may not be asked.
   */
  client(name: ModelName, insecure: boolean): RegistryClient {
    const { policy, network, auth } = this.#parts
    if (policy.isOffline) {
      const hint = "CRIA_OFFLINE is set: only installed models can be used"
      throw new CriaError("unavailable", `Cannot ask "${name.host}": offline`, { hint })
    }
    const { registries } = policy
    if (registries.length > 0 && !registries.includes(name.host.toLowerCase())) {
      const hint = `CRIA_REGISTRIES allows ${registries.join(", ")}`
      throw new CriaError("unavailable", `Cannot ask "${name.host}": not allowed`, { hint })
    }
    return new RegistryClient(name, { network, auth, insecure })
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#downloads[Symbol.asyncDispose]()
  }

  async *#pull(
    asked: ModelName,
    client: RegistryClient,
    { signal, quant, hasTag }: PullOptions & { readonly hasTag: boolean },
  ): AsyncGenerator<Progress, undefined> {
    yield { status: "pulling manifest" }
    const writer = storeWriter(this.#parts.stores)
    const name =
      quant === undefined ? asked : await this.chooser.named(asked, quant, client, signal)
    const chosen =
      quant === undefined && !hasTag ? await this.#choose(name, client, signal) : undefined
    if (chosen !== undefined) yield { status: explainChoice(chosen) }
    const bytes = await this.#fetchManifest(client, chosen?.tag ?? name.tag, signal)
    const { manifest } = parseManifest(bytes)
    checkManifest(manifest, name)
    for (const layer of uniqueBlobs([...manifest.layers, manifest.config])) {
      yield* this.#pullBlob(layer, client, writer, signal)
    }
    yield { status: "verifying sha256 digest" }
    yield { status: "writing manifest" }
    const replaced = await writer.writeManifest(name, bytes, { signal })
    yield* this.#removeUnused(writer, replaced, manifest)
    yield { status: "success" }
  }

  /** The best quantisation of several; undefined where there is no choice, or nobody tells. */
  async #choose(
    name: ModelName,
    client: RegistryClient,
    signal: AbortSignal | undefined,
  ): Promise<QuantFit | undefined> {
    let fits: readonly QuantFit[] = []
    try {
      fits = await this.chooser.fits(name, client, signal)
    } catch (error) {
      signal?.throwIfAborted()
      // What is wrong with the registry shows in the manifest, too; what is wrong with its list does no harm.
      if (!(error instanceof CriaError)) throw error
    }
    return fits.length > 1 ? chosenQuant(fits, shortName(name)) : fits[0]
  }

  async #fetchManifest(
    client: RegistryClient,
    tag: string,
    signal: AbortSignal | undefined,
  ): Promise<Uint8Array> {
    try {
      return await retrying(() => client.manifest(tag, signal), this.#patience, signal)
    } catch (error) {
      signal?.throwIfAborted()
      const { code, message, hint } = toCriaError(error)
      throw new CriaError(code, `pull model manifest: ${message}`, {
        ...(hint === undefined ? {} : { hint }),
        cause: error,
      })
    }
  }

  async *#pullBlob(
    { digest, size }: Layer,
    client: RegistryClient,
    writer: StoreWriter,
    signal: AbortSignal | undefined,
  ): AsyncGenerator<Progress, undefined> {
    const line = { status: `pulling ${digest.slice(7, 19)}`, digest, total: size }
    if (this.#isInOther(digest, size)) {
      const { all: store } = this.#parts.stores
      for await (const step of ensureOwn({ store, writer }, digest, signal)) {
        yield { ...line, completed: step.completed ?? 0 }
      }
    }
    if (this.#isInOwn(digest, size, writer)) {
      yield { ...line, completed: size }
      return
    }
    const job = { client, digest, size, writer, patience: this.#patience }
    await using download = this.#downloads.join(job)
    for await (const completed of watched(download, signal)) yield { ...line, completed }
    yield { ...line, completed: size }
  }

  #isInOwn(digest: Digest, size: number, writer: StoreWriter): boolean {
    const { own } = this.#parts.stores
    return fileBytes(own?.blobPath(digest)) === size && writer.touchBlob(digest)
  }

  /** Whether the own store lacks a blob that another one has: it is linked or copied. */
  #isInOther(digest: Digest, size: number): boolean {
    const { own, all } = this.#parts.stores
    return own?.blobPath(digest) === undefined && fileBytes(all.blobPath(digest)) === size
  }

  async *#removeUnused(
    writer: StoreWriter,
    replaced: Manifest | undefined,
    current: Manifest,
  ): AsyncGenerator<Progress, undefined> {
    const kept = new Set(blobsOf(current))
    const old = replaced === undefined ? [] : blobsOf(replaced).filter((d) => !kept.has(d))
    if (old.length === 0 || this.#parts.policy.keepsUnused) return
    yield { status: "removing unused layers" }
    try {
      await writer.removeUnreferenced(old)
    } catch (error) {
      yield { status: `couldn't remove unused layers: ${errorMessage(error)}` }
    }
  }

  async *#push(
    name: ModelName,
    client: RegistryClient,
    { signal }: TransferOptions,
  ): AsyncGenerator<Progress, undefined> {
    yield { status: "retrieving manifest" }
    const { folders, all } = this.#parts.stores
    const model = all.find(name)
    if (model === undefined) {
      yield { status: "couldn't retrieve manifest" }
      const hint = "cria list shows what is installed"
      throw new CriaError("not-found", `model '${shortName(name)}' not found`, { hint })
    }
    const bytes = manifestBytes(folders, model)
    const { manifest } = model
    for (const layer of uniqueBlobs([...manifest.layers, manifest.config])) {
      yield* this.#pushBlob(layer, name, client, signal)
    }
    yield { status: "pushing manifest" }
    await retrying(() => client.putManifest(name.tag, bytes, signal), this.#patience, signal)
    yield { status: "success" }
  }

  async *#pushBlob(
    layer: Layer,
    name: ModelName,
    client: RegistryClient,
    signal: AbortSignal | undefined,
  ): AsyncGenerator<Progress, undefined> {
    const { digest, size } = layer
    const { network } = this.#parts
    const line = { status: `pushing ${digest.slice(7, 19)}`, digest, total: size }
    const path = this.#parts.stores.all.blobPath(digest)
    if (path === undefined || fileBytes(path) !== size) {
      const text = `Cannot push "${shortName(name)}": blob "${digest}" is missing or damaged`
      throw new CriaError("not-found", text, { hint: `cria pull ${shortName(name)}` })
    }
    const upload = new Upload({
      client,
      network,
      digest,
      size,
      path,
      mountFrom: mountSource(layer, name),
      patience: this.#patience,
      notes: this.#notes,
    })
    const stop = new AbortController()
    const both = signal === undefined ? stop.signal : AbortSignal.any([signal, stop.signal])
    const done = upload.run(both)
    try {
      for await (const completed of watched(completing(upload, done), signal)) {
        yield { ...line, completed }
      }
      yield { ...line, completed: size }
    } finally {
      stop.abort(new CriaError("unavailable", "the push was cancelled"))
      await done.catch(() => {})
    }
  }
}

/** Something that proceeds and ends. */
interface Transfer {
  readonly completedBytes: number
  readonly done: Promise<void>
}

function completing(upload: Upload, done: Promise<void>): Transfer {
  return {
    get completedBytes() {
      return upload.completedBytes
    },
    done,
  }
}

/** How far a transfer is, whenever that has changed, until it ends. @throws What it fails with. */
async function* watched(
  transfer: Transfer,
  signal: AbortSignal | undefined,
): AsyncGenerator<number, void> {
  let shown = -1
  const ended = transfer.done.then(() => true)
  // It is awaited below, but perhaps not before it fails.
  ended.catch(() => {})
  for (;;) {
    signal?.throwIfAborted()
    const { completedBytes } = transfer
    if (completedBytes !== shown) yield completedBytes
    shown = completedBytes
    // Watching is the point of the loop.
    // oxlint-disable-next-line no-await-in-loop
    if ((await Promise.race([ended, delay(PROGRESS_MS)])) === true) return
  }
}

/** What no pull can make a model of. */
function checkManifest({ layers, config }: Manifest, name: ModelName): void {
  const quoted = `"${fullName(name)}"`
  if (layers.length === 0) {
    throw new CriaError("unavailable", `Cannot pull ${quoted}: its manifest has no layers`)
  }
  if (layers.some(({ mediaType }) => mediaType === MEDIA_TYPES.tensor)) {
    const text = "this model requires MLX support, but the MLX runtime is not available"
    throw new CriaError("unavailable", text)
  }
  const sizes = new Map<Digest, number>()
  for (const { digest, size } of [...layers, config]) {
    if ((sizes.get(digest) ?? size) !== size) {
      const text = `Cannot pull ${quoted}: its manifest gives two sizes for ${digest}`
      throw new CriaError("unavailable", text)
    }
    sizes.set(digest, size)
  }
}

function uniqueBlobs(layers: readonly Layer[]): Layer[] {
  return [...new Map(layers.map((layer) => [layer.digest, layer])).values()]
}

/** Undefined when there is no such file. */
function fileBytes(path: string | undefined): number | undefined {
  return path === undefined ? undefined : statSync(path, { throwIfNoEntry: false })?.size
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
