import assert from "node:assert/strict"
import { existsSync, readFileSync, writeFileSync } from "node:fs"

import { quantizeFile } from "../../ffi/quantize.ts"
import { modelFacts } from "../../src/gguf/facts.ts"
import { readGguf } from "../../src/gguf/read.ts"
import { QUANTIZATION_TYPES } from "../../src/services/quantization.ts"
import { writeFloats, writeImportance } from "../weights.ts"
import { describe, Folder, library, test } from "./support.ts"

/** What llama.cpp makes only with an importance matrix. docs/models.md lists them, too. */
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

/** Where the description of a tensor has its first size, its type and its place; all have two sizes. */
function partsOfTensor(bytes: Buffer, name: string): Record<"size" | "type" | "offset", number> {
  const end = bytes.indexOf(name) + name.length
  return { size: end + 4, type: end + 4 + 16, offset: end + 4 + 16 + 4 }
}

/** What may be wrong with the description of a tensor, and with the length of a file. */
const DAMAGES: Readonly<Record<string, (bytes: Buffer) => Buffer>> = {
  "beyond the end": (bytes) => written(bytes, "offset", 2n ** 40n),
  "past the largest number": (bytes) => written(bytes, "offset", 2n ** 64n - 32n),
  "over another": (bytes) => written(bytes, "offset", 0n),
  "of another size": (bytes) => written(bytes, "size", 64n),
  "of a size that wraps": (bytes) => written(bytes, "size", 2n ** 62n),
  "of no known type": (bytes) => written(bytes, "type", 999n),
  "cut off": (bytes) => bytes.subarray(0, -1),
  "gone with half of the file": (bytes) => bytes.subarray(0, bytes.length / 2),
}

function written(bytes: Buffer, part: "size" | "type" | "offset", value: bigint): Buffer {
  const at = partsOfTensor(bytes, "blk.0.ffn_down.weight")[part]
  if (part === "type") bytes.writeUInt32LE(Number(value), at)
  else bytes.writeBigUInt64LE(value, at)
  return bytes
}

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
    for (const type of NEEDS_MATRIX) {
      // oxlint-disable-next-line no-await-in-loop
      await assert.rejects(quantize(type), {
        code: "invalid-input",
        message: `Cannot quantize to ${type}: it needs an importance matrix`,
        hint: /--imatrix/,
      })
    }
    writeFileSync(folder.file("rubbish"), "rubbish")
    await assert.rejects(quantize("IQ2_XXS", folder.file("rubbish")), {
      message: /is not an importance matrix/,
    })
    await assert.rejects(quantize("Q9"), { code: "invalid-input" })
  })

  test("of a damaged file nothing is written, so that no memory of the process gets out", async () => {
    using folder = new Folder()
    const [whole, input] = [folder.file("whole.gguf"), folder.file("in.gguf")]
    await writeFloats(whole, 1)
    for (const [title, damage] of Object.entries(DAMAGES)) {
      // F32 copies tensors as they are.
      for (const type of ["F32", "Q8_0"]) {
        const output = folder.file("out.gguf")
        writeFileSync(input, damage(readFileSync(whole)))
        // oxlint-disable-next-line no-await-in-loop
        await assert.rejects(
          quantizeFile(library, { input, output, type }, () => {}),
          { code: "invalid-input" },
          title,
        )
        assert.equal(existsSync(output), false, title)
      }
    }
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
