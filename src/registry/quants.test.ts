import { describe, expect, test } from "bun:test"

import { parseDigest } from "../store/digest.ts"
import { isAvailable, quantLabel, quantsOfFiles, quantTags } from "./quants.ts"

test.each([
  ["Qwen3-8B-Q4_K_M", "Q4_K_M"],
  ["model.IQ4_XS", "IQ4_XS"],
  ["8b-instruct-q8_0", "Q8_0"],
  ["Llama-3-UD-Q4_K_XL", "UD-Q4_K_XL"],
  ["BF16/model-BF16", "BF16"],
  ["m-fp16", "FP16"],
  ["gpt-oss-20b-mxfp4", "MXFP4"],
  ["q4_0", "Q4_0"],
  ["Q2_K", "Q2_K"],
  ["Q3_K_L", "Q3_K_L"],
  ["latest", undefined],
  ["8b", undefined],
  ["xQ4_0", undefined],
  ["Q4_0x", undefined],
])("quantLabel(%j)", (name, label) => {
  expect(quantLabel(name)).toBe(label)
})

describe("quantsOfFiles()", () => {
  const digest = parseDigest(`sha256:${"ab".repeat(32)}`)
  const file = (path: string, bytes: number) => ({ path, bytes, digest })

  test("counts weights, not encoders, and adds the parts of split files up", () => {
    const files = [
      { path: "README.md", bytes: 1 },
      file("M-Q4_K_M.gguf", 40),
      file("M-Q8_0-00002-of-00002.gguf", 30),
      file("M-Q8_0-00001-of-00002.gguf", 50),
      file("BF16/M-BF16-00001-of-00002.gguf", 99),
      { path: "BF16/M-BF16-00002-of-00002.gguf", bytes: 1 },
      file("mmproj-M-F16.gguf", 7),
      file("other-Q4_K_M.gguf", 1),
    ]
    const quants = quantsOfFiles(files)
    expect(quants).toMatchObject([
      { tag: "Q4_K_M", label: "Q4_K_M", bytes: 40, files: 1, parts: [] },
      { tag: "Q8_0", label: "Q8_0", bytes: 80, files: 2 },
      { tag: "BF16", label: "BF16", bytes: 100, files: 2, parts: [] },
    ])
    // One part of BF16 has no digest: nobody could tell whether it came undamaged.
    expect(quants.map(isAvailable)).toEqual([true, true, false])
    expect(quants[1]?.parts.map(({ path }) => path)).toEqual([
      "M-Q8_0-00001-of-00002.gguf",
      "M-Q8_0-00002-of-00002.gguf",
    ])
  })

  test("a part that is missing, and one file beside the same in several", () => {
    const files = [
      file("M-Q8_0-00001-of-00003.gguf", 50),
      file("M-Q8_0-00003-of-00003.gguf", 50),
      file("split/M-Q6_K-00001-of-00002.gguf", 50),
      file("split/M-Q6_K-00002-of-00002.gguf", 50),
      file("M-Q6_K.gguf", 99),
    ]
    expect(quantsOfFiles(files)).toEqual([
      { tag: "Q6_K", label: "Q6_K", bytes: 99, files: 1, parts: [] },
    ])
  })
})

describe("quantTags()", () => {
  test("of one model in several quantisations", () => {
    expect(quantTags(["latest", "8b-q4_0", "8b-q8_0"]).map(({ tag }) => tag)).toEqual([
      "8b-q4_0",
      "8b-q8_0",
    ])
    expect(quantTags(["8b-q4_0", "70b-q4_0"])).toEqual([])
    expect(quantTags(["latest", "v2"])).toEqual([])
    expect(quantTags(["../x/q4_0", "q8_0", "q2_k\n"]).map(({ tag }) => tag)).toEqual(["q8_0"])
  })
})
