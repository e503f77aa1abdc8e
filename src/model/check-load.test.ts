import { describe, expect, test } from "bun:test"

import { CACHE_TYPES } from "../engine/cache-type.ts"
import { type ModelFacts, modelFacts } from "../gguf/facts.ts"
import type { GgufValue } from "../gguf/format.ts"
import { text, u32 } from "../gguf/write.ts"
import { checkLoad } from "./check-load.ts"
import type { LoadOptions } from "./request.ts"

const OPTIONS: LoadOptions = {
  name: "m",
  path: "m.gguf",
  flashAttention: "auto",
  cacheType: "f16",
}

function factsOf(headLength: number): ModelFacts {
  const metadata = new Map<string, GgufValue>([
    ["general.architecture", text("llama")],
    ["llama.attention.key_length", u32(headLength)],
    ["llama.attention.value_length", u32(headLength)],
  ])
  const header = { version: 3, alignment: 32, metadata, tensors: [], dataOffset: 0, fileBytes: 0 }
  return modelFacts(header)
}

const check = (change: Partial<LoadOptions>, headLength = 128) =>
  checkLoad({ ...OPTIONS, ...change }, factsOf(headLength))

describe("checkLoad()", () => {
  test("takes numbers that make sense", () => {
    check({ contextTokens: 4, parallel: 1, batchTokens: 2, threads: 512, gpuLayers: -1 })
  })

  test.each<[Partial<LoadOptions>, string]>([
    [{ parallel: 0 }, "parallel 0: expected a whole number from 1 to 1073741824"],
    [{ parallel: 1.5 }, "parallel 1.5"],
    [{ contextTokens: 0 }, "contextTokens 0"],
    [{ contextTokens: Number.NaN }, "contextTokens NaN"],
    [{ batchTokens: -512 }, "batchTokens -512: expected a whole number from 2 to 65536"],
    [{ threads: 1000 }, "threads 1000: expected a whole number from 1 to 512"],
    [{ gpuLayers: -2 }, "gpuLayers -2"],
    [{ mainGpu: -1 }, "mainGpu -1"],
  ])("refuses %j", (change, message) => {
    expect(() => check(change)).toThrow(
      expect.objectContaining({
        code: "invalid-input",
        message: expect.stringContaining(`Cannot load "m" with ${message}`),
      }),
    )
  })

  test("takes every type of cache where heads are multiples of 32", () => {
    for (const cacheType of CACHE_TYPES) check({ cacheType }, 96)
  })

  test("takes plain types whatever the heads are", () => {
    for (const cacheType of ["f32", "f16", "bf16"] as const) {
      check({ cacheType, flashAttention: "off" }, 80)
      check({ cacheType }, 80)
    }
  })

  test("names the heads that a quantised type does not divide, and what works", () => {
    expect(() => check({ cacheType: "q8_0" }, 80)).toThrow(
      expect.objectContaining({
        code: "invalid-input",
        message:
          'Cannot keep the keys of "m" as q8_0: a head has 80 elements, expected a multiple of 32',
        hint: "Use f16, bf16 or f32",
      }),
    )
    expect(() => check({ cacheType: "f16/q4_0" }, 80)).toThrow('the values of "m" as q4_0')
    check({ cacheType: "q8_0/f16", flashAttention: "off" }, 80)
  })

  test("says that quantised values need flash attention", () => {
    expect(() => check({ cacheType: "q8_0", flashAttention: "off" })).toThrow(
      expect.objectContaining({
        code: "invalid-input",
        message: 'Cannot keep the values of "m" as q8_0 without flash attention',
        hint: "Leave flash attention to be decided, or use f16, bf16 or f32",
      }),
    )
    check({ cacheType: "q8_0/f16", flashAttention: "off" })
  })
})
