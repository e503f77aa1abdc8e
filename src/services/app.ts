/**
 * Puts the product together: the only place that makes long-lived objects, and that owns them.
 *
 * @module
 */

import { existsSync } from "node:fs"
import { homedir } from "node:os"
import { join } from "node:path"

import type { Config } from "../config.ts"
import { Pool } from "../pool/pool.ts"
import { RunnerHandle } from "../runner/handle.ts"
import { openStore } from "../store/folder-store.ts"
import { layerStores } from "../store/layered-store.ts"
import type { ModelStore } from "../store/store.ts"
import { selfCommand } from "../util/executable.ts"
import type { Logger } from "../util/log.ts"
import { demoStore, fileStore } from "./builtin.ts"
import { Catalog } from "./catalog.ts"
import { Generator, type ModelRunner } from "./generate.ts"
import { Resolver } from "./resolve.ts"

/** The use cases. Dispose it to end every runner. */
export interface App extends AsyncDisposable {
  readonly catalog: Catalog
  readonly generator: Generator
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
  const resolver = new Resolver(createStore(config, file))
  const pool = new Pool<ModelRunner>(
    {
      start: (load, hooks) =>
        RunnerHandle.start(load, {
          command: selfCommand(),
          env: process.env,
          log,
          loadTimeoutMs: config.loadTimeoutMs,
          ...hooks,
        }),
      now: () => performance.now(),
      setTimer(delayMs, callback) {
        // Longer than a timer can run means never.
        if (delayMs > 2 ** 31 - 1) return () => {}
        const timer = setTimeout(callback, delayMs)
        return () => clearTimeout(timer)
      },
    },
    config,
  )
  return {
    catalog: new Catalog({ resolver, pool, log }),
    generator: new Generator({ resolver, pool, config, log }),
    [Symbol.asyncDispose]: () => pool[Symbol.asyncDispose](),
  }
}

/** The user's file alone; else cria's own store, Ollama's store read-only when there is one, the demo model. */
function createStore(config: Config, file: string | undefined): ModelStore {
  if (file !== undefined) return fileStore(file)
  const ollama = join(homedir(), ".ollama/models")
  return layerStores([
    openStore(config.models, { readOnly: false }),
    ...(ollama !== config.models && existsSync(ollama)
      ? [openStore(ollama, { readOnly: true })]
      : []),
    demoStore(config.cache),
  ])
}
