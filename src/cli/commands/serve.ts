/**
 * `cria serve`: runs the server until a signal ends it.
 *
 * @module
 */

import type { Config } from "../../config.ts"
import { listen } from "../../server/server.ts"
import { type App, createApp } from "../../services/app.ts"
import { pruneStores } from "../../services/stores.ts"
import { errorMessage } from "../../util/errors.ts"
import { createLogger, type Logger } from "../../util/log.ts"
import { LLAMA_COMMIT, LLAMA_VERSION, VERSION } from "../../version.ts"

/** Requests in progress are given so long after the first signal. */
const DRAIN_MS = 30_000

/** Flags that only cria itself passes. */
export interface ServeFlags {
  /** Serve one command: print the URL on stdout, end when stdin closes. */
  readonly private?: boolean
  /** A GGUF file to serve instead of the installed models. */
  readonly file?: string
}

/** Serves until SIGINT, SIGTERM, or for a private server the end of stdin. */
export async function serve(settings: Config, flags: ServeFlags): Promise<void> {
  // A log that nobody reads any more must not end the server.
  process.stderr.on("error", () => {})
  const log = createLogger((line) => process.stderr.write(`${line}\n`), settings.logLevel)
  const isPrivate = flags.private === true
  // The server of one command does what the command is for.
  const config = isPrivate ? { ...settings, allowsChanges: true } : settings
  await using app = createApp({ config, log, file: flags.file })
  const version = { cria: VERSION, llama_cpp: `${LLAMA_VERSION} (${LLAMA_COMMIT})` }
  const server = listen({ app, config, log, version })
  if (!isPrivate && !config.keepsUnused) void prune(app, log)
  log.info("listening", { url: server.url, version: VERSION, models: config.models })
  if (isPrivate) process.stdout.write(`${server.url}\n`)
  const end = isPrivate ? await Promise.race([signalled(), inputClosed()]) : await signalled()
  log.info("stopping", { reason: end })
  // A second signal means at once; one that comes still later, without what models have yet to save.
  await Promise.race([server.drain(end === "input closed" ? 0 : DRAIN_MS), signalled()])
  void signalled().then(() => process.exit(1))
}

/** In the background: the server answers meanwhile. */
async function prune({ stores }: App, log: Logger): Promise<void> {
  try {
    const { removed, freed, isDone } = await pruneStores(stores)
    if (!isDone) log.warn("nothing removed from the store: some manifest cannot be read")
    else if (removed.length > 0) log.info("store pruned", { files: removed.length, bytes: freed })
  } catch (error) {
    log.warn("store not pruned", { error: errorMessage(error) })
  }
}

function signalled(): Promise<string> {
  return new Promise((resolve) => {
    process.once("SIGINT", () => resolve("SIGINT"))
    process.once("SIGTERM", () => resolve("SIGTERM"))
  })
}

async function inputClosed(): Promise<string> {
  for await (const _ of Bun.stdin.stream());
  return "input closed"
}
