import { expect, test } from "bun:test"
import { readdirSync } from "node:fs"
import { join } from "node:path"

import { modelFacts } from "../gguf/facts.ts"
import { readGguf } from "../gguf/read.ts"
import { type TensorSource, text, u32, writeGguf } from "../gguf/write.ts"
import { openStore } from "../store/folder-store.ts"
import { TestStore } from "../store/test-store.ts"
import { StoreWriter } from "../store/writer.ts"
import { drain } from "../util/iterate.ts"
import { quantizeFile } from "./requantize.ts"
import { Scratch } from "./scratch.ts"
import { describeScratch } from "./weights.ts"

/** A quantiser that leaves everything as it is. */
const COPIER = [
  process.execPath,
  "-e",
  `const { input, output } = JSON.parse(process.argv.at(-1))
   await Bun.write(output, Bun.file(input))
   console.log('{"type":"done"}')`,
]

function tensor(name: string): TensorSource {
  return { name, type: "F16", dims: [2], chunks: [new Uint8Array(4)] }
}

test("quantizeFile() — a model in Ollama's form is quantised in llama.cpp's, and nothing stays behind", async () => {
  using folder = new TestStore()
  const store = openStore(folder.root, { readOnly: false })
  const writer = new StoreWriter(store)
  {
    using scratch = new Scratch(writer)
    const source = scratch.file()
    await writeGguf(source.path, {
      metadata: new Map([
        ["general.architecture", text("llama4")],
        ["general.file_type", u32(1)],
      ]),
      tensors: [tensor("v.patch.weight"), tensor("token_embd.weight")],
    })
    const parts = { store, writer, command: COPIER, scratch }
    const wish = { type: "Q8_0", imatrix: undefined }
    const { signal } = new AbortController()
    const made = await drain(quantizeFile(parts, describeScratch(source, "m"), wish, signal))
    const header = readGguf(made.path)
    expect(modelFacts(header).architecture).toBe("llama4")
    expect(header.tensors.map(({ name }) => name)).toEqual(["token_embd.weight"])
  }
  expect(readdirSync(join(folder.root, "blobs"))).toEqual([])
})
