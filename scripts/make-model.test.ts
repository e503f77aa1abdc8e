import { describe, expect, test } from "bun:test"
import { readFileSync } from "node:fs"
import { join } from "node:path"

import { modelFacts } from "../src/gguf/facts.ts"
import { TemporaryFolder } from "../src/gguf/raw-file.ts"
import { readGguf } from "../src/gguf/read.ts"
import {
  type GgufInput,
  packNumbers,
  packStrings,
  text,
  u32,
  writeGguf,
} from "../src/gguf/write.ts"
import { type FileType, makeModel, withTypes } from "./make-model.ts"
import { type ShapeName, SHAPES, tensorPlans } from "./model-shapes.ts"

/** Tokens of the vocabulary below: a multiple of no block size. */
const TOKENS = 50

/** Writes a vocabulary for every shape; those of llama.cpp may not be unpacked. */
async function writeVocabularies(folder: TemporaryFolder): Promise<void> {
  const metadata = new Map<string, GgufInput>([
    ["general.architecture", text("llama")],
    ["tokenizer.ggml.model", text("llama")],
    ["tokenizer.ggml.tokens", packStrings(Array.from({ length: TOKENS }, (_, id) => `t${id}`))],
    [
      "tokenizer.ggml.token_type",
      packNumbers(
        "i32",
        Array.from({ length: TOKENS }, () => 1),
      ),
    ],
    ["tokenizer.ggml.eos_token_id", u32(2)],
  ])
  for (const { vocabulary } of Object.values(SHAPES)) {
    await writeGguf(join(folder.path, `ggml-vocab-${vocabulary}.gguf`), { metadata, tensors: [] })
  }
}

async function make(
  folder: TemporaryFolder,
  shape: ShapeName,
  type: FileType,
  seed = 1,
): Promise<string> {
  const out = join(folder.path, `${shape}-${type}-${seed}.gguf`)
  await makeModel({ shape, type, out, seed, vocabDir: folder.path })
  return out
}

describe("makeModel()", () => {
  test.each<[ShapeName, object]>([
    [
      "tiny-llama",
      { architecture: "llama", blockCount: 4, headCount: 4, headCountKv: 2, keyLength: 64 },
    ],
    ["tiny-gemma3", { architecture: "gemma3", blockCount: 6, headCountKv: 1, slidingWindow: 64 }],
    [
      "tiny-lfm2",
      {
        architecture: "lfm2",
        headCountKv: 2,
        cache: { keyElements: 2 * 2 * 64, stateBytes: 2 * 2 * 256 * 4 },
      },
    ],
    ["tiny-cohere2", { architecture: "cohere2", blockCount: 4, slidingWindow: 128 }],
    ["tiny-granitehybrid", { architecture: "granitehybrid", cache: { keyElements: 2 * 2 * 64 } }],
    ["tiny-mamba2", { architecture: "mamba2", headCount: 0, cache: { keyElements: 0 } }],
    ["tiny-bert", { architecture: "bert", poolingType: "cls", contextLength: 512 }],
  ])("makes %s in every file type", async (shape, facts) => {
    using folder = new TemporaryFolder()
    await writeVocabularies(folder)
    for (const type of ["F16", "Q8_0", "Q4_K_M"] as const) {
      const header = readGguf(await make(folder, shape, type))
      expect(modelFacts(header)).toMatchObject({
        ...facts,
        quantization: type,
        vocabSize: TOKENS,
        eosTokenId: 2,
      })
    }
  })

  test("gives the same bytes for the same seed only", async () => {
    using folder = new TemporaryFolder()
    await writeVocabularies(folder)
    const first = readFileSync(await make(folder, "tiny-llama", "Q4_K_M", 1))
    const again = readFileSync(await make(folder, "tiny-llama", "Q4_K_M", 1))
    const other = readFileSync(await make(folder, "tiny-llama", "Q4_K_M", 2))
    expect(first.equals(again)).toBe(true)
    expect(first.equals(other)).toBe(false)
  })

  test("makes weights that keep the size of what goes through them", async () => {
    using folder = new TemporaryFolder()
    await writeVocabularies(folder)
    const path = await make(folder, "tiny-llama", "F32")
    const { dataOffset, tensors } = readGguf(path)
    const tensor = tensors.find(({ name }) => name === "blk.0.ffn_down.weight")
    const start = dataOffset + (tensor?.offset ?? 0)
    const weights = new Float32Array(
      readFileSync(path).buffer.slice(start, start + (tensor?.bytes ?? 0)),
    )
    const squares = weights.reduce((total, weight) => total + weight * weight, 0)
    expect(squares / 256).toBeCloseTo(1, 1) // 256 rows of length 1
  })

  test("reports its progress", async () => {
    using folder = new TemporaryFolder()
    await writeVocabularies(folder)
    const parts: number[] = []
    const out = join(folder.path, "m.gguf")
    const request = {
      shape: "tiny-bert",
      type: "Q8_0",
      out,
      seed: 1,
      vocabDir: folder.path,
    } as const
    await makeModel(request, (part) => parts.push(part))
    expect(parts.at(-1)).toBe(1)
    expect(parts).toEqual(parts.toSorted((a, b) => a - b))
  })
})

describe("qwen2.5-0.5b", () => {
  const plans = tensorPlans(SHAPES["qwen2.5-0.5b"], 151_936)

  test("has the parameters of the real model", () => {
    const elements = plans.map(({ dims }) => dims.reduce((product, size) => product * size, 1))
    expect(elements.reduce((total, count) => total + count, 0)).toBe(494_032_768)
  })

  // The types that `llama_model_quantize` of llama.cpp chose for the F16 file of this shape.
  test("has the mix of types that llama-quantize makes of Q4_K_M", () => {
    const types = withTypes(plans, "Q4_K_M", 24).map(([, type]) => type)
    const counts = Object.groupBy(types, (type) => type)
    expect(Object.entries(counts).map(([type, all]) => [type, all.length])).toEqual(
      expect.arrayContaining([
        ["F32", 121],
        ["Q4_K", 12],
        ["Q5_0", 132],
        ["Q6_K", 12],
        ["Q8_0", 13],
      ]),
    )
  })
})
