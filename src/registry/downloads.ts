/**
 * Downloads that run: one per blob, shared by everybody who waits for it.
 *
 * A download is cancelled when the last of them leaves; what has arrived stays on disk.
 *
 * @module
 */

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
  readonly #running = new Map<string, Running>()

  /**
   * Joins the download of a blob, or starts it. One that somebody says is of another size is a download of its own,
   * which waits for the files as other processes do: who is wrong finds out by itself.
   */
  join(job: DownloadJob): SharedDownload {
    const key = keyOf(job)
    const running = this.#running.get(key) ?? this.#start(job)
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
        if (this.#running.get(key) === running) this.#running.delete(key)
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
    const key = keyOf(job)
    const download = new Download(job)
    const cancel = new AbortController()
    const done = download.run(cancel.signal)
    const running: Running = { download, done, cancel, waiters: 0 }
    const forget = () => {
      if (this.#running.get(key) === running) this.#running.delete(key)
    }
    done.then(forget, forget)
    this.#running.set(key, running)
    return running
  }
}

function keyOf({ digest, size }: DownloadJob): string {
  return `${digest} ${size}`
}
