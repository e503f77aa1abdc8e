/**
 * Sends one blob: in parts, going on after a failure where the registry says it is.
 *
 * Registries answer a part in one of two ways: they take it, or they point to the storage that shall have it; then
 * parts travel at the same time (`storage.ts`). An upload that was interrupted is gone on with, also by the next
 * process.
 *
 * @module
 */

import { createHash } from "node:crypto"

import type { Digest } from "../store/digest.ts"
import { CriaError, errorMessage } from "../util/errors.ts"
import type { RegistryClient } from "./client.ts"
import { discard, Fault, faultOf, isPassing, type Network } from "./http.ts"
import { PartBody } from "./part-body.ts"
import { type Patience, pauseAfter } from "./retry.ts"
import { StorageParts } from "./storage.ts"
import type { UploadNotes } from "./upload-notes.ts"

/** What to send, from where, to where. */
export interface UploadJob {
  readonly client: RegistryClient
  readonly network: Network
  readonly digest: Digest
  readonly size: number
  readonly path: string
  /** Repository of the same registry that may have the blob: `namespace/model`. */
  readonly mountFrom?: string | undefined
  readonly patience: Patience
  readonly notes: UploadNotes
  /** Bytes of the smallest part but the last. */
  readonly partBytesMin?: number
}

/** Ollama's sizes, and its number of parts that travel at once. */
const PART_BYTES_MIN = 100_000_000
const PART_BYTES_MAX = 1_000_000_000
const PARTS_WANTED = 16

/** Statuses that say that the upload is not what we think: it is begun anew. */
const LOST: ReadonlySet<number> = new Set([400, 404, 409, 416])

interface Session {
  /** Bytes that earlier sessions have sent. */
  readonly start: number
  /** Where the next request goes. */
  url: URL
  /** Bytes that the registry has, or that its storage gets. */
  offset: number
  /** Those of this session, in order. */
  readonly parts: PartBody[]
  /** Set when the registry has pointed to its storage. */
  storage: StorageParts | undefined
}

/** See the module. */
export class Upload {
  readonly totalBytes: number
  readonly #job: UploadJob
  #session: Session | undefined
  /** Where to go on after a failure. */
  #url: URL | undefined
  /** The part that the registry is being sent. */
  #current: PartBody | undefined
  /** Most bytes that the registry has had, and the failures since. */
  #reached = 0
  #failures = 0
  #shown = 0

  constructor(job: UploadJob) {
    this.#job = job
    this.totalBytes = job.size
  }

  /** Bytes sent. Never goes back. */
  get completedBytes(): number {
    const { start = 0, offset = 0, storage } = this.#session ?? {}
    const there = storage === undefined ? offset : start + storage.sentBytes
    const sent = there + (this.#current?.sentBytes ?? 0)
    this.#shown = Math.max(this.#shown, Math.min(sent, this.totalBytes))
    return this.#shown
  }

  /**
   * Resolves when the registry has the blob.
   *
   * @throws {CriaError} What went wrong; the signal's reason when it was aborted.
   */
  async run(signal: AbortSignal): Promise<void> {
    const { client, digest, notes } = this.#job
    this.#url = notes.find(client.base, digest)
    try {
      for (;;) {
        try {
          // Attempts come one after the other. What seemed to fail may have gone well: then all is done.
          // oxlint-disable-next-line no-await-in-loop
          if ((await client.blobBytes(digest, signal)) === undefined) await this.#attempt(signal)
          break
        } catch (error) {
          signal.throwIfAborted()
          // oxlint-disable-next-line no-await-in-loop
          await this.#recover(error, signal)
        }
      }
    } finally {
      await this.#session?.storage?.[Symbol.asyncDispose]()
    }
    notes.remove(client.base, digest)
    this.#shown = this.totalBytes
  }

  async #attempt(signal: AbortSignal): Promise<void> {
    const { size, partBytesMin = PART_BYTES_MIN } = this.#job
    const session = (this.#session ??= await this.#open(signal))
    if (session === undefined) return
    const wanted = Math.max(Math.ceil(size / PARTS_WANTED), partBytesMin)
    const partBytes = Math.min(wanted, PART_BYTES_MAX)
    while (session.offset < size) {
      const end = Math.min(session.offset + partBytes, size)
      // oxlint-disable-next-line no-await-in-loop
      await session.storage?.ready()
      // Each part's reply says where the next one goes.
      // oxlint-disable-next-line no-await-in-loop
      await this.#sendPart(session, end, signal)
    }
    await session.storage?.finished()
    await this.#finish(session, signal)
  }

  /** Goes on with a known upload, or begins one; undefined when the registry has mounted the blob. */
  async #open(signal: AbortSignal): Promise<Session | undefined> {
    const { client, digest, mountFrom, notes } = this.#job
    const known = await this.#resumed(signal)
    if (known !== undefined) return known
    const start = await client.startUpload(digest, mountFrom, signal)
    if (start.kind === "mounted") return undefined
    notes.save(client.base, digest, start.url)
    return newSession(start.url, 0)
  }

  /** Asks how far the known upload is; undefined when the registry does not know it. */
  async #resumed(signal: AbortSignal): Promise<Session | undefined> {
    const url = this.#url
    if (url === undefined) return undefined
    const { client } = this.#job
    const { response } = await client.follow({ method: "GET", url, signal })
    if (!response.ok) {
      const error = await client.failure(response, `Asked "${url.host}" for an upload`)
      if (isPassing(error)) throw error
      return undefined
    }
    await discard(response)
    const there = stored(response)
    if (there === undefined || there > this.totalBytes) return undefined
    // Nothing is written as 0-0, the same as one byte: to send that one again does no harm.
    const offset = there === 1 ? 0 : there
    this.#advance(offset)
    const next = response.headers.has("Location") ? await client.uploadUrl(response, url) : url
    return newSession(next, offset)
  }

  async #sendPart(session: Session, end: number, signal: AbortSignal): Promise<void> {
    const { client, digest, path, notes, network, patience } = this.#job
    const range = { start: session.offset, end }
    const body = new PartBody(path, range)
    this.#current = body
    const { response } = await client.follow({
      method: "PATCH",
      url: session.url,
      signal,
      headers: {
        "Content-Type": "application/octet-stream",
        "Content-Length": String(body.size),
        "Content-Range": `${range.start}-${range.end - 1}`,
        "X-Redirect-Uploads": "1",
      },
      body: () => body.pieces(),
    })
    this.#current = undefined
    const location = response.headers.get("Location")
    if (response.status === 307 && location !== null) {
      await discard(response)
      const target = await client.storageUrl(location, session.url)
      session.url = await client.uploadUrl(response, session.url)
      session.storage ??= new StorageParts(network, patience, signal)
      session.storage.start(target, body)
    } else if (response.ok) {
      await discard(response)
      session.url = await client.uploadUrl(response, session.url)
    } else throw await client.failure(response, `Sent ${digest}`)
    session.parts.push(body)
    session.offset = session.storage === undefined ? (stored(response) ?? end) : end
    if (session.offset <= range.start) throw notTaken(session.url)
    this.#advance(session.offset)
    notes.save(client.base, digest, session.url)
  }

  async #finish({ url, parts }: Session, signal: AbortSignal): Promise<void> {
    const { client, digest } = this.#job
    const target = new URL(url)
    target.searchParams.set("digest", digest)
    // Of parts that an earlier session has sent, or that were taken in pieces, nothing is known.
    if (parts.reduce((sum, { size }) => sum + size, 0) === this.totalBytes) {
      const digests = parts.map(({ md5 }) => md5 ?? Buffer.alloc(0))
      const etag = createHash("md5").update(Buffer.concat(digests)).digest("hex")
      target.searchParams.set("etag", `${etag}-${parts.length}`)
    }
    const headers = { "Content-Length": "0" }
    const { response } = await client.follow({ method: "PUT", url: target, headers, signal })
    if (!response.ok) throw await client.failure(response, `Finished the upload of ${digest}`)
    await discard(response)
  }

  /** The registry has so many bytes. */
  #advance(bytes: number): void {
    if (bytes <= this.#reached) return
    this.#reached = bytes
    this.#failures = 0
  }

  /** After a failure: decides whether another attempt is worth it, and where it begins; waits. */
  async #recover(cause: unknown, signal: AbortSignal): Promise<void> {
    const { client, digest, patience, notes } = this.#job
    this.#current = undefined
    this.#failures++
    const session = this.#session
    const status = faultOf(cause)?.status ?? 0
    // Addresses of a storage expire.
    const isLost =
      session !== undefined &&
      (LOST.has(status) || (session.storage !== undefined && status === 403))
    if (!isPassing(cause) && !isLost) throw cause
    if (this.#failures >= patience.tries) {
      const text = `max retries exceeded: ${errorMessage(cause)}`
      const hint = "Push again to go on: what the registry has is not sent again"
      throw new CriaError("unavailable", text, { hint, cause })
    }
    await pauseAfter(cause, this.#failures, patience, signal)
    if (isLost) {
      notes.remove(client.base, digest)
      this.#url = undefined
    } else if (session?.storage === undefined) this.#url = session?.url ?? this.#url
    // The registry does not know of parts that went to its storage: this process does.
    else return
    await session?.storage?.[Symbol.asyncDispose]()
    this.#session = undefined
  }
}

function newSession(url: URL, offset: number): Session {
  return { start: offset, url, offset, parts: [], storage: undefined }
}

/** Bytes that the registry has, by its `Range` header: `0-99` is 100 of them. */
function stored(response: Response): number | undefined {
  const [, end] = /^(?:bytes=)?0-(\d+)$/.exec(response.headers.get("Range") ?? "") ?? []
  return end === undefined ? undefined : Number(end) + 1
}

function notTaken({ host }: URL): CriaError {
  const text = `"${host}" takes a part and has none of it`
  return new CriaError("unavailable", text, { cause: new Fault("broken") })
}
