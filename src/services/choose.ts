/**
 * Chooses among the quantisations of a repository: asks the registry what there is, and looks what this machine can hold.
 *
 * @module
 */

import { mkdirSync, mkdtempSync, rmSync } from "node:fs"
import { open } from "node:fs/promises"
import { join } from "node:path"

import { type CacheSetting, type CacheType, splitCacheSetting } from "../engine/cache-type.ts"
import { kvBytesPerToken, type ModelFacts, modelFacts } from "../gguf/facts.ts"
import type { TensorTypeName } from "../gguf/format.ts"
import { readGguf } from "../gguf/read.ts"
import { isRefusal } from "../registry/http.ts"
import { isAvailable, listQuants, type Quant } from "../registry/quants.ts"
import type { Repository } from "../registry/repository.ts"
import type { Patience } from "../registry/retry.ts"
import type { ByteRange } from "../registry/site.ts"
import { StallWatch } from "../registry/stall-watch.ts"
import type { Device } from "../runner/devices.ts"
import { MEDIA_TYPES, parseManifest } from "../store/manifest.ts"
import { shortName } from "../store/name.ts"
import { CriaError } from "../util/errors.ts"
import { memoryState } from "../util/memory.ts"
import { type ContextShape, fitQuants, type Memory, type QuantFit } from "./fit.ts"

/** What a {@link Chooser} draws on. */
export interface ChooserParts {
  /** Devices of this machine; asked once. */
  readonly devices: () => Promise<readonly Device[]>
  readonly cacheType: CacheSetting
  /** Folder for files that can be made again. */
  readonly cache: string
  readonly patience: Patience
}

/** Ollama's registry lists no tags: what it calls `latest` is its own choice. */
const WITHOUT_LISTS: ReadonlySet<string> = new Set(["registry.ollama.ai"])

/** Bytes of a GGUF file that are fetched for its header; more when the vocabulary is large. */
const HEAD_BYTES: readonly number[] = [4 * 2 ** 20, 16 * 2 ** 20, 64 * 2 ** 20]

/** A model can be pulled without a choice: nobody waits for long. */
const LIST_TRIES_MAX = 3

/** Of a model of 8 billion parameters with grouped attention, for files whose header cannot be read. */
const UNKNOWN_SHAPE: ContextShape = { kvBytesPerToken: 128 * 1024, trainedTokens: 8192 }

/** A file of a repository. */
interface RemoteFile {
  readonly size: number
  open(range: ByteRange, signal: AbortSignal): Promise<Response>
}

/** See the module. */
export class Chooser {
  readonly #parts: ChooserParts
  #memory: Promise<Memory> | undefined

  constructor({ patience, ...parts }: ChooserParts) {
    const tries = Math.min(LIST_TRIES_MAX, patience.tries)
    this.#parts = { ...parts, patience: { ...patience, tries } }
  }

  /** Memory of this machine. */
  async memory(): Promise<Memory> {
    this.#memory ??= this.#parts.devices().then(memoryOf)
    try {
      return await this.#memory
    } catch (error) {
      // The next one who asks may have more luck.
      this.#memory = undefined
      throw error
    }
  }

  /**
   * All quantisations of a repository, largest first, with where they would be; [] when it does not tell.
   *
   * @throws {CriaError} `unavailable` when the registry cannot be asked.
   */
  async fits(repository: Repository, signal?: AbortSignal): Promise<readonly QuantFit[]> {
    const quants = await this.#list(repository, signal)
    const smallest = quants.findLast(isAvailable)
    const [shape, memory] = await Promise.all([
      smallest === undefined ? UNKNOWN_SHAPE : this.#shape(smallest, repository, signal),
      this.memory(),
    ])
    return fitQuants(quants, shape, memory)
  }

  /** The one quantisation of a model that is installed. */
  async installed(tag: string, facts: ModelFacts): Promise<readonly QuantFit[]> {
    const quant = { tag, label: facts.quantization, bytes: facts.fileBytes, files: 1, parts: [] }
    return fitQuants([quant], shapeOf(facts, this.#parts.cacheType), await this.memory())
  }

  /**
   * The quantisation that has a label; undefined when the registry does not tell what there is, or not us.
   *
   * @throws {CriaError} `not-found` with those that there are.
   */
  async find(
    repository: Repository,
    label: string,
    signal?: AbortSignal,
  ): Promise<Quant | undefined> {
    const quants = await this.#list(repository, signal).catch((error: unknown) => {
      if (isRefusal(error)) return []
      throw error
    })
    const found = quants.find((quant) => quant.label === label.toUpperCase())
    if (found !== undefined || quants.length === 0) return found
    const text = `Cannot find ${JSON.stringify(label)} of "${shortName(repository.name)}"`
    const hint = `There are ${quants.map((quant) => quant.label).join(", ")}`
    throw new CriaError("not-found", text, { hint })
  }

  /** What the registry offers. */
  async #list(repository: Repository, signal: AbortSignal | undefined): Promise<Quant[]> {
    if (WITHOUT_LISTS.has(repository.name.host.toLowerCase())) return []
    return listQuants(repository, this.#parts.patience, signal)
  }

  /** Reads the header of a file in the registry. Whatever is wrong with it, the choice is made by the sizes then. */
  async #shape(
    quant: Quant,
    repository: Repository,
    signal: AbortSignal | undefined,
  ): Promise<ContextShape> {
    const { cache, patience, cacheType } = this.#parts
    mkdirSync(cache, { recursive: true })
    const folder = mkdtempSync(join(cache, "head-"))
    const path = join(folder, "model.gguf")
    try {
      const file = await remoteFile(quant, repository, signal)
      for (const bytes of HEAD_BYTES) {
        const end = Math.min(bytes, file.size)
        // The next size is for headers that this one does not hold.
        // oxlint-disable-next-line no-await-in-loop
        await fetchHead(path, file, end, { stallMs: patience.stallMs, signal })
        const shape = readShape(path, cacheType)
        if (shape !== undefined) return shape
        if (end === file.size) break
      }
    } catch {
      signal?.throwIfAborted()
    } finally {
      rmSync(folder, { recursive: true, force: true })
    }
    return UNKNOWN_SHAPE
  }
}

/** The file of a quantisation that has its header. */
async function remoteFile(
  { tag, parts }: Quant,
  { client, hub }: Repository,
  signal: AbortSignal | undefined,
): Promise<RemoteFile> {
  const [first] = parts
  if (hub !== undefined && first !== undefined) {
    return { size: first.bytes, open: (range, stop) => hub.open(first.path, range, stop) }
  }
  const { manifest } = parseManifest(await client.manifest(tag, signal))
  const weights = manifest.layers.find(({ mediaType }) => mediaType === MEDIA_TYPES.model)
  if (weights === undefined) throw new CriaError("not-found", "the manifest has no weights")
  const { digest, size } = weights
  return { size, open: (range, stop) => client.openBlob(digest, range, stop) }
}

/** Writes the beginning of a file as large as the whole; the rest is a hole. */
async function fetchHead(
  path: string,
  remote: RemoteFile,
  bytes: number,
  { stallMs, signal }: { readonly stallMs: number; readonly signal: AbortSignal | undefined },
): Promise<void> {
  const stop = new AbortController()
  using watch = new StallWatch(stallMs, () => stop.abort(new Error("stalled")))
  const both = signal === undefined ? stop.signal : AbortSignal.any([signal, stop.signal])
  const response = await remote.open({ start: 0, end: bytes }, both)
  await using file = await open(path, "w")
  let at = 0
  for await (const chunk of response.body ?? []) {
    watch.touch()
    const part = chunk.subarray(0, bytes - at)
    await file.write(part, 0, part.length, at)
    at += part.length
    if (at >= bytes) break
  }
  await file.truncate(remote.size)
}

/** Undefined when the header is longer than what is there, or is none. */
function readShape(path: string, cacheType: CacheSetting): ContextShape | undefined {
  try {
    return shapeOf(modelFacts(readGguf(path, { label: "the model" })), cacheType)
  } catch (error) {
    if (error instanceof CriaError) return undefined
    throw error
  }
}

function shapeOf(facts: ModelFacts, cacheType: CacheSetting): ContextShape {
  const { keys, values } = splitCacheSetting(cacheType)
  return {
    kvBytesPerToken: kvBytesPerToken(facts, tensorTypeName(keys), tensorTypeName(values)),
    trainedTokens: facts.contextLength ?? UNKNOWN_SHAPE.trainedTokens,
  }
}

/** The cache types are names of tensor types in lower case. */
function tensorTypeName(type: CacheType): TensorTypeName {
  return type.toUpperCase() as TensorTypeName
}

/** Apple's GPUs have the memory of the machine. */
function memoryOf(devices: readonly Device[]): Memory {
  const gpus = devices.filter(({ type }) => type === "gpu")
  const gpuBytes = gpus.reduce((sum, { totalBytes }) => sum + totalBytes, 0)
  const isShared = process.platform === "darwin" && gpuBytes > 0
  return { gpuBytes, hostBytes: isShared ? 0 : memoryState().totalBytes }
}
