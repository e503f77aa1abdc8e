import { describe, expect, test } from "bun:test"
import { rejects } from "node:assert/strict"
import { readdirSync, readFileSync, renameSync, statSync } from "node:fs"
import { join } from "node:path"

import { TemporaryFolder } from "../gguf/raw-file.ts"
import { readGguf } from "../gguf/read.ts"
import { convertFolder, folderKind } from "./convert.ts"
import { TestModel } from "./test-model.ts"

const DEMO = join(import.meta.dirname, "../../tests/fixtures/hf-cria-demo")

/** Moves all files of a model to places that say nothing; where each is. */
function scatter(model: TestModel): Record<string, string> {
  const paths: Record<string, string> = {}
  for (const name of readdirSync(model.path, { recursive: true }) as string[]) {
    if (!statSync(join(model.path, name)).isFile()) continue
    paths[name] = join(model.outside, `blob-${Object.keys(paths).length}`)
    renameSync(join(model.path, name), paths[name])
  }
  return paths
}

describe("convertFolder()", () => {
  test("writes a model that reads back, with progress that ends at all bytes", async () => {
    using folder = new TemporaryFolder()
    const target = join(folder.path, "out.gguf")
    let completed = 0
    let total = 0
    for await (const event of convertFolder(DEMO, target)) {
      if (event.kind === "done") {
        expect(event.converted).toMatchObject({ architecture: "qwen3", type: "F16", tensors: 57 })
      } else {
        expect(event.completedBytes).toBeGreaterThanOrEqual(completed)
        completed = event.completedBytes
        total = event.totalBytes
      }
    }
    expect(completed).toBe(total)
    expect(readGguf(target).tensors).toHaveLength(57)
    expect(readdirSync(folder.path)).toEqual(["out.gguf"])
  })

  test.each(["llama-spm", "qwen3-embedding"])(
    "takes the files of %s wherever they lie",
    async (name) => {
      using model = new TestModel(name)
      for await (const _ of convertFolder(model.path, model.target));
      const expected = readFileSync(model.target)
      const paths = scatter(model)
      const source = { name: "model", label: "x", paths }
      for await (const _ of convertFolder(source, model.target));
      expect(readFileSync(model.target).equals(expected)).toBe(true)
      const { "config.json": _, ...others } = paths
      await rejects(convertFolder({ ...source, paths: others }, model.target).next(), {
        code: "not-found",
        message: 'Cannot find "config.json" in "x"',
      })
    },
  )

  test("leaves nothing behind when it is aborted", async () => {
    using folder = new TemporaryFolder()
    const controller = new AbortController()
    const target = join(folder.path, "out.gguf")
    const events = convertFolder(DEMO, target, { signal: controller.signal })
    await events.next()
    controller.abort(new Error("enough"))
    await rejects(events.next(), /enough/)
    expect(readdirSync(folder.path)).toEqual([])
  })
})

describe("Hyperparameters", () => {
  test("know the names that Nomic kept, and the context it was trained with", async () => {
    using model = new TestModel("nomic-bert")
    const read = async (): Promise<object> => {
      for await (const _ of convertFolder(model.path, model.target));
      const { metadata } = readGguf(model.target)
      return Object.fromEntries([...metadata].filter(([key]) => key.startsWith("nomic-bert.")))
    }
    const both = await read()
    const names = ["hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"]
    const more = ["max_position_embeddings", "head_dim", "layer_norm_eps", "rope_parameters"]
    const none = [...names, ...more].map((name) => [name, undefined])
    model.change("config.json", Object.fromEntries(none) as Record<string, undefined>)
    expect(await read()).toEqual(both)
  })
})

describe("folderKind()", () => {
  test("knows a model, and a folder without one", () => {
    expect(folderKind(DEMO)).toBe("model")
    expect(folderKind(import.meta.dirname)).toBeUndefined()
  })
})
