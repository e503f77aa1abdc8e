/**
 * Archives in the tar format, as streams: regular files only.
 *
 * Owns the format on the way in and out. No name in an archive is ever a path here: what a name means is the caller's.
 * Memory is one chunk, whatever the archive says.
 *
 * @module
 */

import { CriaError } from "./errors.ts"

/** A file to write: exactly `size` bytes. */
export interface TarSource {
  /** At most 100 bytes. */
  readonly name: string
  readonly size: number
  readonly content: Iterable<Uint8Array> | AsyncIterable<Uint8Array>
}

/** A file of an archive. Its content has to be read, or left, before the next one. */
export interface TarEntry {
  readonly name: string
  readonly size: number
  readonly content: AsyncIterable<Uint8Array>
}

const BLOCK_BYTES = 512

/** The most that eleven octal digits can say; beyond it a record before the file says the size. */
const OCTAL_SIZE_MAX = 8 ** 11 - 1

/** Longest record of names and sizes that is read. */
const RECORD_BYTES_MAX = 64 * 1024

/**
 * Writes an archive.
 *
 * @throws {Error} When a source has more or fewer bytes than it says: it has changed meanwhile.
 */
export async function* writeTar(
  sources: Iterable<TarSource> | AsyncIterable<TarSource>,
): AsyncGenerator<Uint8Array, void> {
  for await (const { name, size, content } of sources) {
    if (size > OCTAL_SIZE_MAX) {
      const record = sizeRecord(size)
      yield header("pax", record.length, "x")
      yield record
      yield padding(record.length)
    }
    yield header(name, Math.min(size, OCTAL_SIZE_MAX), "0")
    let bytes = 0
    for await (const chunk of content) {
      bytes += chunk.length
      if (bytes <= size) yield chunk
    }
    if (bytes !== size) throw new CriaError("conflict", `"${name}" has ${bytes} bytes, not ${size}`)
    yield padding(size)
  }
  yield new Uint8Array(2 * BLOCK_BYTES)
}

/** Bytes of the archive that {@link writeTar} makes. */
export function tarBytes(sources: Iterable<Pick<TarSource, "size">>): number {
  let bytes = 2 * BLOCK_BYTES
  for (const { size } of sources) {
    const record = size > OCTAL_SIZE_MAX ? sizeRecord(size) : undefined
    if (record !== undefined) bytes += BLOCK_BYTES + padded(record.length)
    bytes += BLOCK_BYTES + padded(size)
  }
  return bytes
}

/** `<length> size=<bytes>\n`, where the length counts its own digits. */
function sizeRecord(size: number): Uint8Array {
  const rest = ` size=${size}\n`
  let length = rest.length
  while (`${length}${rest}`.length !== length) length = `${length}${rest}`.length
  return Buffer.from(`${length}${rest}`)
}

function header(name: string, size: number, type: string): Uint8Array {
  const block = Buffer.alloc(BLOCK_BYTES)
  if (block.write(name, 0, 101, "utf8") > 100) throw new Error(`"${name}" fits 100 bytes`)
  block.write("0000644\0", 100)
  block.write("0000000\0", 108)
  block.write("0000000\0", 116)
  block.write(`${size.toString(8).padStart(11, "0")}\0`, 124)
  block.write("00000000000\0", 136)
  block.write(type, 156)
  block.write("ustar\x0000", 257)
  block.write(`${checksum(block).toString(8).padStart(6, "0")}\0 `, 148)
  return block
}

/** The sum of all bytes, with blanks where the sum itself stands. */
function checksum(block: Uint8Array): number {
  return block.reduce((sum, byte, i) => sum + (i >= 148 && i < 156 ? 32 : byte), 0)
}

function padding(size: number): Uint8Array {
  return new Uint8Array(padded(size) - size)
}

/** Up to the end of the last block. */
function padded(size: number): number {
  return Math.ceil(size / BLOCK_BYTES) * BLOCK_BYTES
}

/**
 * Reads an archive, entry by entry.
 *
 * @throws {CriaError} `invalid-input` when it is no tar archive, ends early, or has links or devices.
 */
export async function* readTar(source: AsyncIterable<Uint8Array>): AsyncGenerator<TarEntry, void> {
  const reader = new BlockReader(source)
  let sizeOfNext: number | undefined
  let nameOfNext: string | undefined
  for (;;) {
    // Entries come one after the other.
    const block = await reader.block()
    if (block === undefined || block.every((byte) => byte === 0)) return
    const { name, size, type } = parseHeader(block)
    if (type === "x" || type === "L") {
      const record = await reader.record(size)
      if (type === "L") nameOfNext = record.replace(/\0.*$/s, "")
      else {
        sizeOfNext = Number(/^\d+ size=(\d{1,15})$/m.exec(record)?.[1] ?? NaN) || sizeOfNext
        nameOfNext = /^\d+ path=(.*)$/m.exec(record)?.[1] ?? nameOfNext
      }
      continue
    }
    if (type === "g") {
      await reader.record(size)
      continue
    }
    if (type === "5") continue
    if (type !== "0" && type !== "\0") {
      const text = `Cannot read the archive: "${name.slice(0, 100)}" is a link or a device, expected files`
      throw new CriaError("invalid-input", text)
    }
    const bytes = sizeOfNext ?? size
    reader.beginEntry(bytes)
    yield { name: nameOfNext ?? name, size: bytes, content: reader.content() }
    await reader.finishEntry()
    sizeOfNext = undefined
    nameOfNext = undefined
  }
}

function parseHeader(block: Buffer): { name: string; size: number; type: string } {
  const sum = parseInt(block.toString("latin1", 148, 156).replaceAll("\0", " ").trim(), 8)
  if (sum !== checksum(block)) {
    const isGzip = block[0] === 0x1f && block[1] === 0x8b
    const hint = isGzip ? "It is compressed: unpack it first with gunzip" : "Is it a tar archive?"
    throw new CriaError("invalid-input", "Cannot read the archive: a header is damaged", { hint })
  }
  const text = (start: number, end: number) =>
    block.toString("utf8", start, end).replace(/\0.*$/s, "")
  const prefix = text(257, 262) === "ustar" ? text(345, 500) : ""
  const name = prefix === "" ? text(0, 100) : `${prefix}/${text(0, 100)}`
  return { name, size: parseSize(block), type: String.fromCharCode(block[156] ?? 0) }
}

/** Octal digits, or a number of base 256 when the first bit is set. */
function parseSize(block: Buffer): number {
  const isBinary = ((block[124] ?? 0) & 0x80) !== 0
  const size = isBinary
    ? block.subarray(125, 136).reduce((value, byte) => value * 256 + byte, 0)
    : parseInt(block.toString("latin1", 124, 136).replaceAll("\0", " ").trim() || "0", 8)
  if (Number.isSafeInteger(size)) return size
  throw new CriaError("invalid-input", "Cannot read the archive: a size is no number")
}

/** A stream cut into what an archive is made of. */
class BlockReader {
  readonly #source: AsyncIterator<Uint8Array>
  #rest: Buffer = Buffer.alloc(0)
  /** Bytes of the entry that is being read, and of the padding behind it. */
  #left = 0
  #padding = 0

  constructor(source: AsyncIterable<Uint8Array>) {
    this.#source = source[Symbol.asyncIterator]()
  }

  /** The next 512 bytes; undefined at the end. */
  async block(): Promise<Buffer | undefined> {
    const first = await this.#take(BLOCK_BYTES)
    if (first.length === 0) return undefined
    return this.#fill(first, BLOCK_BYTES)
  }

  /** A short entry, as text. */
  async record(size: number): Promise<string> {
    if (size > RECORD_BYTES_MAX) {
      throw new CriaError("invalid-input", `Cannot read the archive: a name of ${size} bytes`)
    }
    const record = await this.#fill(Buffer.alloc(0), size)
    await this.#fill(Buffer.alloc(0), padding(size).length)
    return record.toString("utf8")
  }

  beginEntry(size: number): void {
    this.#left = size
    this.#padding = padding(size).length
  }

  /** What is left of the entry. */
  async *content(): AsyncGenerator<Uint8Array, void> {
    while (this.#left > 0) {
      const chunk = await this.#some(this.#left)
      this.#left -= chunk.length
      yield chunk
    }
  }

  /** Skips what nobody has read. */
  async finishEntry(): Promise<void> {
    while (this.#left > 0) this.#left -= (await this.#some(this.#left)).length
    await this.#fill(Buffer.alloc(0), this.#padding)
    this.#padding = 0
  }

  async #fill(start: Buffer, size: number): Promise<Buffer> {
    const chunks = [start]
    for (let missing = size - start.length; missing > 0;) {
      const chunk = await this.#some(missing)
      chunks.push(chunk)
      missing -= chunk.length
    }
    return Buffer.concat(chunks)
  }

  async #some(most: number): Promise<Buffer> {
    const chunk = await this.#take(most)
    if (chunk.length > 0) return chunk
    throw new CriaError("invalid-input", "Cannot read the archive: it ends early")
  }

  /** At least one byte and at most `most`; none at the end. */
  async #take(most: number): Promise<Buffer> {
    while (this.#rest.length === 0) {
      const { done, value } = await this.#source.next()
      if (done === true) return Buffer.alloc(0)
      this.#rest = Buffer.from(value.buffer, value.byteOffset, value.byteLength)
    }
    const taken = this.#rest.subarray(0, most)
    this.#rest = this.#rest.subarray(taken.length)
    return taken
  }
}
