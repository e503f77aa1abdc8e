import assert from "node:assert/strict"
import { existsSync, writeFileSync } from "node:fs"

import { quantizeFile } from "../../ffi/quantize.ts"
import { modelFacts } from "../../src/gguf/facts.ts"
import { readGguf } from "../../src/gguf/read.ts"
import { QUANTIZATION_TYPES } from "../../src/services/quantization.ts"
import { writeFloats, writeImportance } from "../weights.ts"
import { describe, Folder, library, test } from "./support.ts"

/** What llama.cpp makes only with an importance matrix. */
const NEEDS_MATRIX = [
  "Q2_K_S",
  "IQ2_M",
  "IQ2_S",
  "IQ2_XS",
  "IQ2_XXS",
  "IQ1_M",
  "IQ1_S",
  "IQ3_XXS",
  "IQ3_XS",
]

/** llama.cpp does the same under every runtime, and takes its time. */
const TYPES = "Deno" in globalThis ? ["Q4_K_M", "IQ2_XXS"] : QUANTIZATION_TYPES

describe("quantizeFile()", () => {
  for (const type of TYPES) {
    test(`writes ${type}, which is offered`, async () => {
      using folder = new Folder()
      const [input, imatrix] = [folder.file("f32.gguf"), folder.file("imatrix.gguf")]
      await writeFloats(input, 1)
      await writeImportance(imatrix)
      const output = folder.file("out.gguf")
      const matrix = NEEDS_MATRIX.includes(type) ? { imatrix } : {}
      const fractions: number[] = []
      const onProgress = (fraction: number) => fractions.push(fraction)
      await quantizeFile(library, { input, output, type, ...matrix }, onProgress)
      const { quantization } = modelFacts(readGguf(output))
      assert.equal(quantization, type === "F32" ? "unknown" : type)
      assert.ok(fractions.length > 0)
      assert.deepEqual(
        fractions,
        fractions.toSorted((a, b) => a - b),
      )
    })
  }

  test("says when a type needs an importance matrix, and what is none", async () => {
    using folder = new Folder()
    const [input, output] = [folder.file("f32.gguf"), folder.file("out.gguf")]
    await writeFloats(input, 1)
    const quantize = (type: string, imatrix?: string) =>
      quantizeFile(
        library,
        { input, output, type, ...(imatrix === undefined ? {} : { imatrix }) },
        () => {},
      )
    await assert.rejects(quantize("IQ2_XXS"), {
      code: "invalid-input",
      message: "Cannot quantize to IQ2_XXS: it needs an importance matrix",
      hint: /--imatrix/,
    })
    writeFileSync(folder.file("rubbish"), "rubbish")
    await assert.rejects(quantize("IQ2_XXS", folder.file("rubbish")), {
      message: /is not an importance matrix/,
    })
    await assert.rejects(quantize("Q9"), { code: "invalid-input" })
  })

  test("a file that is no model is an error", async () => {
    using folder = new Folder()
    writeFileSync(folder.file("in.gguf"), "GGUF rubbish")
    const options = { input: folder.file("in.gguf"), output: folder.file("o"), type: "Q4_0" }
    await assert.rejects(
      quantizeFile(library, options, () => {}),
      { code: "invalid-input" },
    )
    assert.equal(existsSync(folder.file("o")), false)
  })
})
