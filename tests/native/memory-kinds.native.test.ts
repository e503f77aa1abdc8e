import assert from "node:assert/strict"

import { makeModel } from "../../scripts/make-model.ts"
import type { ShapeName } from "../../scripts/model-shapes.ts"
import type { ChatEvent } from "../../src/chat/message.ts"
import { LocalModel } from "../../src/model/local-model.ts"
import type { AnswerRequest } from "../../src/model/request.ts"
import { describe, Folder, GREEDY, library, test, VOCABULARIES } from "./support.ts"

/** A model of a kind, with random weights: what it says means nothing, but is always the same. */
async function make(folder: Folder, shape: ShapeName): Promise<LocalModel> {
  const path = folder.file(`${shape}.gguf`)
  await makeModel({ shape, type: "F16", out: path, seed: 1, vocabDir: VOCABULARIES })
  return LocalModel.load(library, {
    name: shape,
    path,
    contextTokens: 256,
    parallel: 3,
    flashAttention: "auto",
    cacheType: "f16",
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
  for (const shape of ["tiny-llama", "tiny-gemma3", "tiny-lfm2", "tiny-mamba2"] as const) {
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
    assert.deepEqual(first, same)
    assert.notDeepEqual(first, other)
  })
})
