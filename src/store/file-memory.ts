/**
 * What was made of files, for as long as they stay as they are: a list of hundreds of models opens none of them twice.
 *
 * A file counts as the same when its inode, its size and its time are. Times are coarser than writes, so nothing is
 * kept of a file that was written a moment ago: it could be written again and look the same.
 *
 * @module
 */

import { statSync } from "node:fs"

/** How old a file has to be: file systems count in steps of up to two seconds. */
const SETTLED_MS = 3000

/** Files; more than anybody has installed. */
const FILES_MAX = 10_000

/** How a file looks from outside; undefined for what is no file, or may still change unseen. */
export type FileStamp = string | undefined

/** Looks at a file. @param nowMs Milliseconds since 1970. */
export function stampOf(path: string, nowMs: number): FileStamp {
  try {
    const { ino, size, mtimeMs, ctimeMs } = statSync(path)
    return nowMs - Math.max(mtimeMs, ctimeMs) < SETTLED_MS
      ? undefined
      : `${ino}:${size}:${mtimeMs}:${ctimeMs}`
  } catch {
    return undefined
  }
}

/** See the module. */
export class FileMemory<T> {
  readonly #known = new Map<string, { readonly stamp: string; readonly value: T }>()

  /** What was made of a file that looks like this; undefined when nothing was. */
  find(path: string, stamp: FileStamp): T | undefined {
    const known = this.#known.get(path)
    return known !== undefined && known.stamp === stamp ? known.value : undefined
  }

  /** Keeps what was made of a file. @param stamp From before it was read. */
  keep(path: string, stamp: FileStamp, value: T): void {
    if (stamp === undefined) return
    if (this.#known.size >= FILES_MAX) this.#known.clear()
    this.#known.set(path, { stamp, value })
  }
}
