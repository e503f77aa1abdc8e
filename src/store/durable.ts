/**
 * Writing files so that a crash leaves the old content or the new one, never half of either.
 *
 * Knows nothing of models. Every failure of the operating system becomes a `CriaError` that names the path and says
 * what to do.
 *
 * @module
 */
import {
  closeSync,
  constants,
  fsyncSync,
  mkdirSync,
  openSync,
  renameSync,
  rmSync,
  writeFileSync,
} from "node:fs"
import { dirname } from "node:path"

import { CriaError, errorMessage } from "../util/errors.ts"

/** What to do about what the operating system says. */
const HINTS: Readonly<Record<string, string>> = {
  ENOSPC: "The disk is full: free some space, or set OLLAMA_MODELS to a folder on another disk",
  EDQUOT: "The disk quota is used up: free some space, or set OLLAMA_MODELS to another folder",
  EROFS: "The file system is read-only: set OLLAMA_MODELS to a folder that can be written",
  EACCES: "This user may not write there: change the owner, or set OLLAMA_MODELS",
  EPERM: "This user may not write there: change the owner, or set OLLAMA_MODELS",
  EFBIG: "The file system does not take files of this size: set OLLAMA_MODELS to another disk",
}

/** The error for a path that could not be written. One that is a `CriaError` already stays as it is. */
export function cannotWrite(path: string, cause: unknown): CriaError {
  if (cause instanceof CriaError) return cause
  const code = systemErrorCode(cause)
  const hint = HINTS[code ?? ""] ?? "ensure path elements are traversable"
  const text = `Cannot write "${path}": ${code ?? errorMessage(cause)}`
  return new CriaError("unavailable", text, { cause, hint })
}

/** `ENOENT` and the like; undefined for errors that are not the operating system's. */
export function systemErrorCode(error: unknown): string | undefined {
  return error instanceof Error && "code" in error ? String(error.code) : undefined
}

/**
 * Puts a finished file in the place of another, so that it survives a power failure. Both are on one file system.
 *
 * @throws {CriaError} `unavailable`; then the target is as it was.
 */
export function moveIntoPlace(source: string, target: string): void {
  try {
    syncPath(source)
    mkdirSync(dirname(target), { recursive: true })
    renameSync(source, target)
    syncFolder(dirname(target))
  } catch (error) {
    throw cannotWrite(target, error)
  }
}

/**
 * Writes a small file whole or not at all.
 *
 * @param temporary Where it is written first, on the same file system.
 * @throws {CriaError} `unavailable`; then the target is as it was.
 */
export function writeWhole(target: string, content: Uint8Array, temporary: string): void {
  try {
    mkdirSync(dirname(temporary), { recursive: true })
    writeFileSync(temporary, content, { flag: "wx" })
    moveIntoPlace(temporary, target)
  } catch (error) {
    rmSync(temporary, { force: true })
    throw cannotWrite(target, error)
  }
}

/** Makes a rename or an unlink in a folder outlive a power failure, where the platform can. */
export function syncFolder(path: string): void {
  // Windows opens no folders, and flushes renames by itself.
  if (process.platform !== "win32") syncPath(path)
}

/** Windows flushes only what is open for writing; elsewhere a file that may not be written can be flushed. */
const SYNC_FLAGS = process.platform === "win32" ? constants.O_RDWR : constants.O_RDONLY

function syncPath(path: string): void {
  const file = openSync(path, SYNC_FLAGS)
  try {
    fsyncSync(file)
  } catch (error) {
    // Some network and FUSE file systems cannot; then there is nothing more to be done.
    if (!["EINVAL", "ENOTSUP", "ENOSYS"].includes(systemErrorCode(error) ?? "")) throw error
  } finally {
    closeSync(file)
  }
}
