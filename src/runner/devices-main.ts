/**
 * The child that says which devices there are, and ends.
 *
 * @module
 */

import { openLibrary } from "../../ffi/library.ts"
import { readConfig } from "../config.ts"
import { unpackNative } from "../util/unpack.ts"
import type { Device } from "./devices.ts"

/** Prints the devices as JSON. */
export function devicesMain(): void {
  const config = readConfig(process.env)
  const library = openLibrary({
    folder: config.nativeFolder,
    unpack: () => unpackNative(config.cache),
  })
  const devices = library
    .system()
    .devices.map(({ name, type, total_bytes: totalBytes }): Device => ({ name, type, totalBytes }))
  process.stdout.write(`${JSON.stringify(devices)}\n`)
}
