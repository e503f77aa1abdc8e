/**
 * Bounded reading of folders and files that others have written.
 *
 * Knows nothing of models. Reads regular files only, never more than a limit, and turns every failure of the
 * operating system into a `CriaError` that names the path. All calls block; the files are small.
 *
 * @module
 */
import {
  closeSync,
  constants,
  type Dirent,
  fstatSync,
  openSync,
  readdirSync,
  readSync,
  statSync,
} from "node:fs"

import { CriaError } from "../util/errors.ts"

/** A file, whole, as it was when it was opened. */
export interface FileContent {
  readonly bytes: Buffer
  readonly modifiedAt: Date
}

/**
 * Lists a folder, in no order. A missing folder is an empty one.
 *
 * @throws {CriaError} `unavailable` when it cannot be read.
 */
export function readFolder(path: string): Dirent[] {
  try {
    return readdirSync(path, { withFileTypes: true })
  } catch (error) {
    if (errorCode(error) === "ENOENT") return []
    throw cannotRead(path, error)
  }
}

/**
 * Whether `path` is a regular file or a link to one.
 *
 * @throws {CriaError} `unavailable` when that cannot be told.
 */
export function isRegularFile(path: string): boolean {
  try {
    return statSync(path, { throwIfNoEntry: false })?.isFile() ?? false
  } catch (error) {
    throw cannotRead(path, error)
  }
}

/**
 * Reads a regular file.
 *
 * @throws {CriaError} `internal` when it is not a regular file or longer than `bytesMax`, `unavailable` when the
 *   operating system refuses.
 */
export function readRegularFile(path: string, bytesMax: number): FileContent {
  let file: number
  try {
    // Without O_NONBLOCK, opening a FIFO waits for a writer. Windows lacks the flag, and `0 | undefined` is 0.
    file = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK)
  } catch (error) {
    throw cannotRead(path, error)
  }
  try {
    const { mtime, size } = regularFileStats(file, path)
    if (size > bytesMax) {
      throw new CriaError("internal", `Cannot read "${path}": ${size} bytes, limit ${bytesMax}`)
    }
    return { bytes: readBytes(file, size), modifiedAt: mtime }
  } finally {
    closeSync(file)
  }
}

function regularFileStats(file: number, path: string): { mtime: Date; size: number } {
  const stats = fstatSync(file)
  if (stats.isFile()) return stats
  throw new CriaError("internal", `Cannot read "${path}": not a regular file`)
}

/** Reads up to `size` bytes: fewer when the file has shrunk since, never more when it grows. */
function readBytes(file: number, size: number): Buffer {
  const bytes = Buffer.allocUnsafe(size)
  let length = 0
  while (length < size) {
    const count = readSync(file, bytes, length, size - length, null)
    if (count === 0) break
    length += count
  }
  return bytes.subarray(0, length)
}

function cannotRead(path: string, cause: unknown): CriaError {
  const text = `Cannot read "${path}" (${errorCode(cause)}): ensure path elements are traversable`
  return new CriaError("unavailable", text, { cause })
}

function errorCode(error: unknown): string {
  return error instanceof Error && "code" in error ? String(error.code) : String(error)
}
