import assert from "node:assert/strict"

import { LocalModel } from "../../src/model/local-model.ts"
import type { LoadOptions } from "../../src/model/request.ts"
import { writeAdapter, writeWithout } from "../weights.ts"
import { DEMO, describe, Folder, GREEDY, library, test } from "./support.ts"

const OPTIONS: LoadOptions = {
  name: "demo",
  path: DEMO,
  contextTokens: 512,
  parallel: 1,
  flashAttention: "auto",
  cacheType: "f16",
}

/** Weights without which the model says something else. */
const NAMES = ["blk.0.ffn_down.weight"]

/** The probabilities that a model gives to the 20 likeliest first tokens of its answer. */
async function probabilities(change: Partial<LoadOptions>): Promise<Map<string, number>> {
  await using model = await LocalModel.load(library, { ...OPTIONS, ...change })
  const request = {
    input: { kind: "text", text: "The capital of France is" },
    sampling: GREEDY,
    maxTokens: 1,
    stop: [],
    logprobs: 20,
    wantsContext: false,
  } as const
  const found = new Map<string, number>()
  for await (const event of model.answer(request)) {
    if (event.kind !== "delta") continue
    for (const { token, logprob } of event.logprobs.flatMap(({ top }) => top)) {
      found.set(token, Math.exp(logprob))
    }
  }
  return found
}

/** The largest difference between two models, of the tokens that are likely in the first. */
function distance(a: ReadonlyMap<string, number>, b: ReadonlyMap<string, number>): number {
  const differences = [...a].map(([token, value]) => Math.abs(value - (b.get(token) ?? 0)))
  return Math.max(...differences)
}

describe("LoRA adapters", () => {
  test("an adapter that takes weights away gives the model without them", async () => {
    using folder = new Folder()
    await writeWithout(folder.file("without.gguf"), NAMES)
    await writeAdapter(folder.file("lora.gguf"), NAMES)
    const plain = await probabilities({})
    const without = await probabilities({ path: folder.file("without.gguf") })
    const adapted = await probabilities({ adapters: [folder.file("lora.gguf")] })
    assert.ok(distance(plain, without) > 0.02)
    // The adapter computes in other precisions than the weights that it takes away.
    assert.ok(distance(adapted, without) < 0.005)
  })

  test("one that adds nothing changes nothing, and two add up", async () => {
    using folder = new Folder()
    await writeAdapter(folder.file("none.gguf"), NAMES, { factor: 0 })
    await writeAdapter(folder.file("away.gguf"), NAMES)
    await writeAdapter(folder.file("back.gguf"), NAMES, { factor: -1 })
    const plain = await probabilities({})
    const none = await probabilities({ adapters: [folder.file("none.gguf")] })
    const both = await probabilities({
      adapters: [folder.file("away.gguf"), folder.file("back.gguf")],
    })
    assert.ok(distance(plain, none) < 0.0001)
    assert.ok(distance(plain, both) < 0.0001)
  })

  test("one for another architecture, or a model in its place, is refused", async () => {
    using folder = new Folder()
    await writeAdapter(folder.file("llama.gguf"), NAMES, { architecture: "llama" })
    await assert.rejects(probabilities({ adapters: [folder.file("llama.gguf")] }), {
      code: "invalid-input",
      message:
        'Cannot use the adapter of "demo": it is a adapter for llama, expected an adapter for qwen3',
    })
    await assert.rejects(probabilities({ adapters: [DEMO] }), {
      message: /it is a model for qwen3, expected an adapter for qwen3$/,
    })
    await assert.rejects(probabilities({ adapters: [folder.file("missing.gguf")] }), {
      code: "not-found",
    })
  })
})
