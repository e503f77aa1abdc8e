/**
 * The quantising child: one file, then it ends. A process of its own, because llama.cpp's quantiser cannot be cancelled
 * and a damaged file can crash it.
 *
 * @module
 */

import { openLibrary } from "../../ffi/library.ts"
import { quantizeFile } from "../../ffi/quantize.ts"
import { readConfig } from "../config.ts"
import { toCriaError } from "../util/errors.ts"
import { unpackNative } from "../util/unpack.ts"
import { toFailure } from "./protocol.ts"
import { parseJob, type QuantizeFrame } from "./quantize-protocol.ts"

/** Progress frames, at most so often. */
const PROGRESS_INTERVAL_MS = 100

/** This thread only waits. */
const WAIT_SLICE_MS = 50

/** Does the job that the only argument describes. */
export async function quantizeMain(argument: string): Promise<void> {
  // A Ctrl-C in the terminal is for our parent, which ends us.
  process.on("SIGINT", () => {})
  let last = 0
  try {
    const config = readConfig(process.env)
    const library = openLibrary({
      folder: config.nativeFolder,
      unpack: () => unpackNative(config.cache),
      waitSliceMs: WAIT_SLICE_MS,
    })
    // When the parent is gone, nobody wants the file.
    library.functions.cria_exit_with_input(0)
    await quantizeFile(library, parseJob(argument), (fraction) => {
      const now = performance.now()
      if (now - last < PROGRESS_INTERVAL_MS) return
      last = now
      send({ type: "progress", fraction })
    })
    send({ type: "done" })
  } catch (error) {
    send({ type: "failed", failure: toFailure(toCriaError(error)) })
  }
}

function send(frame: QuantizeFrame): void {
  process.stdout.write(`${JSON.stringify(frame)}\n`)
}
