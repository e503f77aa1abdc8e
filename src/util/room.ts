/**
 * Whether a file will fit on the disk, before hours are spent on writing it.
 *
 * A guess about the future: others write, too. What it lets pass can still end in a full disk, which whoever writes has
 * to report.
 *
 * @module
 */

import { statfsSync } from "node:fs"
import { dirname } from "node:path"

import { CriaError } from "./errors.ts"
import { formatBytes } from "./units.ts"

/** A disk with less is full: what could not be written was larger. */
const FULL_BYTES = 2 ** 20

const HINT = "Free some space, or set OLLAMA_MODELS to a folder on another disk"

/**
 * Bytes that this user may still write beside a path, which need not exist yet; Infinity when the file system does not
 * tell.
 */
export function freeBytes(path: string): number {
  try {
    const { bavail, blocks, bsize } = statfsSync(path)
    // Some network file systems know nothing about themselves.
    return blocks === 0 ? Infinity : bavail * bsize
  } catch {
    const parent = dirname(path)
    return parent === path ? Infinity : freeBytes(parent)
  }
}

/**
 * Makes sure that there is room for a file.
 *
 * @param action What cannot be done without, for the message: `Cannot convert "x"`.
 * @throws {CriaError} `unavailable` with what is missing.
 */
export function requireRoom(path: string, bytes: number, action: string): void {
  const free = freeBytes(path)
  // What is no number says nothing.
  if (!(free < bytes)) return
  const text = `${action}: it takes ${formatBytes(bytes)}, "${path}" has room for ${formatBytes(free)}`
  throw new CriaError("unavailable", text, { hint: HINT })
}

/**
 * The error of a program that failed to write a file and that says so in words of its own, if at all.
 *
 * @returns `unavailable` when the disk is full, else the error as it is.
 */
export function orFullDisk(error: unknown, path: string, action: string): unknown {
  if (freeBytes(path) >= FULL_BYTES) return error
  return new CriaError("unavailable", `${action}: the disk is full`, { hint: HINT, cause: error })
}
