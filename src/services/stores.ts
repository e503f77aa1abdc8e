/**
 * Where models come from on this machine: cria's own store, stores that are only read, the built-in model.
 *
 * @module
 */

import { existsSync } from "node:fs"
import { homedir } from "node:os"
import { join } from "node:path"

import type { Config } from "../config.ts"
import { openStore, type Store } from "../store/folder-store.ts"
import { layerStores } from "../store/layered-store.ts"
import { pruneStore, type Pruned } from "../store/prune.ts"
import type { ModelStore } from "../store/store.ts"
import { StoreWriter } from "../store/writer.ts"
import { CriaError, errorMessage } from "../util/errors.ts"
import type { Logger } from "../util/log.ts"
import { demoStore, fileStore } from "./builtin.ts"

/** All stores of a process. */
export interface Stores {
  /** The one that is written to; undefined when a file is served. */
  readonly own: Store | undefined
  /** Those that are folders, the own one first. */
  readonly folders: readonly Store[]
  /** Everything in a row: what comes first wins. */
  readonly all: ModelStore
}

/** Where an installation of Ollama keeps its models: of the user, and of the service of the Linux installer. */
function ollamaFolders(): string[] {
  const service = "/usr/share/ollama/.ollama/models"
  return [join(homedir(), ".ollama/models"), ...(process.platform === "linux" ? [service] : [])]
}

/**
 * Opens the stores: cria's own, those of `CRIA_READ_MODELS`, Ollama's when it is installed, the demo model.
 *
 * @throws {CriaError} When a folder that the user has named cannot be read.
 */
export function openStores(config: Config, log: Logger): Stores {
  const own = openStore(config.models, { readOnly: false })
  const named = config.readModels.map((path) => openStore(path, { readOnly: true }))
  const found = ollamaFolders().flatMap((path) => openFound(path, log))
  const seen = new Set<string>()
  const folders = [own, ...named, ...found].filter(({ root }) => {
    const isNew = !seen.has(root)
    seen.add(root)
    return isNew
  })
  return { own, folders, all: layerStores([...folders, demoStore(config.cache)]) }
}

/** Ollama's own may belong to another user. */
function openFound(path: string, log: Logger): Store[] {
  if (!existsSync(path)) return []
  try {
    return [openStore(path, { readOnly: true })]
  } catch (error) {
    log.warn("store of Ollama skipped", { path, error: errorMessage(error) })
    return []
  }
}

/** The only store of a server for one file. */
export function openFile(path: string): Stores {
  return { own: undefined, folders: [], all: fileStore(path) }
}

/**
 * The writing side of the own store.
 *
 * @throws {CriaError} `unavailable` when there is none.
 */
export function storeWriter({ own }: Stores): StoreWriter {
  if (own !== undefined) return new StoreWriter(own)
  const hint = "cria serve runs a server with a store"
  throw new CriaError("unavailable", "Cannot change models: this server serves one file", { hint })
}

/** Removes what interrupted operations have left in the own store; see `store/prune.ts`. */
export async function pruneStores({ own }: Stores): Promise<Pruned> {
  if (own === undefined) return { removed: [], freed: 0, isDone: true }
  return pruneStore(own, Date.now())
}
