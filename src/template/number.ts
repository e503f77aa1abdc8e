/**
 * Number literals of templates: Go's integers, floating-point numbers and characters.
 *
 * @module
 */

import { unquote } from "./quote.ts"

/** What a literal can be used as. */
export interface NumberLiteral {
  readonly int: bigint | undefined
  readonly float: number
}

const INTEGER =
  /^([+-]?)(0[xX](?:_?[\da-fA-F])+|0[bB](?:_?[01])+|0[oO]?(?:_?[0-7])+|0|[1-9](?:_?\d)*)$/
const DECIMAL = /^[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?$/
const HEX_FLOAT = /^([+-]?)0[xX]([\da-fA-F]*)\.?([\da-fA-F]*)[pP]([+-]?\d+)$/

const INT_MAX = 2n ** 63n - 1n
const INT_MIN = -(2n ** 63n)

/** Reads a character constant, quotes included. @returns What is wrong when it is none. */
export function parseChar(text: string): NumberLiteral | string {
  const char = unquote(text) ?? ""
  const [first, second] = char
  if (first === undefined) return "invalid syntax"
  if (second !== undefined) return `malformed character constant: ${text}`
  const code = first.codePointAt(0) ?? 0
  return { int: BigInt(code), float: code }
}

/** Reads a number. @returns What is wrong, as Go words it, when it is none. */
export function parseNumber(text: string): NumberLiteral | string {
  const int = parseInteger(text)
  if (int !== undefined && int <= INT_MAX && int >= INT_MIN) return { int, float: Number(int) }
  if (int !== undefined && int <= 2n ** 64n - 1n && int > 0n) {
    return { int: undefined, float: Number(int) }
  }
  const float = parseFloat(text)
  if (float === undefined) return `illegal number syntax: ${JSON.stringify(text)}`
  if (!/[.eEpP]/.test(text)) return `integer overflow: ${JSON.stringify(text)}`
  const isWhole = Number.isInteger(float) && Math.abs(float) < 2 ** 63
  return { int: isWhole ? BigInt(float) : undefined, float }
}

function parseInteger(text: string): bigint | undefined {
  const match = INTEGER.exec(text)
  if (match === null) return undefined
  const [, sign, digits = ""] = match
  const plain = digits.replaceAll("_", "")
  const isOctal = /^0\d/.test(plain)
  const value = BigInt(isOctal ? `0o${plain.slice(1)}` : plain.toLowerCase())
  return sign === "-" ? -value : value
}

function parseFloat(text: string): number | undefined {
  if (DECIMAL.test(text)) {
    const value = Number(text)
    return Number.isFinite(value) ? value : undefined
  }
  if (/^[+-]?\d+(?:_\d+)*$/.test(text)) return Number(text.replaceAll("_", ""))
  const match = HEX_FLOAT.exec(text)
  if (match === null) return undefined
  const [, sign, whole = "", fraction = "", exponent] = match
  if (whole + fraction === "") return undefined
  const mantissa = Number.parseInt(whole + fraction, 16)
  const value = mantissa * 2 ** (Number(exponent) - 4 * fraction.length)
  if (!Number.isFinite(value)) return undefined
  return sign === "-" ? -value : value
}
