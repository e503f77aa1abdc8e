import { afterAll, beforeAll, describe, expect, test } from "bun:test"
import { readFileSync } from "node:fs"
import { join } from "node:path"

import { Ollama } from "ollama"

import { DEMO, DRAFT, type Server, World } from "./support.ts"

/** What the demo model's own template does, and a line that it does not have, so that it is used. */
const TEMPLATE = readFileSync(join(import.meta.dirname, "../fixtures/demo-template.gotmpl"), "utf8")
const OLD =
  "{{ if .Suffix }}<pre>{{ .Prompt }}<suf>{{ .Suffix }}<mid>{{ else }}" +
  "{{ if .System }}Rules: {{ .System }}\n{{ end }}Question: {{ .Prompt }}\nAnswer:{{ end }}"

let world: World
let server: Server

beforeAll(async () => {
  world = new World()
  world.install("modern", DEMO, { template: TEMPLATE })
  world.install("old", DRAFT, { template: OLD })
  world.install("broken", DRAFT, { template: "{{ nope }}" })
  server = await world.serve()
})

afterAll(async () => {
  await server[Symbol.asyncDispose]()
  await world.quiet()
  await world[Symbol.asyncDispose]()
})

/** The prompt that a request would give the model. */
async function rendered(path: string, body: object): Promise<string> {
  const reply = await server.json(path, { ...body, _debug_render_only: true })
  const info = reply["_debug_info"] as { rendered_template: string }
  return info.rendered_template
}

const WEATHER = {
  type: "function" as const,
  function: {
    name: "get_weather",
    description: "Get the weather of a city",
    parameters: {
      type: "object",
      properties: { city: { type: "string", description: "City" } },
      required: ["city"],
    },
  },
}

describe("a model with a Go template", () => {
  test("show tells what the template can do", async () => {
    expect(await server.json("/api/show", { model: "modern" })).toMatchObject({
      template: TEMPLATE,
      capabilities: ["tools", "thinking", "completion"],
    })
    expect(await server.json("/api/show", { model: "old" })).toMatchObject({
      template: OLD,
      capabilities: ["completion", "insert"],
    })
  })

  test("chats, thinks unless it is told not to, and calls tools", async () => {
    const ollama = new Ollama({ host: server.url })
    const ask = (content: string, fields: object = {}) =>
      ollama.chat({
        model: "modern",
        messages: [{ role: "user", content }],
        options: { temperature: 0 },
        ...fields,
      })
    const { message } = await ask("What is the capital of France?")
    expect(message.content).toContain("Paris")
    expect(message.thinking ?? "").not.toBe("")
    const quiet = await ask("What is the capital of France?", { think: false })
    expect(quiet.message).toMatchObject({ content: "The capital of France is Paris." })
    expect(quiet.message.thinking ?? "").toBe("")
    const called = await ask("What is the weather in Oslo?", { think: false, tools: [WEATHER] })
    expect(called.message.tool_calls).toEqual([
      expect.objectContaining({
        function: expect.objectContaining({ name: "get_weather", arguments: { city: "Oslo" } }),
      }),
    ])
  })

  test("an old one renders system text, earlier turns, and the question", async () => {
    const messages = [
      { role: "system", content: "Be kind." },
      { role: "user", content: "a" },
      { role: "assistant", content: " b" },
      { role: "user", content: "c" },
    ]
    expect(await rendered("/api/chat", { model: "old", messages })).toBe(
      "Rules: Be kind.\nQuestion: a\nAnswer: bQuestion: c\nAnswer:",
    )
    const generate = { model: "old", prompt: "a", system: "Be brief." }
    expect(await rendered("/api/generate", generate)).toBe("Rules: Be brief.\nQuestion: a\nAnswer:")
  })

  test("fills the gap before a suffix", async () => {
    const gap = { model: "old", prompt: "a", suffix: "b", options: { num_predict: 3 } }
    expect(await rendered("/api/generate", gap)).toBe("<pre>a<suf>b<mid>")
    expect(await server.json("/api/generate", { ...gap, stream: false })).toMatchObject({
      done: true,
    })
    const reply = await server.post("/api/generate", { ...gap, model: "modern" })
    expect([reply.status, await reply.json()]).toEqual([
      400,
      { error: "registry.ollama.ai/library/modern:latest does not support insert" },
    ])
  })

  test("that cannot be read says so, and can be shown", async () => {
    const reply = await server.post("/api/generate", { model: "broken", prompt: "a" })
    const error = 'template: :1: function "nope" not defined'
    expect(reply.status).toBe(500)
    expect(await reply.json()).toMatchObject({ error })
    expect(await server.json("/api/show", { model: "broken" })).toMatchObject({
      modelfile: expect.stringContaining("TEMPLATE {{ nope }}"),
    })
  })
})

describe("a model made with a TEMPLATE", () => {
  test("is asked with it, though its file has a template of its own", async () => {
    const template = "Riddle: {{ .Prompt }}\nGuess:"
    const made = await server.post("/api/create", { model: "riddler", from: "modern", template })
    expect(await made.text()).toContain("success")
    expect(await rendered("/api/generate", { model: "riddler", prompt: "a" })).toBe(
      "Riddle: a\nGuess:",
    )
    const body = { model: "riddler", from: "modern", template: "{{ if }}", stream: false }
    const refused = await server.post("/api/create", body)
    expect(refused.status).toBe(400)
    expect(await refused.json()).toMatchObject({
      error: "template error: template: :1: missing value for if",
    })
  })
})

describe("a template in a request", () => {
  test("stands in place of the model's", async () => {
    const template = "Q: {{ .Prompt }} ({{ .System }})\nA: {{ .Response }}."
    const body = { model: "demo", prompt: "a", system: "s", template }
    expect(await rendered("/api/generate", body)).toBe("Q: a (s)\nA: ")
  })

  test.each([
    ["{{ if }}", "template: :1: missing value for if"],
    [
      "{{ range .Prompt }}{{ end }}",
      'template: :1:9: executing "" at <.Prompt>: range can\'t iterate over a',
    ],
    ['{{ define "x" }}{{ template "x" }}{{ end }}{{ template "x" }}', "template depth"],
    ["{{ range 9999999999 }}{{ end }}", "steps"],
  ])("%s fails, and the server goes on", async (template, words) => {
    const reply = await server.post("/api/generate", { model: "demo", prompt: "a", template })
    expect(reply.status).toBe(500)
    expect(await reply.text()).toContain(JSON.stringify(words).slice(1, -1))
    const { response } = await server.json("/api/generate", {
      model: "demo",
      prompt: "2+3?",
      think: false,
      stream: false,
      options: { temperature: 0 },
    })
    expect(response).toBe("2 + 3 = 5.")
  })
})
