/**
 * A blob that is not whole yet: the file that its bytes go to, and the notes about what is there.
 *
 * One process at a time has it: a lock that dies with its owner. Knows nothing of the network.
 *
 * @module
 */

import { createHash } from "node:crypto"
import { existsSync, mkdirSync, readdirSync, rmSync, writeFileSync } from "node:fs"
import { type FileHandle, open, statfs } from "node:fs/promises"
import { basename, dirname, join } from "node:path"
import { setTimeout as delay } from "node:timers/promises"

import type { Digest } from "../store/digest.ts"
import { cannotWrite } from "../store/durable.ts"
import { readRegularFile } from "../store/files.ts"
import { CriaError } from "../util/errors.ts"
import { formatBytes } from "../util/units.ts"
import {
  completedBytes,
  formatNote,
  frontBytes,
  NOTE_BYTES_MAX,
  type Part,
  parseNote,
  type PartNote,
  planParts,
  splitPart,
} from "./parts.ts"

/** Bytes between two notes of a part: what a `kill -9` costs at most, per connection. */
const NOTE_INTERVAL_BYTES = 8 * 2 ** 20

/** Bytes hashed at a time: some milliseconds. */
const HASH_BYTES = 2 ** 20

/** Between two looks at whether there is more to hash. */
const HASH_POLL_MS = 10

/** See the module. */
export class PartialBlob implements AsyncDisposable {
  readonly path: string
  readonly totalBytes: number
  readonly #file: FileHandle
  readonly #noted = new Map<Part, number>()
  #parts: Part[]
  #nextIndex: number

  /** Use {@link PartialBlob.open}. */
  constructor(path: string, file: FileHandle, parts: Part[], totalBytes: number) {
    this.path = path
    this.totalBytes = totalBytes
    this.#file = file
    this.#parts = parts
    this.#nextIndex = parts.length
  }

  /**
   * Opens what an earlier download has left, or begins.
   *
   * @throws {CriaError} `unavailable` when the disk has no room for the rest or cannot be written.
   */
  static async open(path: string, totalBytes: number): Promise<PartialBlob> {
    let file: FileHandle | undefined
    try {
      mkdirSync(dirname(path), { recursive: true })
      file = await openOrCreate(path)
      const { size } = await file.stat()
      const parts = planParts(totalBytes, readNotes(path), size)
      await checkRoom(dirname(path), totalBytes - completedBytes(parts))
      await file.truncate(totalBytes)
      removeNotes(path, parts.length)
      const blob = new PartialBlob(path, file, parts, totalBytes)
      for (const part of parts) blob.note(part)
      return blob
    } catch (error) {
      await file?.close()
      throw cannotWrite(path, error)
    }
  }

  /** In order, covering the blob. */
  get parts(): readonly Part[] {
    return this.#parts
  }

  get completedBytes(): number {
    return completedBytes(this.#parts)
  }

  /**
   * Writes bytes at the end of what a part has, and none behind its own end. That may come nearer in the middle of a
   * write: then the next part gets some of its bytes twice.
   */
  async append(part: Part, chunks: readonly Uint8Array[]): Promise<void> {
    try {
      let rest = within(chunks, part.size - part.completed)
      while (rest.length > 0 && part.completed < part.size) {
        // Each write begins where the one before has ended.
        // oxlint-disable-next-line no-await-in-loop
        const { bytesWritten } = await this.#file.writev(rest, part.offset + part.completed)
        part.completed = Math.min(part.completed + bytesWritten, part.size)
        rest = without(rest, bytesWritten)
      }
    } catch (error) {
      throw cannotWrite(this.path, error)
    }
    const isDone = part.completed >= part.size
    if (isDone || part.completed - (this.#noted.get(part) ?? 0) >= NOTE_INTERVAL_BYTES) {
      this.note(part)
    }
  }

  /** Notes what a part has. */
  note(part: Part): void {
    const path = notePath(this.path, part.index)
    try {
      // In place: a process that is killed leaves the old note or the new one.
      writeFileSync(path, formatNote(part), { flag: this.#noted.has(part) ? "r+" : "w" })
      this.#noted.set(part, part.completed)
    } catch (error) {
      throw cannotWrite(path, error)
    }
  }

  /** Gives the second half of a part's rest to a part of its own; undefined when it is not worth it. */
  split(part: Part): Part | undefined {
    const rest = splitPart(part, this.#nextIndex)
    if (rest === undefined) return undefined
    this.#nextIndex++
    this.#parts.splice(this.#parts.indexOf(part) + 1, 0, rest)
    this.note(part)
    this.note(rest)
    return rest
  }

  /** Makes one part of all, for a source that gives bytes from the beginning only. */
  joinParts(): Part {
    const completed = frontBytes(this.#parts)
    const whole = { index: 0, offset: 0, size: this.totalBytes, completed }
    this.#noted.clear()
    this.#parts = [whole]
    this.#nextIndex = 1
    removeNotes(this.path, 1)
    this.note(whole)
    return whole
  }

  /** Hashes the file from its beginning while it grows, and resolves when it is whole. */
  async hash(signal: AbortSignal): Promise<string> {
    const hash = createHash("sha256")
    const buffer = Buffer.allocUnsafe(HASH_BYTES)
    for (let at = 0; at < this.totalBytes;) {
      signal.throwIfAborted()
      const ready = frontBytes(this.#parts) - at
      if (ready < HASH_BYTES && at + ready < this.totalBytes) {
        // Waiting is the point of the loop.
        // oxlint-disable-next-line no-await-in-loop
        await delay(HASH_POLL_MS, undefined, { signal })
        continue
      }
      // oxlint-disable-next-line no-await-in-loop
      const { bytesRead } = await this.#file.read(buffer, 0, Math.min(HASH_BYTES, ready), at)
      if (bytesRead === 0) throw new CriaError("internal", `"${this.path}" has become shorter`)
      hash.update(buffer.subarray(0, bytesRead))
      at += bytesRead
    }
    return hash.digest("hex")
  }

  /** Makes the bytes outlive a power failure. */
  async flush(): Promise<void> {
    try {
      await this.#file.datasync()
    } catch (error) {
      throw cannotWrite(this.path, error)
    }
  }

  /** Removes the file and the notes, for content that is wrong. */
  remove(): void {
    rmSync(this.path, { force: true })
    removeNotes(this.path, 0)
  }

  /** Removes the notes, when the file has become a blob. */
  removeNotes(): void {
    removeNotes(this.path, 0)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#file.close()
  }
}

/** Bytes that a download, perhaps of another process, has on disk. */
export function notedBytes(path: string): number {
  if (!existsSync(path)) return 0
  return readNotes(path).reduce((sum, { Completed }) => sum + Completed, 0)
}

/** The error for a blob that is not what its digest says. */
export function digestMismatch(wanted: Digest, hex: string): CriaError {
  const text = `digest mismatch, file must be downloaded again: want ${wanted}, got sha256:${hex}`
  return new CriaError("unavailable", text)
}

async function openOrCreate(path: string): Promise<FileHandle> {
  try {
    return await open(path, "r+")
  } catch {
    // Exclusive: whatever lies there and cannot be opened is not ours to follow.
    return open(path, "wx+")
  }
}

/**
 * Finds out before a download what would end it.
 *
 * @throws {CriaError} `unavailable` when the folder's file system has no room for so many bytes.
 */
export async function checkRoom(folder: string, missingBytes: number): Promise<void> {
  const { bavail, bsize } = await statfs(folder)
  const free = bavail * bsize
  if (free >= missingBytes) return
  throw new CriaError(
    "unavailable",
    `Cannot download to "${folder}": needs ${formatBytes(missingBytes)}, ${formatBytes(free)} free`,
    { hint: "Free some space, or set OLLAMA_MODELS to a folder on another disk" },
  )
}

function notePath(path: string, index: number): string {
  return `${path}-${index}`
}

function noteFiles(path: string): { index: number; file: string }[] {
  const prefix = `${basename(path)}-`
  return readdirSync(dirname(path))
    .filter((name) => name.startsWith(prefix) && /^\d{1,6}$/.test(name.slice(prefix.length)))
    .map((name) => ({
      index: Number(name.slice(prefix.length)),
      file: join(dirname(path), name),
    }))
}

function readNotes(path: string): PartNote[] {
  return noteFiles(path).flatMap(({ file }) => {
    try {
      return parseNote(readRegularFile(file, NOTE_BYTES_MAX).bytes.toString("latin1")) ?? []
    } catch {
      // What it was about is fetched again.
      return []
    }
  })
}

/** Removes the notes from an index on. */
function removeNotes(path: string, from: number): void {
  for (const { index, file } of noteFiles(path)) if (index >= from) rmSync(file, { force: true })
}

/** The first bytes of chunks. */
function within(chunks: readonly Uint8Array[], bytes: number): Uint8Array[] {
  let room = bytes
  return chunks.flatMap((chunk) => {
    const kept = chunk.subarray(0, room)
    room -= kept.length
    return kept.length === 0 ? [] : [kept]
  })
}

/** Chunks without their first bytes. */
function without(chunks: readonly Uint8Array[], bytes: number): Uint8Array[] {
  let skip = bytes
  return chunks.flatMap((chunk) => {
    const skipped = Math.min(skip, chunk.length)
    skip -= skipped
    return skipped === chunk.length ? [] : [chunk.subarray(skipped)]
  })
}
