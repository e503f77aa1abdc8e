/**
 * What a template computes with: Go's values as far as templates can see them.
 *
 * `bigint` is Go's `int` and `number` its `float64`. `null` is a nil interface, such as a map's missing entry;
 * `undefined` is no value at all. Both print as `<no value>`; only a field of the first is an error.
 *
 * @module
 */

import type { Sink } from "./sink.ts"

/** Any value. */
export type Value =
  | undefined
  | null
  | boolean
  | bigint
  | number
  | string
  | GoList
  | GoMap
  | GoStruct

/** Go's name of the type without methods. */
export const ANY_TYPE = "interface {}"

/** What values with parts can have beside them. */
interface Described {
  /** As Go names it, such as `[]string`. */
  readonly type: string
  /** Prints something in place of the parts: a type with a `String` method. */
  readonly print?: ((sink: Sink) => void) | undefined
}

/** A slice: a part of an array, which it shares. */
export class GoList {
  readonly length: number
  readonly type: string
  readonly print: ((sink: Sink) => void) | undefined
  readonly #array: readonly Value[]
  readonly #start: number

  constructor(
    array: readonly Value[],
    {
      type = `[]${ANY_TYPE}`,
      print,
      start = 0,
      end = array.length,
    }: Partial<Described> & { start?: number; end?: number } = {},
  ) {
    this.#array = array
    this.#start = start
    this.length = end - start
    this.type = type
    this.print = print
  }

  at(index: number): Value {
    return this.#array[this.#start + index]
  }

  /** From one index up to another; what it prints in place of its items is not that of the whole. */
  slice(start: number, end: number): GoList {
    const at = this.#start
    return new GoList(this.#array, { type: this.type, start: at + start, end: at + end })
  }

  *[Symbol.iterator](): Generator<Value> {
    for (let i = 0; i < this.length; i += 1) yield this.at(i)
  }
}

/** A map with texts as keys; it is walked in the order of the keys. */
export class GoMap {
  readonly entries: ReadonlyMap<string, Value>
  readonly type: string
  readonly print: ((sink: Sink) => void) | undefined
  /** What a missing key gives. */
  readonly zero: Value
  #sorted: readonly [string, Value][] | undefined

  constructor(
    entries: ReadonlyMap<string, Value>,
    {
      type = `map[string]${ANY_TYPE}`,
      print,
      zero = null,
    }: Partial<Described> & { zero?: Value } = {},
  ) {
    this.entries = entries
    this.type = type
    this.print = print
    this.zero = zero
  }

  /** In the order in which Go prints and ranges them. */
  sorted(): readonly [string, Value][] {
    // Once, however often a loop asks.
    this.#sorted ??= [...this.entries].toSorted(([a], [b]) => compareStrings(a, b))
    return this.#sorted
  }
}

/** A field of a struct. */
export interface GoField {
  readonly value: Value
  /** Name in JSON; undefined leaves the field out. */
  readonly json?: string
  /** What stands in JSON when it is not the value. */
  readonly jsonValue?: Value
  /** Left out of JSON when it is empty. */
  readonly omitEmpty?: boolean
}

/** A struct: asking for a field that it does not have is an error. */
export class GoStruct {
  readonly fields: ReadonlyMap<string, GoField>
  readonly type: string
  readonly print: ((sink: Sink) => void) | undefined

  constructor(fields: ReadonlyMap<string, GoField>, { type, print }: Described) {
    this.fields = fields
    this.type = type
    this.print = print
  }
}

/** Go's name for the type of a value. */
export function typeOf(value: Value): string {
  if (value === undefined || value === null) return "<nil>"
  return typeof value === "object" ? value.type : (BASIC_TYPES[typeof value] ?? "")
}

const BASIC_TYPES: Readonly<Record<string, string>> = {
  boolean: "bool",
  bigint: "int",
  number: "float64",
  string: "string",
}

/** Whether `if` takes the value for true: neither zero nor empty. */
export function isTrue(value: Value): boolean {
  if (value instanceof GoList) return value.length > 0
  if (value instanceof GoMap) return value.entries.size > 0
  if (value instanceof GoStruct) return true
  // NaN is not zero.
  return typeof value === "number" ? value !== 0 : Boolean(value)
}

/** Compares as Go does, by the bytes of UTF-8: that is the order of code points, not that of UTF-16. */
export function compareStrings(a: string, b: string): number {
  const length = Math.min(a.length, b.length)
  for (let i = 0; i < length; i += 1) {
    const x = a.charCodeAt(i)
    const y = b.charCodeAt(i)
    if (x !== y) return isSurrogate(x) === isSurrogate(y) ? x - y : isSurrogate(x) ? 1 : -1
  }
  return a.length - b.length
}

function isSurrogate(code: number): boolean {
  return code >= 0xd800 && code <= 0xdfff
}

const NON_ASCII = /[^\0-\u007F]/

/** Bytes of a text in UTF-8. */
export function byteLength(text: string): number {
  let bytes = text.length
  for (let i = 0; i < text.length; i += 1) {
    const code = text.charCodeAt(i)
    if (code < 0x80) continue
    // Each half of a pair is two bytes of the four. Half a pair alone becomes U+FFFD, which is three.
    bytes += code < 0x800 || isPairedAt(text, i) ? 1 : 2
  }
  return bytes
}

function isPairedAt(text: string, i: number): boolean {
  const code = text.charCodeAt(i)
  if (!isSurrogate(code)) return false
  const isHigh = code < 0xdc00
  const other = text.charCodeAt(isHigh ? i + 1 : i - 1)
  return isHigh ? other >= 0xdc00 && other <= 0xdfff : other >= 0xd800 && other < 0xdc00
}

/** A part of a text by byte offsets. Characters that are cut through become U+FFFD. */
export function byteSlice(text: string, start: number, end: number): string {
  if (!NON_ASCII.test(text)) return text.slice(start, end)
  return new TextDecoder("utf-8", { ignoreBOM: true }).decode(
    new TextEncoder().encode(text).subarray(start, end),
  )
}

/** One byte of a text. */
export function byteAt(text: string, index: number): number {
  return NON_ASCII.test(text)
    ? (new TextEncoder().encode(text)[index] ?? 0)
    : text.charCodeAt(index)
}
