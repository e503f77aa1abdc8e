import { describe, expect, test } from "bun:test"
import { readFileSync } from "node:fs"
import { join } from "node:path"

import { mergedContent } from "./merge.ts"
import { TemporaryFolder } from "./raw-file.ts"
import { readModel } from "./split.ts"
import {
  type GgufInput,
  packNumbers,
  packStrings,
  type TensorSource,
  text,
  u32,
  writeGguf,
} from "./write.ts"

function tensor(name: string, value: number): TensorSource {
  return { name, type: "F32", dims: [3, 5], chunks: [new Uint8Array(60).fill(value)] }
}

/** The fields of a part of two. */
function part(no: number): [string, GgufInput][] {
  return [
    ["split.no", { type: "u16", value: no }],
    ["split.count", { type: "u16", value: 2 }],
    ["split.tensors.count", { type: "i32", value: 3 }],
  ]
}

describe("mergedContent()", () => {
  test("the parts of a model become the file that they were cut from", async () => {
    using folder = new TemporaryFolder()
    const metadata = new Map<string, GgufInput>([
      ["general.architecture", text("llama")],
      ["llama.block_count", u32(2)],
      ["tokenizer.ggml.tokens", packStrings(["a", "", "ü"])],
      ["x.numbers", packNumbers("f32", [1.5, -2])],
    ])
    const path = (name: string) => join(folder.path, name)
    await writeGguf(path("m-00001-of-00002.gguf"), {
      metadata: new Map([...metadata, ...part(0)]),
      tensors: [tensor("a", 1), tensor("b", 2)],
    })
    await writeGguf(path("m-00002-of-00002.gguf"), {
      metadata: new Map(part(1)),
      tensors: [tensor("c", 3)],
    })
    await writeGguf(path("whole.gguf"), {
      metadata,
      tensors: [tensor("a", 1), tensor("b", 2), tensor("c", 3)],
    })
    await writeGguf(path("merged.gguf"), mergedContent(readModel(path("m-00001-of-00002.gguf"))))
    expect(readFileSync(path("merged.gguf"))).toEqual(readFileSync(path("whole.gguf")))
  })
})
