import assert from "node:assert/strict"

import { makeModel } from "../../scripts/make-model.ts"
import type { ShapeName } from "../../scripts/model-shapes.ts"
import type { ChatEvent } from "../../src/chat/message.ts"
import { LocalModel } from "../../src/model/local-model.ts"
import type { AnswerRequest } from "../../src/model/request.ts"
import { describe, Folder, GREEDY, library, test, VOCABULARIES } from "./support.ts"

/**
 * A model of a kind, with random weights: what it says means nothing, but is always the same. With 32 bits throughout,
 * as `differential.ts` explains.
 */
async function make(folder: Folder, shape: ShapeName): Promise<LocalModel> {
  const path = folder.file(`${shape}.gguf`)
  await makeModel({ shape, type: "F32", out: path, seed: 1, vocabDir: VOCABULARIES })
  return LocalModel.load(library, {
    name: shape,
    path,
    contextTokens: 256,
    parallel: 3,
    flashAttention: "off",
    cacheType: "f32",
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

  test("embeds with a model that only encodes: tiny-bert", async () => {
    using folder = new Folder()
    await using model = await make(folder, "tiny-bert")
    const [first, same, other] = await model.embed(["a llama", "a llama", "quite another thing"])
    assert.ok(distance(first, same) < 1e-5)
    assert.ok(distance(first, other) > 0.01)
  })
})
