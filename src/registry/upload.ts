/**
 * Sends one blob: in parts, going on after a failure where the registry says it is.
 *
 * Registries answer a part in one of two ways: they take it, or they point to the storage that shall have it; then
 * parts travel at the same time. An upload that was interrupted is gone on with, also by the next process.
 *
 * @module
 */

import { createHash } from "node:crypto"
import { open } from "node:fs/promises"

import type { Digest } from "../store/digest.ts"
import { CriaError } from "../util/errors.ts"
import type { RegistryClient } from "./client.ts"
import { discard, exchange, faultOf, isPassing, type Network, statusError } from "./http.ts"
import { type Patience, pauseAfter } from "./retry.ts"
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
}

/** Ollama's sizes, and its number of parts that travel at once. */
const PART_BYTES_MIN = 100_000_000
const PART_BYTES_MAX = 1_000_000_000
const PARTS_WANTED = 16

/** Bytes read from the file at a time. */
const READ_BYTES = 2 ** 20

/** Statuses that say that the upload is not what we think: ask the registry, or begin anew. */
const LOST: ReadonlySet<number> = new Set([400, 404, 409, 416])

interface Session {
  /** Where the next request goes. */
  url: URL
  /** Bytes that the registry has, or that are on their way. */
  offset: number
  /** MD5 of each part; undefined when an earlier process has sent some. */
  digests: Buffer[] | undefined
}

/** See the module. */
export class Upload {
  readonly totalBytes: number
  readonly #job: UploadJob
  /** Parts on their way to the registry's storage. */
  readonly #puts = new Set<Promise<void>>()
  #session: Session | undefined
  #sent = 0
  #shown = 0

  constructor(job: UploadJob) {
    this.#job = job
    this.totalBytes = job.size
  }

  /** Bytes sent. Never goes back. */
  get completedBytes(): number {
    this.#shown = Math.max(this.#shown, Math.min(this.#sent, this.totalBytes))
    return this.#shown
  }

  /**
   * Resolves when the registry has the blob.
   *
   * @throws {CriaError} What went wrong; the signal's reason when it was aborted.
   */
  async run(signal: AbortSignal): Promise<void> {
    const { client, digest, patience, notes } = this.#job
    if ((await client.blobBytes(digest, signal)) !== undefined) {
      this.#sent = this.totalBytes
      return
    }
    this.#session = await this.#goOn(notes.find(client.base, digest), signal)
    let reached = 0
    for (let failures = 1; ; failures++) {
      try {
        // Attempts come one after the other.
        // oxlint-disable-next-line no-await-in-loop
        await this.#attempt(signal)
        notes.remove(client.base, digest)
        this.#sent = this.totalBytes
        return
      } catch (error) {
        signal.throwIfAborted()
        if (this.#sent > reached) failures = 1
        reached = Math.max(reached, this.#sent)
        // oxlint-disable-next-line no-await-in-loop
        await this.#recover(error, failures, patience, signal)
      }
    }
  }

  async #attempt(signal: AbortSignal): Promise<void> {
    const { client, digest, size, mountFrom } = this.#job
    if (this.#session === undefined) {
      const start = await client.startUpload(digest, mountFrom, signal)
      if (start.kind === "mounted") return
      this.#session = { url: start.url, offset: 0, digests: [] }
    }
    const session = this.#session
    const partBytes = Math.min(
      Math.max(Math.ceil(size / PARTS_WANTED), PART_BYTES_MIN),
      PART_BYTES_MAX,
    )
    while (session.offset < size) {
      // Each part's reply says where the next one goes.
      // oxlint-disable-next-line no-await-in-loop
      await this.#sendPart(session, Math.min(session.offset + partBytes, size), signal)
    }
    await Promise.all(this.#puts)
    await this.#finish(session, signal)
  }

  async #sendPart(session: Session, end: number, signal: AbortSignal): Promise<void> {
    const { client, digest, notes } = this.#job
    const start = session.offset
    const body = new PartBody(this.#job.path, { start, end }, (sent) => (this.#sent = sent))
    const { response } = await client.follow({
      method: "PATCH",
      url: session.url,
      signal,
      headers: {
        "Content-Type": "application/octet-stream",
        "Content-Length": String(end - start),
        "Content-Range": `${start}-${end - 1}`,
        "X-Redirect-Uploads": "1",
      },
      body: () => body.stream(),
    })
    const location = response.headers.get("Location")
    if (response.status === 307 && location !== null) {
      await discard(response)
      const target = new URL(location, session.url)
      session.url = await client.uploadUrl(response, session.url)
      this.#startPut(session, target, { start, end }, signal)
    } else if (response.ok) {
      await discard(response)
      session.url = await client.uploadUrl(response, session.url)
      session.digests?.push(body.md5())
    } else throw await statusError(response, `Sent ${digest}`)
    session.offset = stored(response) ?? end
    this.#sent = session.offset
    notes.save(client.base, digest, session.url)
  }

  /** Sends a part to the registry's storage, without its authorization, while the next ones are asked for. */
  #startPut(
    session: Session,
    url: URL,
    { start, end }: { start: number; end: number },
    signal: AbortSignal,
  ): void {
    const index = session.digests?.push(Buffer.alloc(0)) ?? 0
    const put = async (): Promise<void> => {
      const body = new PartBody(this.#job.path, { start, end }, () => {})
      const headers = { "Content-Length": String(end - start) }
      const response = await exchange(this.#job.network, {
        method: "PUT",
        url,
        headers,
        signal,
        body: body.stream(),
      })
      if (!response.ok) throw await statusError(response, `Sent a part to "${url.host}"`)
      await discard(response)
      if (session.digests !== undefined) session.digests[index - 1] = body.md5()
    }
    const sent = put()
    this.#puts.add(sent)
    // Awaited with all others; until then a failure must not count as unhandled.
    sent.catch(() => {})
  }

  async #finish({ url, digests }: Session, signal: AbortSignal): Promise<void> {
    const { client, digest } = this.#job
    const target = new URL(url)
    target.searchParams.set("digest", digest)
    if (digests !== undefined) {
      const etag = createHash("md5").update(Buffer.concat(digests)).digest("hex")
      target.searchParams.set("etag", `${etag}-${digests.length}`)
    }
    const headers = { "Content-Length": "0" }
    const { response } = await client.follow({ method: "PUT", url: target, headers, signal })
    if (!response.ok) throw await statusError(response, `Finished the upload of ${digest}`)
    await discard(response)
  }

  /** After a failure: waits, and finds out where the registry is. */
  async #recover(
    cause: unknown,
    failures: number,
    patience: Patience,
    signal: AbortSignal,
  ): Promise<void> {
    await Promise.allSettled(this.#puts)
    this.#puts.clear()
    const status = faultOf(cause)?.status ?? 0
    const isLost = this.#session !== undefined && LOST.has(status)
    if (!(isPassing(cause) || isLost) || failures >= patience.tries) throw cause
    await pauseAfter(cause, failures, patience, signal)
    // Parts that went to the storage directly are not among what the registry says it has.
    this.#session = isLost ? undefined : await this.#goOn(this.#session?.url, signal)
    this.#sent = this.#session?.offset ?? 0
  }

  /** Asks how far an upload is; undefined when the registry does not know it. */
  async #goOn(url: URL | undefined, signal: AbortSignal): Promise<Session | undefined> {
    if (url === undefined) return undefined
    const { client } = this.#job
    try {
      const { response } = await client.follow({ method: "GET", url, signal })
      await discard(response)
      const offset = stored(response)
      if (!response.ok || offset === undefined || offset > this.totalBytes) return undefined
      return { url: await client.uploadUrl(response, url), offset, digests: undefined }
    } catch (error) {
      signal.throwIfAborted()
      if (error instanceof CriaError) return undefined
      throw error
    }
  }
}

/** Bytes that the registry has, by its `Range` header: `0-99` is 100 of them. */
function stored(response: Response): number | undefined {
  const [, end] = /^(?:bytes=)?0-(\d+)$/.exec(response.headers.get("Range") ?? "") ?? []
  // Nothing is written as 0-0, the same as one byte: to send that one again does no harm to those who check.
  return end === undefined ? undefined : end === "0" ? 0 : Number(end) + 1
}

/** The bytes of a part, as often as they have to be sent. */
class PartBody {
  readonly #path: string
  readonly #range: { readonly start: number; readonly end: number }
  readonly #onSent: (offset: number) => void
  #md5 = createHash("md5")

  constructor(
    path: string,
    range: { readonly start: number; readonly end: number },
    onSent: (offset: number) => void,
  ) {
    this.#path = path
    this.#range = range
    this.#onSent = onSent
  }

  stream(): ReadableStream<Uint8Array> {
    this.#md5 = createHash("md5")
    const chunks = this.#chunks()
    return new ReadableStream({
      async pull(controller) {
        const { value, done } = await chunks.next()
        if (done === true) controller.close()
        else controller.enqueue(value)
      },
      async cancel() {
        await chunks.return()
      },
    })
  }

  /** Of what the last stream has given. */
  md5(): Buffer {
    return this.#md5.digest()
  }

  async *#chunks(): AsyncGenerator<Uint8Array, void> {
    const { start, end } = this.#range
    await using file = await open(this.#path, "r")
    for (let at = start; at < end;) {
      const bytes = new Uint8Array(Math.min(READ_BYTES, end - at))
      // One piece after the other.
      // oxlint-disable-next-line no-await-in-loop
      const { bytesRead } = await file.read(bytes, 0, bytes.length, at)
      if (bytesRead === 0) throw new CriaError("internal", `"${this.#path}" has become shorter`)
      const chunk = bytes.subarray(0, bytesRead)
      this.#md5.update(chunk)
      yield chunk
      at += bytesRead
      this.#onSent(at)
    }
  }
}
