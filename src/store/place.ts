/**
 * Gives a file a second name without copying it, where the file system can.
 *
 * @module
 */
import {
  constants,
  copyFileSync,
  createReadStream,
  linkSync,
  realpathSync,
  rmSync,
  statSync,
} from "node:fs"
import { open } from "node:fs/promises"
import { dirname } from "node:path"

import { CriaError } from "../util/errors.ts"
import { requireRoom } from "../util/room.ts"
import { cannotWrite } from "./durable.ts"

/** How a file came to its second name: sharing blocks until one is written to, being the same file, or copied. */
export type Placement = "reflink" | "hard link" | "copy"

/**
 * Makes `target` have the content of `source`: as a reflink, else as a hard link. Of a link, that of what it leads to.
 *
 * @returns Undefined when the file system can do neither; nothing is there then.
 */
export function placeLinked(source: string, target: string): Placement | undefined {
  try {
    copyFileSync(source, target, constants.COPYFILE_EXCL | constants.COPYFILE_FICLONE_FORCE)
    return "reflink"
  } catch {
    rmSync(target, { force: true })
  }
  try {
    // Linux would give the link itself another name.
    linkSync(realpathSync(source), target)
    return "hard link"
  } catch {
    return undefined
  }
}

/**
 * Makes `target` have the content of `source`: as a reflink, else as a hard link, else by copying.
 *
 * @returns Bytes that are copied so far; nothing when the file is linked.
 * @throws {CriaError} `unavailable` when it cannot be written, `conflict` when the source changed meanwhile; no target
 *   is left then. The signal's reason.
 */
export async function* placeFile(
  source: string,
  target: string,
  signal?: AbortSignal,
): AsyncGenerator<number, Placement> {
  return placeLinked(source, target) ?? (yield* copyFile(source, target, signal))
}

async function* copyFile(
  source: string,
  target: string,
  signal: AbortSignal | undefined,
): AsyncGenerator<number, Placement> {
  const { size } = statSync(source)
  requireRoom(dirname(target), size, `Cannot copy "${source}"`)
  let written = 0
  let isDone = false
  try {
    await using file = await open(target, "wx")
    for await (const chunk of createReadStream(source, { highWaterMark: 2 ** 20, signal })) {
      // Buffers, as no encoding was asked for.
      await file.writeFile(chunk as Buffer)
      written += (chunk as Buffer).length
      yield written
    }
    if (written !== size) {
      throw new CriaError("conflict", `"${source}" had ${size} bytes and then ${written}`)
    }
    isDone = true
    return "copy"
  } catch (error) {
    signal?.throwIfAborted()
    throw cannotWrite(target, error)
  } finally {
    if (!isDone) rmSync(target, { force: true })
  }
}
