/**
 * Files inside the single executable, unpacked to the cache when something needs them as real files.
 *
 * The dynamic linker cannot open libraries inside the executable, and llama.cpp maps models by path.
 *
 * @module
 */

import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from "node:fs"
import { tmpdir } from "node:os"
import { basename, dirname, join } from "node:path"

import { CriaError, errorMessage } from "./errors.ts"
import { embeddedFiles } from "./executable.ts"

/** A folder `native/<variant>/` with one of these describes the libraries beside it; see `scripts/build.ts`. */
const NATIVE_MANIFEST = /^native\/([^/]+)\/manifest\.json$/

/**
 * Unpacks the native libraries of this executable, unless they are unpacked already.
 *
 * @param cache Tried first; the system's folder for temporary files when it cannot be written.
 * @returns Their folder; undefined when this is no executable with libraries inside.
 * @throws {CriaError} `unavailable` when neither folder can be written.
 */
export function unpackNative(cache: string): string | undefined {
  const files = embeddedFiles()
  const manifest = files.find(({ name }) => NATIVE_MANIFEST.test(name))
  if (manifest === undefined) return undefined
  // Written by our own build.
  const { key } = JSON.parse(readFileSync(manifest.path, "utf8")) as { key: string }
  const libraries = files.filter(({ name }) => dirname(name) === dirname(manifest.name))
  return unpack(cache, join("native", key), libraries)
}

/**
 * Unpacks one file.
 *
 * @param key Changes with the content.
 * @returns Its path.
 * @throws {CriaError} `unavailable` when nothing can be written.
 */
export function unpackFile(path: string, key: string, cache: string): string {
  const name = basename(path)
  return join(unpack(cache, join("files", key), [{ name, path }]), name)
}

function unpack(
  cache: string,
  folder: string,
  files: ReadonlyArray<{ name: string; path: string }>,
): string {
  const targets = [join(cache, folder), join(tmpdir(), `cria-${process.getuid?.() ?? 0}`, folder)]
  const present = targets.find((target) => existsSync(target))
  if (present !== undefined) return present
  const problems: string[] = []
  for (const target of targets) {
    try {
      writeFolder(target, files)
      return target
    } catch (error) {
      problems.push(errorMessage(error))
    }
  }
  throw new CriaError(
    "unavailable",
    `Cannot unpack files of the executable: ${problems.join("; ")}`,
    {
      hint: "Set CRIA_CACHE to a folder that can be written",
    },
  )
}

/** Writes beside the target and renames: two processes that do it at once both end with a whole folder. */
function writeFolder(target: string, files: ReadonlyArray<{ name: string; path: string }>): void {
  mkdirSync(dirname(target), { recursive: true, mode: 0o700 })
  const staging = mkdtempSync(`${target}-`)
  try {
    for (const { name, path } of files) {
      writeFileSync(join(staging, basename(name)), readFileSync(path), { mode: 0o600 })
    }
    renameSync(staging, target)
  } catch (error) {
    rmSync(staging, { recursive: true, force: true })
    if (!existsSync(target)) throw error
  }
}
