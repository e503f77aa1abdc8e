/**
 * Go's `printf`: verbs, flags, widths, and what it prints for mistakes.
 *
 * Not there: `%p`, which prints as a verb that does not fit.
 *
 * @module
 */

import { floatText } from "./float.ts"
import { isComposite, NUMBER_STEPS, printParts, printValue, type Style } from "./print.ts"
import { canBackquote, isPrintable, quote, QUOTE_STEPS } from "./quote.ts"
import type { Sink } from "./sink.ts"
import { ANY_TYPE, typeOf, type Value } from "./value.ts"

/** Go ignores larger widths and precisions. */
const WIDTH_MAX = 1_000_000

/** Steps for a character of a format. */
const VERB_STEPS = 4

/** Steps for a byte in hexadecimal. */
const HEX_STEPS = 2

/** How one verb prints. */
interface Spec {
  readonly verb: string
  readonly width: number | undefined
  readonly precision: number | undefined
  readonly minus: boolean
  readonly plus: boolean
  readonly sharp: boolean
  readonly space: boolean
  readonly zero: boolean
}

/** Formats as `fmt.Sprintf`. */
export function sprintf(format: string, args: readonly Value[], sink: Sink): string {
  new Printer(format, args, sink).run()
  return sink.text
}

/** Walks one format. */
class Printer {
  readonly #format: string
  readonly #args: readonly Value[]
  readonly #sink: Sink
  #at = 0
  #argument = 0
  #isReordered = false
  #isGoodArgument = true
  #wasIndexed = false

  constructor(format: string, args: readonly Value[], sink: Sink) {
    this.#format = format
    this.#args = args
    this.#sink = sink
  }

  run(): void {
    const format = this.#format
    this.#sink.look(format.length, VERB_STEPS)
    while (this.#at < format.length) {
      const percent = format.indexOf("%", this.#at)
      const end = percent === -1 ? format.length : percent
      if (end > this.#at) this.#sink.add(format.slice(this.#at, end))
      this.#at = end + 1
      if (percent !== -1) this.#verb()
    }
    if (!this.#isReordered && this.#argument < this.#args.length) this.#extra()
  }

  #verb(): void {
    this.#isGoodArgument = true
    this.#wasIndexed = false
    const flags = this.#flags()
    this.#index()
    const [width, minus] = this.#width(flags.includes("-"))
    const precision = this.#precision()
    if (!this.#wasIndexed) this.#index()
    const code = this.#format.codePointAt(this.#at)
    if (code === undefined) {
      this.#sink.add("%!(NOVERB)")
      return
    }
    const verb = String.fromCodePoint(code)
    this.#at += verb.length
    if (verb === "%") this.#sink.add("%")
    else if (!this.#isGoodArgument) this.#sink.add(`%!${verb}(BADINDEX)`)
    else if (this.#argument >= this.#args.length) this.#sink.add(`%!${verb}(MISSING)`)
    else {
      const value = this.#args[this.#argument]
      this.#argument += 1
      formatValue(value, this.#sink, {
        verb,
        width,
        precision,
        minus,
        plus: flags.includes("+"),
        sharp: flags.includes("#"),
        space: flags.includes(" "),
        zero: flags.includes("0") && !minus,
      })
    }
  }

  #flags(): string {
    const start = this.#at
    while (/[#0+\- ]/.test(this.#format[this.#at] ?? "")) this.#at += 1
    return this.#format.slice(start, this.#at)
  }

  /** `*` takes an argument; a negative one also sets the minus. */
  #width(minus: boolean): [number | undefined, boolean] {
    if (this.#format[this.#at] !== "*") {
      const width = this.#number()
      if (width !== undefined && this.#wasIndexed) this.#isGoodArgument = false
      return [width, minus]
    }
    this.#at += 1
    const width = this.#starred()
    this.#wasIndexed = false
    if (width === undefined) this.#sink.add("%!(BADWIDTH)")
    else if (width < 0) return [-width, true]
    return [width, minus]
  }

  #precision(): number | undefined {
    if (this.#format[this.#at] !== ".") return undefined
    this.#at += 1
    if (this.#wasIndexed) this.#isGoodArgument = false
    this.#index()
    if (this.#format[this.#at] !== "*") return this.#number() ?? 0
    this.#at += 1
    const precision = this.#starred()
    this.#wasIndexed = false
    if (precision !== undefined && precision >= 0) return precision
    if (precision === undefined) this.#sink.add("%!(BADPREC)")
    return undefined
  }

  #starred(): number | undefined {
    const value = this.#args[this.#argument]
    if (this.#argument < this.#args.length) this.#argument += 1
    if (typeof value !== "bigint") return undefined
    return value >= -WIDTH_MAX && value <= WIDTH_MAX ? Number(value) : undefined
  }

  #number(): number | undefined {
    const digits = /\d*/y
    digits.lastIndex = this.#at
    const text = digits.exec(this.#format)?.[0] ?? ""
    if (text === "") return undefined
    this.#at += text.length
    const value = Number(text)
    return value > WIDTH_MAX ? undefined : value
  }

  /** `[n]` chooses the argument that comes next. */
  #index(): void {
    if (this.#format[this.#at] !== "[") return
    this.#isReordered = true
    this.#sink.look(this.#format.length - this.#at)
    const end = this.#format.indexOf("]", this.#at)
    const text = end === -1 ? "" : this.#format.slice(this.#at + 1, end)
    this.#at = end === -1 ? this.#at + 1 : end + 1
    const number = /^\d+$/.test(text) ? Number(text) : 0
    if (number < 1 || number > this.#args.length) this.#isGoodArgument = false
    else {
      this.#argument = number - 1
      this.#wasIndexed = true
    }
  }

  #extra(): void {
    this.#sink.add("%!(EXTRA ")
    for (const [i, value] of this.#args.slice(this.#argument).entries()) {
      if (i > 0) this.#sink.add(", ")
      if (value === undefined || value === null) {
        this.#sink.add("<nil>")
        continue
      }
      this.#sink.add(`${typeOf(value)}=`)
      printValue(value, this.#sink)
    }
    this.#sink.add(")")
  }
}

/** Prints one argument. */
function formatValue(value: Value, sink: Sink, spec: Spec): void {
  if (spec.verb === "T") formatString(typeOf(value), sink, { ...spec, verb: "s" })
  else if ((value === undefined || value === null) && spec.verb !== "v") badVerb(value, sink, spec)
  else if (spec.verb !== "v") formatAt(value, { sink, spec, style: PLAIN, depth: 0 })
  else {
    // Here the flags are a style of the whole and not of its numbers.
    const style = { plus: spec.plus, sharp: spec.sharp }
    const own = { ...spec, plus: false, sharp: false }
    formatAt(value, { sink, spec: own, style, depth: 0 })
  }
}

const PLAIN: Style = { plus: false, sharp: false }

interface Place {
  readonly sink: Sink
  readonly spec: Spec
  readonly style: Style
  readonly depth: number
}

function formatAt(value: Value, { sink, spec, style, depth }: Place): void {
  if (isComposite(value)) {
    const isText = value.print !== undefined && !style.sharp && "vsxXq".includes(spec.verb)
    if (isText) {
      const own = sink.fresh()
      value.print?.(own)
      formatString(own.text, sink, spec)
    } else {
      printParts(value, {
        sink,
        style,
        depth,
        print: (part, into, below) => formatAt(part, { sink: into, spec, style, depth: below }),
      })
    }
    return
  }
  if (value === undefined || value === null) {
    const text = style.sharp && depth > 0 ? `${ANY_TYPE}(nil)` : "<nil>"
    if (depth > 0) sink.add(text)
    else pad(text, sink, spec)
  } else if (typeof value === "boolean") formatBool(value, sink, spec)
  else if (typeof value === "bigint") formatInt(value, sink, spec)
  else if (typeof value === "number") formatFloat(value, sink, spec)
  else if (style.sharp) pad(quoted(value, sink), sink, spec)
  else formatString(value, sink, spec)
}

function badVerb(value: Value, sink: Sink, spec: Spec): void {
  sink.add(`%!${spec.verb}(`)
  if (value === undefined || value === null) sink.add("<nil>")
  else {
    sink.add(`${typeOf(value)}=`)
    formatAt(value, { sink, spec: { ...spec, verb: "v" }, style: PLAIN, depth: 0 })
  }
  sink.add(")")
}

function formatBool(value: boolean, sink: Sink, spec: Spec): void {
  if (spec.verb === "t" || spec.verb === "v") pad(String(value), sink, spec)
  else badVerb(value, sink, spec)
}

function formatString(value: string, sink: Sink, spec: Spec): void {
  const { verb, precision, sharp, plus } = spec
  const cut = firstChars(value, precision)
  switch (verb) {
    case "v":
    case "s":
      pad(cut, sink, spec)
      return
    case "q":
      pad(sharp && canBackquote(cut) ? `\`${cut}\`` : quoted(cut, sink, plus), sink, spec)
      return
    case "x":
    case "X":
      pad(hexBytes(value, sink, spec), sink, spec)
      return
    default:
      badVerb(value, sink, spec)
  }
}

function quoted(text: string, sink: Sink, asciiOnly = false): string {
  sink.look(text.length, QUOTE_STEPS)
  return quote(text, { asciiOnly })
}

/** Characters are code points. */
function firstChars(text: string, count: number | undefined): string {
  if (count === undefined) return text
  let end = 0
  for (let chars = 0; chars < count && end < text.length; chars += 1) {
    end += (text.codePointAt(end) ?? 0) > 0xffff ? 2 : 1
  }
  return text.slice(0, end)
}

function hexBytes(value: string, sink: Sink, { verb, precision, sharp, space }: Spec): string {
  // No character has less than one byte.
  const bytes = new TextEncoder().encode(firstChars(value, precision)).subarray(0, precision)
  sink.look(bytes.length, HEX_STEPS)
  const prefix = sharp ? "0x" : ""
  const separator = space ? ` ${prefix}` : ""
  const digits = [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join(separator)
  if (digits === "") return ""
  return verb === "X" ? (prefix + digits).toUpperCase() : prefix + digits
}

const BASES: Readonly<Record<string, number>> = { v: 10, d: 10, b: 2, o: 8, O: 8, x: 16, X: 16 }

function formatInt(value: bigint, sink: Sink, spec: Spec): void {
  const base = BASES[spec.verb]
  if (base !== undefined) padNumber(integerText(value, base, spec), sink, spec)
  else if (spec.verb === "c") pad(charOf(value), sink, spec)
  else if (spec.verb === "q") {
    pad(quote(charOf(value), { asciiOnly: spec.plus, mark: "'" }), sink, spec)
  } else if (spec.verb === "U") pad(unicodeText(value, spec), sink, { ...spec, zero: false })
  else badVerb(value, sink, spec)
}

function integerText(value: bigint, base: number, spec: Spec): string {
  const { verb, precision, sharp } = spec
  if (precision === 0 && value === 0n) return ""
  const isNegative = value < 0n
  const plain = (isNegative ? -value : value).toString(base)
  const sign = signOf(isNegative, spec)
  // A width with zeros counts the sign but not the prefix.
  const room = spec.zero && precision === undefined ? (spec.width ?? 0) - sign.length : 0
  const digits = plain.padStart(Math.max(precision ?? 0, room), "0")
  const text = sign + integerPrefix(digits, { base, verb, sharp }) + digits
  return verb === "X" ? text.toUpperCase() : text
}

function integerPrefix(
  digits: string,
  { base, verb, sharp }: { base: number; verb: string; sharp: boolean },
): string {
  if (verb === "O") return "0o"
  if (!sharp) return ""
  if (base === 16) return "0x"
  if (base === 2) return "0b"
  return base === 8 && !digits.startsWith("0") ? "0" : ""
}

function signOf(isNegative: boolean, { plus, space }: Spec): string {
  if (isNegative) return "-"
  return plus ? "+" : space ? " " : ""
}

/** The character of a number; U+FFFD when there is none. */
function charOf(value: bigint): string {
  const isChar = value >= 0n && value <= 0x10ffffn && !(value >= 0xd800n && value <= 0xdfffn)
  return isChar ? String.fromCodePoint(Number(value)) : "\uFFFD"
}

function unicodeText(value: bigint, { sharp, precision }: Spec): string {
  const digits = BigInt.asUintN(64, value).toString(16).toUpperCase()
  const text = `U+${digits.padStart(Math.max(4, precision ?? 0), "0")}`
  const char = charOf(value)
  return sharp && value <= 0x10ffffn && isPrintable(char) ? `${text} '${char}'` : text
}

function formatFloat(value: number, sink: Sink, spec: Spec): void {
  sink.look(1, NUMBER_STEPS)
  const text = floatText(value, spec.verb, spec.precision)
  if (text === undefined) badVerb(value, sink, spec)
  else if (Number.isFinite(value)) padNumber(withZeros(signed(text, spec), spec), sink, spec)
  else pad(signed(text, spec), sink, { ...spec, zero: false })
}

function signed(text: string, { plus, space }: Spec): string {
  if (text.startsWith("-")) return text
  const bare = text.replace(/^\+/, "")
  if (plus) return `+${bare}`
  if (space) return ` ${bare}`
  return text
}

function withZeros(text: string, { zero, width = 0 }: Spec): string {
  if (!zero || text.length >= width) return text
  const sign = /^[-+ ]/.exec(text)?.[0] ?? ""
  return sign + text.slice(sign.length).padStart(width - sign.length, "0")
}

/** Numbers have their zeros already. */
function padNumber(text: string, sink: Sink, spec: Spec): void {
  pad(text, sink, { ...spec, zero: false })
}

/** Widths count characters. */
function pad(text: string, sink: Sink, { width = 0, minus, zero }: Spec): void {
  const missing = text.length >= 2 * width ? 0 : width - charLength(text, sink)
  if (missing <= 0) sink.add(text)
  else if (minus) sink.add(text).add(" ".repeat(missing))
  else sink.add((zero ? "0" : " ").repeat(missing)).add(text)
}

function charLength(text: string, sink: Sink): number {
  sink.look(text.length)
  let chars = 0
  for (let i = 0; i < text.length; i += (text.codePointAt(i) ?? 0) > 0xffff ? 2 : 1) chars += 1
  return chars
}
