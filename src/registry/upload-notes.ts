/**
 * Where uploads were when their process ended: a small file for each in the cache.
 *
 * Only a hint. A registry that does not know the upload any more gets a new one.
 *
 * @module
 */

import { createHash } from "node:crypto"
import { mkdirSync, rmSync, statSync, writeFileSync } from "node:fs"
import { join } from "node:path"

import type { Digest } from "../store/digest.ts"
import { readRegularFile } from "../store/files.ts"

/** Registries forget uploads after a week or sooner. */
const AGE_MS_MAX = 24 * 3_600_000

const NOTE_BYTES_MAX = 16 * 1024

/** See the module. */
export class UploadNotes {
  readonly #folder: string

  /** @param cache Folder for files that can be made again. */
  constructor(cache: string) {
    this.#folder = join(cache, "uploads")
  }

  /** Where the upload of a blob to a repository goes on; undefined when nothing is known. */
  find(repository: URL, digest: Digest): URL | undefined {
    const path = this.#path(repository, digest)
    try {
      if (Date.now() - statSync(path).mtimeMs > AGE_MS_MAX) return undefined
      const url = URL.parse(readRegularFile(path, NOTE_BYTES_MAX).bytes.toString("utf8"))
      return url?.origin === repository.origin ? url : undefined
    } catch {
      // No note, or an unreadable one: a new upload begins.
      return undefined
    }
  }

  save(repository: URL, digest: Digest, url: URL): void {
    try {
      mkdirSync(this.#folder, { recursive: true, mode: 0o700 })
      writeFileSync(this.#path(repository, digest), url.href, { mode: 0o600 })
    } catch {
      // The upload goes on; only the next process will not know of it.
    }
  }

  remove(repository: URL, digest: Digest): void {
    rmSync(this.#path(repository, digest), { force: true })
  }

  #path(repository: URL, digest: Digest): string {
    return join(
      this.#folder,
      createHash("sha256").update(`${repository.href} ${digest}`).digest("hex"),
    )
  }
}
