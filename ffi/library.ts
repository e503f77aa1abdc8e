/**
 * Finds the native libraries and opens them.
 *
 * A variant is a folder with everything in it. Looked for in this order: where `CRIA_NATIVE_DIR` says; `native/`
 * beside the executable; `dist/native/` of a checkout; the copy inside the executable, which is unpacked to the
 * cache once. Of several variants the fastest wins.
 *
 * @module
 */

import { existsSync } from "node:fs"
import { join } from "node:path"
import { fileURLToPath } from "node:url"

import { setNativeVariable } from "#ffi"

import { CriaError } from "../src/util/errors.ts"
import { isExecutable } from "../src/util/executable.ts"
import { NativeLibrary, type NativeOptions } from "./native.ts"

/** Fastest first. A GPU variant also holds the CPU backends, for machines without such a GPU. */
const VARIANTS = ["cuda", "metal", "vulkan", "cpu", "cpu-native"]

/**
 * How often OpenMP's threads look again before they sleep at a barrier: some milliseconds. Longer than it takes to wake
 * one up, and than JavaScript interrupts one. Beside busy programs the shim has them look 1,000 times only, for which
 * the wait policy has to be ACTIVE; see docs/design/native.md.
 */
const SPIN_COUNT = 100_000

/** Variables that native code reads when it is loaded. */
const NATIVE_ENVIRONMENT: Readonly<Record<string, string>> = {
  OMP_WAIT_POLICY: "ACTIVE",
  GOMP_SPINCOUNT: String(SPIN_COUNT),
  GGML_NO_BACKTRACE: "1",
}

/** Where to look. */
export interface LibraryOptions extends NativeOptions {
  /** A folder with the libraries, which wins. */
  readonly folder?: string | undefined
  /** Unpacks the copy inside the executable; its folder, or undefined when there is none. */
  readonly unpack?: () => string | undefined
}

/**
 * Opens the native libraries of this process.
 *
 * @throws {CriaError} `unavailable` when there are none, with how to get them.
 */
export function openLibrary(options: LibraryOptions = {}): NativeLibrary {
  const folder = findFolder(options)
  for (const [name, value] of Object.entries(NATIVE_ENVIRONMENT)) setNativeVariable(name, value)
  return new NativeLibrary(shimIn(folder) ?? folder, folder, options)
}

/** The folder that {@link openLibrary} would use. */
export function findFolder(options: LibraryOptions = {}): string {
  const { folder } = options
  if (folder !== undefined) {
    if (shimIn(folder) !== undefined) return folder
    throw new CriaError("unavailable", `Cannot find the native libraries in "${folder}"`)
  }
  const parents = [
    join(process.execPath, "../native"),
    // In the executable the module's own folder is that of the machine which built it.
    ...(isExecutable() ? [] : [fileURLToPath(new URL("../dist/native", import.meta.url))]),
  ]
  for (const parent of parents) {
    const variant = VARIANTS.find((name) => shimIn(join(parent, name)) !== undefined)
    if (variant !== undefined) return join(parent, variant)
  }
  const unpacked = options.unpack?.()
  if (unpacked !== undefined) return unpacked
  throw new CriaError("unavailable", "Cannot find the native libraries", {
    hint: "In a checkout run: npm run native",
  })
}

function shimIn(folder: string): string | undefined {
  return ["libcria.so", "libcria.dylib", "cria.dll"]
    .map((name) => join(folder, name))
    .find((path) => existsSync(path))
}
