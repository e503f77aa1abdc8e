import { describe, expect, test } from "bun:test"

import { type GrammarTrigger, GrammarWatch } from "./lazy-grammar.ts"

function watch(triggers: GrammarTrigger[], before = "", thinking = false): GrammarWatch {
  return new GrammarWatch({
    gbnf: "root ::= .*",
    triggers,
    thinkingStart: thinking ? "<think>" : "",
    thinkingEnds: thinking ? ["</think>"] : [],
    before,
  })
}

const CALL: GrammarTrigger = { kind: "word", value: "<tool_call>" }

describe("GrammarWatch", () => {
  test("finds a word that is spread over pieces, and gives the text from it on", () => {
    const found = watch([CALL])
    expect(["Let me see. <tool", "_call"].map((text) => found.push(text))).toEqual([
      undefined,
      undefined,
    ])
    expect(found.push('>{"na')).toBe('<tool_call>{"na')
  })

  test("does not look into the prompt", () => {
    expect(watch([CALL], "<tool_call>").push("Hello")).toBeUndefined()
  })

  test("finds a word that begins with the answer's first text", () => {
    expect(watch([CALL], "assistant\n").push("<tool_call>")).toBe("<tool_call>")
  })

  test("does not fire while the model thinks", () => {
    const found = watch([CALL], "", true)
    expect(found.push("<think>I could write <tool_call>")).toBeUndefined()
    expect(found.push(" but no</think>")).toBeUndefined()
    expect(found.push("<tool_call>")).toBe("<tool_call>")
  })

  test("knows that the prompt left a thinking block open", () => {
    const found = watch([CALL], "<think>\n", true)
    expect(found.push("<tool_call>")).toBeUndefined()
    expect(found.push("</think><tool_call>")).toBe("<tool_call>")
  })

  test("begins at the first group of a pattern that took part", () => {
    const found = watch([{ kind: "pattern", value: "ok\\s*(\\{)|(\\[)" }])
    expect(found.push("ok  {x")).toBe("{x")
  })

  test("matches a full pattern against the whole answer only", () => {
    const trigger: GrammarTrigger = { kind: "full", value: "\\s*(\\{[\\s\\S]*)" }
    expect(watch([trigger]).push('see {"a"')).toBeUndefined()
    expect(watch([trigger]).push(' {"a"')).toBe('{"a"')
  })

  test("finds a pattern that is spread over many pieces, wherever it begins", () => {
    const found = watch([{ kind: "pattern", value: "<call>\\s*(\\{)" }])
    for (const text of ["x".repeat(10_000), "<ca", "ll>", " ".repeat(2000), "\n"])
      expect(found.push(text)).toBeUndefined()
    expect(found.push('{"a"')).toBe('{"a"')
  })

  test("a pattern for the beginning is one for the beginning of the answer, however long that is", () => {
    const trigger: GrammarTrigger = { kind: "pattern", value: "^\\s+to$" }
    expect(watch([trigger], "assistant").push(" to")).toBe(" to")
    const found = watch([trigger])
    for (let i = 0; i < 5; i++) expect(found.push("x".repeat(3000))).toBeUndefined()
    expect(found.push(" to")).toBeUndefined()
  })

  test("does not look further back for patterns than a trigger is long", () => {
    const trigger: GrammarTrigger = { kind: "pattern", value: "<a>[^]*<b>" }
    const near = watch([trigger])
    near.push(`<a>${"x".repeat(4000)}`)
    expect(near.push("<b>")).toStartWith("<a>x")
    const far = watch([trigger])
    far.push(`<a>${"x".repeat(5000)}`)
    expect(far.push("<b>")).toBeUndefined()
  })

  test("finds a pattern after one that was only a thought, also in the same text", () => {
    const trigger: GrammarTrigger = { kind: "pattern", value: "<call>" }
    const apart = watch([trigger], "", true)
    expect(apart.push("<think>a <call> would do</think>")).toBeUndefined()
    expect(apart.push("So <call>")).toBe("<call>")
    expect(watch([trigger], "", true).push("<think><call></think> <call>x")).toBe("<call>x")
    expect(watch([CALL], "", true).push("<think><tool_call></think> <tool_call>x")).toBe(
      "<tool_call>x",
    )
  })

  test("takes the earliest of several triggers", () => {
    const found = watch([
      { kind: "word", value: "B" },
      { kind: "word", value: "A" },
    ])
    expect(found.push("xAyB")).toBe("AyB")
  })
})
