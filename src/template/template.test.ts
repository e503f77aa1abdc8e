import { describe, expect, test } from "bun:test"

import { CriaError } from "../util/errors.ts"
import { writeJson } from "./json.ts"
import { parseTemplate, runTemplate, SOURCE_CHARS_MAX, type TemplateOptions } from "./template.ts"
import { compareStrings, GoList, GoMap, GoStruct, type Value } from "./value.ts"

const NOON = new Date(2026, 0, 1, 12)

function run(source: string, fields: Record<string, Value> = {}): string {
  return runTemplate(parseTemplate(source), new GoMap(new Map(Object.entries(fields))), {
    now: NOON,
  })
}

function property(type: readonly string[], anyOf: readonly Value[] = []): GoStruct {
  return new GoStruct(
    new Map([
      ["Type", { value: new GoList(type) }],
      ["AnyOf", { value: new GoList(anyOf) }],
    ]),
    { type: "ToolProperty" },
  )
}

/** The rest is in tests/templates, against Go itself; this is what that Go is too old for, or does not have. */
describe("templates — what is newer in Go", () => {
  test.each([
    ["{{range 3}}{{.}}{{end}}", "012"],
    ["{{range $i := 2}}{{$i}}{{end}}", "01"],
    ["{{range 0}}x{{else}}none{{end}}", "none"],
    ["{{range -1}}x{{else}}none{{end}}", "none"],
    ["{{with 0}}a{{else with 1}}b{{.}}{{end}}", "b1"],
    ["{{with 0}}a{{else with 0}}b{{else}}c{{end}}", "c"],
    ["{{$x := 0}}{{range $x = .list}}{{end}}{{$x}}", "2"],
    ["{{$i := 0}}{{$x := 0}}{{range $i, $x = .list}}{{end}}{{$i}}{{$x}}", "12"],
  ])("%s", (source, expected) => {
    expect(run(source, { list: new GoList([1n, 2n]) })).toBe(expected)
  })

  test("two variables do not range over a number", () => {
    const words = "can't use 3 to iterate over more than one variable"
    expect(() => run("{{range $i, $x := 3}}{{end}}")).toThrow(words)
  })
})

describe("templates — Ollama's functions", () => {
  test.each<[string, string]>([
    ["{{currentDate}}", "2026-01-01"],
    ['{{currentDate "02 Jan"}}', "2026-01-01"],
    ["{{yesterdayDate}}", "2025-12-31"],
    ["{{json .list}}", '["\\u003ca\\u003e",null]'],
    ["{{toTypeScriptType .text}}", "string"],
    ["{{toTypeScriptType .many}}", "string | null"],
    ["{{toTypeScriptType .any}}", "number | any[]"],
    ["{{toTypeScriptType .open}}", "any"],
    ["{{toTypeScriptType .list}}", "any"],
  ])("%s is %s", (source, expected) => {
    const fields = {
      list: new GoList(["<a>", null]),
      text: property(["string"]),
      many: property(["string", "null"]),
      any: property([], [property(["integer"]), property(["array"])]),
      open: property([]),
    }
    expect(run(source, fields)).toBe(expected)
  })

  test("a date's format has to be a text", () => {
    expect(() => run("{{currentDate 1}}")).toThrow("expected string; found 1")
  })
})

function failure(source: string, limits: TemplateOptions["limits"] = {}): string {
  try {
    runTemplate(parseTemplate(source, { limits }), undefined)
  } catch (error) {
    if (error instanceof CriaError) return `${error.code} ${error.message}`
    throw error
  }
  return "no failure"
}

describe("templates — limits", () => {
  test("a template that calls itself", () => {
    const words = "exceeded maximum template depth (1000)"
    expect(failure('{{define "x"}}{{template "x"}}{{end}}{{template "x"}}')).toEndWith(words)
  })

  test("templates that call each other inside of blocks", () => {
    const deep = "{{if true}}".repeat(90)
    const end = "{{end}}".repeat(90)
    const body = `${deep}{{template "x"}}${end}`
    const words = "exceeded maximum template depth (1000)"
    expect(failure(`{{define "x"}}${body}{{end}}{{template "x"}}`)).toEndWith(words)
  })

  test("a loop without an end worth waiting for", () => {
    expect(failure("{{range 9223372036854775807}}{{end}}")).toEndWith(
      "takes more than 3000000 steps",
    )
  })

  test("loops in loops", () => {
    const source = "{{range 99999}}{{range 99999}}{{range 99999}}x{{end}}{{end}}{{end}}"
    expect(failure(source, { steps: 1000 })).toEndWith("takes more than 1000 steps")
  })

  test.each([
    '{{$x := "xxxxxxxx"}}{{range 99}}{{$x = print $x $x}}{{end}}',
    '{{$x := "xxxxxxxx"}}{{range 99}}{{$x = html $x $x}}{{end}}',
    '{{range 99}}{{printf "%1000000d" 1}}{{end}}',
    '{{printf "%1000000d%1000000d" 1 2}}',
    `{{$x := "${"<".repeat(1000)}"}}{{range 99}}{{js $x}}{{end}}`,
    '{{$x := "<<<<<<<<"}}{{range 99}}{{$x = json $x}}{{end}}',
  ])("too much text: %s", (source) => {
    expect(failure(source, { chars: 100_000 })).toContain("makes more than 100000 characters")
  })

  test("values within each other, as data of requests may be", () => {
    let value: Value = new GoList([])
    for (let i = 0; i < 5000; i += 1) value = new GoList([value])
    for (const source of ["{{.x}}", "{{json .x}}", '{{printf "%v" .x}}']) {
      expect(() => run(source, { x: value })).toThrow("nested more than 100 deep")
    }
  })

  test("a source that is too long", () => {
    expect(() => parseTemplate(" ".repeat(SOURCE_CHARS_MAX + 1))).toThrow(
      `Cannot read the template: ${SOURCE_CHARS_MAX + 1} characters, limit ${SOURCE_CHARS_MAX}`,
    )
  })

  test.each([
    ["{{if true}}", "{{end}}"],
    ["{{range .}}", "{{end}}"],
    ["{{(", ")}}"],
    ["{{if true}}{{else if true}}", "{{end}}"],
  ])("%s in itself", (open, close) => {
    const parens = open === "{{("
    const source = parens
      ? `{{${"(".repeat(50_000)}1${")".repeat(50_000)}}}`
      : open.repeat(3000) + close.repeat(3000)
    expect(() => parseTemplate(source)).toThrow("nested more than 200 deep")
  })

  test("a source of the greatest length is read in a moment", () => {
    for (const piece of ["{{- ", "{{/*", '{{"', "\n", " ", "{{a", "}} ", "$x ", "((", "| "]) {
      const source = piece.repeat(SOURCE_CHARS_MAX / piece.length)
      try {
        parseTemplate(source)
      } catch (error) {
        expect(error).toBeInstanceOf(CriaError)
      }
    }
  })
})

/** Millions of characters, hundreds of thousands of entries: what a request may carry. */
const LARGE = {
  ascii: "a".repeat(10_000_000),
  wide: "é".repeat(10_000_000),
  other: `${"é".repeat(9_999_999)}x`,
  angles: "<".repeat(5_000_000),
  rare: "\u0378".repeat(5_000_000),
  percents: "%[".repeat(1_000_000),
  list: new GoList(Array.from({ length: 1_000_000 }, () => 1.5)),
  map: new GoMap(new Map(Array.from({ length: 300_000 }, (_, i) => [`key ${i}`, "x"]))),
  printed: new GoList([], {
    print: (sink) => writeJson(new GoList(Array.from({ length: 100_000 }, () => "x")), sink),
  }),
  types: property(Array.from({ length: 1_000_000 }, () => "string")),
}

describe("templates — limits of what a step looks at", () => {
  test.each([
    "{{if len .wide}}{{end}}",
    "{{if index .wide 7}}{{end}}",
    "{{if slice .wide 1}}{{end}}",
    "{{$x := slice .list 1}}",
    "{{if lt .wide .other}}{{end}}",
    "{{if eq .wide .other}}{{end}}",
    "{{range .map}}{{break}}{{end}}{{if len (print .map)}}{{end}}",
    "{{if print .ascii}}{{end}}",
    "{{if json .angles}}{{end}}",
    "{{if html .angles}}{{end}}",
    "{{if js .rare}}{{end}}",
    "{{if urlquery .wide}}{{end}}",
    '{{if printf "%q" .rare}}{{end}}',
    '{{if printf "%x" .wide}}{{end}}',
    '{{if printf "%.1000000s" .wide}}{{end}}',
    '{{if printf "%1000000s" .short}}{{end}}',
    "{{if printf .percents}}{{end}}",
    "{{if print .list}}{{end}}",
    "{{if json .printed}}{{end}}{{if print .printed}}{{end}}",
    "{{if toTypeScriptType .types}}{{end}}",
  ])("%s, again and again", (body) => {
    const template = parseTemplate(`{{range $i, $_ := .list}}{{with $}}${body}{{end}}{{end}}`)
    const root = new GoMap(new Map<string, Value>(Object.entries({ ...LARGE, short: "é" })))
    const startMs = performance.now()
    expect(() => runTemplate(template, root)).toThrow(/takes more than|makes more than/)
    // A fraction of it on a machine that does nothing else.
    expect(performance.now() - startMs).toBeLessThan(5000)
  })

  test("variables without number", () => {
    const names = Array.from({ length: 7000 }, (_, i) => `{{$${i.toString(36)}:=1}}`).join("")
    const startMs = performance.now()
    const source = `{{$z := 1}}${names}{{range 400000}}{{$z}}{{$z = 2}}{{end}}`
    expect(failure(source)).toEndWith("takes more than 3000000 steps")
    expect(performance.now() - startMs).toBeLessThan(5000)
  })

  test("a chat of 10,000 messages is within them", () => {
    const messages = Array.from({ length: 10_000 }, (_, i) => messageOf(`question ${i}`))
    const source = `{{range $i, $_ := .Messages}}
      {{- $last := eq (len (slice $.Messages $i)) 1}}
      {{- if eq .Role "system"}}{{.Content}}{{else if eq .Role "user"}}<user>{{.Content}}
      {{- else if eq .Role "assistant"}}<assistant>{{.Content}}{{end}}
      {{- if $last}}<assistant>{{end}}{{end}}`
    expect(run(source, { Messages: new GoList(messages) })).toEndWith("question 9999<assistant>")
  })
})

function messageOf(content: string): GoStruct {
  const fields = { Role: "user", Content: content }
  const entries = Object.entries(fields).map(([name, value]) => [name, { value }] as const)
  return new GoStruct(new Map(entries), { type: "Message" })
}

describe("templates — errors", () => {
  test.each([
    ["{{", "template: :1: unclosed action"],
    ["a\n{{if}}", "template: :2: missing value for if"],
  ])("%j is refused in Go's words", (source, message) => {
    expect(() => parseTemplate(source)).toThrow(
      expect.objectContaining({ code: "invalid-input", message }),
    )
  })

  test("a run fails in Go's words, with the place", () => {
    expect(() => run("é {{.Text.nope}}", { Text: "x" })).toThrow(
      expect.objectContaining({
        code: "internal",
        message:
          'template: :1:10: executing "" at <.Text.nope>: can\'t evaluate field nope in type interface {}',
      }),
    )
  })

  test("a long place is cut", () => {
    const source = `{{len (print ${'"x" '.repeat(1000)} | len)}}`
    const message = String(
      (() => {
        try {
          return run(source)
        } catch (error) {
          return error
        }
      })(),
    )
    expect(message.length).toBeLessThan(1500)
  })
})

describe("compareStrings()", () => {
  test("orders as the bytes of UTF-8 do", () => {
    const texts = ["a", "ab", "b", "ä", "世", "\uFFEE", "😀", ""]
    const byBytes = texts.toSorted((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)))
    expect(texts.toSorted(compareStrings)).toEqual(byBytes)
  })
})
