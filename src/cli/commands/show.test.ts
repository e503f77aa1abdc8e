import { describe, expect, test } from "bun:test"
import { rejects } from "node:assert/strict"

import type { ShowReply } from "../../api/ollama.ts"
import { Client } from "../../client/client.ts"
import { TestServer } from "../../server/test-server.ts"
import { TestTerminal } from "../test-terminal.ts"
import { overview, show, type ShowFlags } from "./show.ts"

const REPLY: ShowReply = {
  modelfile: "FROM /x\n",
  template: "{{ .Prompt }}",
  details: {
    parent_model: "",
    format: "gguf",
    family: "llama",
    families: ["llama"],
    parameter_size: "1.2B",
    quantization_level: "Q4_K_M",
  },
  model_info: {
    "general.architecture": "llama",
    "llama.context_length": 8192,
    "llama.embedding_length": 2048,
  },
  tensors: [],
  capabilities: ["completion"],
  modified_at: "2026-01-02T03:04:05Z",
}

/** The overview; trailing blanks as dots. */
function shown(reply: Partial<ShowReply>, isVerbose = false): string {
  const text = overview({ ...REPLY, ...reply }, isVerbose)
  return text.replaceAll(/ +$/gm, (blanks) => "·".repeat(blanks.length))
}

/** One section of the overview, without its title. */
function section(title: string, reply: Partial<ShowReply>, isVerbose = false): string[] {
  const sections = shown(reply, isVerbose).split("\n\n")
  const found = sections.find((text) => text.startsWith(`  ${title}\n`))
  return found?.split("\n").slice(1) ?? []
}

test("cria show — for scripts prints what the API says", async () => {
  await using server = await TestServer.start()
  using terminal = new TestTerminal()
  const client = new Client("http://localhost", (url, init) => server.request(url, init))
  await show(client, "tiny", { json: true })
  expect(JSON.parse(terminal.stdout)).toEqual(await client.show("tiny"))
})

describe("cria show — the overview", () => {
  test("is Ollama's, trailing blanks included", () => {
    expect(shown({})).toBe(
      [
        "  Model",
        "    architecture        llama·····",
        "    parameters          1.2B······",
        "    context length      8192······",
        "    embedding length    2048······",
        "    quantization        Q4_K_M····",
        "",
        "  Capabilities",
        "    completion····",
        "",
        "",
      ].join("\n"),
    )
  })

  test("has a line for what the model requires", () => {
    expect(section("Model", { requires: "0.14.0" }).at(-1)).toBe(
      "    requires            0.14.0····",
    )
  })

  test("has no line for what the file does not say", () => {
    const info = { "general.architecture": "llama", "llama.context_length": 8192 }
    expect(section("Model", { model_info: info }).join("\n")).not.toContain("embedding length")
  })

  test("takes the number of parameters from the file when the config does not say", () => {
    const details = { ...REPLY.details, parameter_size: "" }
    const info = { ...REPLY.model_info, "general.parameter_count": 1_235_814_432 }
    expect(section("Model", { details, model_info: info })).toContain(
      "    parameters          1.2B······",
    )
  })

  test("says where a model answers that is on another machine", () => {
    const rows = section("Model", {
      remote_model: "gpt-oss:120b",
      remote_host: "https://ollama.com:443",
      model_info: {},
    })
    expect(rows).toEqual([
      "    Remote model    gpt-oss:120b··············",
      "    Remote URL      https://ollama.com:443····",
      "    parameters      1.2B······················",
      "    quantization    Q4_K_M····················",
    ])
  })

  test.each(["vision", "audio"])("has a section for a projector with a %s encoder", (kind) => {
    const info = {
      "general.architecture": "clip",
      "general.parameter_count": 417_760_256,
      [`clip.${kind}.embedding_length`]: 1152,
      [`clip.${kind}.projection_dim`]: 2560,
    }
    expect(section("Projector", { projector_info: info })).toEqual([
      "    architecture        clip·······",
      "    parameters          417.76M····",
      "    embedding length    1152·······",
      "    dimensions          2560·······",
    ])
    expect(section("Projector", {})).toEqual([])
  })

  test("lists parameters in columns", () => {
    const parameters =
      'temperature                    0.7\nstop                           "<eot>"\nnum_ctx                        4096'
    expect(section("Parameters", { parameters })).toEqual([
      "    temperature    0.7········",
      '    stop           "<eot>"····',
      "    num_ctx        4096·······",
    ])
  })

  test("shows two lines of system text and licence, and that there is more", () => {
    const system = "\n  You are a pirate.  \n\nSay arr.\nNever stop.\n"
    expect(section("System", { system })).toEqual([
      "    You are a pirate.····",
      "    Say arr.·············",
      "    ...··················",
    ])
    expect(section("License", { license: "MIT\nCopyright" })).toEqual([
      "    MIT··········",
      "    Copyright····",
    ])
  })

  test("wraps long lines of them at 100 columns, between words", () => {
    const system = `${"word ".repeat(30)}end\nshort`
    expect(section("System", { system })).toEqual([
      `    ${"word ".repeat(19)}word····`,
      `    ${"word ".repeat(10)}end${"·".repeat(50)}`,
      `    short${"·".repeat(98)}`,
    ])
  })

  test("wraps other cells at 30", () => {
    const info = { ...REPLY.model_info, "general.description": "A small model for those who wait" }
    expect(section("Metadata", { model_info: info }, true).slice(1, 3)).toEqual([
      "    general.description       A small model for those who····",
      "                              wait···························",
    ])
  })

  test("never breaks a word", () => {
    const [line] = section("System", { system: `x ${"y".repeat(120)} z` })
    expect(section("System", { system: `x ${"y".repeat(120)} z` })).toHaveLength(3)
    expect(line).toStartWith("    x···")
  })
})

describe("cria show — verbose", () => {
  const reply = {
    model_info: {
      "general.architecture": "llama",
      "b.flag": true,
      "b.number": 1e-5,
      "b.large": 1_235_814_432,
      "a.list": ["x", "y"],
      "a.long": Array.from({ length: 14 }, (_, i) => i),
      "a.texts": ["first of many", "second"],
      "a.empty": [],
      "a.none": null,
    },
    tensors: [
      { name: "output.weight", type: "Q6_K", shape: [2048, 32000] },
      { name: "norm", type: "F32", shape: [2048] },
    ],
  }

  test("lists all metadata by name", () => {
    const rows = section("Metadata", reply, true).map((row) => row.replace(/·+$/, "").trim())
    expect(rows.map((row) => row.split(/ {4,}/))).toEqual([
      ["a.empty", "[]"],
      ["a.list", "[x y]"],
      ["a.long", "[0 1 2 ...+11 more]"],
      ["a.none"],
      ["a.texts", "[first of many ...+1 more]"],
      ["b.flag", "true"],
      ["b.large", "1.235814432e+09"],
      ["b.number", "1e-05"],
      ["general.architecture", "llama"],
    ])
  })

  test("lists the tensors", () => {
    expect(section("Tensors", reply, true)).toEqual([
      "    output.weight    Q6_K    [2048 32000]····",
      "    norm             F32     [2048]··········",
    ])
  })

  test("not without being asked", () => {
    expect(section("Metadata", reply)).toEqual([])
    expect(section("Tensors", reply)).toEqual([])
  })
})

describe("cria show — one section", () => {
  const WHOLE = { ...REPLY, license: "MIT", parameters: "seed    7", system: "Be brief." }

  async function printed(flags: ShowFlags, reply: object = WHOLE): Promise<string> {
    using terminal = new TestTerminal()
    await show(
      new Client("http://localhost", () => Promise.resolve(Response.json(reply))),
      "tiny",
      flags,
    )
    return terminal.stdout
  }

  test.each<[keyof ShowFlags, string]>([
    ["license", "MIT\n"],
    ["modelfile", "FROM /x\n\n"],
    ["parameters", "seed    7\n"],
    ["system", "Be brief."],
    ["template", "{{ .Prompt }}"],
  ])("--%s prints it raw", async (flag, expected) => {
    expect(await printed({ [flag]: true })).toBe(expected)
  })

  test("what the model does not have is empty", async () => {
    expect(await printed({ license: true }, REPLY)).toBe("\n")
    expect(await printed({ system: true }, REPLY)).toBe("")
  })

  test("two at once are refused before the server is asked", async () => {
    const client = new Client("http://localhost", () => Promise.reject(new Error("asked")))
    await rejects(show(client, "tiny", { license: true, system: true }), {
      message:
        "only one of '--license', '--modelfile', '--parameters', '--system', or '--template' can be specified",
    })
  })

  test("without any it is the overview of what the server says", async () => {
    await using server = await TestServer.start()
    using terminal = new TestTerminal()
    const client = new Client("http://localhost", (url, init) => server.request(url, init))
    await show(client, "tiny", {})
    expect(terminal.stdout).toStartWith("  Model\n    architecture        llama     \n")
    expect(terminal.stdout).toContain("  Capabilities\n    tools         \n    thinking      \n")
    await rejects(show(client, "nope", {}), { message: "model 'nope:latest' not found" })
  })
})
