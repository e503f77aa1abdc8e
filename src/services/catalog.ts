/**
 * What is installed and what is loaded: the use cases behind lists and `show`.
 *
 * @module
 */

import type { GgufValue } from "../gguf/format.ts"
import { readArray } from "../gguf/read.ts"
import type { Pool, PoolEntry } from "../pool/pool.ts"
import type { EngineStatus } from "../runner/protocol.ts"
import { FileMemory, stampOf } from "../store/file-memory.ts"
import type { ModelConfig } from "../store/manifest.ts"
import { shortName } from "../store/name.ts"
import { type ModelStore, readConfig, type StoredModel } from "../store/store.ts"
import { errorMessage } from "../util/errors.ts"
import type { Logger } from "../util/log.ts"
import type { ModelRunner } from "./generate.ts"
import { type ModelfileOverlay, modelfileOf } from "./modelfile.ts"
import type { Resolver, RunnableModel } from "./resolve.ts"

export type { EngineStatus }

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
   * Describes a model.
   *
   * @param withArrays Read arrays of the metadata too, such as the vocabulary: megabytes.
   * @throws {CriaError} `invalid-input` or `not-found`.
   */
  describe(name: string, overlay: ModelfileOverlay, withArrays: boolean): DescribedModel {
    const model = this.#resolver.resolve(name, "details")
    const metadata: Record<string, unknown> = {}
    for (const [key, value] of model.header.metadata) {
      metadata[key] = plainValue(value, model, withArrays)
    }
    return { model, modelfile: modelfileOf(model, overlay), metadata }
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

function plainValue(value: GgufValue, model: RunnableModel, withArrays: boolean): unknown {
  if (value.type !== "array") return plainNumber(value.value)
  if (value.length === 0) return []
  return withArrays ? readArray(model.stored.modelPath, value).map(plainNumber) : null
}

/** JSON has no 64-bit integers. */
function plainNumber(value: unknown): unknown {
  return typeof value === "bigint" ? Number(value) : value
}
