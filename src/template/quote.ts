/**
 * Go's quoted strings, both ways, and the escapes of its `html`, `js` and `urlquery`.
 *
 * @module
 */

const SHORT_ESCAPES: Readonly<Record<string, string>> = {
  "\u0007": "\\a",
  "\b": "\\b",
  "\f": "\\f",
  "\n": "\\n",
  "\r": "\\r",
  "\t": "\\t",
  "\v": "\\v",
  "\\": "\\\\",
}

/** Letters, marks, numbers, punctuation, symbols, and the space of ASCII. */
const PRINTABLE = /^[\p{L}\p{M}\p{N}\p{P}\p{S} ]$/u

/** Whether Go prints a character as it is. */
export function isPrintable(char: string): boolean {
  return PRINTABLE.test(char)
}

/** Steps for a character that is quoted: the rare ones take half a microsecond. */
export const QUOTE_STEPS = 6

/** Quotes as `strconv.Quote` does. With `asciiOnly` other characters become escapes too. */
export function quote(text: string, { asciiOnly = false, mark = '"' } = {}): string {
  let quoted = mark
  for (const char of text) quoted += quotedChar(char, asciiOnly, mark)
  return quoted + mark
}

function quotedChar(char: string, asciiOnly: boolean, mark: string): string {
  if (char === mark) return `\\${mark}`
  const short = SHORT_ESCAPES[char]
  if (short !== undefined) return short
  const code = codePoint(char)
  const isSurrogate = code >= 0xd800 && code <= 0xdfff
  if (isPrintable(char) && !(asciiOnly && code > 0x7f)) return char
  if (code < 0x20 || code === 0x7f) return `\\x${hex(code, 2)}`
  if (isSurrogate) return asciiOnly ? String.raw`\ufffd` : "\uFFFD"
  return code < 0x10000 ? `\\u${hex(code, 4)}` : `\\U${hex(code, 8)}`
}

/** Whether the text fits between back quotes. */
export function canBackquote(text: string): boolean {
  // oxlint-disable-next-line no-control-regex
  return !/[\0-\u0008\u000A-\u001F\u007F`\uFEFF]/.test(text)
}

const ESCAPES: Readonly<Record<string, number>> = {
  a: 7,
  b: 8,
  f: 12,
  n: 10,
  r: 13,
  t: 9,
  v: 11,
  "\\": 92,
}

/** Bytes and characters of a literal, as they are told apart by its escapes. */
const ESCAPE = /\\(?:x([\da-fA-F]{2})|u([\da-fA-F]{4})|U([\da-fA-F]{8})|([0-7]{3})|(.))/suy

/**
 * The text of a literal in double, single or back quotes, the quotes included.
 *
 * @returns Undefined when it is not one.
 */
export function unquote(literal: string): string | undefined {
  const mark = literal[0]
  if (literal.length < 2 || literal.at(-1) !== mark) return undefined
  const inner = literal.slice(1, -1)
  if (mark === "`") return inner.includes("`") ? undefined : inner.replaceAll("\r", "")
  if (inner.includes("\n")) return undefined
  if (!inner.includes("\\")) return inner.includes(mark ?? "") ? undefined : inner
  return unescape(inner, mark ?? "")
}

function unescape(inner: string, mark: string): string | undefined {
  const bytes: number[] = []
  const encoder = new TextEncoder()
  for (let at = 0; at < inner.length;) {
    const char = String.fromCodePoint(inner.codePointAt(at) ?? 0)
    if (char === mark) return undefined
    if (char !== "\\") {
      bytes.push(...encoder.encode(char))
      at += char.length
      continue
    }
    ESCAPE.lastIndex = at
    const match = ESCAPE.exec(inner)
    if (match === null) return undefined
    const [whole, byte, short, long, octal, letter = ""] = match
    at += whole.length
    const code = letter === mark ? mark.charCodeAt(0) : ESCAPES[letter]
    if (byte !== undefined) bytes.push(Number.parseInt(byte, 16))
    else if (octal !== undefined) {
      const value = Number.parseInt(octal, 8)
      if (value > 255) return undefined
      bytes.push(value)
    } else if (short !== undefined || long !== undefined) {
      const value = Number.parseInt(short ?? long ?? "", 16)
      if (value > 0x10ffff || (value >= 0xd800 && value <= 0xdfff)) return undefined
      bytes.push(...encoder.encode(String.fromCodePoint(value)))
    } else if (code === undefined) return undefined
    else bytes.push(code)
  }
  return new TextDecoder("utf-8", { ignoreBOM: true }).decode(Uint8Array.from(bytes))
}

/** `&` before those that get one. */
const HTML: readonly (readonly [string, string])[] = [
  ["&", "&amp;"],
  ["\0", "\uFFFD"],
  ['"', "&#34;"],
  ["'", "&#39;"],
  ["<", "&lt;"],
  [">", "&gt;"],
]

/** Go's `html`. */
export function escapeHtml(text: string): string {
  return HTML.reduce((escaped, [char, entity]) => escaped.replaceAll(char, entity), text)
}

const JS: Readonly<Record<string, string>> = {
  "\\": "\\\\",
  "'": "\\'",
  '"': '\\"',
  "<": String.raw`\u003C`,
  ">": String.raw`\u003E`,
  "&": String.raw`\u0026`,
  "=": String.raw`\u003D`,
}

/** Go's `js`. */
export function escapeJs(text: string): string {
  // oxlint-disable-next-line no-control-regex
  return text.replaceAll(/[\\'"<>&=\0-\u001F]|[^\0-\u007F]/gu, (char) => {
    const known = JS[char]
    if (known !== undefined) return known
    const code = codePoint(char)
    if (code > 0x7f && isPrintable(char)) return char
    return `\\u${hex(code, 4).toUpperCase()}`
  })
}

/** Go's `urlquery`. */
export function escapeQuery(text: string): string {
  return encodeURIComponent(text.toWellFormed())
    .replaceAll(/[!'()*]/g, (char) => `%${hex(codePoint(char), 2).toUpperCase()}`)
    .replaceAll("%20", "+")
}

function codePoint(char: string): number {
  return char.codePointAt(0) ?? 0
}

function hex(code: number, digits: number): string {
  return code.toString(16).padStart(digits, "0")
}
