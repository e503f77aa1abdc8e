import { afterAll, describe, expect, test } from "bun:test"
import { readFileSync } from "node:fs"

import { CriaError } from "../util/errors.ts"
import { translationOf } from "./dialect.ts"
import { TemporaryFolder } from "./raw-file.ts"
import { readGguf } from "./read.ts"
import { readModel } from "./split.ts"
import { type LoadableModel, readLoadable, viewChunks } from "./translate.ts"
import {
  f32,
  type GgufInput,
  packNumbers,
  packStrings,
  type TensorSource,
  text,
  u32,
  writeGguf,
} from "./write.ts"

const DEMO_MODEL = new URL("../../models/demo/cria-demo-q8_0.gguf", import.meta.url).pathname

const folder = new TemporaryFolder()
afterAll(() => folder[Symbol.dispose]())

let written = 0

type Fields = Readonly<Record<string, GgufInput>>

/** A tensor of rising bytes, so that a byte at a wrong place is seen. */
function tensor(name: string, ...dims: readonly number[]): TensorSource {
  const numbers = new Float32Array(dims.reduce((product, size) => product * size, 1))
  for (const index of numbers.keys()) numbers[index] = name.length * 1000 + index
  return { name, type: "F32", dims, chunks: [new Uint8Array(numbers.buffer)] }
}

/** Writes a file of an architecture. Keys without a dot in front are the architecture's own. */
async function write(
  architecture: string,
  fields: Fields,
  tensors: readonly TensorSource[] = [tensor("token_embd.weight", 8, 4)],
): Promise<string> {
  const path = `${folder.path}/${written++}.gguf`
  const entries = Object.entries(fields).map(([key, value]): [string, GgufInput] => [
    /^(?:general|tokenizer|split)\./.test(key) ? key : `${architecture}.${key}`,
    value,
  ])
  const metadata = new Map([["general.architecture", text(architecture)] as const, ...entries])
  await writeGguf(path, { metadata, tensors })
  return path
}

function valueIn(model: LoadableModel, key: string): unknown {
  const found = model.header.metadata.get(key)
  return found?.type === "array" ? found.values : found?.value
}

/** What says that a file is one of two. */
function splitKeys(number: number): Map<string, GgufInput> {
  return new Map([
    ["split.no", { type: "u16", value: number }],
    ["split.count", { type: "u16", value: 2 }],
    ["split.tensors.count", { type: "i32", value: 2 }],
  ])
}

/** The bytes that a program sees which reads the view. */
function bytesOf({ view }: LoadableModel): Uint8Array {
  const bytes = new Uint8Array(view?.bytes ?? 0)
  bytes.set(view?.header ?? [])
  for (const { path, from, at, bytes: length } of view?.ranges ?? []) {
    bytes.set(readFileSync(path).subarray(from, from + length), at)
  }
  return bytes
}

function refusalOf(path: string): CriaError {
  try {
    readLoadable(path, "m")
  } catch (error) {
    if (error instanceof CriaError) return error
  }
  throw new Error("it was not refused")
}

describe("translationOf() — what is left as it is", () => {
  test("a model that was made for llama.cpp", () => {
    expect(translationOf(readModel(DEMO_MODEL), "demo")).toBeUndefined()
    expect(readLoadable(DEMO_MODEL, "demo")).toMatchObject({
      paths: [DEMO_MODEL],
      view: undefined,
    })
  })

  const epsilon = { "attention.layer_norm_rms_epsilon": f32(1e-6) }
  test.each<[string, Fields, string]>([
    ["gemma3", { ...epsilon, "rope.freq_base": f32(1e6) }, "token_embd.weight"],
    ["gemma4", { "tokenizer.ggml.model": text("gemma4") }, "token_embd.weight"],
    ["laguna", { "rope.freq_base_swa": f32(1e4) }, "blk.0.attn_gate.weight"],
    ["lfm2", {}, "token_embd_norm.weight"],
    ["llama", { "tokenizer.ggml.pre": text("default") }, "token_embd.weight"],
    ["llama4", {}, "token_embd.weight"],
    ["mistral3", { "rope.scaling.yarn_beta_fast": f32(32) }, "token_embd.weight"],
    ["nemotron_h_moe", {}, "blk.0.ffn_latent_down.weight"],
    ["qwen35", { full_attention_interval: u32(4) }, "blk.0.ssm_dt.bias"],
    ["qwen3next", {}, "blk.0.ssm_dt.bias"],
    [
      "qwen3vl",
      { "rope.dimension_sections": packNumbers("i32", [1, 2, 3, 0]) },
      "token_embd.weight",
    ],
    [
      "bert",
      { "tokenizer.ggml.precompiled_charsmap": packNumbers("u8", [1]) },
      "token_embd.weight",
    ],
    ["clip", {}, "v.patch_embd.weight"],
  ])("%s in llama.cpp's own form", async (architecture, fields, name) => {
    const path = await write(architecture, fields, [tensor(name, 8, 4)])
    expect(readLoadable(path, "m").view).toBeUndefined()
  })
})

describe("translationOf() — values that the file lacks", () => {
  test.each<[string, Fields, string, unknown]>([
    // Sizes of Google's: positions are stretched by 8 in those with more than a billion parameters.
    ["gemma3", { block_count: u32(34) }, "gemma3.rope.scaling.factor", 8],
    ["gemma3", { block_count: u32(34) }, "gemma3.rope.scaling.type", "linear"],
    ["gemma3", { block_count: u32(26) }, "gemma3.rope.scaling.factor", undefined],
    ["gemma3", {}, "gemma3.rope.freq_base", 1e6],
    ["gemma3", {}, "gemma3.rope.freq_base_swa", 1e4],
    ["gptoss", {}, "tokenizer.ggml.pre", "gpt-4o"],
    ["gptoss", { feed_forward_length: u32(7) }, "gpt-oss.expert_feed_forward_length", 7],
    ["gptoss", {}, "gpt-oss.rope.scaling.type", "yarn"],
    ["qwen25vl", {}, "qwen2vl.rope.dimension_sections", [16, 24, 24, 0]],
    ["qwen3vl", {}, "qwen3vl.rope.dimension_sections", [24, 20, 20, 0]],
    ["qwen3vl", {}, "qwen3vl.n_deepstack_layers", 0],
    ["qwen35", { image_token_id: u32(1) }, "qwen35.rope.dimension_sections", [11, 11, 10, 0]],
    ["nemotron_h_omni", { expert_count: u32(2) }, "general.architecture", "nemotron_h_moe"],
    ["nemotron_h_omni", {}, "general.architecture", "nemotron_h"],
  ])("%s %o: %s is %p", async (architecture, fields, key, expected) => {
    expect(valueIn(readLoadable(await write(architecture, fields), "m"), key)).toEqual(expected)
  })

  test("what is there stays, under its old name too", async () => {
    const path = await write("gemma3", {
      "attention.layer_norm_rms_epsilon": f32(0.5),
      "rope.freq_base": f32(3),
      "rope.global.freq_base": f32(4),
      "rope.local.freq_base": f32(5),
    })
    const model = readLoadable(path, "m")
    expect(valueIn(model, "gemma3.attention.layer_norm_rms_epsilon")).toBe(0.5)
    expect(valueIn(model, "gemma3.rope.freq_base")).toBe(3)
    expect(valueIn(model, "gemma3.rope.global.freq_base")).toBe(4)
    expect(valueIn(model, "gemma3.rope.freq_base_swa")).toBe(5)
  })

  test("values out of range are left to llama.cpp", async () => {
    const path = await write("glm4moelite", {
      "attention.kv_lora_rank": { type: "u64", value: 2n ** 40n },
      "rope.dimension_count": u32(64),
      "tokenizer.ggml.eos_token_ids": packNumbers("i32", [1, -5]),
    })
    const model = readLoadable(path, "m")
    expect(valueIn(model, "deepseek2.attention.value_length")).toBeUndefined()
    expect(valueIn(model, "tokenizer.ggml.eot_token_id")).toBeUndefined()
  })
})

describe("readLoadable() — the view", () => {
  test("is byte for byte the file that one would write", async () => {
    const kept = [
      tensor("token_embd.weight", 8, 4),
      tensor("blk.0.x", 3),
      tensor("output_norm.weight", 8),
    ]
    const [embedding, block, norm] = kept
    if (embedding === undefined || block === undefined || norm === undefined) throw new Error()
    const path = await write("llama4", { block_count: u32(1) }, [
      tensor("v.first", 5),
      embedding,
      tensor("mm.between", 7),
      block,
      norm,
      tensor("a.last", 9),
    ])
    const model = readLoadable(path, "m")
    const expected = await write("llama4", { block_count: u32(1) }, kept)
    expect(bytesOf(model)).toEqual(new Uint8Array(readFileSync(expected)))
    expect(model.header.tensors).toEqual(readGguf(expected).tensors)
    expect(model.view?.ranges).toHaveLength(2)
    if (model.view === undefined) throw new Error("it is translated")
    const chunks = await Array.fromAsync(viewChunks(model.view))
    expect(Buffer.concat(chunks)).toEqual(readFileSync(expected))
  })

  test("leaves out rows of tokens that are too many, from every array of them", async () => {
    const path = await write(
      "gemma3",
      {
        "tokenizer.ggml.tokens": packStrings(["a", "bc", "def", "ghij", "<image>"]),
        "tokenizer.ggml.scores": packNumbers("f32", [1, 2, 3, 4, 5]),
        "tokenizer.ggml.token_type": packNumbers("i32", [1, 1, 1, 1, 3]),
      },
      [tensor("token_embd.weight", 8, 4)],
    )
    const model = readLoadable(path, "m")
    expect(valueIn(model, "tokenizer.ggml.tokens")).toEqual(["a", "bc", "def", "ghij"])
    expect(valueIn(model, "tokenizer.ggml.scores")).toEqual([1, 2, 3, 4])
    expect(valueIn(model, "tokenizer.ggml.token_type")).toEqual([1, 1, 1, 1])
  })

  test("leaves out rows of the embedding that layers have none for", async () => {
    const path = await write("gemma3n", {}, [
      tensor("token_embd.weight", 8, 6),
      tensor("per_layer_token_embd.weight", 4, 4),
    ])
    const model = readLoadable(path, "m")
    expect(model.header.tensors.map(({ dims }) => dims)).toEqual([
      [8, 4],
      [4, 4],
    ])
    const [first] = model.view?.ranges ?? []
    expect(first?.bytes).toBe(8 * 4 * 4)
  })

  test("joins the parts of a split model", async () => {
    const prefix = `${folder.path}/part`
    const first = { "general.architecture": text("olmo3"), "olmo3.block_count": u32(1) }
    await writeGguf(`${prefix}-00001-of-00002.gguf`, {
      metadata: new Map([...Object.entries(first), ...splitKeys(0)]),
      tensors: [tensor("token_embd.weight", 8, 4)],
    })
    await writeGguf(`${prefix}-00002-of-00002.gguf`, {
      metadata: splitKeys(1),
      tensors: [tensor("output.weight", 8, 4)],
    })
    const model = readLoadable(`${prefix}-00001-of-00002.gguf`, "m")
    const expected = await write("olmo2", { block_count: u32(1) }, [
      tensor("token_embd.weight", 8, 4),
      tensor("output.weight", 8, 4),
    ])
    expect(bytesOf(model)).toEqual(new Uint8Array(readFileSync(expected)))
    expect(model.otherParts).toEqual([])
  })
})

describe("translationOf() — what is refused", () => {
  test.each([
    ["mllama", "llama.cpp has no Llama 3.2 Vision", /cria pull llama3\.1/],
    ["deepseekocr", "it reads what is in images, and cria takes text only", /cria pull/],
    ["glmocr", "it reads what is in images, and cria takes text only", /cria pull/],
  ])("%s, with the reason and what to take", async (architecture, reason, hint) => {
    const error = refusalOf(await write(architecture, {}))
    expect(error).toMatchObject({ code: "unavailable", message: `Cannot run "m": ${reason}` })
    expect(error.hint).toMatch(hint)
  })

  test.each(["v.blk.0.attn_q.weight", "mm.0.weight", "a.blk.0.attn_q.weight"])(
    "an architecture that has %s in a way that is not known",
    async (name) => {
      const fields = { "general.basename": text("Command-A-Vision") }
      const error = refusalOf(await write("cohere2", fields, [tensor(name, 8)]))
      expect(error.code).toBe("unavailable")
      expect(error.message).toContain("the encoder of images or sounds is inside of its file")
      expect(error.hint).toContain('search Hugging Face for "Command-A-Vision GGUF"')
    },
  )

  test("a map of characters that is not base64", async () => {
    const path = await write("bert", {
      "tokenizer.ggml.precompiled_charsmap": packStrings(["?", "!"]),
    })
    expect(refusalOf(path)).toMatchObject({ code: "invalid-input" })
  })
})
