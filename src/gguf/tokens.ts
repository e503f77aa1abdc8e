/**
 * Checks the texts of a vocabulary one after the other, without decoding them.
 *
 * Refuses what crashes llama.cpp: byte tokens whose number is not hexadecimal (`<0x-1>` wrote before a heap
 * block), and texts that are there twice, on which it aborts.
 *
 * @module
 */

import { type Fail, MAX_TOKENS } from "./check.ts"
import { quote } from "./cursor.ts"

/**
 * Most slots looked at for one token. In a table at most half full, honest texts need below 100; more means
 * texts made to collide, which would take quadratic time.
 */
const MAX_PROBES = 256

/**
 * Remembers a 63-bit hash of every token it has seen. The chance that it mistakes two tokens of an honest
 * vocabulary of 262k for the same is 4 in 10^9.
 */
export class TokenChecker {
  readonly #fail: Fail
  /** A hash table with open addressing: two words per slot, the second 0 when the slot is free. */
  readonly #slots: Uint32Array
  readonly #mask: number
  #index = 0

  /** @param count Tokens that will be checked. */
  constructor(count: number, fail: Fail) {
    if (count > MAX_TOKENS) {
      throw fail(`the vocabulary has ${count} tokens, expected at most ${MAX_TOKENS}`)
    }
    const slotCount = 2 ** Math.ceil(Math.log2(2 * count + 1))
    this.#fail = fail
    this.#slots = new Uint32Array(2 * slotCount)
    this.#mask = slotCount - 1
  }

  /** Checks the next token: the bytes `window[start .. start + bytes]`. */
  check(window: Uint8Array, start: number, bytes: number): void {
    if (
      isByteToken(window, start, bytes) &&
      !(isHex(window[start + 3]) && isHex(window[start + 4]))
    ) {
      const text = textOf(window, start, bytes)
      throw this.#fail(`token ${this.#index} is ${text}, expected two hexadecimal digits`)
    }
    // llama.cpp gives empty tokens names of their own.
    if (bytes > 0 && !this.#add(window, start, bytes)) {
      const text = textOf(window, start, bytes)
      throw this.#fail(`token ${this.#index} is ${text} like one before it, expected each once`)
    }
    this.#index += 1
  }

  /** Adds a token; false when it is there already. */
  #add(window: Uint8Array, start: number, bytes: number): boolean {
    // FNV-1a, and beside it the same with another start and multiplier.
    let low = 0x811c9dc5
    let high = 0x9747b28c
    for (let at = start; at < start + bytes; at += 1) {
      const byte = window[at] ?? 0
      low = Math.imul(low ^ byte, 0x01000193)
      high = Math.imul(high ^ byte, 0x5bd1e995)
    }
    low = (low ^ (low >>> 15)) >>> 0
    high = (high | 1) >>> 0
    for (let probe = 0; probe < MAX_PROBES; probe += 1) {
      const slot = 2 * ((low + probe) & this.#mask)
      if (this.#slots[slot + 1] === 0) {
        this.#slots[slot] = low
        this.#slots[slot + 1] = high
        return true
      }
      if (this.#slots[slot] === low && this.#slots[slot + 1] === high) return false
    }
    throw this.#fail(
      `token ${this.#index} collides with ${MAX_PROBES} others, expected a vocabulary of words`,
    )
  }
}

/** Whether the text is `<0x..>`, the form of a token that stands for one byte. */
function isByteToken(window: Uint8Array, start: number, bytes: number): boolean {
  return (
    bytes === 6 &&
    window[start] === 0x3c &&
    window[start + 1] === 0x30 &&
    window[start + 2] === 0x78 &&
    window[start + 5] === 0x3e
  )
}

function isHex(byte: number | undefined): boolean {
  return byte !== undefined && /^[\dA-Fa-f]$/.test(String.fromCharCode(byte))
}

function textOf(window: Uint8Array, start: number, bytes: number): string {
  return quote(new TextDecoder().decode(window.subarray(start, start + bytes)))
}
