/**
 * How Go prints values: `print`, `println` and the verb `%v`.
 *
 * Every piece goes through a {@link Sink}, which limits how much a template can make.
 *
 * @module
 */

import { formatShortest } from "./float.ts"
import { quote, QUOTE_STEPS } from "./quote.ts"
import { type Sink, TemplateFailure } from "./sink.ts"
import { ANY_TYPE, GoList, GoMap, GoStruct, typeOf, type Value } from "./value.ts"

/** Values within each other; data of requests may be deeper. */
export const DEPTH_MAX = 100

/** For the digits of a float. */
export const NUMBER_STEPS = 8

/** Style of `%v`: `plus` is `%+v`, `sharp` is `%#v`. */
export interface Style {
  readonly plus: boolean
  readonly sharp: boolean
}

const PLAIN: Style = { plus: false, sharp: false }

/** Prints each of the parts of a value in a verb of its own. */
type PrintPart = (value: Value, sink: Sink, depth: number) => void

/** Prints a value as `%v` does. */
export function printValue(value: Value, sink: Sink, style: Style = PLAIN): void {
  printAt(value, { sink, style, depth: 0 })
}

interface Place {
  readonly sink: Sink
  readonly style: Style
  readonly depth: number
}

function printAt(value: Value, { sink, style, depth }: Place): void {
  if (isComposite(value)) {
    if (value.print !== undefined && !style.sharp) return value.print(sink)
    printParts(value, {
      sink,
      style,
      depth,
      print: (part, into, below) => printAt(part, { sink: into, style, depth: below }),
    })
    return
  }
  if (value === undefined || value === null) {
    sink.add(style.sharp && depth > 0 ? `${ANY_TYPE}(nil)` : "<nil>")
  } else if (typeof value === "number") sink.look(1, NUMBER_STEPS).add(formatShortest(value))
  else if (typeof value === "string" && style.sharp) {
    sink.look(value.length, QUOTE_STEPS).add(quote(value))
  } else sink.add(String(value))
}

/** Whether a value has parts. */
export function isComposite(value: Value): value is GoList | GoMap | GoStruct {
  return value instanceof GoList || value instanceof GoMap || value instanceof GoStruct
}

/** Prints the parts of a value between brackets. */
export function printParts(
  value: GoList | GoMap | GoStruct,
  { sink, style, depth, print }: Place & { print: PrintPart },
): void {
  if (depth >= DEPTH_MAX) throw new TemplateFailure(`values nested more than ${DEPTH_MAX} deep`)
  const [open, close] = bracketsOf(value, style)
  const separator = style.sharp ? ", " : " "
  sink.add(open)
  let isFirst = true
  for (const { name, key, part } of partsOf(value, style)) {
    sink.add(isFirst ? name : separator + name)
    isFirst = false
    if (key !== undefined) {
      print(key, sink, depth + 1)
      sink.add(":")
    }
    print(part, sink, depth + 1)
  }
  sink.add(close)
}

function bracketsOf(value: GoList | GoMap | GoStruct, { sharp }: Style): [string, string] {
  if (sharp) return [`${typeOf(value)}{`, "}"]
  if (value instanceof GoStruct) return ["{", "}"]
  return [value instanceof GoMap ? "map[" : "[", "]"]
}

interface Part {
  /** Of a field, with the colon. */
  readonly name: string
  /** Of a map's entry: printed like its value. */
  readonly key?: string
  readonly part: Value
}

function partsOf(value: GoList | GoMap | GoStruct, style: Style): Part[] {
  if (value instanceof GoList) return Array.from(value, (part) => ({ name: "", part }))
  if (value instanceof GoMap) return value.sorted().map(([key, part]) => ({ name: "", key, part }))
  const isNamed = style.plus || style.sharp
  return [...value.fields].map(([name, field]) => ({
    name: isNamed ? `${name}:` : "",
    part: field.value,
  }))
}

/** `fmt.Sprint`: a space between two values when neither is a text. */
export function sprint(values: readonly Value[], sink: Sink): string {
  let wasString = true
  for (const [i, value] of values.entries()) {
    const isString = typeof value === "string"
    if (i > 0 && !isString && !wasString) sink.add(" ")
    printValue(value, sink)
    wasString = isString
  }
  return sink.text
}

/** `fmt.Sprintln`: a space between all, and a newline. */
export function sprintln(values: readonly Value[], sink: Sink): string {
  for (const [i, value] of values.entries()) {
    if (i > 0) sink.add(" ")
    printValue(value, sink)
  }
  return sink.add("\n").text
}
