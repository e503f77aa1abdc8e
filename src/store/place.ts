/**
 * Gives a file a second name without copying it, where the file system can.
 *
 * @module
 */
import { constants, copyFileSync, createReadStream, linkSync, rmSync, statSync } from "node:fs"
import { open } from "node:fs/promises"

import { CriaError } from "../util/errors.ts"
import { cannotWrite } from "./durable.ts"

/** How a file came to its second name: sharing blocks until one is written to, being the same file, or copied. */
export type Placement = "reflink" | "hard link" | "copy"

/**
 * Makes `target` have the content of `source`: as a reflink, else as a hard link.
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
    linkSync(source, target)
    return "hard link"
  } catch {
    return undefined
  }
}

/**
 * Makes `target` have the content of `source`: as a reflink, else as a hard link, else by copying.
 *
 * @throws {CriaError} `unavailable` when it cannot be written, `conflict` when the source changed meanwhile; no target
 *   is left then. The signal's reason.
 */
export async function placeFile(
  source: string,
  target: string,
  signal?: AbortSignal,
): Promise<Placement> {
  const linked = placeLinked(source, target)
  if (linked !== undefined) return linked
  const { size } = statSync(source)
  try {
    await using file = await open(target, "wx")
    let written = 0
    for await (const chunk of createReadStream(source, { highWaterMark: 2 ** 20, signal })) {
      // Buffers, as no encoding was asked for.
      written += (await file.write(chunk as Buffer)).bytesWritten
    }
    if (written !== size) {
      throw new CriaError("conflict", `"${source}" had ${size} bytes and then ${written}`)
    }
    return "copy"
  } catch (error) {
    rmSync(target, { force: true })
    signal?.throwIfAborted()
    throw cannotWrite(target, error)
  }
}
