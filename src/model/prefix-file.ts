/**
 * A saved stretch of a prefix as a file: a line of JSON (what it is, sizes, digest of all that follows), the tokens from
 * the beginning of the sequence on, the state.
 *
 * Files appear whole, by rename. What cannot be read as it was written is no state.
 *
 * @module
 */

import { createHash } from "node:crypto"
import { closeSync, fstatSync, openSync, readSync } from "node:fs"
import { type FileHandle, open, rename, rm } from "node:fs/promises"

import { z } from "zod"

/** Raised when the layout of a file changes. */
const FORMAT = 2

/** Name of a file while it is written. */
export const PARTIAL = ".partial"

/** Longest first line: a scope has a bounded length. */
const HEADER_BYTES_MAX = 4096

/** Most tokens that a file may claim. */
const TOKENS_MAX = 2 ** 27

/** Read, written and hashed at once: others get their turn in between. */
const CHUNK_BYTES = 4 * 2 ** 20

const header = z
  .object({
    format: z.literal(FORMAT),
    scope: z.string(),
    tokens: z.int().min(1).max(TOKENS_MAX),
    from: z.int().min(0),
    stateBytes: z.int().min(1),
    sha256: z.string(),
  })
  .refine(({ from, tokens }) => from < tokens)

/** What a file holds, but for the state. */
export interface PrefixHeader {
  readonly scope: string
  /** All tokens from the beginning of the sequence to the end of the stretch. */
  readonly tokens: Int32Array
  /** Where the stretch begins. */
  readonly from: number
  readonly stateBytes: number
  /** When it was used last. */
  readonly usedAtMs: number
}

/**
 * Writes a file; it is there whole or not at all.
 *
 * @param onProgress Called after each piece.
 * @throws {Error} When that is not possible; nothing is left then.
 */
export async function writePrefix(
  path: string,
  {
    scope,
    tokens,
    from,
    state,
  }: Pick<PrefixHeader, "scope" | "tokens" | "from"> & { readonly state: Uint8Array },
  onProgress: () => void = () => {},
): Promise<void> {
  const tokenBytes = bytesOf(tokens)
  const sha256 = await digest([tokenBytes, state], onProgress)
  const fields = {
    format: FORMAT,
    scope,
    tokens: tokens.length,
    from,
    stateBytes: state.length,
    sha256,
  }
  const partial = `${path}${PARTIAL}`
  try {
    {
      await using file = await open(partial, "w", 0o600)
      for (const part of [Buffer.from(`${JSON.stringify(fields)}\n`), tokenBytes, state])
        await writeAll(file, part, onProgress)
    }
    await rename(partial, path)
  } catch (error) {
    await rm(partial, { force: true })
    throw error
  }
}

/** What a file says about itself; undefined when it is none of ours, or cut off. */
export function readHeader(path: string): PrefixHeader | undefined {
  const file = openSync(path, "r")
  try {
    const { size, mtimeMs } = fstatSync(file)
    const start = Buffer.alloc(Math.min(size, HEADER_BYTES_MAX))
    readSync(file, start, 0, start.length, 0)
    const first = parseHeader(start)
    if (first === undefined) return undefined
    const { headerBytes, scope, from, tokens: count, stateBytes } = first
    if (headerBytes + count * 4 + stateBytes !== size) return undefined
    const tokens = new Int32Array(count)
    readSync(file, bytesOf(tokens), 0, count * 4, headerBytes)
    return { scope, tokens, from, stateBytes, usedAtMs: mtimeMs }
  } finally {
    closeSync(file)
  }
}

/** The state in a file; undefined when it is damaged. @throws {Error} When it cannot be read. */
export async function readState(path: string): Promise<Uint8Array | undefined> {
  await using file = await open(path, "r")
  const start = new Uint8Array(HEADER_BYTES_MAX)
  const { bytesRead } = await file.read(start, 0, start.length, 0)
  const first = parseHeader(Buffer.from(start.subarray(0, bytesRead)))
  if (first === undefined) return undefined
  const { headerBytes, stateBytes, sha256 } = first
  const tokens = new Uint8Array(first.tokens * 4)
  const state = new Uint8Array(stateBytes)
  const isWhole =
    (await readAll(file, tokens, headerBytes)) &&
    (await readAll(file, state, headerBytes + tokens.length))
  return isWhole && (await digest([tokens, state])) === sha256 ? state : undefined
}

function parseHeader(
  start: Buffer,
): (z.infer<typeof header> & { headerBytes: number }) | undefined {
  const end = start.indexOf(10)
  if (end === -1) return undefined
  try {
    const parsed = header.safeParse(JSON.parse(start.toString("utf8", 0, end)))
    return parsed.success ? { ...parsed.data, headerBytes: end + 1 } : undefined
  } catch {
    return undefined
  }
}

function bytesOf({ buffer, byteOffset, byteLength }: Int32Array): Uint8Array {
  return new Uint8Array(buffer, byteOffset, byteLength)
}

/** Not `writeFile` with a list: Bun 1.4.5 writes more bytes than it is given when parts are large. */
async function writeAll(file: FileHandle, part: Uint8Array, onProgress: () => void): Promise<void> {
  for (let done = 0; done < part.length;) {
    const length = Math.min(CHUNK_BYTES, part.length - done)
    // In order.
    // oxlint-disable-next-line no-await-in-loop
    done += (await file.write(part, done, length)).bytesWritten
    onProgress()
  }
}

/** Fills an array from a position on; false when the file ends before. */
async function readAll(file: FileHandle, part: Uint8Array, from: number): Promise<boolean> {
  for (let done = 0; done < part.length;) {
    const length = Math.min(CHUNK_BYTES, part.length - done)
    // oxlint-disable-next-line no-await-in-loop
    const { bytesRead } = await file.read(part, done, length, from + done)
    if (bytesRead === 0) return false
    done += bytesRead
  }
  return true
}

async function digest(
  parts: readonly Uint8Array[],
  onProgress: () => void = () => {},
): Promise<string> {
  const hash = createHash("sha256")
  for (const part of parts) {
    for (let done = 0; done < part.length; done += CHUNK_BYTES) {
      hash.update(part.subarray(done, done + CHUNK_BYTES))
      onProgress()
      // The event loop turns.
      // oxlint-disable-next-line no-await-in-loop
      await new Promise((resolve) => setTimeout(resolve, 0))
    }
  }
  return hash.digest("hex")
}
