/**
 * The runner process: holds one model for the server, which talks to it over stdin and stdout.
 *
 * It ends when told to, and when stdin closes: then the server is gone, however it went.
 *
 * @module
 */

import { openLibrary } from "../../ffi/library.ts"
import type { NativeLibrary } from "../../ffi/native.ts"
import { type Config, readConfig } from "../config.ts"
import { LocalModel } from "../model/local-model.ts"
import { linesOf } from "../util/lines.ts"
import { createLogger } from "../util/log.ts"
import { SYSTEM_TIMERS } from "../util/timers.ts"
import { unpackNative } from "../util/unpack.ts"
import { parseCommand } from "./protocol.ts"
import { Runner } from "./runner.ts"

/** A runner waits for its model, for requests that join at the next step, and for aborts of long steps. */
export const WAIT_SLICE_MS = 50

/** After stdin closed, code that hangs in native calls is given this long. */
const ORPHAN_GRACE_MS = 3000

/** Runs until the parent says stop or goes away. */
export async function runnerMain(): Promise<void> {
  // A Ctrl-C in the terminal is for the server, which ends its runners itself.
  process.on("SIGINT", () => {})
  // A log that nobody reads any more must not end a runner.
  process.stderr.on("error", () => {})
  const config = readConfig(process.env)
  const log = createLogger((line) => process.stderr.write(`${line}\n`), config.logLevel)
  const out = Bun.stdout.writer()
  let library: NativeLibrary | undefined
  const runner = new Runner({
    log,
    load(options, hooks) {
      library = openNative(config)
      return LocalModel.load(library, options, hooks)
    },
    async write(lines) {
      try {
        await out.write(lines)
        await out.flush()
      } catch {
        // A broken pipe means that the server is gone; the end of stdin says so too and ends this process.
      }
    },
    drainLog: () => library?.drainLog(log),
    exit: (code) => process.exit(code),
    timers: SYSTEM_TIMERS,
  })
  process.on("SIGTERM", () => void runner.stop())
  for await (const line of linesOf(Bun.stdin.stream())) runner.handle(parseCommand(line))
  await runner.stop()
}

function openNative(config: Config): NativeLibrary {
  const library = openLibrary({
    folder: config.nativeFolder,
    unpack: () => unpackNative(config.cache),
    logLevel: config.logLevel === "debug" ? "info" : "warn",
    waitSliceMs: WAIT_SLICE_MS,
  })
  library.functions.cria_exit_with_input(ORPHAN_GRACE_MS)
  return library
}
