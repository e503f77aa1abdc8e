/**
 * Fetches one blob: parts in parallel, each tried again until it is there; the digest is checked as the bytes come.
 *
 * Everything that has arrived stays on disk when it is cancelled or fails, except bytes whose digest is wrong.
 *
 * @module
 */

import { statSync } from "node:fs"
import { setTimeout as delay } from "node:timers/promises"

import { blobFilePath, type Digest } from "../store/digest.ts"
import { type FileLock, tryFileLock } from "../store/lock.ts"
import type { StoreWriter } from "../store/writer.ts"
import { CriaError, errorMessage } from "../util/errors.ts"
import { discard, Fault, faultOf, isPassing, unreachable } from "./http.ts"
import { digestMismatch, notedBytes, PartialBlob } from "./partial.ts"
import type { Part } from "./parts.ts"
import { type Patience, pauseAfter } from "./retry.ts"
import type { ByteRange } from "./site.ts"
import { StallWatch } from "./stall-watch.ts"

/** Something that has blobs: a repository of a registry, or one of files with digests. */
export interface BlobSource {
  /** Opens a part of a blob. The reply is 206 with these bytes, or 200 with all of them. */
  openBlob(digest: Digest, range: ByteRange, signal?: AbortSignal): Promise<Response>
}

/** What to fetch, from where, to where. */
export interface DownloadJob {
  readonly source: BlobSource
  readonly digest: Digest
  /** Bytes, as the manifest says. The registry must agree. */
  readonly size: number
  readonly writer: StoreWriter
  readonly patience: Patience
}

/** Connections at once: at the beginning, when a fast registry needs no more, and at the most, as many as Ollama's. */
const CONNECTIONS_FIRST = 2
const CONNECTIONS_MAX = 16

/** Another one joins so often, unless bytes come so fast that it would only cost memory: bytes per second. */
const JOIN_MS = 250
const FAST_RATE = 200e6

/** Bytes that a connection collects before it writes. */
const WRITE_BYTES = 2 ** 18

/** A connection that has brought so much may fail again as often as at first. */
const PROGRESS_BYTES = 64 * 1024

/** Between two looks at another process that fetches the same blob. */
const OTHER_POLL_MS = 200

/** Statuses that the next address, or the next moment, may not give. */
const PASSING_FOR_PARTS: ReadonlySet<number> = new Set([400, 401, 403, 410, 416])

/** See the module. */
export class Download {
  readonly totalBytes: number
  readonly #job: DownloadJob
  readonly #active = new Map<Part, { readonly startedAt: number; readonly from: number }>()
  /** Resolves when some part is no longer fetched. */
  #partEnded = Promise.withResolvers<void>()
  #blob: PartialBlob | undefined
  #completed = 0

  constructor(job: DownloadJob) {
    this.#job = job
    this.totalBytes = job.size
  }

  /** Bytes on disk. Never goes back. */
  get completedBytes(): number {
    this.#completed = Math.max(this.#completed, this.#blob?.completedBytes ?? 0)
    return this.#completed
  }

  /**
   * Resolves when the blob is in the store.
   *
   * @throws {CriaError} What went wrong; the signal's reason when it was aborted.
   */
  async run(signal: AbortSignal): Promise<void> {
    const { digest, writer } = this.#job
    const path = writer.partialPath(digest)
    using lock = await this.#lock(path, signal)
    if (lock === undefined) return
    await using blob = await PartialBlob.open(path, this.totalBytes)
    this.#blob = blob
    await this.#fetch(blob, signal)
    await blob.flush()
    writer.adoptBlob(path, digest)
    blob.removeNotes()
  }

  /** Waits for other processes; undefined when one of them has fetched the blob meanwhile. */
  async #lock(path: string, signal: AbortSignal): Promise<FileLock | undefined> {
    const { digest, writer } = this.#job
    const target = blobFilePath(writer.root, digest)
    for (;;) {
      signal.throwIfAborted()
      const lock = tryFileLock(writer.root, digest)
      // A blob of another size is one that something has damaged: it is replaced.
      if (statSync(target, { throwIfNoEntry: false })?.size === this.totalBytes) {
        lock?.[Symbol.dispose]()
        this.#completed = this.totalBytes
        return undefined
      }
      if (lock !== undefined) return lock
      this.#completed = Math.max(this.#completed, notedBytes(path))
      // Waiting is the point of the loop.
      // oxlint-disable-next-line no-await-in-loop
      await delay(OTHER_POLL_MS, undefined, { signal })
    }
  }

  /** Fetches all parts and hashes along. The first failure ends everything. */
  async #fetch(blob: PartialBlob, signal: AbortSignal): Promise<void> {
    const failure = new AbortController()
    const both = AbortSignal.any([signal, failure.signal])
    const workers: Promise<void>[] = []
    const guarded = async (work: Promise<unknown>): Promise<void> => {
      try {
        await work
      } catch (error) {
        failure.abort(error)
      }
    }
    // The first connection alone finds out whether the registry gives parts at all.
    let hex = ""
    const hashing = guarded(blob.hash(both).then((digest) => (hex = digest)))
    const addWorker = () => workers.push(guarded(this.#work(blob, both)))
    const onProbed = (givesParts: boolean) => {
      if (!givesParts) return
      const count = Math.min(CONNECTIONS_FIRST, blob.parts.length)
      for (let i = 1; i < count; i++) addWorker()
      void this.#addWorkers(blob, addWorker, both)
    }
    workers.push(guarded(this.#work(blob, both, onProbed)))
    // No more begin once the first has ended: it goes on until nothing is left to do.
    await Promise.all([hashing, workers[0]])
    await Promise.all(workers)
    signal.throwIfAborted()
    if (failure.signal.aborted) throw failure.signal.reason
    if (this.#job.digest === `sha256:${hex}`) return
    blob.remove()
    throw digestMismatch(this.#job.digest, hex)
  }

  /** Adds connections while there are parts that nobody fetches and bytes come slowly. */
  async #addWorkers(blob: PartialBlob, add: () => void, signal: AbortSignal): Promise<void> {
    for (let count = CONNECTIONS_FIRST; count < CONNECTIONS_MAX;) {
      const before = blob.completedBytes
      // Watching is the point of the loop.
      // oxlint-disable-next-line no-await-in-loop
      await this.#wait(JOIN_MS, signal).catch(() => {})
      if (signal.aborted || this.#nextPart(blob) === undefined) return
      if ((blob.completedBytes - before) / (JOIN_MS / 1000) > FAST_RATE) continue
      add()
      count++
    }
  }

  /** One connection after the other, until nothing is left to do. */
  async #work(
    blob: PartialBlob,
    signal: AbortSignal,
    onProbed: (givesParts: boolean) => void = () => {},
  ): Promise<void> {
    let probed: ((givesParts: boolean) => void) | undefined = onProbed
    for (;;) {
      const part = this.#claim(blob)
      if (part !== undefined) {
        // A worker does one thing after the other.
        // oxlint-disable-next-line no-await-in-loop
        await this.#fetchPart(blob, part, signal, probed)
        probed = undefined
      } else if (this.#active.size > 0) {
        // oxlint-disable-next-line no-await-in-loop
        await Promise.race([
          this.#wait(this.#job.patience.stealMs / 4, signal),
          this.#partEnded.promise,
        ])
      } else return
    }
  }

  /** The next part that nobody fetches, else the end of one that takes long. */
  #claim(blob: PartialBlob): Part | undefined {
    const part = this.#nextPart(blob) ?? this.#steal(blob)
    if (part !== undefined) {
      this.#active.set(part, { startedAt: performance.now(), from: part.completed })
    }
    return part
  }

  #nextPart(blob: PartialBlob): Part | undefined {
    return blob.parts.find((part) => part.completed < part.size && !this.#active.has(part))
  }

  /** Does not keep the process alive. */
  #wait(ms: number, signal: AbortSignal): Promise<void> {
    return delay(ms, undefined, { signal, ref: false })
  }

  #steal(blob: PartialBlob): Part | undefined {
    const now = performance.now()
    const leftMs = (part: Part) => {
      const { startedAt, from } = this.#active.get(part) ?? { startedAt: now, from: 0 }
      const elapsed = now - startedAt
      if (elapsed < this.#job.patience.stealMs / 2) return 0
      return ((part.size - part.completed) / Math.max(1, part.completed - from)) * elapsed
    }
    const [slowest] = [...this.#active.keys()].toSorted((a, b) => leftMs(b) - leftMs(a))
    if (slowest === undefined || leftMs(slowest) < this.#job.patience.stealMs) return undefined
    return blob.split(slowest)
  }

  async #fetchPart(
    blob: PartialBlob,
    claimed: Part,
    signal: AbortSignal,
    onProbed?: (givesParts: boolean) => void,
  ): Promise<void> {
    let part = claimed
    let failures = 0
    let probed = onProbed
    try {
      while (part.completed < part.size) {
        const before = part.completed
        const stream = new PartStream(this.#job, signal)
        try {
          // Attempts come one after the other.
          // oxlint-disable-next-line no-await-in-loop
          const givesParts = await stream.open(part)
          if (!givesParts && probed !== undefined) part = this.#joinParts(blob, part)
          probed?.(givesParts)
          probed = undefined
          // oxlint-disable-next-line no-await-in-loop
          await stream.copy(blob, part)
        } catch (error) {
          signal.throwIfAborted()
          const isMoving = part.completed - before >= PROGRESS_BYTES
          failures = isMoving ? 0 : failures + 1
          // A connection that went quiet after it had worked is replaced at once.
          if (stream.isStalled && isMoving) continue
          // oxlint-disable-next-line no-await-in-loop
          await this.#pause(error, failures, signal)
        }
      }
    } finally {
      this.#active.delete(part)
      blob.note(part)
      this.#partEnded.resolve()
      this.#partEnded = Promise.withResolvers()
    }
  }

  #joinParts(blob: PartialBlob, claimed: Part): Part {
    this.#completed = this.completedBytes
    this.#active.delete(claimed)
    const whole = blob.joinParts()
    this.#active.set(whole, { startedAt: performance.now(), from: whole.completed })
    return whole
  }

  async #pause(error: unknown, failures: number, signal: AbortSignal): Promise<void> {
    const fault = faultOf(error)
    const isPassable =
      isPassing(error) || fault?.kind === "refused" || PASSING_FOR_PARTS.has(fault?.status ?? 0)
    if (!isPassable) throw error
    if (failures >= this.#job.patience.tries) {
      const text = `max retries exceeded: ${errorMessage(error)}`
      throw new CriaError("unavailable", text, {
        hint: "What has arrived is kept: pull again to go on from there",
        cause: error,
      })
    }
    await pauseAfter(error, Math.max(1, failures), this.#job.patience, signal)
  }
}

/** One reply of the registry, on its way to the disk. */
class PartStream {
  isStalled = false
  readonly #job: DownloadJob
  readonly #signal: AbortSignal
  readonly #stop = new AbortController()
  #response: Response | undefined
  /** Bytes of the reply that come before those of the part. */
  #skip = 0

  constructor(job: DownloadJob, signal: AbortSignal) {
    this.#job = job
    this.#signal = AbortSignal.any([signal, this.#stop.signal])
  }

  /** Sends the request. False when the registry ignores ranges and sends the whole blob. */
  async open(part: Part): Promise<boolean> {
    const { source, digest, size } = this.#job
    const range = { start: part.offset + part.completed, end: part.offset + part.size }
    const response = await source.openBlob(digest, range, this.#signal)
    this.#response = response
    if (response.status === 200) {
      const length = response.headers.get("Content-Length")
      if (length !== null && Number(length) !== size) throw await this.#sizeError(length)
      this.#skip = range.start
      // A request for all of it is answered the same way by those who know ranges.
      return range.start === 0 && range.end === size
    }
    const [, start, , total] =
      /^bytes (\d+)-(\d+)\/(\d+|\*)$/.exec(response.headers.get("Content-Range") ?? "") ?? []
    if (total !== undefined && total !== "*" && Number(total) !== size) {
      throw await this.#sizeError(total)
    }
    if (Number(start) !== range.start) {
      await discard(response)
      const got = response.headers.get("Content-Range") ?? "none"
      throw broken(response, `sent range "${got}" for bytes ${range.start}-${range.end - 1}`)
    }
    return true
  }

  /** Copies what the part lacks. @throws When the reply ends early or goes quiet. */
  async copy(blob: PartialBlob, part: Part): Promise<void> {
    const response = this.#response
    if (response === undefined || response.body === null)
      throw new CriaError("unavailable", "the registry sent nothing")
    using watch = new StallWatch(this.#job.patience.stallMs, () => {
      this.isStalled = true
      this.#stop.abort(new Error("stalled"))
    })
    let chunks: Uint8Array[] = []
    let collected = 0
    const write = async () => {
      const full = chunks
      chunks = []
      collected = 0
      await blob.append(part, full)
      for (const chunk of full) free(chunk)
    }
    try {
      // The part may become shorter meanwhile.
      const room = () => Math.max(0, part.size - part.completed - collected)
      for await (const received of response.body) {
        watch.touch()
        const skipped = Math.min(this.#skip, received.length)
        this.#skip -= skipped
        const chunk = received.subarray(skipped, skipped + room())
        if (chunk.length > 0) chunks.push(chunk)
        collected += chunk.length
        if (collected >= WRITE_BYTES || room() <= 0) await write()
        if (room() <= 0) break
      }
      if (room() > 0) throw broken(response, "the connection ended early")
    } catch (error) {
      throw error instanceof CriaError ? error : broken(response, errorMessage(error), error)
    } finally {
      if (collected > 0) await write()
      await discard(response)
    }
  }

  async #sizeError(said: string): Promise<CriaError> {
    const { digest, size } = this.#job
    if (this.#response !== undefined) await discard(this.#response)
    return new CriaError(
      "unavailable",
      `Cannot pull ${digest}: the registry has ${said} bytes, its manifest says ${size}`,
    )
  }
}

/** Gives memory back at once that the collector would give back later: at a gigabyte per second, much later. */
function free({ buffer, byteLength }: Uint8Array): void {
  if (buffer instanceof ArrayBuffer && byteLength === buffer.byteLength) buffer.transfer(0)
}

function broken(response: Response, problem: string, cause?: unknown): CriaError {
  const url = new URL(response.url)
  if (cause !== undefined) return unreachable(url, cause)
  const text = `Cannot read from "${url.host}": ${problem}`
  return new CriaError("unavailable", text, { cause: new Fault("broken") })
}
