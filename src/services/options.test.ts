import { afterAll, beforeAll, describe, expect, test } from "bun:test"

import { readConfig } from "../config.ts"
import { checkSampling, SAMPLING_DEFAULTS } from "../engine/sampling.ts"
import { u32 } from "../gguf/write.ts"
import type { Options } from "../modelfile/parameters.ts"
import type { LoadOptions } from "../runner/protocol.ts"
import { limitsOf, loadOptionsOf, samplingOf, withDefaults } from "./options.ts"
import type { RunnableModel } from "./resolve.ts"
import { TestApp } from "./test-app.ts"

let app: TestApp
let model: RunnableModel

beforeAll(async () => {
  app = new TestApp()
  await app.install("tiny", { metadata: { "llama.block_count": u32(4) } })
  model = app.resolver.resolve("tiny")
})

afterAll(() => app[Symbol.asyncDispose]())

function load(options: Options, env: Readonly<Record<string, string>> = {}): LoadOptions {
  return loadOptionsOf(model, options, readConfig(env))
}

describe("samplingOf()", () => {
  test("without options it is what Ollama does", () => {
    expect(samplingOf({})).toEqual({
      temperature: 0.8,
      topK: 40,
      topP: 0.9,
      minP: 0,
      typicalP: 1,
      repeatPenalty: 1,
      repeatLastN: 64,
      presencePenalty: 0,
      frequencyPenalty: 0,
      seed: -1,
    })
  })

  test("each option has its place, zero too", () => {
    const options = {
      temperature: 0,
      top_k: 1,
      top_p: 0.1,
      min_p: 0.2,
      typical_p: 0.3,
      repeat_penalty: 1.4,
      repeat_last_n: 0,
      presence_penalty: 0.5,
      frequency_penalty: -0.6,
      seed: 0,
    }
    expect(samplingOf(options)).toEqual({
      temperature: 0,
      topK: 1,
      topP: 0.1,
      minP: 0.2,
      typicalP: 0.3,
      repeatPenalty: 1.4,
      repeatLastN: 0,
      presencePenalty: 0.5,
      frequencyPenalty: -0.6,
      seed: 0,
    })
  })

  test.each<[number, number]>([
    [-1, -1],
    [-42, -1],
    [42, 42],
    [2 ** 32 - 1, 2 ** 32 - 1],
    // Clients take the time in milliseconds: it counts modulo 2^32, which is as good a seed.
    [2 ** 32, 0],
    [1_767_323_045_123, 2_091_486_467],
  ])("seed %d is %d, which the engine takes", (seed, expected) => {
    const sampling = samplingOf({ seed })
    expect(sampling.seed).toBe(expected)
    expect(() => checkSampling(sampling)).not.toThrow()
  })

  test("what the engine refuses is not hidden", () => {
    for (const options of [{ temperature: -1 }, { top_p: 2 }, { top_k: 2 ** 31 }]) {
      expect(() => checkSampling(samplingOf(options))).toThrow("Cannot sample with")
    }
    expect(() => checkSampling(SAMPLING_DEFAULTS)).not.toThrow()
  })
})

describe("limitsOf()", () => {
  test.each<[number | undefined, number | null]>([
    [undefined, null],
    [-1, null],
    [-2, null],
    [0, 0],
    [128, 128],
    [10 ** 9, 10 ** 9],
  ])("num_predict %p is at most %p tokens", (given, expected) => {
    const options = given === undefined ? {} : { num_predict: given }
    expect(limitsOf(options)).toEqual({ maxTokens: expected, stop: [] })
  })

  test("takes stop strings and the context over", () => {
    expect(limitsOf({ stop: ["a", "b"], num_ctx: 100 })).toEqual({
      maxTokens: null,
      stop: ["a", "b"],
      contextTokens: 100,
    })
  })
})

describe("loadOptionsOf()", () => {
  test("leaves open what nobody asked for", () => {
    expect(load({})).toEqual({
      name: "tiny:latest",
      path: model.stored.modelPath,
      queueMax: 512,
      prefixRamBytes: 512 * 2 ** 20,
    })
  })

  test("keeps prefixes on disk where the server was told to", () => {
    const env = { CRIA_PREFIX_DISK_MB: "1", CRIA_PREFIX_RAM_MB: "0", CRIA_CACHE: "/cache" }
    const options = loadOptionsOf(model, {}, readConfig(env))
    expect(options.prefixDisk).toEqual({ folder: "/cache/prefixes", bytesMax: 2 ** 20 })
    expect(options).not.toHaveProperty("prefixRamBytes")
  })

  test("takes what the server was started with", () => {
    const env = {
      OLLAMA_CONTEXT_LENGTH: "4096",
      OLLAMA_NUM_PARALLEL: "2",
      OLLAMA_MAX_QUEUE: "7",
      CRIA_THREADS: "3",
    }
    expect(load({}, env)).toMatchObject({
      queueMax: 7,
      contextTokens: 4096,
      parallel: 2,
      threads: 3,
    })
  })

  test("the cache is of the type that is asked for, else as the server has it", () => {
    const env = { OLLAMA_FLASH_ATTENTION: "1", OLLAMA_KV_CACHE_TYPE: "Q8_0" }
    const loaded = (options: Options) => withDefaults(load(options, env), readConfig(env))
    expect(loaded({})).toMatchObject({ cacheType: "q8_0", flashAttention: "on" })
    expect(loaded({ kv_cache_type: "q4_0/f16", flash_attention: "auto" })).toMatchObject({
      cacheType: "q4_0/f16",
      flashAttention: "auto",
    })
  })

  test("an option wins over the server's own", () => {
    const env = { OLLAMA_CONTEXT_LENGTH: "4096", CRIA_THREADS: "3" }
    expect(load({ num_ctx: 1024, num_thread: 7 }, env)).toMatchObject({
      contextTokens: 1024,
      threads: 7,
    })
  })

  test.each([0, -1])("num_thread %d leaves it to the server", (num_thread) => {
    expect(load({ num_thread })).not.toHaveProperty("threads")
    expect(load({ num_thread }, { CRIA_THREADS: "3" }).threads).toBe(3)
  })

  test("takes the other options that concern loading, and no others", () => {
    const options = {
      num_batch: 256,
      num_gpu: 0,
      main_gpu: 1,
      use_mmap: false,
      temperature: 1,
      num_predict: 5,
    }
    expect(load(options)).toEqual({
      ...load({}),
      batchTokens: 256,
      gpuLayers: 0,
      mainGpu: 1,
      useMmap: false,
    })
  })

  test.each<[number, number | undefined]>([
    [-1, undefined],
    [-7, undefined],
    [0, 0],
    [4, 4],
    [5, -1],
    [999, -1],
    [2 ** 32, -1],
  ])("of a model of 4 layers, num_gpu %d is %p", (num_gpu, expected) => {
    expect(load({ num_gpu }).gpuLayers).toBe(expected)
  })

  test.each<[number, number]>([
    [1, 4],
    [3, 4],
    [4, 4],
    [2 ** 27, 2 ** 27],
  ])("num_ctx %d is a context of %d tokens", (given, expected) => {
    expect(load({ num_ctx: given }).contextTokens).toBe(expected)
    expect(limitsOf({ num_ctx: given }).contextTokens).toBe(expected)
  })

  test.each<[Options, string]>([
    [{ num_ctx: 0 }, "Cannot use num_ctx 0: expected 1 to 134217728"],
    [{ num_ctx: -5 }, "Cannot use num_ctx -5: expected 1 to 134217728"],
    [{ num_ctx: 2 ** 27 + 1 }, "Cannot use num_ctx 134217729: expected 1 to 134217728"],
    [{ num_batch: 1 }, "Cannot use num_batch 1: expected 2 to 65536"],
    [{ num_batch: 65_537 }, "Cannot use num_batch 65537: expected 2 to 65536"],
    [{ num_thread: 513 }, "Cannot use num_thread 513: expected 1 to 512"],
  ])("%j is refused", (options, message) => {
    expect(() => load(options)).toThrow(expect.objectContaining({ code: "invalid-input", message }))
  })
})
