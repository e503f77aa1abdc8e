import { describe, expect, test } from "bun:test"

import type { ModelConfig } from "../store/manifest.ts"
import { checkTemplate, readTemplate, usesGoTemplate } from "./template.ts"

interface Situation {
  readonly go: string
  readonly jinja?: string
  readonly config?: ModelConfig
  readonly architecture?: string
  readonly forced?: boolean
}

function isGoUsed({ go, jinja, config = {}, architecture = "llama", forced }: Situation): boolean {
  const facts = { architecture, chatTemplate: jinja } as Parameters<
    typeof usesGoTemplate
  >[2]["facts"]
  return usesGoTemplate(readTemplate(go), { config }, { facts, forced })
}

const PLAIN = "<|im_start|>user {{ .Prompt }}<|im_end|>"
const TOOLS = "{{ range .Messages }}{{ .Content }}{{ end }}{{ .Tools }}"
const ROUND = `${TOOLS}{{ range .Messages }}{{ .ToolCalls }}{{ if eq .Role "tool" }}{{ end }}{{ end }}`
const THINKS = "{{ range .Messages }}<think>{{ .Thinking }}</think>{{ end }}"

const JINJA = "<|im_start|>user <|im_end|>"
const JINJA_TOOLS = `${JINJA}{{ tools }}`
const JINJA_ROUND = `${JINJA_TOOLS}{{ tool_calls }}{% if role == "tool" %}`
const JINJA_THINKS = `${JINJA}<think></think>`

describe("usesGoTemplate()", () => {
  test.each<[string, Situation, boolean]>([
    ["the file has none", { go: PLAIN }, true],
    ["both can do the same", { go: PLAIN, jinja: JINJA }, true],
    ["the file's can call tools", { go: PLAIN, jinja: JINJA_TOOLS }, false],
    ["the file's can think", { go: PLAIN, jinja: JINJA_THINKS }, false],
    ["each can do something else", { go: TOOLS, jinja: JINJA_THINKS }, true],
    ["the Modelfile's can do more", { go: TOOLS, jinja: JINJA }, true],
    ["both have tools, the file's also results of them", { go: TOOLS, jinja: JINJA_ROUND }, false],
    ["both have tools and results of them", { go: ROUND, jinja: JINJA_ROUND }, true],
    ["both think", { go: THINKS, jinja: JINJA_THINKS }, true],
    [
      "the file's thinks too, but has no results of tools",
      { go: ROUND, jinja: JINJA_TOOLS + JINJA_THINKS },
      true,
    ],
    [
      "the file's can do more, but the Modelfile's says something else",
      { go: `Answer like a pirate. ${PLAIN}`, jinja: JINJA_ROUND },
      true,
    ],
    [
      "the file's can do more, but the Modelfile's has other marks",
      { go: "[INST]{{ .Prompt }}[/INST]", jinja: JINJA_ROUND },
      true,
    ],
    ["the Modelfile's stands for none", { go: "{{ .Prompt }}", jinja: JINJA }, false],
    ["it is written in another way", { go: "{{- .Prompt -}}\n", jinja: JINJA }, false],
    ["it stands for none, and the file has none", { go: "{{ .Prompt }}" }, true],
    ["it says a word more", { go: "{{ .Prompt }}.", jinja: JINJA }, true],
    [
      "the user wants prompts as they are",
      { go: "{{ .Prompt }}", jinja: JINJA, forced: true },
      true,
    ],
    ["the user wants the Modelfile's", { go: PLAIN, jinja: JINJA_ROUND, forced: true }, true],
    ["the user wants the file's", { go: ROUND, jinja: JINJA, forced: false }, false],
    ["the user wants the file's, and it has none", { go: PLAIN, forced: false }, true],
    ["a built-in renderer", { go: ROUND, jinja: JINJA, config: { renderer: "x" } }, false],
    ["a built-in parser", { go: ROUND, jinja: JINJA, config: { parser: "x" } }, false],
    ["a built-in renderer, and the file has none", { go: PLAIN, config: { renderer: "x" } }, true],
    [
      "gpt-oss",
      { go: "<|start|>{{ .Prompt }}<|end|>", jinja: JINJA, architecture: "gptoss" },
      false,
    ],
  ])("%s", (_, situation, expected) => {
    expect(isGoUsed(situation)).toBe(expected)
  })
})

describe("checkTemplate()", () => {
  test("a template is fine, anything else is refused in Ollama's words", () => {
    checkTemplate("{{ .Prompt }}")
    expect(() => checkTemplate("{{ .Prompt")).toThrow(
      expect.objectContaining({
        code: "invalid-input",
        message: "template error: template: :1: unclosed action",
      }),
    )
  })
})
