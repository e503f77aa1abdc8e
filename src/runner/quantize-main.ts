/**
 * The quantising child: one file, then it ends. A process of its own, because llama.cpp's quantiser cannot be cancelled
 * and a damaged file can crash it.
 *
 * @module
 */

import { openLibrary } from "../../ffi/library.ts"
import { quantizeFile } from "../../ffi/quantize.ts"
import { readConfig } from "../config.ts"
import { unpackNative } from "../util/unpack.ts"
import { parseQuantizeJob } from "./quantize-protocol.ts"
import { reportJob } from "./worker-protocol.ts"

/** This thread only waits. */
const WAIT_SLICE_MS = 50

/** Does the job that the only argument describes. */
export async function quantizeMain(argument: string): Promise<void> {
  // A Ctrl-C in the terminal is for our parent, which ends us.
  process.on("SIGINT", () => {})
  await reportJob(async (report) => {
    const config = readConfig(process.env)
    const library = openLibrary({
      folder: config.nativeFolder,
      unpack: () => unpackNative(config.cache),
      waitSliceMs: WAIT_SLICE_MS,
    })
    // When the parent is gone, nobody wants the file.
    library.functions.cria_exit_with_input(0)
    await quantizeFile(library, parseQuantizeJob(argument), (fraction) => report(fraction, 1))
  })
}
