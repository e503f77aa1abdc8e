/**
 * Models from and to registries: the use cases behind `pull` and `push`.
 *
 * Owns which registries may be asked, and what all transfers of this process share.
 *
 * @module
 */

import type { AuthSources } from "../registry/auth.ts"
import { Downloads } from "../registry/downloads.ts"
import type { Network } from "../registry/http.ts"
import type { HubOptions } from "../registry/hub.ts"
import { openRepository, type Repository } from "../registry/repository.ts"
import { PATIENCE, type Patience } from "../registry/retry.ts"
import { UploadNotes } from "../registry/upload-notes.ts"
import { type ModelName, parseName } from "../store/name.ts"
import { CriaError } from "../util/errors.ts"
import { Chooser, type ChooserParts } from "./choose.ts"
import type { QuantFit } from "./fit.ts"
import type { Progress } from "./progress.ts"
import { pullModel } from "./pull.ts"
import { pushModel } from "./push.ts"
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
  readonly hub: Pick<HubOptions, "token" | "mirror">
  /** Folder for files that can be made again. */
  readonly cache: string
  readonly policy: RegistryPolicy
  readonly hardware: Omit<ChooserParts, "cache" | "patience">
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
      cache: parts.cache,
      patience: this.#patience,
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
    const hasTag = text.lastIndexOf(":") > text.lastIndexOf("/")
    return this.#pull(parseName(text), hasTag, options)
  }

  /** Like {@link pull}, of a name that was parsed before: `latest` counts as no tag. */
  pullName(name: ModelName, options: PullOptions): AsyncGenerator<Progress, undefined> {
    return this.#pull(name, name.tag !== "latest", options)
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
    return this.chooser.fits(this.#repository(parseName(requested.trim()), insecure), signal)
  }

  /**
   * Sends a model.
   *
   * @throws {CriaError} Like {@link pull}.
   */
  push(requested: string, options: TransferOptions): AsyncGenerator<Progress, undefined> {
    const repository = this.#repository(parseName(requested.trim()), options.insecure)
    const { stores, network } = this.#parts
    const context = { stores, network, patience: this.#patience, notes: this.#notes }
    return pushModel(context, repository, options.signal)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#downloads[Symbol.asyncDispose]()
  }

  #pull(
    name: ModelName,
    hasTag: boolean,
    { insecure, quant, signal }: PullOptions,
  ): AsyncGenerator<Progress, undefined> {
    const { stores, policy } = this.#parts
    const context = {
      stores,
      writer: storeWriter(stores),
      downloads: this.#downloads,
      patience: this.#patience,
      chooser: this.chooser,
      keepsUnused: policy.keepsUnused,
    }
    return pullModel(context, this.#repository(name, insecure), { quant, hasTag }, signal)
  }

  /**
   * The registry of a name.
   *
   * @throws {CriaError} `unavailable` when it may not be asked.
   */
  #repository(name: ModelName, insecure: boolean): Repository {
    const { policy, network, auth, hub } = this.#parts
    if (policy.isOffline) {
      const hint = "CRIA_OFFLINE is set: only installed models can be used"
      throw new CriaError("unavailable", `Cannot ask "${name.host}": offline`, { hint })
    }
    const { registries } = policy
    if (registries.length > 0 && !registries.includes(name.host.toLowerCase())) {
      const hint = `CRIA_REGISTRIES allows ${registries.join(", ")}`
      throw new CriaError("unavailable", `Cannot ask "${name.host}": not allowed`, { hint })
    }
    return openRepository(name, { network, auth, insecure, ...hub })
  }
}
