import { describe, expect, test } from "bun:test"

import { nameParts, sizeLabelOf, titleOf } from "./model-name.ts"

/** As llama.cpp's converter takes them apart. */
const NAMES: readonly (readonly [string, number, ReturnType<typeof nameParts>])[] = [
  [
    "Mixtral-8x7B-Instruct-v0.1",
    0,
    {
      name: "Mixtral-8x7B-Instruct-v0.1",
      basename: "Mixtral",
      finetune: "Instruct",
      version: "v0.1",
      sizeLabel: "8x7B",
    },
  ],
  ["Mixtral", 0, { name: "Mixtral" }],
  ["a sentence for a name", 0, { name: "a sentence for a name" }],
  [
    "NousResearch/Meta-Llama-3-8B",
    0,
    {
      name: "Meta-Llama-3-8B",
      organization: "NousResearch",
      basename: "Meta-Llama-3",
      sizeLabel: "8B",
    },
  ],
  [
    "Qwen/Qwen2.5-0.5b-chat",
    5e8,
    {
      name: "Qwen2.5-0.5b-chat",
      organization: "Qwen",
      basename: "Qwen2.5",
      finetune: "chat",
      sizeLabel: "0.5B",
    },
  ],
  [
    "Phi-3-mini-128k-instruct",
    38e8,
    {
      name: "Phi-3-mini-128k-instruct",
      basename: "Phi-3",
      finetune: "128k-instruct",
      sizeLabel: "mini",
    },
  ],
  [
    "bloom-7b1-petals",
    71e8,
    { name: "bloom-7b1-petals", basename: "bloom", finetune: "petals", sizeLabel: "7.1B" },
  ],
  ["./Llama-3-8B", 0, { name: "Llama-3-8B", basename: "Llama-3", sizeLabel: "8B" }],
]

describe("nameParts()", () => {
  for (const [id, parameters, parts] of NAMES) {
    test(`takes "${id}" apart`, () => {
      expect(nameParts(id, parameters)).toEqual(parts)
    })
  }
})

describe("titleOf() and sizeLabelOf()", () => {
  test("write names and sizes as people do", () => {
    expect(titleOf("hello-WORLD-v1.2-8b-o'neill")).toBe("Hello WORLD v1.2 8b O'Neill")
    expect(sizeLabelOf(1_235_814_400, 0)).toBe("1.2B")
    expect(sizeLabelOf(494_032_768, 0)).toBe("494M")
    expect(sizeLabelOf(7_000_000_000, 8)).toBe("8x7.0B")
    expect(sizeLabelOf(29_000, 0)).toBe("29K")
  })
})
