/**
 * Chooses among the quantisations of a repository: asks the registry what there is, and looks what this machine can hold.
 *
 * @module
 */

import { mkdirSync, mkdtempSync, rmSync } from "node:fs"
import { open } from "node:fs/promises"
import { join } from "node:path"

import { type CacheSetting, type CacheType, cacheTypesOf } from "../engine/cache-type.ts"
import { kvBytesPerToken, type ModelFacts, modelFacts } from "../gguf/facts.ts"
import type { TensorTypeName } from "../gguf/format.ts"
import { readGguf } from "../gguf/read.ts"
import type { RegistryClient } from "../registry/client.ts"
import type { Network } from "../registry/http.ts"
import { listQuants, type Quant } from "../registry/quants.ts"
import type { Device } from "../runner/devices.ts"
import { MEDIA_TYPES, parseManifest } from "../store/manifest.ts"
import { type ModelName, parseName, shortName } from "../store/name.ts"
import { CriaError } from "../util/errors.ts"
import { memoryState } from "../util/memory.ts"
import { type ContextShape, fitQuants, type Memory, type QuantFit } from "./fit.ts"

/** What a {@link Chooser} draws on. */
export interface ChooserParts {
  readonly network: Network
  /** For Hugging Face. */
  readonly token: string | undefined
  /** Devices of this machine; asked once. */
  readonly devices: () => Promise<readonly Device[]>
  readonly cacheType: CacheSetting
  /** Folder for files that can be made again. */
  readonly cache: string
}

/** Ollama's registry lists no tags: what it calls `latest` is its own choice. */
const WITHOUT_LISTS: ReadonlySet<string> = new Set(["registry.ollama.ai"])

/** Bytes of a GGUF file that are fetched for its header; more when the vocabulary is large. */
const HEAD_BYTES: readonly number[] = [4 * 2 ** 20, 16 * 2 ** 20, 64 * 2 ** 20]

/** Of a model of 8 billion parameters with grouped attention, for files whose header cannot be read. */
const UNKNOWN_SHAPE: ContextShape = { kvBytesPerToken: 128 * 1024, trainedTokens: 8192 }

/** See the module. */
export class Chooser {
  readonly #parts: ChooserParts
  #memory: Promise<Memory> | undefined

  constructor(parts: ChooserParts) {
    this.#parts = parts
  }

  /** Memory of this machine. */
  memory(): Promise<Memory> {
    this.#memory ??= this.#parts.devices().then(memoryOf)
    return this.#memory
  }

  /** All quantisations of a repository, largest first, with where they would be; [] when it does not tell. */
  async fits(
    name: ModelName,
    client: RegistryClient,
    signal?: AbortSignal,
  ): Promise<readonly QuantFit[]> {
    const quants = await this.list(name, client, signal)
    const smallest = quants.findLast(({ files }) => files === 1)
    if (smallest === undefined) return []
    const [shape, memory] = await Promise.all([
      this.#shape(smallest, client, signal),
      this.memory(),
    ])
    return fitQuants(quants, shape, memory)
  }

  /** The one quantisation of a model that is installed. */
  async installed(tag: string, facts: ModelFacts): Promise<readonly QuantFit[]> {
    const quant = { tag, label: facts.quantization, bytes: facts.fileBytes, files: 1 }
    return fitQuants([quant], shapeOf(facts, this.#parts.cacheType), await this.memory())
  }

  /**
   * The name under which the registry has a quantisation.
   *
   * @throws {CriaError} `not-found` with those that there are, `invalid-input` when it cannot be one.
   */
  async named(
    name: ModelName,
    label: string,
    client: RegistryClient,
    signal?: AbortSignal,
  ): Promise<ModelName> {
    const quants = await this.list(name, client, signal)
    const found = quants.find((quant) => quant.label === label.toUpperCase())
    if (found !== undefined) return { ...name, tag: found.tag }
    if (quants.length === 0)
      return parseName(`${name.host}/${name.namespace}/${name.model}:${label}`)
    const text = `Cannot find ${JSON.stringify(label)} of "${shortName(name)}"`
    const hint = `There are ${quants.map((quant) => quant.label).join(", ")}`
    throw new CriaError("not-found", text, { hint })
  }

  /** What the registry offers. */
  async list(name: ModelName, client: RegistryClient, signal?: AbortSignal): Promise<Quant[]> {
    if (WITHOUT_LISTS.has(name.host.toLowerCase())) return []
    return listQuants(client, this.#parts.network, this.#parts.token, signal)
  }

  /** Reads the header of a file in the registry. */
  async #shape(
    { tag }: Quant,
    client: RegistryClient,
    signal: AbortSignal | undefined,
  ): Promise<ContextShape> {
    const { manifest } = parseManifest(await client.manifest(tag, signal))
    const weights = manifest.layers.find(({ mediaType }) => mediaType === MEDIA_TYPES.model)
    if (weights === undefined) return UNKNOWN_SHAPE
    mkdirSync(this.#parts.cache, { recursive: true })
    const folder = mkdtempSync(join(this.#parts.cache, "head-"))
    try {
      const path = join(folder, "model.gguf")
      for (const bytes of HEAD_BYTES) {
        const end = Math.min(bytes, weights.size)
        // The next size is for headers that this one does not hold.
        // oxlint-disable-next-line no-await-in-loop
        const response = await client.openBlob(weights.digest, { start: 0, end }, signal)
        // oxlint-disable-next-line no-await-in-loop
        await writeHead(path, response, end, weights.size)
        const shape = readShape(path, this.#parts.cacheType)
        if (shape !== undefined) return shape
        if (end === weights.size) break
      }
      return UNKNOWN_SHAPE
    } finally {
      rmSync(folder, { recursive: true, force: true })
    }
  }
}

/** Writes the beginning of a file as large as the whole; the rest is a hole. */
async function writeHead(
  path: string,
  response: Response,
  bytes: number,
  size: number,
): Promise<void> {
  await using file = await open(path, "w")
  let at = 0
  for await (const chunk of response.body ?? []) {
    const part = chunk.subarray(0, bytes - at)
    await file.write(part, 0, part.length, at)
    at += part.length
    if (at >= bytes) break
  }
  await file.truncate(size)
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
  const { keys, values } = cacheTypesOf(cacheType)
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
