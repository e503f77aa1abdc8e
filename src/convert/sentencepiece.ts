/**
 * Reads `tokenizer.model`, the file of Google's SentencePiece: a protocol buffer with pieces, scores and types.
 *
 * Owns as much of the encoding of protocol buffers as that takes. Fields that are not needed are skipped.
 *
 * @module
 */

import type { ModelFolder } from "./folder.ts"

/** A piece of the vocabulary; types are those of the file and of GGUF alike. */
export interface Piece {
  readonly text: string
  readonly score: number
  readonly type: number
}

/** What a piece is (`ModelProto.SentencePiece.Type`, `enum llama_token_type`). */
export const TOKEN_TYPES = {
  normal: 1,
  unknown: 2,
  control: 3,
  userDefined: 4,
  unused: 5,
  byte: 6,
} as const

/** More than the largest vocabulary in use, 262k. */
const PIECES_MAX: number = 2 ** 21

/**
 * The pieces of a vocabulary, by their number.
 *
 * @throws {CriaError} `invalid-input` when the file is not one of SentencePiece.
 */
export function readSentencePieces(folder: ModelFolder, name: string): Piece[] {
  const wrong = (): Error => folder.wrong(name, "it is not a SentencePiece model")
  const pieces: Piece[] = []
  // ModelProto: 1 is a piece.
  for (const { field, bytes } of fields(folder.bytes(name), wrong)) {
    if (field === 1 && bytes !== undefined) pieces.push(pieceOf(bytes, wrong))
    if (pieces.length > PIECES_MAX) throw wrong()
  }
  if (pieces.length === 0) throw wrong()
  return pieces
}

/** SentencePiece: 1 is the text, 2 the score, 3 the type. */
function pieceOf(message: Uint8Array, wrong: () => Error): Piece {
  let text = ""
  let score = 0
  let type: number = TOKEN_TYPES.normal
  for (const { field, bytes, value } of fields(message, wrong)) {
    if (field === 1 && bytes !== undefined) text = new TextDecoder().decode(bytes)
    if (field === 2 && bytes?.length === 4) score = viewOf(bytes).getFloat32(0, true)
    if (field === 3 && value !== undefined) type = value
  }
  // What users added to a SentencePiece model are pieces like others to llama.cpp.
  return { text, score, type: type === TOKEN_TYPES.userDefined ? TOKEN_TYPES.normal : type }
}

interface Field {
  readonly field: number
  /** Of numbers of variable length. */
  readonly value: number | undefined
  /** Of everything else. */
  readonly bytes: Uint8Array | undefined
}

/** The fields of a message. A length that lies ends in the error. */
function* fields(message: Uint8Array, wrong: () => Error): Generator<Field> {
  const reader = new WireReader(message, wrong)
  while (reader.hasMore) {
    const tag = reader.varint()
    const field = Math.floor(tag / 8)
    const wire = tag % 8
    if (wire === 0) yield { field, value: reader.varint(), bytes: undefined }
    else if (wire === 1) yield { field, value: undefined, bytes: reader.take(8) }
    else if (wire === 2) yield { field, value: undefined, bytes: reader.take(reader.varint()) }
    else if (wire === 5) yield { field, value: undefined, bytes: reader.take(4) }
    else throw wrong()
  }
}

/** A position in a message. */
class WireReader {
  readonly #message: Uint8Array
  readonly #wrong: () => Error
  #at = 0

  constructor(message: Uint8Array, wrong: () => Error) {
    this.#message = message
    this.#wrong = wrong
  }

  get hasMore(): boolean {
    return this.#at < this.#message.length
  }

  /** A number of variable length. */
  varint(): number {
    let value = 0
    // Ten bytes hold 64 bits; what is above 2^53 is no number or length of ours.
    for (let shift = 0; shift < 70; shift += 7) {
      const byte = this.#message[this.#at]
      if (byte === undefined) break
      this.#at += 1
      value += (byte & 0x7f) * 2 ** shift
      if (byte < 0x80) return value
    }
    throw this.#wrong()
  }

  take(bytes: number): Uint8Array {
    if (bytes > this.#message.length - this.#at) throw this.#wrong()
    this.#at += bytes
    return this.#message.subarray(this.#at - bytes, this.#at)
  }
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
}
