import { describe, expect, test } from "bun:test"

import { readChatTemplate, renderChat, type ChatRendering, renderInsert } from "./go-chat.ts"
import type { Message, Tool } from "./message.ts"

function render(source: string, fields: Partial<ChatRendering> = {}): string {
  return renderChat(readChatTemplate(source), { messages: [], tools: [], ...fields })
}

function message(role: string, content: string, fields: Partial<Message> = {}): Message {
  return { role, content, ...fields }
}

const CHAT = [
  message("system", "Be kind."),
  message("user", "Hi"),
  message("assistant", "Hello"),
  message("user", "Bye"),
]

const TOOL: Tool = {
  name: "wx",
  description: "Weather <now>",
  parameters: {
    type: "object",
    additionalProperties: false,
    required: ["city"],
    properties: {
      unit: { type: ["string", "null"], enum: ["C", "F"] },
      city: { type: "string", description: "A city", minLength: 1 },
    },
  },
}

describe("renderChat() — templates that go over the messages", () => {
  const MESSAGES = "{{ .System }}|{{ range .Messages }}[{{ .Role }}:{{ .Content }}]{{ end }}"

  test("the system text is a field, and stays among the messages", () => {
    expect(render(MESSAGES, { messages: CHAT })).toBe(
      "Be kind.|[system:Be kind.][user:Hi][assistant:Hello][user:Bye]",
    )
  })

  test("several system texts are one field", () => {
    const messages = [message("system", "a"), message("user", "x"), message("system", "b")]
    expect(render(MESSAGES, { messages })).toBe("a\n\nb|[system:a][user:x][system:b]")
  })

  test("neighbours of one role are one message, results of tools are not", () => {
    const roles = ["user", "user", "tool", "tool", "assistant", "assistant", "assistant"]
    const messages = roles.map((role, i) => message(role, String(i)))
    expect(render(MESSAGES, { messages })).toBe(
      "|[user:0\n\n1][tool:2][tool:3][assistant:4\n\n5\n\n6]",
    )
  })

  test("tools print as JSON, all and each, with what Ollama knows of a schema", () => {
    const json =
      '{"type":"function","function":{"name":"wx","description":"Weather \\u003cnow\\u003e",' +
      '"parameters":{"type":"object","required":["city"],"properties":{' +
      '"city":{"type":"string","description":"A city"},' +
      '"unit":{"type":["string","null"],"enum":["C","F"]}}}}}'
    const fields = { tools: [TOOL] }
    expect(render("{{ .Messages }}{{ .Tools }}", fields)).toBe(`[][${json}]`)
    expect(render("{{ .Messages }}{{ range .Tools }}{{ . }}{{ end }}", fields)).toBe(`[]${json}`)
    expect(render("{{ .Messages }}{{ json .Tools }}", fields)).toBe(`[][${json}]`)
  })

  test("properties of a tool come in order, and print their types", () => {
    const source =
      "{{ range .Tools }}{{ range $name, $p := .Function.Parameters.Properties }}" +
      "{{ $name }}: {{ $p.Type }} {{ toTypeScriptType $p }};{{ end }}{{ end }}{{ .Messages }}"
    expect(render(source, { tools: [TOOL] })).toBe(
      "city: string string;unit: [string null] string | null;[]",
    )
  })

  test("a tool without parameters, and one with nonsense for them", () => {
    const tools = [
      { name: "a" },
      { name: "b", parameters: { properties: [], type: 5, items: [1] } },
    ]
    expect(
      render("{{ .Messages }}{{ range .Tools }}{{ .Function.Parameters }}{{ end }}", { tools }),
    ).toBe('[]{"type":"","properties":{}}{"type":"","items":[1],"properties":{}}')
  })

  test("calls of tools, with arguments that print as JSON and can be gone over", () => {
    const call = { id: "c1", name: "wx", arguments: '{"unit":"C","city":"Oslo","n":[1,null]}' }
    const messages = [message("assistant", "", { toolCalls: [call, { ...call, arguments: "" }] })]
    const source =
      "{{ range .Messages }}{{ range .ToolCalls }}{{ .ID }} {{ .Function.Index }} {{ .Function.Name }}" +
      "{{ .Function.Arguments }}{{ range $k, $v := .Function.Arguments }} {{ $k }}={{ $v }}{{ end }};{{ end }}{{ end }}"
    expect(render(source, { messages })).toBe(
      'c1 0 wx{"city":"Oslo","n":[1,null],"unit":"C"} city=Oslo n=[1 <nil>] unit=C;c1 1 wx{};',
    )
  })

  test("results of tools say whose they are", () => {
    const messages = [message("tool", "21", { toolName: "wx", toolCallId: "c1" })]
    const source = "{{ range .Messages }}{{ .ToolName }} {{ .ToolCallID }} {{ .Content }}{{ end }}"
    expect(render(source, { messages })).toBe("wx c1 21")
  })

  test.each<[object, string]>([
    [{}, "false  false"],
    [{ thinking: true }, "true medium true"],
    [{ thinking: true, effort: "high" }, "true high true"],
    [{ thinking: false }, "false  true"],
  ])("thinking: %j", (fields, expected) => {
    const source = "{{ .Think }} {{ .ThinkLevel }} {{ .IsThinkSet }}{{ range .Messages }}{{ end }}"
    expect(render(source, fields)).toBe(expected)
  })

  test.each<[string, Partial<ChatRendering>, string, string]>([
    [
      "a field that messages do not have",
      { messages: CHAT },
      "{{ range .Messages }}{{ .Nope }}{{ end }}",
      "can't evaluate field Nope in type Message",
    ],
    [
      "arguments that are no object",
      {
        messages: [
          message("assistant", "", { toolCalls: [{ id: "", name: "wx", arguments: "[" }] }),
        ],
      },
      "{{ .Messages }}",
      'Cannot use the arguments of the call of "wx": expected a JSON object',
    ],
    [
      "a schema without end",
      {
        tools: [
          {
            name: "a",
            parameters: JSON.parse(`${'{"properties":{"a":'.repeat(2000)}{}${"}}".repeat(2000)}`),
          },
        ],
      },
      "{{ .Messages }}",
      "Cannot use a tool: its parameters are nested more than 30 deep",
    ],
    [
      "values without end",
      {
        tools: [
          { name: "a", parameters: { items: JSON.parse("[".repeat(2000) + "]".repeat(2000)) } },
        ],
      },
      "{{ .Messages }}",
      "Cannot use a tool: its values are nested more than 30 deep",
    ],
  ])("%s is an error", (_, fields, source, words) => {
    expect(() => render(source, fields)).toThrow(words)
  })
})

describe("renderChat() — templates for one prompt and one response", () => {
  const SOURCE =
    "{{ if .System }}<s>{{ .System }}</s>{{ end }}{{ if .Prompt }}<u>{{ .Prompt }}</u>{{ end }}<a>{{ .Response }}</a>\n"

  test("ends where the model goes on", () => {
    expect(render(SOURCE, { messages: [message("user", "Hi")] })).toBe("<u>Hi</u><a>")
  })

  test("earlier turns are whole", () => {
    expect(render(SOURCE, { messages: CHAT })).toBe(
      "<s>Be kind.</s><u>Hi</u><a>Hello</a>\n<u>Bye</u><a>",
    )
  })

  test("an answer that was begun goes on", () => {
    const messages = [message("user", "Count"), message("assistant", "1, 2,")]
    expect(render(SOURCE, { messages })).toBe("<u>Count</u><a>1, 2,")
  })

  test("a system text in mid-chat begins a new turn", () => {
    const messages = [message("user", "a"), message("system", "s"), message("user", "b")]
    expect(render(SOURCE, { messages })).toBe("<u>a</u><a></a>\n<s>s</s><u>b</u><a>")
  })

  test("without a place for the response it comes last", () => {
    const messages = [message("user", "a"), message("assistant", "b"), message("user", "c")]
    expect(render("{{ .Prompt }}:", { messages })).toBe("a:bc:")
    expect(render("{{ .Prompt }}", { messages: [message("user", "c")] })).toBe("c")
  })

  test.each([
    ["{{ if .Response }}<a>{{ .Response }}</a>{{ end }}", "<a>b"],
    [
      "{{ with .Prompt }}{{ . }}{{ end }}{{ .Response }}{{ if .System }}x{{ else }}y{{ end }}",
      "ab",
    ],
    ["{{ if .System }}{{ .Response }}x{{ else }}{{ .Response }}y{{ end }}z", ""],
    ['{{ if .Prompt }}{{ printf "%s!" .Response }}x{{ end }}z', "b!"],
    ["{{ $r := .Response }}{{ $r }}{{ .Response }}x", "bb"],
  ])("%s is cut behind the response", (source, expected) => {
    const messages = [message("user", "a"), message("assistant", "b")]
    expect(render(source, { messages })).toBe(expected)
  })
})

describe("renderChat() — limits", () => {
  test("all turns together may take what one run may", () => {
    const messages = Array.from({ length: 20 }, () => [
      message("user", "a"),
      message("assistant", "b"),
    ])
    const source = "{{ range 200000 }}{{ end }}{{ .Prompt }}{{ .Response }}"
    expect(() => render(source, { messages: messages.flat() })).toThrow("3000000 steps")
    expect(render(source, { messages: messages[0] ?? [] })).toBe("ab")
  })
})

describe("renderInsert()", () => {
  test("gives both sides of the gap and nothing else", () => {
    const source =
      "{{ if .Suffix }}<p>{{ .Prompt }}<s>{{ .Suffix }}<m>{{ else }}{{ .Prompt }}{{ end }}{{ .System }}"
    const gap = { prompt: "a", suffix: "b" }
    expect(renderInsert(readChatTemplate(source), gap)).toBe("<p>a<s>b<m><no value>")
  })
})

const loop = (body: string) => `{{ range .Messages }}${body}{{ end }}`

describe("readChatTemplate() — what a template can do", () => {
  test("nothing special", () => {
    expect(readChatTemplate("{{ .Prompt }}")).toMatchObject({
      hasMessages: false,
      hasTools: false,
      hasToolTurns: false,
      hasSuffix: false,
      thinking: undefined,
      toolTag: "{",
    })
  })

  test.each([
    ["{{ if .tools }}{{ end }}", "hasTools"],
    ["{{ $tools := 1 }}", "hasTools"],
    ["{{ $.Tools }}", "hasTools"],
    ["{{ range .Messages }}{{ end }}", "hasMessages"],
    ["{{ len (slice $.Messages 0) }}", "hasMessages"],
    ['{{ define "x" }}{{ .Suffix }}{{ end }}', "hasSuffix"],
    ['{{ .Tools }}{{ .ToolCalls }}{{ if eq .Role "tool" }}{{ end }}', "hasToolTurns"],
    ["{{ .Tools }}{{ .ToolCalls }}<tool_response>", "hasToolTurns"],
    ['{{ .Tools }}{{ .ToolCalls }}{{ print "[TOOL_RESULTS]" }}', "hasToolTurns"],
  ] as const)("%s: %s", (source, ability) => {
    expect(readChatTemplate(source)[ability]).toBe(true)
  })

  test.each([
    '{{ .Tools }}{{ .ToolCalls }}{{ if eq .Role "user" }}{{ end }}',
    '{{ .Tools }}{{ if eq .Role "tool" }}{{ end }}',
    '{{ .ToolCalls }}{{ if eq .Role "tool" }}{{ end }}',
  ])("%s does not render whole turns with tools", (source) => {
    expect(readChatTemplate(source).hasToolTurns).toBe(false)
  })

  test.each([
    [loop("{{ if .Thinking }}<think>\n{{ .Thinking }}\n</think>\n{{ end }}")],
    [loop("{{ if and .Thinking (gt 1 0) }}<think>{{ .Thinking }}</think>{{ end }}{{ .Content }}")],
    [loop("{{ with .Thinking }}<think>{{ . }}</think>{{ end }}")],
    [loop("<|im|>{{ if .Thinking }}<think>{{ .Thinking }}</think>{{ end }}<|im_end|>")],
    [
      "{{ range $i, $m := $.Messages }}{{ if $m.Thinking }}<think>{{ $m.Thinking }}</think>{{ end }}{{ end }}",
    ],
  ])("%s thinks between tags", (source) => {
    const thinking = { opening: "<think>", closing: "</think>" }
    expect(readChatTemplate(source).thinking).toEqual(thinking)
  })

  test.each([
    "{{ .Thinking }}",
    "<think>{{ .Thinking }}</think>",
    loop("{{ .Thinking }}"),
    loop("<think>{{ .Thinking }}"),
    loop("{{ if .Thinking }}<think></think>{{ end }}"),
    "{{ range .Turns }}<think>{{ .Thinking }}</think>{{ end }}",
  ])("%s shows no tags", (source) => {
    expect(readChatTemplate(source).thinking).toBeUndefined()
  })

  test.each([
    [loop('{{ if .ToolCalls }}<tool_call>\n{"name": "{{ .X }}"}{{ end }}'), "<tool_call>"],
    [loop("{{ if .ToolCalls }}\n{{ range .ToolCalls }}[CALL] {{ . }}{{ end }}{{ end }}"), "[CALL]"],
    [loop('{{ if .ToolCalls }}{{ range .ToolCalls }}{"name"{{ end }}{{ end }}'), "{"],
    [loop('{{ if .ToolCalls }}[{{ range .ToolCalls }}{"name"{{ end }}]{{ end }}'), "["],
    [loop("{{ if .ToolCalls }}{{ .ToolCalls }}{{ end }}"), "{"],
    [loop("{{ if and .X .ToolCalls }}<a>{{ end }}{{ if .ToolCalls }}<b>{{ end }}"), "<a>"],
  ])("%s: calls begin with %s", (source, tag) => {
    expect(readChatTemplate(source).toolTag).toBe(tag)
  })
})
