/**
 * Writes the file that a command was asked for.
 *
 * A new file appears under its name when it is complete. A device or a pipe is written to as it is, and stays.
 *
 * @module
 */

import { randomBytes } from "node:crypto"
import { renameSync, rmSync, statSync } from "node:fs"
import { type FileHandle, open } from "node:fs/promises"
import { dirname } from "node:path"

import { CriaError, errorMessage } from "../util/errors.ts"
import { requireRoom } from "../util/room.ts"

/**
 * Writes to a path.
 *
 * @param bytes How many there will be.
 * @throws {CriaError} `conflict` when there is a file already; `unavailable` when it cannot be written; whatever the
 *   chunks throw. Nothing is left then.
 */
export async function writeOutput(
  path: string,
  bytes: number,
  chunks: AsyncIterable<Uint8Array>,
): Promise<void> {
  const stats = await attempt(path, () => statSync(path, { throwIfNoEntry: false }))
  if (stats?.isFile() === true) {
    throw new CriaError("conflict", `Cannot write "${path}": it is there already`, {
      hint: "Remove it, or choose another name",
    })
  }
  if (stats?.isDirectory() === true) {
    throw new CriaError("invalid-input", `Cannot write "${path}": it is a folder`)
  }
  if (stats === undefined) {
    requireRoom(dirname(path), bytes, `Cannot write "${path}"`)
    await writeNew(path, chunks)
  } else {
    await using file = await opened(path, "w")
    await writeChunks(file, path, chunks)
  }
}

async function writeNew(path: string, chunks: AsyncIterable<Uint8Array>): Promise<void> {
  const partial = `${path}.${randomBytes(4).toString("hex")}.partial`
  try {
    {
      await using file = await opened(partial, "wx")
      await writeChunks(file, path, chunks)
      await attempt(path, () => file.sync())
    }
    await attempt(path, () => renameSync(partial, path))
  } finally {
    rmSync(partial, { force: true })
  }
}

function opened(path: string, flags: string): Promise<FileHandle> {
  return attempt(path, () => open(path, flags))
}

async function writeChunks(
  file: FileHandle,
  path: string,
  chunks: AsyncIterable<Uint8Array>,
): Promise<void> {
  for await (const chunk of chunks) await attempt(path, () => file.writeFile(chunk))
}

async function attempt<T>(path: string, action: () => T | Promise<T>): Promise<T> {
  try {
    return await action()
  } catch (cause) {
    throw new CriaError("unavailable", `Cannot write "${path}": ${errorMessage(cause)}`, { cause })
  }
}
