/**
 * Brings files to a server as blobs: not at all when it has them, by linking when it uses the store of this machine,
 * else over HTTP.
 *
 * @module
 */

import { createReadStream, rmSync, statSync } from "node:fs"
import { availableParallelism } from "node:os"
import { basename } from "node:path"

import type { Config } from "../config.ts"
import { type Digest, hashSteps } from "../store/digest.ts"
import { openStore } from "../store/folder-store.ts"
import { parseName } from "../store/name.ts"
import { placeLinked } from "../store/place.ts"
import { StoreWriter } from "../store/writer.ts"
import { CriaError, errorMessage } from "../util/errors.ts"
import { byteSteps, type Progress, type SizedProgress } from "./progress.ts"

/** What uploading needs of a client. */
export interface BlobClient {
  readonly url: string
  hasBlob(digest: string): Promise<boolean>
  putBlob(digest: string, content: SizedContent, signal?: AbortSignal): Promise<void>
}

/** Bytes to send. */
interface SizedContent {
  readonly size: number
  stream(): ReadableStream<Uint8Array>
}

/** A file that the server has now. */
export interface Uploaded {
  readonly digest: Digest
  /** False when it had it already. */
  readonly isNew: boolean
}

/** What an {@link Uploader} works with. */
export interface UploadParts {
  readonly client: BlobClient
  readonly config: Config
  readonly report: (step: Progress) => void
  readonly signal: AbortSignal
}

/** Files of which reading takes no time have no step of their own. */
const QUICK_BYTES = 32 * 2 ** 20

const CHUNK_BYTES = 2 ** 20

/** Brings files to one server. */
export class Uploader {
  readonly #parts: UploadParts

  constructor(parts: UploadParts) {
    this.#parts = parts
  }

  /**
   * Makes the server have files, several at a time; says how.
   *
   * @param files Paths by name.
   * @throws {CriaError} `invalid-input` when one cannot be read, `conflict` when it changes meanwhile; the signal's
   *   reason.
   */
  async putAll(files: ReadonlyMap<string, string>): Promise<Map<string, Uploaded>> {
    const uploaded = new Map<string, Uploaded>()
    const waiting = [...files]
    const stop = new AbortController()
    const signal = AbortSignal.any([this.#parts.signal, stop.signal])
    const workers = Array.from({ length: Math.max(1, availableParallelism() - 1) }, async () => {
      for (let next = waiting.shift(); next !== undefined; next = waiting.shift()) {
        const [name, path] = next
        // Each worker takes one file after the other.
        // oxlint-disable-next-line no-await-in-loop
        uploaded.set(name, await this.#put(name, path, signal))
      }
    })
    try {
      await Promise.all(workers)
    } catch (error) {
      stop.abort(error)
      await Promise.allSettled(workers)
      throw error
    }
    // As they were given, whichever was done first.
    return new Map([...files.keys()].flatMap((name) => entryOf(uploaded, name)))
  }

  async #put(name: string, path: string, signal: AbortSignal): Promise<Uploaded> {
    const { client, report } = this.#parts
    signal.throwIfAborted()
    const before = stamp(path)
    const digest = await this.#hash(name, path, signal)
    if (await client.hasBlob(digest)) return { digest, isNew: false }
    const placement = await this.#link(path, digest)
    if (placement === undefined) await this.#send(path, digest, signal)
    else report({ status: `using ${name} in place (${placement})` })
    if (stamp(path) !== before) {
      throw new CriaError("conflict", `"${path}" changed while it was read`, { hint: "Try again" })
    }
    return { digest, isNew: true }
  }

  async #hash(name: string, path: string, signal: AbortSignal): Promise<Digest> {
    const total = statSync(path).size
    const step = { status: `reading ${name}`, digest: path, total }
    const steps = byteSteps(hashSteps(path, signal), step)
    try {
      for (;;) {
        // Steps come one after the other.
        // oxlint-disable-next-line no-await-in-loop
        const { done, value } = await steps.next()
        if (done === true) return value
        if (total > QUICK_BYTES) this.#parts.report(value)
      }
    } catch (cause) {
      signal.throwIfAborted()
      const text = `Cannot read "${basename(path)}": ${errorMessage(cause)}`
      throw new CriaError("invalid-input", text, { cause })
    }
  }

  async #send(path: string, digest: Digest, signal: AbortSignal): Promise<void> {
    const { client, report } = this.#parts
    const size = statSync(path).size
    const step = { status: `copying file ${digest}`, digest, total: size }
    report({ ...step, completed: 0 })
    await client.putBlob(digest, { size, stream: () => counted(path, step, report) }, signal)
  }

  /** Links a file into the store of this machine, and asks the server whether that is its own. */
  async #link(path: string, digest: Digest): Promise<string | undefined> {
    const { client, config } = this.#parts
    if (!/^https?:\/\/(localhost|127\.|\[::1\])/.test(client.url)) return undefined
    let temporary: string | undefined
    try {
      const writer = new StoreWriter(openStore(config.models, { readOnly: false }))
      temporary = writer.temporaryPath()
      const placement = placeLinked(path, temporary)
      if (placement === undefined) return undefined
      writer.adoptBlob(temporary, digest)
      if (await client.hasBlob(digest)) return placement
      await writer.removeUnreferenced([digest])
    } catch {
      // The folder may belong to somebody else; the server can still be given the bytes.
    } finally {
      if (temporary !== undefined) rmSync(temporary, { force: true })
    }
    return undefined
  }
}

function entryOf<V>(map: ReadonlyMap<string, V>, key: string): [string, V][] {
  const value = map.get(key)
  return value === undefined ? [] : [[key, value]]
}

/** A file as a stream that tells how much of it was taken. */
function counted(
  path: string,
  step: SizedProgress,
  report: (step: Progress) => void,
): ReadableStream<Uint8Array> {
  const chunks = createReadStream(path, { highWaterMark: CHUNK_BYTES })
  const iterator: AsyncIterator<Buffer> = chunks[Symbol.asyncIterator]()
  let completed = 0
  return new ReadableStream({
    async pull(controller) {
      const { done, value } = await iterator.next()
      report({ ...step, completed })
      if (done === true) {
        controller.close()
        return
      }
      completed += value.length
      controller.enqueue(value)
    },
    async cancel() {
      await iterator.return?.()
    },
  })
}

/** Tells a file from what it becomes when somebody writes it. @throws {CriaError} When it is no file. */
function stamp(path: string): string {
  const stats = statSync(path, { throwIfNoEntry: false })
  if (stats === undefined) throw new CriaError("not-found", `Cannot find "${path}"`)
  if (!stats.isFile()) {
    throw new CriaError("invalid-input", `Cannot use "${path}": expected a regular file`)
  }
  return `${stats.size}:${stats.mtimeMs}`
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
