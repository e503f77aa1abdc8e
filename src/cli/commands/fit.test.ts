import { expect, test } from "bun:test"

import { fitText } from "./fit.ts"

test("fitText() — a table, and what it was measured against", () => {
  const quants = [
    { quant: "F16", tag: "f16", size: 16e9, files: 2, place: "none", context: 100, chosen: false },
    {
      quant: "Q4_K_M",
      tag: "q",
      size: 4.9e9,
      files: 1,
      place: "gpu",
      context: 32_768,
      chosen: true,
    },
  ] as const
  const text = fitText({ memory: { gpu: 8 * 2 ** 30, host: 16 * 2 ** 30 }, quants })
  expect(text.split("\n").map((line) => line.trimEnd())).toEqual([
    "QUANT       SIZE                FITS      CONTEXT",
    "F16         16 GB in 2 files    no        -",
    "Q4_K_M *    4.9 GB              on GPU    32768",
    "",
    "Memory: 8.0 GiB on GPUs, 16.0 GiB of RAM; * is what a pull without a tag takes",
  ])
})
