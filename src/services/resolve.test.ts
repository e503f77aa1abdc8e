import { afterAll, beforeAll, describe, expect, test } from "bun:test"
import { utimesSync } from "node:fs"

import { f32, flag, type GgufInput, text, u32 } from "../gguf/write.ts"
import { type Capability } from "./resolve.ts"
import { ABLE_TEMPLATE, TestApp, type TestModel } from "./test-app.ts"

let app: TestApp

beforeAll(async () => {
  app = new TestApp()
  await app.install("tiny", { chatTemplate: ABLE_TEMPLATE })
  await app.install("me/Model:7b")
})

afterAll(() => app[Symbol.asyncDispose]())

async function capabilitiesOf(model: TestModel): Promise<readonly Capability[]> {
  await app.install("subject", model)
  return app.resolver.resolve("subject").capabilities
}

function template(chatTemplate: string): TestModel {
  return { chatTemplate }
}

function keys(metadata: Readonly<Record<string, GgufInput>>): TestModel {
  return { metadata }
}

describe("Resolver — capabilities", () => {
  test.each<[string, TestModel, Capability[]]>([
    ["nothing special", {}, ["completion"]],
    ["tools in the template", template("{% if tools %}"), ["tools", "completion"]],
    ["a tool call in the template", template("<|tool_call|>"), ["tools", "completion"]],
    ["both tags of thinking", template("<think></think>"), ["thinking", "completion"]],
    ["one tag of thinking", template("<think>"), ["completion"]],
    [
      "thoughts of earlier turns cut off",
      template("{{ content.split('</think>')[-1] }}"),
      ["thinking", "completion"],
    ],
    [
      "thoughts of earlier turns cut off, with double quotes",
      template('{{ content.split("</think>")|last }}'),
      ["thinking", "completion"],
    ],
    [
      "thoughts cut off, but given back apart",
      template("{{ reasoning_content }}{{ content.split('</think>')[-1] }}"),
      ["completion"],
    ],
    ["both", template(ABLE_TEMPLATE), ["tools", "thinking", "completion"]],
    ["gpt-oss, which thinks in channels", { architecture: "gpt-oss" }, ["thinking", "completion"]],
    ["gpt-oss under Ollama's name", { architecture: "gptoss" }, ["thinking", "completion"]],
    ["a pooling", keys({ "llama.pooling_type": u32(1) }), ["embedding"]],
    ["an image encoder", keys({ "llama.vision.block_count": u32(2) }), ["completion", "vision"]],
    ["an audio encoder", keys({ "llama.audio.block_count": u32(2) }), ["completion", "audio"]],
    [
      "a config that says more",
      { config: { capabilities: ["vision", "tools"] } },
      ["vision", "tools", "completion"],
    ],
    // They would be promised and not kept.
    [
      "a config with what we cannot do",
      { config: { capabilities: ["insert", "image"] } },
      ["completion"],
    ],
    [
      "a Go template",
      { template: "{{ .Tools }}{{ .Prompt }}{{ .Suffix }}" },
      ["tools", "completion", "insert"],
    ],
    [
      "a Go template that shows thoughts",
      {
        template: "{{ range .Messages }}{{ if .Thinking }}<t>{{ .Thinking }}</t>{{ end }}{{ end }}",
      },
      ["thinking", "completion"],
    ],
    [
      "a Go template that is used though the file's own can do more, because it says something else",
      { template: "### Question: {{ .Prompt }}", chatTemplate: ABLE_TEMPLATE },
      ["completion"],
    ],
    [
      "a Go template that the file's own stands for",
      { template: "{{ .Prompt }}", chatTemplate: ABLE_TEMPLATE },
      ["tools", "thinking", "completion"],
    ],
  ])("%s", async (_, model, expected) => {
    expect(await capabilitiesOf(model)).toEqual(expected)
  })
})

describe("Resolver — names", () => {
  test.each<[string, string, string]>([
    ["tiny", "tiny:latest", "registry.ollama.ai/library/tiny:latest"],
    ["TINY:Latest", "tiny:latest", "registry.ollama.ai/library/tiny:latest"],
    [" tiny ", "tiny:latest", "registry.ollama.ai/library/tiny:latest"],
    ["tiny:local", "tiny:latest", "registry.ollama.ai/library/tiny:latest"],
    ["ME/model:7B", "me/Model:7b", "registry.ollama.ai/me/Model:7b"],
    ["me/model:7b:local", "me/Model:7b", "registry.ollama.ai/me/Model:7b"],
  ])("%p is found as %s", (requested, name, fullName) => {
    expect(app.resolver.resolve(requested)).toMatchObject({ name, fullName })
  })

  test.each<[string, string, string]>([
    ["nope", "not-found", "model 'nope' not found"],
    [" nope ", "not-found", "model ' nope ' not found"],
    ["nope:7b:local", "not-found", "model 'nope:7b:local' not found"],
    ["../etc/passwd", "invalid-input", "invalid model name"],
    ["", "invalid-input", "invalid model name"],
    ["a b", "invalid-input", "invalid model name"],
    [
      "tiny:local:cloud",
      "invalid-input",
      'use either :local or :cloud, not both: "tiny:local:cloud"',
    ],
    ["tiny:cloud", "invalid-input", "ollama cloud is disabled: remote model is unavailable"],
    ["tiny:20b-cloud", "invalid-input", "ollama cloud is disabled: remote model is unavailable"],
  ])("%p is %s", (requested, code, message) => {
    expect(() => app.resolver.resolve(requested)).toThrow(
      expect.objectContaining({ code, message }),
    )
  })
})

describe("Resolver — files", () => {
  test("says what the header says", () => {
    expect(app.resolver.resolve("tiny").facts).toMatchObject({
      architecture: "llama",
      contextLength: 8192,
      embeddingLength: 2048,
      quantization: "Q4_K_M",
    })
  })

  test("reads a header once, and again when the file changes", async () => {
    await app.install("read", { metadata: { "general.x": f32(1), "general.y": flag(true) } })
    const first = app.resolver.resolve("read")
    expect(app.resolver.resolve("read").header).toBe(first.header)
    utimesSync(first.stored.modelPath, 1, 1)
    const second = app.resolver.resolve("read")
    expect(second.header).not.toBe(first.header)
    expect(second.facts).toEqual(first.facts)
  })

  test("follows a name that was given to another model", async () => {
    await app.install("moving", { metadata: { "general.author": text("first") } })
    const first = app.resolver.resolve("moving")
    await app.install("moving", { metadata: { "general.author": text("second") } })
    const second = app.resolver.resolve("moving")
    expect(second.stored.modelPath).not.toBe(first.stored.modelPath)
    expect(second.header.metadata.get("general.author")).toEqual(text("second"))
  })
})
