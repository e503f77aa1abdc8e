/**
 * Files inside the single executable, unpacked to the cache when something needs them as real files.
 *
 * The dynamic linker cannot open libraries inside the executable, and llama.cpp maps models by path.
 *
 * @module
 */

import {
  existsSync,
  lstatSync,
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

type SourceFile = Readonly<{ name: string; path: string }>

/** Where the files are, unpacked now unless they were before: in the cache, else in the fallback. */
function unpack(cache: string, folder: string, files: readonly SourceFile[]): string {
  const fallback = join(tmpdir(), `cria-${process.getuid?.() ?? 0}`)
  const problems: string[] = []
  for (const root of [cache, fallback]) {
    const target = join(root, folder)
    try {
      if (root === fallback) makeOwnFolder(root)
      if (!isComplete(target, files)) writeFolder(target, files)
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

/** Everybody can write beside this folder, and libraries are loaded from it: it must be ours and only ours. */
function makeOwnFolder(path: string): void {
  mkdirSync(path, { recursive: true, mode: 0o700 })
  // Windows has a folder for temporary files per user.
  if (process.getuid === undefined) return
  const { uid, mode } = lstatSync(path)
  if (uid === process.getuid() && (mode & 0o022) === 0) return
  throw new Error(`${path} is not ours alone`)
}

/** Programs that clean caches and temporary files take single files away. */
function isComplete(target: string, files: readonly SourceFile[]): boolean {
  return files.every(({ name }) => existsSync(join(target, basename(name))))
}

/** Writes beside the target and renames: two processes that do it at once both end with a whole folder. */
function writeFolder(target: string, files: readonly SourceFile[]): void {
  mkdirSync(dirname(target), { recursive: true, mode: 0o700 })
  rmSync(target, { recursive: true, force: true })
  const staging = mkdtempSync(`${target}-`)
  try {
    for (const { name, path } of files) {
      writeFileSync(join(staging, basename(name)), readFileSync(path), { mode: 0o600 })
    }
    renameSync(staging, target)
  } catch (error) {
    rmSync(staging, { recursive: true, force: true })
    if (!isComplete(target, files)) throw error
  }
}
