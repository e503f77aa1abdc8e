/**
 * Sends parts of a blob to the storage behind a registry: several at a time, each tried again by itself.
 *
 * The registry names an address for each part. Its authorization does not go there.
 *
 * @module
 */

import { CriaError, errorMessage } from "../util/errors.ts"
import { discard, exchange, faultOf, isPassing, type Network, statusError } from "./http.ts"
import type { PartBody } from "./part-body.ts"
import { type Patience, pauseAfter } from "./retry.ts"

/** Parts on their way at once: Ollama's number. */
const PARTS_AT_ONCE = 16

/** See the module. Dispose it to end what is on its way. */
export class StorageParts implements AsyncDisposable {
  readonly #network: Network
  readonly #patience: Patience
  readonly #running = new Set<Promise<void>>()
  readonly #bodies: PartBody[] = []
  readonly #stop = new AbortController()
  readonly #signal: AbortSignal

  constructor(network: Network, patience: Patience, signal: AbortSignal) {
    this.#network = network
    this.#patience = patience
    this.#signal = AbortSignal.any([signal, this.#stop.signal])
  }

  /** Bytes sent. */
  get sentBytes(): number {
    return this.#bodies.reduce((sum, { sentBytes }) => sum + sentBytes, 0)
  }

  /** Waits until another part may be started: an address is good for minutes only, so that it is asked for after this. */
  async ready(): Promise<void> {
    while (this.#running.size >= PARTS_AT_ONCE) {
      // Whichever ends first.
      // oxlint-disable-next-line no-await-in-loop
      await Promise.race(this.#running)
      this.#signal.throwIfAborted()
    }
    this.#signal.throwIfAborted()
  }

  /** Begins to send a part. */
  start(url: URL, body: PartBody): void {
    this.#bodies.push(body)
    const sent = this.#send(url, body)
      .catch((error: unknown) => this.#stop.abort(error))
      .finally(() => this.#running.delete(sent))
    this.#running.add(sent)
  }

  /** Resolves when all parts are there. @throws {CriaError} What the first that failed has failed with. */
  async finished(): Promise<void> {
    await Promise.all(this.#running)
    this.#signal.throwIfAborted()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort(new CriaError("unavailable", "the upload has ended"))
    await Promise.all(this.#running)
  }

  async #send(url: URL, body: PartBody): Promise<void> {
    for (let failures = 1; ; failures++) {
      try {
        // Attempts come one after the other.
        // oxlint-disable-next-line no-await-in-loop
        return await this.#put(url, body)
      } catch (error) {
        this.#signal.throwIfAborted()
        const isAway = isPassing(error) || faultOf(error)?.kind === "refused"
        if (!isAway) throw error
        if (failures >= this.#patience.tries) {
          const text = `max retries exceeded: ${errorMessage(error)}`
          throw new CriaError("unavailable", text, { cause: error })
        }
        // oxlint-disable-next-line no-await-in-loop
        await pauseAfter(error, failures, this.#patience, this.#signal)
      }
    }
  }

  async #put(url: URL, body: PartBody): Promise<void> {
    const response = await exchange(this.#network, {
      method: "PUT",
      url,
      headers: { "Content-Length": String(body.size) },
      signal: this.#signal,
      body: body.pieces(),
    })
    if (!response.ok) {
      throw await statusError(response, `Sent a part to "${url.host}"`, this.#network)
    }
    await discard(response)
  }
}
