/**
 * JSON as Go's encoder writes it: keys of maps in order, and `<`, `>`, `&` as escapes.
 *
 * @module
 */

import { DEPTH_MAX, type Sink, TemplateFailure } from "./print.ts"
import { GoList, GoMap, GoStruct, isTrue, type Value } from "./value.ts"

/** Characters that Go's encoder escapes beside those that JSON asks for. */
const ESCAPED = /[<>&\u2028\u2029]/g

/** Encodes a value. */
export function encodeJson(value: Value, sink: Sink): string {
  write(value, sink, 0)
  return sink.text
}

function write(value: Value, sink: Sink, depth: number): void {
  if (depth > DEPTH_MAX) throw new TemplateFailure(`values nested more than ${DEPTH_MAX} deep`)
  if (value instanceof GoList) writeList(value.items, sink, depth)
  else if (value instanceof GoMap) writeObject(value.sorted(), sink, depth)
  else if (value instanceof GoStruct) {
    const pairs = [...value.fields.values()].flatMap((field): [string, Value][] => {
      if (field.json === undefined) return []
      if (field.omitEmpty === true && isEmpty(field.value)) return []
      return [[field.json, field.jsonValue ?? field.value]]
    })
    writeObject(pairs, sink, depth)
  } else if (value === undefined || value === null) sink.add("null")
  else if (typeof value === "string") sink.add(jsonString(value))
  else if (typeof value === "number") sink.add(jsonNumber(value))
  else sink.add(String(value))
}

function writeList(items: readonly Value[], sink: Sink, depth: number): void {
  sink.add("[")
  for (const [i, item] of items.entries()) {
    if (i > 0) sink.add(",")
    write(item, sink, depth + 1)
  }
  sink.add("]")
}

function writeObject(pairs: readonly [string, Value][], sink: Sink, depth: number): void {
  sink.add("{")
  for (const [i, [key, value]] of pairs.entries()) {
    sink.add(`${i > 0 ? "," : ""}${jsonString(key)}:`)
    write(value, sink, depth + 1)
  }
  sink.add("}")
}

function jsonString(text: string): string {
  return JSON.stringify(text.toWellFormed()).replaceAll(
    ESCAPED,
    (char) => `\\u${(char.codePointAt(0) ?? 0).toString(16).padStart(4, "0")}`,
  )
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
