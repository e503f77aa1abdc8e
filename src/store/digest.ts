/**
 * The digest of a blob: the one place where outside text becomes a digest, and a digest a path.
 *
 * A `Digest` comes from here or not at all, so a function that takes one need not check it. This is the wall
 * against digests such as `sha256:../../etc/passwd` (CVE-2024-37032).
 *
 * @module
 */
import { createHash } from "node:crypto"
import { createReadStream } from "node:fs"
import { join } from "node:path"

import { CriaError } from "../util/errors.ts"
import { drain } from "../util/iterate.ts"

/** Bytes read at a time; larger ones are no faster. */
const HASH_CHUNK_BYTES = 2 ** 20

declare const checked: unique symbol

/** `sha256:` and 64 lower-case hex digits. */
export type Digest = string & { readonly [checked]: true }

/**
 * Checks and normalises a digest: `sha256`, then `:` or `-`, then 64 hex digits, in any case.
 *
 * @throws {CriaError} `invalid-input` with the text that clients know.
 */
export function parseDigest(text: string): Digest {
  const digest = toDigest(text)
  if (digest === undefined) throw new CriaError("invalid-input", "invalid digest format")
  return digest
}

/** Like {@link parseDigest}; `undefined` instead of an error. */
export function toDigest(text: string): Digest | undefined {
  const digest = text.toLowerCase().replace("-", ":")
  return isDigest(digest) ? digest : undefined
}

/** The digest of a file's content. Throws what reading throws, and the signal's reason. */
export function hashFile(path: string, signal?: AbortSignal): Promise<Digest> {
  return drain(hashSteps(path, signal))
}

/** Like {@link hashFile}; yields how many bytes are read. */
export async function* hashSteps(
  path: string,
  signal?: AbortSignal,
): AsyncGenerator<number, Digest> {
  const hash = createHash("sha256")
  let bytes = 0
  for await (const chunk of createReadStream(path, { highWaterMark: HASH_CHUNK_BYTES })) {
    signal?.throwIfAborted()
    // Buffers, as no encoding was asked for.
    hash.update(chunk as Buffer)
    bytes += (chunk as Buffer).length
    yield bytes
  }
  return parseDigest(`sha256:${hash.digest("hex")}`)
}

/** The name of the file that holds the blob: with `-`, as `:` is not allowed on every file system. */
export function digestFileName(digest: Digest): string {
  return digest.replace(":", "-")
}

/** Where the store at `root` keeps the blob, present or not. The only way from a digest to a path. */
export function blobFilePath(root: string, digest: Digest): string {
  return join(root, "blobs", digestFileName(digest))
}

function isDigest(text: string): text is Digest {
  return /^sha256:[0-9a-f]{64}$/.test(text)
}
