/**
 * Brings files to a server as blobs: not at all when it has them, by linking when it uses the store of this machine,
 * else over HTTP.
 *
 * @module
 */

import { rmSync, statSync } from "node:fs"
import { basename } from "node:path"

import type { Config } from "../config.ts"
import { type Digest, hashFile } from "../store/digest.ts"
import { openStore } from "../store/folder-store.ts"
import { parseName } from "../store/name.ts"
import { placeLinked } from "../store/place.ts"
import { StoreWriter } from "../store/writer.ts"
import { CriaError, errorMessage } from "../util/errors.ts"
import { formatBytes } from "../util/units.ts"
import type { Progress } from "./progress.ts"

/** What uploading needs of a client. */
export interface BlobClient {
  readonly url: string
  hasBlob(digest: string): Promise<boolean>
  putBlob(digest: string, content: Blob): Promise<void>
}

/** Brings files to one server. */
export class Uploader {
  readonly #client: BlobClient
  readonly #config: Config
  readonly #report: (step: Progress) => void

  constructor(client: BlobClient, config: Config, report: (step: Progress) => void) {
    this.#client = client
    this.#config = config
    this.#report = report
  }

  /**
   * Makes the server have a file; says how.
   *
   * @throws {CriaError} `invalid-input` when it cannot be read, `conflict` when it changes meanwhile.
   */
  async put(name: string, path: string): Promise<Digest> {
    const before = stamp(path)
    const digest = await hashOf(path)
    if (await this.#client.hasBlob(digest)) return digest
    const placement = await this.#link(path, digest)
    if (placement !== undefined) {
      this.#report({ status: `using ${name} in place (${placement})` })
    } else {
      const total = statSync(path).size
      const status = `copying file ${digest} (${formatBytes(total)})`
      this.#report({ status })
      await this.#client.putBlob(digest, Bun.file(path))
    }
    if (stamp(path) !== before) {
      throw new CriaError("conflict", `"${path}" changed while it was read`, { hint: "Try again" })
    }
    return digest
  }

  /** Links a file into the store of this machine, and asks the server whether that is its own. */
  async #link(path: string, digest: Digest): Promise<string | undefined> {
    if (!/^https?:\/\/(localhost|127\.|\[::1\])/.test(this.#client.url)) return undefined
    let temporary: string | undefined
    try {
      const writer = new StoreWriter(openStore(this.#config.models, { readOnly: false }))
      temporary = writer.temporaryPath()
      const placement = placeLinked(path, temporary)
      if (placement === undefined) return undefined
      writer.adoptBlob(temporary, digest)
      if (await this.#client.hasBlob(digest)) return placement
      await writer.removeUnreferenced([digest])
    } catch {
      // The folder may belong to somebody else; the server can still be given the bytes.
    } finally {
      if (temporary !== undefined) rmSync(temporary, { force: true })
    }
    return undefined
  }
}

function stamp(path: string): string {
  const { size, mtimeMs } = statSync(path)
  return `${size}:${mtimeMs}`
}

async function hashOf(path: string): Promise<Digest> {
  try {
    return await hashFile(path)
  } catch (cause) {
    const text = `Cannot read "${basename(path)}": ${errorMessage(cause)}`
    throw new CriaError("invalid-input", text, { cause })
  }
}

/** Whether a text can name a model. */
export function isModelName(text: string): boolean {
  try {
    parseName(text)
    return true
  } catch {
    return false
  }
}
