import { describe, expect, test } from "bun:test"

import * as fc from "fast-check"

import { CriaError } from "../util/errors.ts"
import { fuzzBudget } from "../util/fuzz.ts"
import { mentionedNames, untilResponse, withResponse } from "./scan.ts"
import { parseTemplate, runTemplate } from "./template.ts"
import { GoList, GoMap, GoStruct, type Value } from "./value.ts"

const FUZZ = fuzzBudget(2)

/** Small enough that a run which reaches them takes milliseconds. */
const LIMITS = { steps: 20_000, chars: 200_000, depth: 100 }

/** Far more than a run within these limits takes; less would measure the machine. */
const RUN_MS_MAX = 5000

const DATA: Value = new GoMap(
  new Map<string, Value>([
    ["A", "text"],
    ["B", 3n],
    ["C", 1.5],
    ["D", true],
    ["E", null],
    ["L", new GoList(["x", 1n, null, new GoList([2n])])],
    [
      "M",
      new GoMap(
        new Map<string, Value>([
          ["A", "é"],
          ["L", new GoList([])],
        ]),
      ),
    ],
    // What is looked at as a whole has to be counted: see RUN_MS_MAX.
    ["T", "é".repeat(1_000_000)],
    ["K", new GoMap(new Map(Array.from({ length: 20_000 }, (_, i) => [`é${i}`, "<"])))],
    ["X", new GoList(Array.from({ length: 100_000 }, (_, i) => BigInt(i)))],
    ["S", new GoStruct(new Map([["A", { value: "field", json: "a" }]]), { type: "S" })],
  ]),
)

/** Pieces that meet in templates; put together at random most are wrong, and some go deep. */
const PIECES = [
  ..."{{ }} {{- -}} ( ) | , . $ = := $x $ .A .B .C .D .E .K .L .M .S .T .X .M.A .L.A $x.A nil true false 0 1 -1 2.5 1e3 0x1f 'a'".split(
    " ",
  ),
  '"%v %d %q"',
  '"a"',
  "`raw`",
  ..."if range with else end define template block break continue".split(" "),
  ..."and or not eq ne lt le gt ge len index slice print printf println html js urlquery call json".split(
    " ",
  ),
  '"x"',
  " ",
  "\n",
  "text",
  "/*",
  "*/",
  "{{/* c */}}",
  "é",
  "{{end}}",
  "{{else}}",
  "{{range .L}}",
  "{{range .K}}",
  "{{range $.X}}",
  "{{if .A}}",
  "{{$x := .L}}",
  '{{define "x"}}',
  '{{template "x" .}}',
]

const pieces = fc
  .array(fc.tuple(fc.constantFrom(...PIECES), fc.constantFrom("", " ")), { maxLength: 40 })
  .map((parts) => parts.flat().join(""))

/** Templates that parse more often than not. */
const { template: grown } = fc.letrec<{
  template: string
  node: string
  pipe: string
  operand: string
}>((tie) => ({
  template: fc.array(tie("node"), { maxLength: 5 }).map((nodes) => nodes.join("")),
  node: fc.oneof(
    { maxDepth: 4, withCrossShrink: true },
    fc.constantFrom("text", " ", "\n", "{{break}}", "{{continue}}"),
    tie("pipe").map((pipe) => `{{${pipe}}}`),
    tie("pipe").map((pipe) => `{{$x := ${pipe}}}`),
    fc
      .tuple(fc.constantFrom("if", "with", "range"), tie("pipe"), tie("template"), tie("template"))
      .map(([kind, pipe, list, other]) => `{{${kind} ${pipe}}}${list}{{else}}${other}{{end}}`),
  ),
  pipe: fc.oneof(
    { maxDepth: 4 },
    tie("operand"),
    fc
      .tuple(
        fc.constantFrom(
          ..."and or not eq lt len index slice print printf println html js json".split(" "),
        ),
        fc.array(tie("operand"), { maxLength: 3 }),
      )
      .map(([name, operands]) => [name, ...operands].join(" ")),
    fc.tuple(tie("pipe"), tie("pipe")).map(([a, b]) => `${a} | ${b}`),
  ),
  operand: fc.oneof(
    { maxDepth: 4 },
    fc.constantFrom(
      ".",
      "$",
      ".A",
      ".B",
      ".C",
      ".L",
      ".M",
      ".S",
      ".K",
      "$.T",
      ".X",
      ".M.A",
      ".Nope",
      "nil",
      "1",
      "-2",
      "1.5",
      '"%v-%5d"',
      '"a"',
      "true",
    ),
    tie("pipe").map((pipe) => `(${pipe})`),
  ),
}))

/** Parses and runs; what is wrong is said by a {@link CriaError}, and within limits. */
function attempt(source: string): void {
  const startMs = performance.now()
  try {
    const template = parseTemplate(source, { limits: LIMITS })
    mentionedNames(template)
    for (const each of [template, withResponse(template), untilResponse(template)]) {
      const text = runTemplate(each, DATA)
      expect(text.length).toBeLessThanOrEqual(LIMITS.chars)
    }
  } catch (error) {
    if (!(error instanceof CriaError)) throw error
    expect(error.message).toStartWith("template: ")
  }
  expect(performance.now() - startMs).toBeLessThan(RUN_MS_MAX)
}

describe("templates — whatever comes", () => {
  test("random text is a template or refused", () => {
    fc.assert(fc.property(fc.string({ unit: "grapheme", maxLength: 200 }), attempt), {
      numRuns: 300,
    })
  })

  test("random pieces of templates run or are refused", () => {
    fc.assert(fc.property(pieces, attempt), { numRuns: 1000 })
  })

  test("random templates run or fail", () => {
    fc.assert(fc.property(grown, attempt), { numRuns: 1000 })
  })

  test("text without actions comes out as it is", () => {
    fc.assert(
      fc.property(fc.string({ unit: "grapheme", maxLength: 200 }), (text) => {
        fc.pre(!text.includes("{{"))
        expect(runTemplate(parseTemplate(text), undefined)).toBe(text)
      }),
    )
  })

  test("a quoted text is itself again", () => {
    fc.assert(
      fc.property(fc.string({ unit: "grapheme", maxLength: 50 }), (text) => {
        const data = new GoMap(new Map([["T", text]]))
        const quoted = runTemplate(parseTemplate('{{printf "%q" .T}}'), data)
        expect(runTemplate(parseTemplate(`{{${quoted}}}`), undefined)).toBe(text)
      }),
    )
  })

  test(
    `nothing hangs or breaks in ${FUZZ.seconds} s`,
    () => {
      const endMs = performance.now() + 1000 * FUZZ.seconds
      const seed = Date.now()
      for (let run = 0; performance.now() < endMs; run += 1) {
        const options = { seed: seed + run, numRuns: 200 }
        fc.assert(fc.property(run % 2 === 0 ? pieces : grown, attempt), options)
      }
    },
    FUZZ.timeoutMs,
  )
})
