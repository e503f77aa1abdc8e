/**
 * Downloads that run: one per blob, shared by everybody who waits for it.
 *
 * A download is cancelled when the last of them leaves; what has arrived stays on disk.
 *
 * @module
 */

import type { Digest } from "../store/digest.ts"
import { CriaError } from "../util/errors.ts"
import { Download, type DownloadJob } from "./download.ts"

/** A share in a download. Dispose it to leave. */
export interface SharedDownload extends AsyncDisposable {
  readonly totalBytes: number
  /** Bytes on disk. */
  readonly completedBytes: number
  /** Settles when the download has ended. */
  readonly done: Promise<void>
}

interface Running {
  readonly download: Download
  readonly done: Promise<void>
  readonly cancel: AbortController
  waiters: number
}

/** See the module. */
export class Downloads implements AsyncDisposable {
  readonly #running = new Map<Digest, Running>()

  /** Joins the download of a blob, or starts it. */
  join(job: DownloadJob): SharedDownload {
    const running = this.#running.get(job.digest) ?? this.#start(job)
    running.waiters++
    let isIn = true
    return {
      totalBytes: running.download.totalBytes,
      get completedBytes() {
        return running.download.completedBytes
      },
      done: running.done,
      [Symbol.asyncDispose]: async () => {
        if (!isIn) return
        isIn = false
        running.waiters--
        if (running.waiters > 0) return
        running.cancel.abort(new CriaError("unavailable", "the pull was cancelled"))
        // The next who wants it starts anew, and waits for the files as other processes do.
        if (this.#running.get(job.digest) === running) this.#running.delete(job.digest)
        await running.done.catch(() => {})
      },
    }
  }

  /** Ends all. */
  async [Symbol.asyncDispose](): Promise<void> {
    const all = [...this.#running.values()]
    for (const { cancel } of all) {
      cancel.abort(new CriaError("unavailable", "the server is stopping"))
    }
    await Promise.allSettled(all.map(({ done }) => done))
  }

  #start(job: DownloadJob): Running {
    const download = new Download(job)
    const cancel = new AbortController()
    const done = download.run(cancel.signal)
    const running: Running = { download, done, cancel, waiters: 0 }
    const forget = () => {
      if (this.#running.get(job.digest) === running) this.#running.delete(job.digest)
    }
    done.then(forget, forget)
    this.#running.set(job.digest, running)
    return running
  }
}
