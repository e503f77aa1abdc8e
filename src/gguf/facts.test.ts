import { describe, expect, test } from "bun:test"

import { kvBytesPerToken, modelFacts, windowBytesPerToken } from "./facts.ts"
import { type GgufHeader, type GgufScalar, type GgufValue } from "./format.ts"
import { readGguf } from "./read.ts"
import { f32, flag, text, u32 } from "./write.ts"

const DEMO_MODEL = new URL("../../models/demo/cria-demo-q8_0.gguf", import.meta.url).pathname

/** A header without tensors; keys that start with a full stop belong to the architecture. */
function headerOf(
  architecture: string,
  keys: Readonly<Record<string, GgufValue>> = {},
): GgufHeader {
  const pairs = Object.entries(keys).map(
    ([key, value]) => [key.startsWith(".") ? architecture + key : key, value] as const,
  )
  return {
    version: 3,
    alignment: 32,
    metadata: new Map<string, GgufValue>([["general.architecture", text(architecture)], ...pairs]),
    tensors: [],
    dataOffset: 0,
    fileBytes: 0,
  }
}

function factsOf(architecture: string, keys: Readonly<Record<string, GgufValue>> = {}) {
  return modelFacts(headerOf(architecture, keys))
}

function integers(...values: readonly number[]): GgufValue {
  return {
    type: "array",
    elementType: "i32",
    length: values.length,
    byteOffset: 0,
    byteLength: 0,
    values,
  }
}

function flags(...values: readonly boolean[]): GgufValue {
  return {
    type: "array",
    elementType: "bool",
    length: values.length,
    byteOffset: 0,
    byteLength: 0,
    values,
  }
}

const LLAMA: Readonly<Record<string, GgufScalar>> = {
  ".block_count": u32(4),
  ".embedding_length": u32(256),
  ".attention.head_count": u32(4),
  ".attention.head_count_kv": u32(2),
}

describe("modelFacts()", () => {
  test("tells what the demo model is", () => {
    expect(modelFacts(readGguf(DEMO_MODEL))).toMatchObject({
      architecture: "qwen3",
      name: "cria-demo",
      generalType: "model",
      parameterCount: 4_984_192,
      parameterLabel: "4.98M",
      quantization: "Q8_0",
      fileBytes: 5_437_760,
      weightsBytes: 5_305_856,
      blockCount: 5,
      contextLength: 2048,
      embeddingLength: 256,
      headCount: 4,
      headCountKv: 2,
      keyLength: 64,
      valueLength: 64,
      vocabSize: 4096,
      slidingWindow: undefined,
      cache: { keyElements: 5 * 2 * 64, valueElements: 5 * 2 * 64, stateBytes: 0 },
      hasVision: false,
      hasAudio: false,
      poolingType: undefined,
      chatTemplate: expect.stringContaining("<think>"),
      eosTokenId: 4086,
      sampling: { temperature: 0, topK: undefined },
    })
  })

  test("leaves undefined what the file does not say", () => {
    expect(factsOf("llama")).toMatchObject({
      name: undefined,
      quantization: "unknown",
      blockCount: undefined,
      headCount: undefined,
      headCountKv: undefined,
      keyLength: undefined,
      vocabSize: undefined,
      parameterLabel: "0",
      cache: { keyElements: 0, valueElements: 0, stateBytes: 0 },
    })
  })

  test("needs an architecture", () => {
    const header = { ...headerOf("llama"), metadata: new Map() }
    expect(() => modelFacts(header)).toThrow(
      'Cannot tell what model this is: "general.architecture" is missing',
    )
  })

  test("derives the head length from the width", () => {
    expect(factsOf("llama", LLAMA)).toMatchObject({ keyLength: 64, valueLength: 64 })
  })

  test("takes the most heads of any layer", () => {
    const keys = { ...LLAMA, ".attention.head_count_kv": integers(0, 2, 0, 4) }
    expect(factsOf("lfm2", keys)).toMatchObject({ headCountKv: 4 })
  })

  test.each<[string, Readonly<Record<string, GgufValue>>, object]>([
    ["gemma3", { ".vision.block_count": u32(27) }, { hasVision: true, hasAudio: false }],
    ["clip", { ".has_vision_encoder": flag(true) }, { hasVision: true, hasAudio: false }],
    ["clip", { ".has_audio_encoder": flag(true) }, { hasVision: false, hasAudio: true }],
    [
      "clip",
      { ".has_audio_encoder": flag(true), ".projector_type": text("gemma3nv") },
      { hasAudio: false },
    ],
    ["nemotron_h_omni", { ".has_audio_encoder": flag(true) }, { hasAudio: false }],
    ["bert", { ".pooling_type": u32(2) }, { poolingType: "cls" }],
    ["qwen3", { ".pooling_type": u32(4) }, { poolingType: "rank" }],
    ["phi3", { ".attention.sliding_window": u32(0) }, { slidingWindow: undefined }],
    ["gemma3", { ".attention.sliding_window": u32(512) }, { slidingWindow: 512 }],
    [
      "llama",
      { ".vocab_size": u32(9), "tokenizer.ggml.eos_token_id": u32(9) },
      { eosTokenId: undefined },
    ],
    ["llama", { ".vocab_size": u32(9), "tokenizer.ggml.eot_token_id": u32(8) }, { eotTokenId: 8 }],
    [
      "llama",
      { "general.sampling.temp": f32(0.5), "general.sampling.top_k": u32(20) },
      { sampling: { temperature: 0.5, topK: 20 } },
    ],
    ["llama", { "general.name": u32(1) }, { name: undefined }],
  ])("for %s with %j finds %j", (architecture, keys, facts) => {
    expect(factsOf(architecture, keys)).toMatchObject(facts)
  })
})

describe("kvBytesPerToken()", () => {
  test.each<[string, string, Readonly<Record<string, GgufValue>>, number]>([
    ["counts every layer", "llama", LLAMA, 4 * 2 * 64 * 2 * 2],
    [
      "skips layers without attention",
      "lfm2",
      {
        ...LLAMA,
        ".attention.head_count_kv": integers(0, 2, 0, 2),
        ".shortconv.l_cache": u32(3),
      },
      2 * 2 * 64 * 2 * 2,
    ],
    [
      "counts what each layer says",
      "qwen35",
      { ...LLAMA, ".attention.recurrent_layers": flags(true, false, true, false) },
      2 * 2 * 64 * 2 * 2,
    ],
    [
      "counts every layer where all have both",
      "falcon-h1",
      { ...LLAMA, ".ssm.conv_kernel": u32(4) },
      4 * 2 * 64 * 2 * 2,
    ],
    [
      "counts every fourth layer of qwen3next",
      "qwen3next",
      { ...LLAMA, ".full_attention_interval": u32(4) },
      2 * 64 * 2 * 2,
    ],
    [
      "skips layers that share",
      "gemma4",
      { ...LLAMA, ".attention.shared_kv_layers": u32(1) },
      3 * 2 * 64 * 2 * 2,
    ],
    [
      "keeps no values with latent attention",
      "deepseek2",
      { ...LLAMA, ".attention.value_length_mla": u32(128) },
      4 * 2 * 64 * 2,
    ],
    ["is 0 for encoders", "bert", { ...LLAMA, ".attention.causal": flag(false) }, 0],
    [
      "is 0 for recurrent models",
      "mamba2",
      { ".block_count": u32(4), ".attention.head_count": u32(0) },
      0,
    ],
    [
      "takes key and value lengths from the file",
      "gemma3",
      { ...LLAMA, ".attention.key_length": u32(256), ".attention.value_length": u32(128) },
      4 * 2 * (256 + 128) * 2,
    ],
  ])("%s", (_, architecture, keys, bytes) => {
    expect(kvBytesPerToken(factsOf(architecture, keys), "F16", "F16")).toBe(bytes)
  })

  test("depends on both types", () => {
    const facts = factsOf("llama", LLAMA)
    expect(kvBytesPerToken(facts, "Q8_0", "Q4_0")).toBe(4 * 2 * (2 * 34 + 2 * 18))
  })
})

describe("windowBytesPerToken()", () => {
  const WINDOW = { ...LLAMA, ".block_count": u32(8), ".attention.sliding_window": u32(512) }
  const layer = 2 * 64 * 2 * 2

  test.each<[string, string, Readonly<Record<string, GgufValue>>, number]>([
    ["is 0 without a window", "gemma3", { ...LLAMA, ".block_count": u32(8) }, 0],
    ["is 0 where llama.cpp has none", "phi3", WINDOW, 0],
    ["leaves out the last of six layers", "gemma3", WINDOW, 7 * layer],
    ["leaves out every other layer", "gpt-oss", WINDOW, 4 * layer],
    ["leaves out the first of four layers", "smallthinker", WINDOW, 6 * layer],
    ["counts all layers of some", "lfm2", WINDOW, 8 * layer],
    [
      "takes the pattern from the file",
      "cohere2",
      { ...WINDOW, ".attention.sliding_window_pattern": u32(2) },
      4 * layer,
    ],
    [
      "takes layer by layer from the file",
      "gemma4",
      {
        ...WINDOW,
        ".block_count": u32(3),
        ".attention.sliding_window_pattern": flags(true, false, true),
        ".attention.key_length_swa": u32(32),
        ".attention.value_length_swa": u32(16),
      },
      2 * 2 * (32 + 16) * 2,
    ],
  ])("%s", (_, architecture, keys, bytes) => {
    expect(windowBytesPerToken(factsOf(architecture, keys), "F16", "F16")).toBe(bytes)
  })
})

describe("the state of a sequence", () => {
  const SSM = {
    ...LLAMA,
    ".ssm.conv_kernel": u32(4),
    ".ssm.inner_size": u32(512),
    ".ssm.state_size": u32(128),
    ".ssm.group_count": u32(1),
  }
  const layer = (3 * (512 + 2 * 128) + 128 * 512) * 4

  test.each<[string, string, Readonly<Record<string, GgufValue>>, number]>([
    ["is 0 without one", "llama", LLAMA, 0],
    ["is in every layer", "mamba2", SSM, 4 * layer],
    ["is in every layer, beside attention", "falcon-h1", SSM, 4 * layer],
    [
      "is where there is no attention",
      "granitehybrid",
      { ...SSM, ".attention.head_count_kv": integers(0, 2, 0, 0) },
      3 * layer,
    ],
    [
      "is where there is neither attention nor a feed-forward network",
      "nemotron_h",
      {
        ...SSM,
        ".attention.head_count_kv": integers(0, 2, 0, 0),
        ".feed_forward_length": integers(0, 0, 512, 0),
      },
      2 * layer,
    ],
    [
      "is in all but every n-th layer",
      "qwen3next",
      { ...SSM, ".full_attention_interval": u32(4) },
      3 * layer,
    ],
    [
      "is what a short convolution sees",
      "lfm2",
      {
        ...LLAMA,
        ".attention.head_count_kv": integers(0, 2, 0, 2),
        ".shortconv.l_cache": u32(3),
      },
      2 * 2 * 256 * 4,
    ],
    [
      "has a matrix for each head",
      "rwkv7",
      { ...LLAMA, ".attention.head_count": u32(0), ".wkv.head_size": u32(64) },
      4 * 256 * (2 + 64) * 4,
    ],
    [
      "has three convolutions with delta attention",
      "kimi-linear",
      {
        ...LLAMA,
        ".attention.head_count_kv": integers(0, 0, 0, 4),
        ".kda.head_dim": u32(64),
        ".ssm.conv_kernel": u32(4),
      },
      3 * (3 * 3 * 4 * 64 + 64 * 64 * 4) * 4,
    ],
  ])("%s", (_, architecture, keys, bytes) => {
    expect(factsOf(architecture, keys).cache.stateBytes).toBe(bytes)
  })
})
