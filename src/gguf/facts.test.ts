import { describe, expect, test } from "bun:test"

import { kvBytesPerToken, modelFacts } from "./facts.ts"
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
      isRecurrent: false,
      isHybrid: false,
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
      keyElementsPerToken: 0,
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
    expect(factsOf("lfm2", keys)).toMatchObject({
      headCountKv: 4,
      isHybrid: true,
      isRecurrent: false,
    })
  })

  test.each<[string, Readonly<Record<string, GgufValue>>, object]>([
    ["mamba2", { ".attention.head_count": u32(0) }, { isRecurrent: true, isHybrid: false }],
    ["qwen35", {}, { isRecurrent: false, isHybrid: true }],
    ["newarch", { ".ssm.conv_kernel": u32(4) }, { isRecurrent: false, isHybrid: true }],
    ["llama", {}, { isRecurrent: false, isHybrid: false }],
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
      { ...LLAMA, ".attention.head_count_kv": integers(0, 2, 0, 2) },
      2 * 2 * 64 * 2 * 2,
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
