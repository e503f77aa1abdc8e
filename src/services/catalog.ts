/**
 * What is installed and what is loaded: the use cases behind lists and `show`.
 *
 * @module
 */

import type { GgufElement, GgufElementType, GgufHeader, GgufValue } from "../gguf/format.ts"
import { readArray, readGguf } from "../gguf/read.ts"
import type { Pool, PoolEntry } from "../pool/pool.ts"
import type { EngineStatus } from "../runner/protocol.ts"
import { FileMemory, stampOf } from "../store/file-memory.ts"
import type { ModelConfig } from "../store/manifest.ts"
import { shortName } from "../store/name.ts"
import type { RemoteModel } from "../store/resolve.ts"
import { type ModelStore, readConfig, type StoredModel } from "../store/store.ts"
import { errorMessage } from "../util/errors.ts"
import type { Logger } from "../util/log.ts"
import type { ModelRunner } from "./generate.ts"
import { type ModelfileOverlay, modelfileOf } from "./modelfile.ts"
import type { Resolver, RunnableModel } from "./resolve.ts"
import { type ModelStatus, watchModels } from "./watch.ts"

export type { EngineStatus, ModelConfig, ModelStatus, RemoteModel }

/** A model of a list. */
export interface InstalledModel {
  /** Short name. */
  readonly name: string
  readonly namespace: string
  /** Hex sha256 of the manifest. */
  readonly id: string
  readonly sizeBytes: number
  readonly modifiedAt: Date
  readonly config: ModelConfig
}

/** A model in memory or on its way there. */
export interface LoadedModel {
  readonly model: RunnableModel
  readonly totalBytes: number
  readonly gpuBytes: number
  readonly contextTokens: number
  /** Undefined while it loads. */
  readonly cacheType: string | undefined
  readonly flashAttention: string | undefined
  /** Milliseconds since 1970; Infinity for ever. */
  readonly expiresAt: number
  /** What its engine does; undefined while it loads. */
  readonly status: () => Promise<EngineStatus | undefined>
}

/** Everything about one model. */
export interface DescribedModel {
  readonly model: RunnableModel
  readonly modelfile: string
  /** Metadata of the file; arrays are null unless they were asked for. */
  readonly metadata: Readonly<Record<string, unknown>>
  /** The same of its first projector, with the number of parameters. */
  readonly projector: Readonly<Record<string, unknown>> | undefined
}

/** Use cases over one store and one pool. */
export class Catalog {
  readonly #resolver: Resolver
  readonly #pool: Pool<ModelRunner>
  readonly #log: Logger
  readonly #configs = new FileMemory<ModelConfig>()

  constructor(parts: { resolver: Resolver; pool: Pool<ModelRunner>; log: Logger }) {
    this.#resolver = parts.resolver
    this.#pool = parts.pool
    this.#log = parts.log
  }

  /** Installed models, newest first. Those that cannot be read are logged and left out. */
  installed(): InstalledModel[] {
    const { store } = this.#resolver
    const { models, problems } = store.list()
    for (const { path, error } of problems) {
      this.#log.warn("model skipped", { path, error: error.message })
    }
    return models.flatMap((model) => this.#describe(store, model))
  }

  /** Models in memory, the one that stays longest first. Those whose files are gone are logged and left out. */
  loaded(): LoadedModel[] {
    const entries = this.#pool.list().toSorted((a, b) => b.expiresAtMs - a.expiresAtMs)
    return entries.flatMap((entry) => this.#describeLoaded(entry))
  }

  /**
   * What the engines of all loaded models do, at once and then after each change: models join when they are loaded, and
   * are gone with a last entry that has no status. For metrics; it keeps no model loaded. Ends with the signal.
   *
   * @param options.intervalMs Of each model a status at most so often.
   */
  watch(options: { intervalMs: number; signal?: AbortSignal }): AsyncGenerator<ModelStatus> {
    return watchModels(this.#pool, options)
  }

  /**
   * Describes a model.
   *
   * @param withArrays Read arrays of the metadata too, such as the vocabulary: megabytes.
   * @throws {CriaError} `invalid-input` or `not-found`.
   */
  describe(name: string, overlay: ModelfileOverlay, withArrays: boolean): DescribedModel {
    const model = this.#resolver.resolve(name, "details")
    const { modelPath } = model.stored
    return {
      model,
      modelfile: modelfileOf(model, overlay),
      metadata: plainMetadata(modelPath, model.header, withArrays),
      projector: this.#projector(model, withArrays),
    }
  }

  /**
   * The stub of a model that answers on another machine; undefined when the name is not that of one.
   *
   * @throws {CriaError} `invalid-input` for a name that cannot be one.
   */
  remote(name: string): RemoteModel | undefined {
    return this.#resolver.remote(name)
  }

  /** One that cannot be read is no reason not to describe the model. */
  #projector({ name, stored }: RunnableModel, withArrays: boolean): DescribedModel["projector"] {
    const [path] = stored.projectorPaths
    if (path === undefined) return undefined
    try {
      const header = readGguf(path, { label: `the projector of ${name}` })
      const parameters = header.tensors.reduce((total, { elements }) => total + elements, 0)
      const metadata = plainMetadata(path, header, withArrays)
      return { ...metadata, "general.parameter_count": parameters }
    } catch (error) {
      this.#log.warn("projector cannot be read", { model: name, error: errorMessage(error) })
      return undefined
    }
  }

  #describeLoaded(entry: PoolEntry<ModelRunner>): LoadedModel[] {
    const { name, facts, runner, expiresAtMs } = entry
    try {
      const model = this.#resolver.resolve(name, "details")
      return [
        {
          model,
          totalBytes: facts?.totalBytes ?? model.facts.fileBytes,
          gpuBytes: facts?.gpuBytes ?? 0,
          contextTokens: facts?.contextTokens ?? 0,
          cacheType: facts?.cacheType,
          flashAttention: facts?.flashAttention,
          status: async () => await runner?.status().catch(() => undefined),
          // From the pool's clock to that of the calendar.
          expiresAt: expiresAtMs - performance.now() + Date.now(),
        },
      ]
    } catch (error) {
      const reason = errorMessage(error)
      this.#log.warn("loaded model cannot be described", { model: name, error: reason })
      return []
    }
  }

  #config(store: ModelStore, { manifest }: StoredModel): ModelConfig {
    const path = store.blobPath(manifest.config.digest)
    if (path === undefined) return readConfig(store, manifest)
    const stamp = stampOf(path, Date.now())
    const known = this.#configs.find(path, stamp)
    if (known !== undefined) return known
    const config = readConfig(store, manifest)
    this.#configs.keep(path, stamp, config)
    return config
  }

  #describe(store: ModelStore, model: StoredModel): InstalledModel[] {
    const name = shortName(model.name)
    try {
      const config = this.#config(store, model)
      const { id, sizeBytes, modifiedAt } = model
      return [{ name, namespace: model.name.namespace, id, sizeBytes, modifiedAt, config }]
    } catch (error) {
      this.#log.warn("model skipped", { model: name, error: errorMessage(error) })
      return []
    }
  }
}

function plainMetadata(
  path: string,
  { metadata }: GgufHeader,
  withArrays: boolean,
): Record<string, unknown> {
  const entries = [...metadata].map(([key, value]) => [key, plainValue(path, value, withArrays)])
  return Object.fromEntries(entries)
}

function plainValue(path: string, value: GgufValue, withArrays: boolean): unknown {
  if (value.type !== "array") return plainNumber(value.type, value.value)
  if (value.length === 0) return []
  if (!withArrays) return null
  return readArray(path, value).map((element) => plainNumber(value.elementType, element))
}

/** JSON has no 64-bit integers, and a number in single precision has fewer digits than one in double. */
function plainNumber(type: GgufElementType, value: GgufElement): GgufElement {
  if (typeof value === "bigint") return Number(value)
  return type === "f32" && typeof value === "number" ? shortest(value) : value
}

/** The number with the fewest digits that is the same in single precision: 0.1 instead of 0.10000000149011612. */
function shortest(value: number): number {
  if (!Number.isFinite(value) || Number.isInteger(value)) return value
  // Six digits are always right, nine always tell two numbers apart.
  for (const digits of [6, 7, 8]) {
    const rounded = Number(value.toPrecision(digits))
    if (Math.fround(rounded) === value) return rounded
  }
  return Number(value.toPrecision(9))
}
