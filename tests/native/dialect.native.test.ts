import assert from "node:assert/strict"
import { readdirSync } from "node:fs"

import { inputOf } from "../../src/gguf/merge.ts"
import { readArray, readGguf } from "../../src/gguf/read.ts"
import {
  f32,
  type GgufInput,
  packNumbers,
  packStrings,
  type TensorSource,
  text,
  u32,
  writeGguf,
} from "../../src/gguf/write.ts"
import { LocalModel } from "../../src/model/local-model.ts"
import { DEMO, describe, Folder, GREEDY, library, test } from "./support.ts"

const demo = readGguf(DEMO)

/** Tokens of the demo model's vocabulary. */
const VOCABULARY = 4096
const WIDTH = 64

type Shapes = readonly (readonly [name: string, ...dims: readonly number[]])[]

/** Tensors of small numbers that are the same each time. */
function tensorsOf(shapes: Shapes): TensorSource[] {
  let state = 7
  return shapes.map(([name, ...dims]) => {
    const numbers = new Float32Array(dims.reduce((product, size) => product * size, 1))
    for (let i = 0; i < numbers.length; i++) {
      state = (state * 1_103_515_245 + 12_345) % 2 ** 31
      numbers[i] = (name.includes("norm") ? 1 : 0) + (state / 2 ** 31 - 0.5) / 2
    }
    return { name, type: "F32", dims, chunks: [new Uint8Array(numbers.buffer)] }
  })
}

/** The demo model's tokenizer under keys of an architecture. */
function metadataOf(architecture: string, fields: Readonly<Record<string, GgufInput>>) {
  const tokenizer = [...demo.metadata].filter(([key]) => key.startsWith("tokenizer."))
  return new Map<string, GgufInput>([
    ["general.architecture", text(architecture)],
    ["general.file_type", u32(0)],
    ...tokenizer.map(([key, value]): [string, GgufInput] => [key, inputOf(DEMO, value)]),
    ...Object.entries(fields).map(([key, value]): [string, GgufInput] => [
      `${architecture}.${key}`,
      value,
    ]),
  ])
}

/** The likeliest first tokens of an answer and their probabilities. */
async function probabilities(path: string, cache: string): Promise<[string, number][]> {
  const options = {
    name: "m",
    path,
    contextTokens: 256,
    parallel: 1,
    flashAttention: "off",
    cacheType: "f16",
  } as const
  await using model = await LocalModel.load(library, options, { cache })
  const request = {
    input: { kind: "text", text: "one two three four" },
    sampling: GREEDY,
    maxTokens: 1,
    stop: [],
    logprobs: 5,
    wantsContext: false,
  } as const
  for await (const event of model.answer(request)) {
    if (event.kind !== "delta" || event.logprobs.length === 0) continue
    return event.logprobs.flatMap(({ top }) => top.map(({ token, logprob }) => [token, logprob]))
  }
  return []
}

const HEADS: Readonly<Record<string, GgufInput>> = {
  block_count: u32(2),
  context_length: u32(512),
  embedding_length: u32(WIDTH),
  "attention.head_count": u32(2),
  "attention.head_count_kv": u32(1),
  "attention.key_length": u32(32),
  "attention.value_length": u32(32),
  "attention.sliding_window": u32(128),
  "attention.layer_norm_rms_epsilon": f32(1e-6),
  feed_forward_length: u32(WIDTH),
}

const ATTENTION: Shapes = [
  ["attn_norm.weight", WIDTH],
  ["attn_q.weight", WIDTH, 64],
  ["attn_k.weight", WIDTH, 32],
  ["attn_v.weight", WIDTH, 32],
]

function blocks(shapes: Shapes): Shapes {
  return [0, 1].flatMap((i) =>
    shapes.map(([name, ...dims]) => [`blk.${i}.${name}`, ...dims] as const),
  )
}

const ENDS: Shapes = [
  ["token_embd.weight", WIDTH, VOCABULARY],
  ["output_norm.weight", WIDTH],
]

/** A gpt-oss model of random weights. */
async function writeGptOss(
  path: string,
  architecture: string,
  rename: (name: string) => string,
): Promise<void> {
  const ours = architecture === "gptoss"
  const shapes: Shapes = [
    ...ENDS,
    ["output.weight", WIDTH, VOCABULARY],
    ...blocks([
      ...ATTENTION,
      ["attn_q.bias", 64],
      ["attn_k.bias", 32],
      ["attn_v.bias", 32],
      ["attn_output.weight", 64, WIDTH],
      ["attn_output.bias", WIDTH],
      ["attn_sinks.weight", 2],
      ["post_attention_norm.weight", WIDTH],
      ["ffn_gate_inp.weight", WIDTH, 4],
      ["ffn_gate_inp.bias", 4],
      ["ffn_gate_exps.weight", WIDTH, WIDTH, 4],
      ["ffn_gate_exps.bias", WIDTH, 4],
      ["ffn_up_exps.weight", WIDTH, WIDTH, 4],
      ["ffn_up_exps.bias", WIDTH, 4],
      ["ffn_down_exps.weight", WIDTH, WIDTH, 4],
      ["ffn_down_exps.bias", WIDTH, 4],
    ]),
  ]
  const fields = {
    ...HEADS,
    expert_count: u32(4),
    expert_used_count: u32(2),
    "rope.freq_base": f32(150_000),
    "rope.scaling.factor": f32(32),
    "rope.scaling.original_context_length": u32(128),
    ...(ours ? {} : { expert_feed_forward_length: u32(WIDTH), "rope.scaling.type": text("yarn") }),
  }
  const tensors = tensorsOf(shapes).map((tensor) => ({ ...tensor, name: rename(tensor.name) }))
  await writeGguf(path, { metadata: metadataOf(architecture, fields), tensors })
}

describe("models of Ollama's registry", () => {
  test("gpt-oss loads under Ollama's names as under llama.cpp's", async () => {
    using folder = new Folder()
    await writeGptOss(folder.file("theirs.gguf"), "gpt-oss", (name) => name)
    await writeGptOss(folder.file("ollama.gguf"), "gptoss", (name) =>
      name
        .replace("attn_output.", "attn_out.")
        .replace("attn_sinks.weight", "attn_sinks")
        .replace("post_attention_norm.", "ffn_norm."),
    )
    const expected = await probabilities(folder.file("theirs.gguf"), folder.path)
    assert.equal(expected.length, 5)
    assert.deepEqual(await probabilities(folder.file("ollama.gguf"), folder.path), expected)
    // Translated once: the second load finds the file.
    assert.deepEqual(await probabilities(folder.file("ollama.gguf"), folder.path), expected)
    assert.equal(readdirSync(folder.file("translated")).length, 1)
  })

  test("Gemma 3 loads with an encoder in the file, keys left out and tokens too many", async () => {
    using folder = new Folder()
    const shapes: Shapes = [
      ...ENDS,
      ...blocks([
        ...ATTENTION,
        ["attn_output.weight", 64, WIDTH],
        ["attn_q_norm.weight", 32],
        ["attn_k_norm.weight", 32],
        ["post_attention_norm.weight", WIDTH],
        ["ffn_norm.weight", WIDTH],
        ["ffn_gate.weight", WIDTH, WIDTH],
        ["ffn_up.weight", WIDTH, WIDTH],
        ["ffn_down.weight", WIDTH, WIDTH],
        ["post_ffw_norm.weight", WIDTH],
      ]),
    ]
    const theirs = metadataOf("gemma3", { ...HEADS, "rope.freq_base": f32(1_000_000) })
    const { "attention.layer_norm_rms_epsilon": _, ...fields } = HEADS
    const ollama = metadataOf("gemma3", { ...fields, "rope.global.freq_base": f32(1_000_000) })
    const vocabulary = demo.metadata.get("tokenizer.ggml.tokens")
    assert.ok(vocabulary?.type === "array")
    const tokens = readArray(DEMO, vocabulary).map(String)
    ollama.set("tokenizer.ggml.tokens", packStrings([...tokens, "<image>"]))
    ollama.set(
      "tokenizer.ggml.token_type",
      packNumbers(
        "i32",
        [...tokens, ""].map(() => 1),
      ),
    )
    theirs.set(
      "tokenizer.ggml.token_type",
      packNumbers(
        "i32",
        tokens.map(() => 1),
      ),
    )
    await writeGguf(folder.file("theirs.gguf"), { metadata: theirs, tensors: tensorsOf(shapes) })
    const encoder: Shapes = [
      ["v.blk.0.attn_q.weight", 8, 8],
      ["mm.mm_input_projection.weight", 8, 8],
    ]
    await writeGguf(folder.file("ollama.gguf"), {
      metadata: ollama,
      tensors: tensorsOf([...shapes, ...encoder]),
    })
    const expected = await probabilities(folder.file("theirs.gguf"), folder.path)
    assert.equal(expected.length, 5)
    assert.deepEqual(await probabilities(folder.file("ollama.gguf"), folder.path), expected)
  })

  test("what cannot be translated is refused with the reason and a way out", async () => {
    using folder = new Folder()
    const fields = { block_count: u32(1) }
    const metadata = metadataOf("mllama", fields)
    await writeGguf(folder.file("m.gguf"), { metadata, tensors: tensorsOf([["w", 8]]) })
    await assert.rejects(probabilities(folder.file("m.gguf"), folder.path), {
      code: "unavailable",
      message: 'Cannot run "m": llama.cpp has no Llama 3.2 Vision',
      hint: /cria pull hf\.co/,
    })
  })
})
