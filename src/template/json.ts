/**
 * JSON as Go's encoder writes it: keys of maps in order, and `<`, `>`, `&` as escapes.
 *
 * @module
 */

import { DEPTH_MAX, NUMBER_STEPS } from "./print.ts"
import { type Sink, TemplateFailure } from "./sink.ts"
import { GoList, GoMap, GoStruct, isTrue, type Value } from "./value.ts"

/** Characters that Go's encoder escapes beside those that JSON asks for. */
const ESCAPED: readonly string[] = ["<", ">", "&", "\u2028", "\u2029"]
const HAS_ESCAPED = /[<>&\u2028\u2029]/

/** For a text, however short. */
const STRING_STEPS = 3

/** Encodes a value. */
export function writeJson(value: Value, sink: Sink): void {
  write(value, sink, 0)
}

function write(value: Value, sink: Sink, depth: number): void {
  if (depth > DEPTH_MAX) throw new TemplateFailure(`values nested more than ${DEPTH_MAX} deep`)
  if (value instanceof GoList) writeList(value, sink, depth)
  else if (value instanceof GoMap) writeObject(value.sorted(), sink, depth)
  else if (value instanceof GoStruct) {
    const pairs = [...value.fields.values()].flatMap((field): [string, Value][] => {
      if (field.json === undefined) return []
      if (field.omitEmpty === true && isEmpty(field.value)) return []
      return [[field.json, field.jsonValue ?? field.value]]
    })
    writeObject(pairs, sink, depth)
  } else if (value === undefined || value === null) sink.add("null")
  else if (typeof value === "string") addString(value, sink)
  else if (typeof value === "number") sink.look(1, NUMBER_STEPS).add(jsonNumber(value))
  else sink.add(String(value))
}

function writeList(list: GoList, sink: Sink, depth: number): void {
  sink.add("[")
  for (let i = 0; i < list.length; i += 1) {
    if (i > 0) sink.add(",")
    write(list.at(i), sink, depth + 1)
  }
  sink.add("]")
}

function writeObject(pairs: readonly [string, Value][], sink: Sink, depth: number): void {
  sink.add("{")
  for (const [i, [key, value]] of pairs.entries()) {
    if (i > 0) sink.add(",")
    addString(key, sink)
    sink.add(":")
    write(value, sink, depth + 1)
  }
  sink.add("}")
}

function addString(text: string, sink: Sink): void {
  sink.look(1, STRING_STEPS).look(text.length)
  let json = JSON.stringify(text.toWellFormed())
  if (HAS_ESCAPED.test(json)) {
    for (const char of ESCAPED) json = json.replaceAll(char, unicodeEscape(char))
  }
  sink.add(json)
}

function unicodeEscape(char: string): string {
  return `\\u${char.charCodeAt(0).toString(16).padStart(4, "0")}`
}

function jsonNumber(value: number): string {
  if (!Number.isFinite(value)) {
    throw new TemplateFailure(`json: unsupported value: ${value > 0 ? "+Inf" : "-Inf"}`)
  }
  if (Object.is(value, -0)) return "-0"
  return String(value)
}

/** What Go's `omitempty` leaves out; structs never. */
function isEmpty(value: Value): boolean {
  return !isTrue(value)
}
