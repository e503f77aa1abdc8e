import { describe, expect, test } from "bun:test"
import { readFileSync } from "node:fs"
import { join } from "node:path"

import type { Sink } from "../../src/template/sink.ts"
import { parseTemplate, runTemplate } from "../../src/template/template.ts"
import { type GoField, GoList, GoMap, GoStruct, type Value } from "../../src/template/value.ts"
import { CriaError } from "../../src/util/errors.ts"

/** A value as golden.go writes it. */
type Described =
  | null
  | string
  | boolean
  | { readonly int: string }
  | { readonly float: string }
  | {
      readonly type: string
      readonly text?: string
      readonly list?: readonly Described[]
      readonly map?: readonly (readonly [string, Described])[]
      readonly zero?: Described
      readonly struct?: readonly (readonly [string, string, boolean, Described])[]
    }

interface Case {
  readonly data: string
  readonly template: string
  readonly output?: string
  readonly error?: string
}

const golden = JSON.parse(readFileSync(join(import.meta.dirname, "golden.json"), "utf8")) as {
  readonly go: string
  readonly data: Readonly<Record<string, Described>>
  readonly cases: readonly Case[]
}

function valueOf(described: Described): Value {
  if (described === null || typeof described !== "object") return described
  if ("int" in described) return BigInt(described.int)
  if ("float" in described) return Number(described.float)
  const { type, text } = described
  const print = text === undefined ? undefined : (sink: Sink) => void sink.add(text)
  const named = { type, print }
  if (described.list !== undefined) return new GoList(described.list.map(valueOf), named)
  if (described.map !== undefined) {
    const entries = new Map(described.map.map(([key, value]) => [key, valueOf(value)]))
    const zero = described.zero === undefined ? null : valueOf(described.zero)
    return new GoMap(entries, { ...named, zero })
  }
  const fields = (described.struct ?? []).map(
    ([name, json, omitEmpty, value]): [string, GoField] => [
      name,
      { value: valueOf(value), json: json || name, omitEmpty },
    ],
  )
  return new GoStruct(new Map(fields), named)
}

const data = new Map(Object.entries(golden.data).map(([name, value]) => [name, valueOf(value)]))

function outcomeOf({ data: name, template }: Case): string {
  try {
    return `output: ${runTemplate(parseTemplate(template, { name: "t" }), data.get(name))}`
  } catch (error) {
    if (error instanceof CriaError) return `error: ${error.message}`
    throw error
  }
}

describe(`templates — as ${golden.go} renders them`, () => {
  for (const each of golden.cases) {
    test(`${each.data}: ${JSON.stringify(each.template)}`, () => {
      const { output, error } = each
      expect(outcomeOf(each)).toBe(error === undefined ? `output: ${output}` : `error: ${error}`)
    })
  }
})
