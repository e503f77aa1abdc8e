/**
 * The functions of templates: Go's built-in ones, and those that Ollama adds.
 *
 * `and` and `or` are not here: they do not evaluate all of their arguments, so the executor has them.
 *
 * @module
 */

import { sprintf } from "./format.ts"
import { writeJson } from "./json.ts"
import { sprint, sprintln } from "./print.ts"
import { escapeHtml, escapeJs, escapeQuery, QUOTE_STEPS } from "./quote.ts"
import { type Sink, TemplateFailure } from "./sink.ts"
import {
  byteAt,
  byteLength,
  byteSlice,
  compareStrings,
  GoList,
  GoMap,
  GoStruct,
  isTrue,
  typeOf,
  type Value,
} from "./value.ts"

/** What a call may use. */
export interface CallContext {
  /** For new texts. */
  readonly sink: Sink
  readonly now: Date
}

/** A function of templates. */
export interface TemplateFunction {
  /** Arguments that have to be given. */
  readonly fixed: number
  /** More may follow. */
  readonly isVariadic?: boolean
  /** Type of the arguments from the first on; the last counts for the rest. Without it any value will do. */
  readonly strings?: "first" | "all"
  readonly call: (args: readonly Value[], context: CallContext) => Value
}

const DAY_MS = 24 * 3_600_000

/** By name. */
export const FUNCTIONS: Readonly<Record<string, TemplateFunction>> = {
  call: { fixed: 1, isVariadic: true, call: ([value]) => call(value) },
  html: { fixed: 0, isVariadic: true, call: (args, c) => escaped(args, c.sink, HTML) },
  index: { fixed: 1, isVariadic: true, call: ([item, ...keys], c) => index(item, keys, c.sink) },
  slice: { fixed: 1, isVariadic: true, call: ([item, ...ends], c) => slice(item, ends, c.sink) },
  js: { fixed: 0, isVariadic: true, call: (args, c) => escaped(args, c.sink, JS) },
  len: { fixed: 1, call: ([value], c) => BigInt(length(value, c.sink)) },
  not: { fixed: 1, call: ([value]) => !isTrue(value) },
  print: { fixed: 0, isVariadic: true, call: (args, c) => sprint(args, c.sink) },
  printf: {
    fixed: 1,
    isVariadic: true,
    strings: "first",
    call: ([format, ...args], c) => sprintf(typeof format === "string" ? format : "", args, c.sink),
  },
  println: { fixed: 0, isVariadic: true, call: (args, c) => sprintln(args, c.sink) },
  urlquery: { fixed: 0, isVariadic: true, call: (args, c) => escaped(args, c.sink, QUERY) },
  eq: {
    fixed: 1,
    isVariadic: true,
    call: ([first, ...others], c) => equalsAny(first, others, c.sink),
  },
  ne: { fixed: 2, call: ([a, b], c) => !equals(a, b, c.sink) },
  lt: { fixed: 2, call: ([a, b], c) => isLess(a, b, c.sink) },
  le: { fixed: 2, call: ([a, b], c) => isLess(a, b, c.sink) || equals(a, b, c.sink) },
  gt: { fixed: 2, call: ([a, b], c) => !(isLess(a, b, c.sink) || equals(a, b, c.sink)) },
  ge: { fixed: 2, call: ([a, b], c) => !isLess(a, b, c.sink) },
  json: { fixed: 1, call: ([value], c) => json(value, c.sink) },
  currentDate: { fixed: 0, isVariadic: true, strings: "all", call: (_, c) => dateText(c.now) },
  yesterdayDate: {
    fixed: 0,
    isVariadic: true,
    strings: "all",
    call: (_, c) => dateText(new Date(c.now.getTime() - DAY_MS)),
  },
  toTypeScriptType: { fixed: 1, call: ([value], c) => typeScriptType(value, c.sink) },
}

/** Every name that a template may call. */
export const FUNCTION_NAMES: ReadonlySet<string> = new Set(["and", "or", ...Object.keys(FUNCTIONS)])

/** No value of a template is a function. */
function call(value: Value): never {
  if (value === undefined || value === null) throw new TemplateFailure("call of nil")
  throw new TemplateFailure(`non-function of type ${typeOf(value)}`)
}

/** A way to escape, and its steps for each character. */
interface Escape {
  readonly escape: (text: string) => string
  readonly steps: number
}

const HTML: Escape = { escape: escapeHtml, steps: 1 }
const JS: Escape = { escape: escapeJs, steps: QUOTE_STEPS }
const QUERY: Escape = { escape: escapeQuery, steps: 1 }

function escaped(args: readonly Value[], sink: Sink, { escape, steps }: Escape): string {
  const values = args.map((value) => (value === undefined || value === null ? NO_VALUE : value))
  const text = sprint(values, sink)
  return sink.look(text.length, steps).fresh().add(escape(text)).text
}

function json(value: Value, sink: Sink): string {
  writeJson(value, sink)
  return sink.text
}

/** How actions print nothing at all. */
export const NO_VALUE = "<no value>"

function length(value: Value, sink: Sink): number {
  if (typeof value === "string") return byteLength(looked(value, sink))
  if (value instanceof GoList) return value.length
  if (value instanceof GoMap) return value.entries.size
  if (value === null) throw new TemplateFailure("len of nil pointer")
  if (value === undefined) {
    throw new TemplateFailure("reflect: call of reflect.Value.Type on zero Value")
  }
  throw new TemplateFailure(`len of type ${typeOf(value)}`)
}

/** A text of which every character counts as work. */
function looked(text: string, sink: Sink): string {
  sink.look(text.length)
  return text
}

function index(item: Value, keys: readonly Value[], sink: Sink): Value {
  if (item === undefined || item === null) throw new TemplateFailure("index of untyped nil")
  let found: Value = item
  for (const key of keys) found = indexOne(found, key, sink)
  return found
}

function indexOne(item: Value, key: Value, sink: Sink): Value {
  if (item === undefined || item === null) throw new TemplateFailure("index of nil pointer")
  if (typeof item === "string") {
    const size = byteLength(looked(item, sink))
    return BigInt(byteAt(looked(item, sink), position(key, size, "string")))
  }
  if (item instanceof GoList) return item.at(position(key, item.length, "slice"))
  if (!(item instanceof GoMap))
    throw new TemplateFailure(`can't index item of type ${typeOf(item)}`)
  if (typeof key === "string") {
    return item.entries.has(looked(key, sink)) ? item.entries.get(key) : item.zero
  }
  if (key === undefined || key === null) {
    throw new TemplateFailure("value is nil; should be of type string")
  }
  throw new TemplateFailure(`value has type ${typeOf(key)}; should be string`)
}

/** The index of an item, or without `kind` of an end: that may lie behind the last item. */
function position(key: Value, size: number, kind?: "string" | "slice"): number {
  if (key === undefined || key === null) {
    throw new TemplateFailure("cannot index slice/array with nil")
  }
  if (typeof key !== "bigint") {
    throw new TemplateFailure(`cannot index slice/array with type ${typeOf(key)}`)
  }
  if (key < 0n || key > BigInt(size)) throw new TemplateFailure(`index out of range: ${key}`)
  if (kind !== undefined && Number(key) === size) {
    throw new TemplateFailure(`reflect: ${kind} index out of range`)
  }
  return Number(key)
}

function slice(item: Value, ends: readonly Value[], sink: Sink): Value {
  if (item === undefined || item === null) throw new TemplateFailure("slice of untyped nil")
  if (ends.length > 3) throw new TemplateFailure(`too many slice indexes: ${ends.length}`)
  if (typeof item !== "string" && !(item instanceof GoList)) {
    throw new TemplateFailure(`can't slice item of type ${typeOf(item)}`)
  }
  if (typeof item === "string" && ends.length === 3) {
    throw new TemplateFailure("cannot 3-index slice a string")
  }
  const size = length(item, sink)
  const [start = 0, end = size, limit = size] = ends.map((key) => position(key, size))
  if (start > end) throw new TemplateFailure(`invalid slice index: ${start} > ${end}`)
  if (end > limit) throw new TemplateFailure(`invalid slice index: ${end} > ${limit}`)
  if (typeof item === "string") return sink.add(byteSlice(looked(item, sink), start, end)).text
  return item.slice(start, end)
}

type Basic = "bool" | "int" | "float" | "string"

/** Kinds that can be compared with each other. */
function basicKind(value: Value): Basic | undefined {
  return BASIC_KINDS[typeof value]
}

const BASIC_KINDS: Readonly<Record<string, Basic | undefined>> = {
  boolean: "bool",
  bigint: "int",
  number: "float",
  string: "string",
}

function equalsAny(first: Value, others: readonly Value[], sink: Sink): boolean {
  if (others.length === 0) throw new TemplateFailure("missing argument for comparison")
  return others.some((other) => equals(first, other, sink))
}

/** An empty list or map equals nil: where data is absent it is empty here. */
function equals(a: Value, b: Value, sink: Sink): boolean {
  const kind = basicKind(a)
  if (kind !== basicKind(b)) {
    if (isNothing(a) || isNothing(b)) return false
    throw new TemplateFailure("incompatible types for comparison")
  }
  if (typeof a === "string" && typeof b === "string" && a.length === b.length) looked(a, sink)
  if (kind !== undefined) return a === b
  if (isNothing(a) || isNothing(b)) return isEmptyOrNothing(a) && isEmptyOrNothing(b)
  if (a?.constructor !== b?.constructor) {
    throw new TemplateFailure(`non-comparable types ${typeOf(a)}, ${typeOf(b)}`)
  }
  throw new TemplateFailure(`non-comparable type ${typeOf(b)}`)
}

function isNothing(value: Value): value is undefined | null {
  return value === undefined || value === null
}

function isEmptyOrNothing(value: Value): boolean {
  return !(value instanceof GoStruct) && !isTrue(value)
}

function isLess(a: Value, b: Value, sink: Sink): boolean {
  const kind = basicKind(a)
  if (
    kind === undefined ||
    basicKind(b) === undefined ||
    (kind === "bool" && kind === basicKind(b))
  ) {
    throw new TemplateFailure("invalid type for comparison")
  }
  if (typeof a === "bigint" && typeof b === "bigint") return a < b
  if (typeof a === "number" && typeof b === "number") return a < b
  if (typeof a === "string" && typeof b === "string") {
    sink.look(Math.min(a.length, b.length))
    return compareStrings(a, b) < 0
  }
  throw new TemplateFailure("incompatible types for comparison")
}

/** Local time. */
function dateText(date: Date): string {
  return [date.getFullYear(), date.getMonth() + 1, date.getDate()]
    .map((part) => String(part).padStart(2, "0"))
    .join("-")
}

const TYPE_SCRIPT: Readonly<Record<string, string>> = {
  string: "string",
  number: "number",
  integer: "number",
  boolean: "boolean",
  array: "any[]",
  object: "Record<string, any>",
  null: "null",
}

/** The type of a tool's property in TypeScript. */
function typeScriptType(property: Value, sink: Sink): string {
  if (!(property instanceof GoStruct)) return "any"
  const field = (name: string) => property.fields.get(name)?.value
  const anyOf = field("AnyOf")
  if (anyOf instanceof GoList && anyOf.length > 0) {
    return Array.from(anyOf, (option) => typeScriptType(option, sink)).join(" | ")
  }
  const types = field("Type")
  if (!(types instanceof GoList) || types.length === 0) return "any"
  sink.look(types.length, 2)
  return Array.from(types, typeScriptName).join(" | ")
}

function typeScriptName(type: Value): string {
  return (typeof type === "string" ? TYPE_SCRIPT[type] : undefined) ?? "any"
}
