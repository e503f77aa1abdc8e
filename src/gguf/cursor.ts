/**
 * Reads little-endian values forward through a file that nobody trusts.
 *
 * Owns the file descriptor, the window and every bounds check: no read goes past the end of the file or
 * past {@link MAX_HEADER_BYTES}, and nothing is allocated for bytes that are not there. Knows numbers and
 * strings, not what they mean; that is `read.ts`.
 *
 * @module
 */

import { closeSync, constants, fstatSync, openSync, readSync } from "node:fs"

import { CriaError, errorMessage } from "../util/errors.ts"

/**
 * The most bytes that metadata and tensor infos may take. Vocabularies of 262k tokens make headers of
 * 16 MB, the largest known; this leaves room for vocabularies eight times as long.
 */
export const MAX_HEADER_BYTES: number = 128 * 1024 * 1024

/**
 * The most bytes of one string in an array, so that each fits the window. Real tokens are below 1 KiB;
 * the 1 GiB that llama.cpp allows only serves to exhaust memory.
 */
export const MAX_ELEMENT_STRING_BYTES: number = 64 * 1024

/** Bytes held in memory at a time: large enough that a 16 MB header takes 64 reads. */
const WINDOW_BYTES = 256 * 1024

/** Characters of foreign text repeated in an error message. */
const QUOTED_CHARACTERS = 60

/** Foreign text for an error message: quoted, control characters escaped, cut when long. */
export function quote(text: string): string {
  const cut = text.length > QUOTED_CHARACTERS ? `${text.slice(0, QUOTED_CHARACTERS)}…` : text
  return JSON.stringify(cut)
}

/** Where a header is read from: a file, or a part of memory. */
export interface ByteSource extends Disposable {
  readonly fileBytes: number
  /** Copies bytes from `offset` on; how many, 0 at the end. May copy fewer than there is room for. */
  read(target: Uint8Array, offset: number): number
}

/** Called for each string of an array: its bytes are `window[start .. start + bytes]`, valid during the call. */
type StringVisitor = (window: Uint8Array, start: number, bytes: number) => void

/**
 * A position in an open file. Use with `using`.
 *
 * Every method throws `invalid-input` when the bytes it wants are not there.
 */
export class Cursor implements Disposable {
  readonly fileBytes: number
  readonly #source: ByteSource
  readonly #label: string
  readonly #window: Uint8Array
  readonly #view: DataView
  readonly #decoder = new TextDecoder("utf-8", { ignoreBOM: true })
  /** The window holds the file's bytes `#windowOffset .. #windowOffset + #windowBytes`. */
  #windowOffset = 0
  #windowBytes = 0
  #offset = 0

  /**
   * @param source A path, or an open source, which the cursor owns.
   * @param label What error messages call the file.
   * @throws {CriaError} `not-found` when it does not exist, `invalid-input` when it cannot be opened or is
   *   not a regular file.
   */
  constructor(source: string | ByteSource, label: string) {
    this.#label = label
    this.#source = typeof source === "string" ? openFile(source, label) : source
    this.fileBytes = this.#source.fileBytes
    this.#window = new Uint8Array(Math.min(WINDOW_BYTES, this.fileBytes))
    this.#view = new DataView(this.#window.buffer)
  }

  [Symbol.dispose](): void {
    this.#source[Symbol.dispose]()
  }

  /** Bytes from the start of the file to the next value. */
  get offset(): number {
    return this.#offset
  }

  /** Bytes from the next value to the end of the file. */
  get remaining(): number {
    return this.fileBytes - this.#offset
  }

  /** The error that names this file. */
  error(problem: string): CriaError {
    return readError(this.#label, problem)
  }

  seek(offset: number): void {
    this.#offset = offset
  }

  skip(bytes: number, what: string): void {
    this.#check(bytes, what)
    this.#offset += bytes
  }

  u8(what: string): number {
    return this.#view.getUint8(this.#take(1, what))
  }

  i8(what: string): number {
    return this.#view.getInt8(this.#take(1, what))
  }

  u16(what: string): number {
    return this.#view.getUint16(this.#take(2, what), true)
  }

  i16(what: string): number {
    return this.#view.getInt16(this.#take(2, what), true)
  }

  u32(what: string): number {
    return this.#view.getUint32(this.#take(4, what), true)
  }

  i32(what: string): number {
    return this.#view.getInt32(this.#take(4, what), true)
  }

  f32(what: string): number {
    return this.#view.getFloat32(this.#take(4, what), true)
  }

  f64(what: string): number {
    return this.#view.getFloat64(this.#take(8, what), true)
  }

  u64(what: string): bigint {
    return this.#view.getBigUint64(this.#take(8, what), true)
  }

  i64(what: string): bigint {
    return this.#view.getBigInt64(this.#take(8, what), true)
  }

  /** Reads a count or length stored as `u64` and refuses it above `max`. */
  length(max: number, what: string): number {
    const value = this.u64(what)
    if (value > BigInt(max)) throw this.error(`${what} is ${value}, expected at most ${max}`)
    return Number(value)
  }

  /** Reads a string of at most `maxBytes`; invalid UTF-8 becomes U+FFFD. */
  string(maxBytes: number, what: string): string {
    const bytes = this.length(maxBytes, `length of ${what}`)
    return this.#decoder.decode(this.bytes(bytes, what))
  }

  /** Reads bytes; the result is valid until the next call. */
  bytes(bytes: number, what: string): Uint8Array {
    if (bytes <= WINDOW_BYTES) {
      const start = this.#take(bytes, what)
      return this.#window.subarray(start, start + bytes)
    }
    this.#check(bytes, what)
    const large = new Uint8Array(bytes)
    this.#fill(large)
    this.#offset += bytes
    return large
  }

  /** Passes over the strings of an array without decoding them. */
  skipStrings(count: number, what: string, visit?: StringVisitor): void {
    for (let index = 0; index < count; index += 1) {
      const prefix = this.#take(8, what)
      const bytes = this.#view.getUint32(prefix, true)
      if (bytes > MAX_ELEMENT_STRING_BYTES || this.#view.getUint32(prefix + 4, true) !== 0) {
        const length = this.#view.getBigUint64(prefix, true)
        throw this.error(
          `string ${index} of ${what} has ${length} bytes, expected at most ${MAX_ELEMENT_STRING_BYTES}`,
        )
      }
      const start = this.#take(bytes, what)
      visit?.(this.#window, start, bytes)
    }
  }

  /** Moves past `bytes` bytes and returns where in the window they start. */
  #take(bytes: number, what: string): number {
    let start = this.#offset - this.#windowOffset
    if (start < 0 || start + bytes > this.#windowBytes) {
      this.#check(bytes, what)
      this.#windowOffset = this.#offset
      this.#windowBytes = Math.min(this.#window.length, this.remaining)
      this.#fill(this.#window.subarray(0, this.#windowBytes))
      start = 0
    }
    this.#offset += bytes
    return start
  }

  #check(bytes: number, what: string): void {
    if (bytes > this.remaining) {
      throw this.error(
        `${what} needs ${bytes} bytes at offset ${this.#offset}, ${this.remaining} are left`,
      )
    }
    if (this.#offset + bytes > MAX_HEADER_BYTES) {
      throw this.error(
        `${what} ends beyond the first ${MAX_HEADER_BYTES} bytes, the most a header may take`,
      )
    }
  }

  /** Reads exactly `target.length` bytes at the position; they were inside the file when it was opened. */
  #fill(target: Uint8Array): void {
    let filled = 0
    while (filled < target.length) {
      const count = this.#read(target, filled)
      if (count === 0) throw this.error("it became shorter while it was read")
      filled += count
    }
  }

  #read(target: Uint8Array, filled: number): number {
    try {
      return this.#source.read(target.subarray(filled), this.#offset + filled)
    } catch (cause) {
      throw readError(this.#label, `reading it failed: ${errorMessage(cause)}`, { cause })
    }
  }
}

/** @throws {CriaError} See {@link Cursor}. */
function openFile(path: string, label: string): ByteSource {
  const fd = openDescriptor(path, label)
  const stats = fstatSync(fd)
  if (!stats.isFile()) {
    closeSync(fd)
    const kind = stats.isDirectory() ? "a directory" : "a device, pipe or socket"
    throw readError(label, `it is ${kind}, not a file`)
  }
  return {
    fileBytes: stats.size,
    read: (target, offset) => readSync(fd, target, 0, target.length, offset),
    [Symbol.dispose]: () => closeSync(fd),
  }
}

/** Opens without waiting: a FIFO nobody writes to would block a plain open for ever. */
function openDescriptor(path: string, label: string): number {
  try {
    return openSync(path, constants.O_RDONLY | constants.O_NONBLOCK)
  } catch (cause) {
    const code = cause instanceof Error && "code" in cause ? cause.code : undefined
    switch (code) {
      case "ENOENT":
      case "ENOTDIR":
        throw new CriaError(
          "not-found",
          `Cannot read ${JSON.stringify(label)} as GGUF: no such file`,
          { cause },
        )
      case "EACCES":
      case "EPERM":
        throw readError(label, "permission denied", {
          cause,
          hint: "give the user that runs cria the right to read it (chmod, chown)",
        })
      default:
        throw readError(label, `opening it failed with ${String(code ?? cause)}`, { cause })
    }
  }
}

function readError(
  label: string,
  problem: string,
  options: { readonly hint?: string; readonly cause?: unknown } = {},
): CriaError {
  return new CriaError(
    "invalid-input",
    `Cannot read ${JSON.stringify(label)} as GGUF: ${problem}`,
    options,
  )
}
