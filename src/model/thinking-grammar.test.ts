import { describe, expect, test } from "bun:test"

import type { TagReading } from "./go-prompt.ts"
import { afterThinking } from "./thinking-grammar.ts"

function reading(closing: string, isThinkingOpen = false): TagReading {
  const thinking = { opening: "<t>", closing }
  return { thinking, isThinkingOpen, toolTag: "{", toolNames: [] }
}

function readable(text: string): string {
  return text.replaceAll(/\\U([\da-f]{8})/g, (_, code: string) =>
    String.fromCodePoint(Number.parseInt(code, 16)),
  )
}

/** Rules by name: what each character leads to. */
function rules(grammar: string): Map<string, string> {
  const lines = grammar.split("\n").map((line) => line.split(" ::= "))
  return new Map(lines.map(([name = "", rule = ""]) => [name, readable(rule)]))
}

describe("afterThinking()", () => {
  test("without thoughts the grammar stays as it is", () => {
    const plain = { ...reading(""), thinking: undefined }
    expect(afterThinking('root ::= "x"', plain)).toBe('root ::= "x"')
  })

  test("thoughts may come first, or have begun", () => {
    const optional = '( space-before "<t>" thought-0 )? answer-root'
    expect(rules(afterThinking('root ::= "x"', reading("</t>"))).get("root")).toBe(optional)
    const open = "thought-0 answer-root"
    expect(rules(afterThinking('root ::= "x"', reading("</t>", true))).get("root")).toBe(open)
  })

  test("a character that breaks the closing tag may begin it again", () => {
    const made = rules(afterThinking('root ::= "x"', reading("aab")))
    expect(made.get("thought-0")).toBe('"a" thought-1 | [^a] thought-0')
    expect(made.get("thought-1")).toBe('"a" thought-2 | [^a] thought-0')
    expect(made.get("thought-2")).toBe('"a" thought-2 | "b" thought-3 | [^ab] thought-0')
    expect(made.get("thought-3")).toBe("space-before")
  })

  test("only the rule is renamed, not what looks like it", () => {
    const grammar = 'root ::= "root" root-kv [root] root # root\nroot-kv ::= "\\"root"'
    expect(afterThinking(grammar, reading("x"))).toEndWith(
      'answer-root ::= "root" root-kv [root] answer-root # root\nroot-kv ::= "\\"root"',
    )
  })
})
