import assert from "node:assert/strict"

import { createBackend } from "../../ffi/backend.ts"
import { loadModel } from "../../ffi/model.ts"
import { makeModel } from "../../scripts/make-model.ts"
import type { ShapeName } from "../../scripts/model-shapes.ts"
import type { ChatEvent } from "../../src/chat/message.ts"
import { kvBytesPerToken, modelFacts, windowBytesPerToken } from "../../src/gguf/facts.ts"
import { readGguf } from "../../src/gguf/read.ts"
import { LocalModel } from "../../src/model/local-model.ts"
import type { AnswerRequest, LoadedFacts, LoadOptions } from "../../src/model/request.ts"
import { decode, describe, Folder, GREEDY, library, test, VOCABULARIES } from "./support.ts"

/**
 * A model of a kind, with random weights: what it says means nothing, but is always the same. With 32 bits throughout,
 * as `differential.ts` explains.
 */
async function make(
  folder: Folder,
  shape: ShapeName,
  options: Partial<LoadOptions> = { parallel: 3 },
): Promise<LocalModel> {
  const path = folder.file(`${shape}.gguf`)
  await makeModel({ shape, type: "F32", out: path, seed: 1, vocabDir: VOCABULARIES })
  return LocalModel.load(library, {
    name: shape,
    path,
    contextTokens: 256,
    flashAttention: "off",
    cacheType: "f32",
    ...options,
  })
}

function request(text: string): AnswerRequest {
  return {
    input: { kind: "text", text },
    sampling: GREEDY,
    maxTokens: 12,
    stop: [],
    wantsContext: false,
  }
}

/** Euclidean. */
function distance(a: Float32Array | undefined, b: Float32Array | undefined): number {
  assert.ok(a !== undefined && b !== undefined)
  return Math.sqrt(a.reduce((sum, value, i) => sum + (value - (b[i] ?? 0)) ** 2, 0))
}

async function answer(events: AsyncIterable<ChatEvent>): Promise<string> {
  let text = ""
  for await (const event of events) if (event.kind === "delta") text += event.content
  return text
}

const PROMPTS = [
  "The quick brown fox",
  "jumps over",
  "the lazy dog and then it goes on and on until the text is longer than a window of tokens is, ".repeat(
    3,
  ),
]

describe("every kind of memory", () => {
  for (const shape of [
    "tiny-llama",
    "tiny-gemma3",
    "tiny-cohere2",
    "tiny-lfm2",
    "tiny-granitehybrid",
    "tiny-mamba2",
  ] as const) {
    test(`answers together as alone: ${shape}`, async () => {
      using folder = new Folder()
      await using model = await make(folder, shape)
      const alone: string[] = []
      for (const prompt of PROMPTS) alone.push(await answer(model.answer(request(prompt))))
      assert.ok(alone.every((text) => text.length > 0))
      const together = await Promise.all(
        [...PROMPTS, ...PROMPTS].map((prompt) => answer(model.answer(request(prompt)))),
      )
      assert.deepEqual(together, [...alone, ...alone])
      assert.equal(model.status.activeCells, 0)
    })
  }

  for (const [shape, options, expected] of [
    ["tiny-llama", {}, { runningMax: 64 }],
    ["tiny-llama", { parallel: 200 }, { runningMax: 200 }],
    ["tiny-llama", { flashAttention: "auto", cacheType: "q8_0/q4_0" }, { runningMax: 64 }],
    ["tiny-llama", { parallel: 300 }, { runningMax: 240 }],
    ["tiny-gemma3", {}, { runningMax: 64, window: "kept" }],
    ["tiny-gemma3", { isWindowFull: false }, { runningMax: 16, window: "sliding" }],
    ["tiny-granitehybrid", {}, { runningMax: 16 }],
    ["tiny-mamba2", { parallel: 20 }, { runningMax: 20 }],
  ] satisfies [
    ShapeName,
    Partial<LoadOptions>,
    Pick<LoadedFacts, "window"> & { runningMax: number },
  ][]) {
    test(`has room for many at once: ${shape} with ${JSON.stringify(options)}`, async () => {
      using folder = new Folder()
      await using model = await make(folder, shape, options)
      const { runningMax, window } = model.loaded
      assert.deepEqual({ runningMax, window }, { window: undefined, ...expected })
      const isLess = (options.parallel ?? 0) > expected.runningMax
      assert.ok(!isLess || (model.loaded.notes ?? []).some((note) => /instead of 300/.test(note)))
      const texts = Array.from({ length: 20 }, (_, i) => `${i}: ${PROMPTS[0]}`)
      const answers = await Promise.all(texts.map((text) => answer(model.answer(request(text)))))
      assert.ok(answers.every((text) => text.length > 0))
    })
  }

  for (const [shape, isWindowFull] of [
    ["tiny-llama", true],
    ["tiny-gemma3", true],
    ["tiny-gemma3", false],
    ["tiny-cohere2", true],
    ["tiny-cohere2", false],
    ["tiny-lfm2", false],
    ["tiny-granitehybrid", false],
    ["tiny-mamba2", false],
  ] as const) {
    const window = isWindowFull ? "kept" : "sliding"
    test(`takes the memory that its file says: ${shape}, window ${window}`, async () => {
      using folder = new Folder()
      const path = folder.file("model.gguf")
      await makeModel({ shape, type: "F16", out: path, seed: 1, vocabDir: VOCABULARIES })
      const facts = modelFacts(readGguf(path))
      using native = await loadModel(library, { paths: [path] })
      await using backend = await createBackend(native, {
        cells: 1024,
        batchTokens: 128,
        sequences: 4,
        threads: 2,
        isWindowFull,
      })
      const sizes: number[] = []
      for (const from of [0, 128, 256, 384]) {
        const tokens = Array.from({ length: 128 }, (_, i) => 10 + i)
        assert.equal((await decode(backend, { tokens, from, sequence: 1 })).code, 0)
        sizes.push(backend.stateBytes(1, 0, from + 128))
      }
      const [, , third = 0, fourth = 0] = sizes
      const all = kvBytesPerToken(facts, "F16", "F16")
      const local = windowBytesPerToken(facts, "F16", "F16")
      const perToken = isWindowFull ? all : all - local
      // Beside its values a cell has a position and the like, in each part of the memory; a piece has a header.
      const grown = (fourth - third) / 128
      assert.ok(grown >= perToken && grown <= perToken + 64, `${grown} for ${perToken}`)
      const once = facts.cache.stateBytes + (isWindowFull ? 0 : local * (facts.slidingWindow ?? 0))
      const rest = third - 384 * grown - once
      assert.ok(rest >= 0 && rest <= 4096, `${rest} beside ${once}`)
    })
  }

  test("embeds with a model that only encodes: tiny-bert", async () => {
    using folder = new Folder()
    await using model = await make(folder, "tiny-bert")
    const [first, same, other] = await model.embed(["a llama", "a llama", "quite another thing"])
    assert.ok(distance(first, same) < 1e-5)
    assert.ok(distance(first, other) > 0.01)
  })
})
