import { describe, expect, test } from "bun:test"

import { chatFormatOf } from "./chat-format.ts"

/** A template that puts something before and after each message, by role. */
function template(system: string, user: string, assistant: string): string {
  return `{%- for m in messages %}{%- if m.role == 'system' %}${system}{%- elif m.role == 'user' %}${user}{%- else %}${assistant}{%- endif %}{%- endfor %}`
}

const CHATML = "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n"

describe("chatFormatOf()", () => {
  test.each<[string, string, string]>([
    ["chatml", CHATML, "<|im_end|>"],
    [
      "llama3-instruct",
      "<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n{{ m.content }}<|eot_id|>",
      "<|eot_id|>",
    ],
    [
      "gemma-instruct",
      "<start_of_turn>{{ m.role }}\n{{ m.content }}<end_of_turn>\n",
      "<end_of_turn>",
    ],
    ["phi-3", template("<|system|>", "<|user|>{{ m.content }}<|end|>", "<|assistant|>"), "<|end|>"],
    ["zephyr", template("<|system|>", "<|user|>\n{{ m.content }}", "<|assistant|>"), "<|user|>"],
    ["llama2-chat", template("<<SYS>>{{ m.content }}<</SYS>>", "[INST]x[/INST]", "x"), "[INST]"],
    ["mistral-instruct", template("", "[INST] {{ m.content }} [/INST]", "x"), "[/INST]"],
    [
      "alpaca",
      template("x", "### Instruction:\n{{ m.content }}", "### Response:\n"),
      "### Instruction:",
    ],
    ["solar-instruct", template("### System:", "### User:", "### Assistant:"), "### User:"],
    ["vicuna", template("x", "USER: {{ m.content }}", "ASSISTANT: "), "USER:"],
    ["falcon-instruct", template("x", "User: {{ m.content }}", "Assistant: "), "User:"],
    ["granite-instruct", template("System:", "Question:", "Answer:"), "Question:"],
  ])("knows %s", (name, text, stop) => {
    const format = chatFormatOf(text)
    expect(format?.name).toBe(name)
    expect(format?.stops).toContain(stop)
  })

  test("takes no long template for one of plain words", () => {
    const text = template("x", "USER: {{ m.content }}", "ASSISTANT: ")
    expect(chatFormatOf(`${text}{# ${"tools ".repeat(300)} #}`)).toBeUndefined()
    expect(chatFormatOf(`${CHATML}{# ${"tools ".repeat(300)} #}`)?.name).toBe("chatml")
  })

  test.each(["", "{{ messages[0].content }}", "<｜User｜>{{ m.content }}<｜Assistant｜>"])(
    "%j is none that is known",
    (text) => {
      expect(chatFormatOf(text)).toBeUndefined()
    },
  )
})
