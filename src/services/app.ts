/**
 * Puts the product together: the only place that makes long-lived objects, and that owns them.
 *
 * @module
 */

import type { Config } from "../config.ts"
import { Pool } from "../pool/pool.ts"
import { findCredential } from "../registry/credentials.ts"
import { mirrorHost } from "../registry/hub.ts"
import { loadIdentity } from "../registry/identity.ts"
import { listDevices } from "../runner/devices.ts"
import { RunnerHandle } from "../runner/handle.ts"
import type { ModelName } from "../store/name.ts"
import { selfCommand } from "../util/executable.ts"
import type { Logger } from "../util/log.ts"
import { SYSTEM_TIMERS } from "../util/timers.ts"
import { Catalog } from "./catalog.ts"
import { Generator, type ModelRunner } from "./generate.ts"
import { Library } from "./library.ts"
import { keyFiles, networkOf } from "./network.ts"
import { withDefaults } from "./options.ts"
import { Resolver } from "./resolve.ts"
import { openFile, openStores, type Stores } from "./stores.ts"
import { Transfers } from "./transfer.ts"

/** The use cases. Dispose it to end every runner. */
export interface App extends AsyncDisposable {
  readonly catalog: Catalog
  readonly generator: Generator
  readonly library: Library
  /** Where models come from. */
  readonly stores: Stores
  readonly transfers: Transfers
}

/** What an app is made of. */
export interface AppOptions {
  readonly config: Config
  readonly log: Logger
  /** A GGUF file that is to be served instead of the installed models. */
  readonly file?: string | undefined
}

/**
 * Makes the app. Loads nothing yet.
 *
 * @throws {CriaError} When the store's folder or the file cannot be read.
 */
export function createApp({ config, log, file }: AppOptions): App {
  const stores = file === undefined ? openStores(config, log) : openFile(file)
  const resolver = new Resolver(stores.all, { goTemplate: config.goTemplate })
  const transfers = createTransfers({ config, log }, stores)
  const pool = new Pool<ModelRunner>(
    {
      start: (load, hooks) =>
        RunnerHandle.start(withDefaults(load, config), {
          command: selfCommand(),
          env: process.env,
          log,
          loadTimeoutMs: config.loadTimeoutMs,
          ...hooks,
        }),
      ...SYSTEM_TIMERS,
    },
    config,
  )
  return {
    catalog: new Catalog({ resolver, pool, log }),
    generator: new Generator({ resolver, pool, config, log }),
    library: new Library(stores, {
      keepsUnused: config.keepsUnused,
      command: selfCommand(),
      // Offline, a base that is not here is simply not found.
      ...(config.isOffline
        ? {}
        : {
            pull: (name: ModelName, signal: AbortSignal) =>
              transfers.pullName(name, { insecure: false, signal }),
          }),
    }),
    stores,
    transfers,
    async [Symbol.asyncDispose]() {
      await Promise.all([pool[Symbol.asyncDispose](), transfers[Symbol.asyncDispose]()])
    },
  }
}

/** What speaks to registries. */
function createTransfers({ config, log }: Omit<AppOptions, "file">, stores: Stores): Transfers {
  return new Transfers({
    stores,
    cache: config.cache,
    network: networkOf(config),
    auth: {
      credential: (host) => findCredential(host, process.env),
      identity() {
        const identity = loadIdentity(keyFiles())
        const { path, publicKey, isNew } = identity
        if (isNew) log.info("made a key", { path, public_key: `ssh-ed25519 ${publicKey}` })
        return identity
      },
      realms: config.registryRealms,
    },
    hub: {
      token: process.env["HF_TOKEN"] || undefined,
      mirror: mirrorHost(process.env["HF_ENDPOINT"]),
    },
    policy: config,
    hardware: {
      cacheType: config.cacheType,
      devices: () => listDevices(selfCommand()),
    },
  })
}
