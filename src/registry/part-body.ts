/**
 * The bytes of a part of a file, as they are sent, and what is known of them afterwards.
 *
 * @module
 */

import { createHash } from "node:crypto"
import { open } from "node:fs/promises"

import { CriaError } from "../util/errors.ts"
import type { ByteRange } from "./site.ts"

/** Bytes read from the file at a time. Even a sixteenth of 1 Mbit/s takes so much in half a minute. */
const READ_BYTES = 2 ** 18

/** A part under way. Each call of {@link pieces} begins anew, and what an earlier one does counts no more. */
export class PartBody {
  readonly range: ByteRange
  readonly #path: string
  #attempt = 0
  #sent = 0
  #md5: Buffer | undefined

  constructor(path: string, range: ByteRange) {
    this.#path = path
    this.range = range
  }

  get size(): number {
    return this.range.end - this.range.start
  }

  /** Bytes that the connection has taken in this attempt. */
  get sentBytes(): number {
    return this.#sent
  }

  /** Of all bytes; undefined until an attempt has read them. */
  get md5(): Buffer | undefined {
    return this.#md5
  }

  /** The bytes. @throws {CriaError} `internal` when the file is shorter than it was. */
  async *pieces(): AsyncGenerator<Uint8Array, void> {
    const attempt = ++this.#attempt
    this.#sent = 0
    const md5 = createHash("md5")
    const { start, end } = this.range
    await using file = await open(this.#path, "r")
    for (let at = start; at < end;) {
      const bytes = new Uint8Array(Math.min(READ_BYTES, end - at))
      // One piece after the other.
      // oxlint-disable-next-line no-await-in-loop
      const { bytesRead } = await file.read(bytes, 0, bytes.length, at)
      if (bytesRead === 0) throw new CriaError("internal", `"${this.#path}" has become shorter`)
      const piece = bytes.subarray(0, bytesRead)
      md5.update(piece)
      yield piece
      at += bytesRead
      if (attempt === this.#attempt) this.#sent = at - start
    }
    if (attempt === this.#attempt) this.#md5 = md5.digest()
  }
}
