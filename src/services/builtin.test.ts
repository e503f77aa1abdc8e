import { afterAll, beforeAll, describe, expect, test } from "bun:test"
import {
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  utimesSync,
  writeFileSync,
} from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"

import { parseDigest } from "../store/digest.ts"
import { MEDIA_TYPES } from "../store/manifest.ts"
import { parseName, shortName } from "../store/name.ts"
import { resolveModel } from "../store/resolve.ts"
import type { ModelStore } from "../store/store.ts"
import { demoStore, fileModelName, fileStore } from "./builtin.ts"

const DEMO = join(import.meta.dirname, "../../models/demo/cria-demo-q8_0.gguf")

let folder = ""

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "cria-builtin-"))
})

afterAll(() => rmSync(folder, { recursive: true, force: true }))

/** A copy of the demo model. */
function modelFile(name: string): string {
  const path = join(folder, name)
  copyFileSync(DEMO, path)
  return path
}

function namesOf(store: ModelStore): string[] {
  return store.list().models.map(({ name }) => shortName(name))
}

describe("fileModelName() — the name under which a file is run", () => {
  test.each<[string, string]>([
    ["/models/tiny.gguf", "tiny"],
    ["tiny.GGUF", "tiny"],
    ["./Qwen3-0.6B.Q4_K_M.gguf", "Qwen3-0.6B.Q4_K_M"],
    ["no-ending", "no-ending"],
    ["two.gguf.gguf", "two.gguf"],
    ["with blanks (1).gguf", "with-blanks--1-"],
    ["a:b.gguf", "a-b"],
    [".hidden.gguf", "hidden"],
    ["--x.gguf", "x"],
    ["模型.gguf", "model"],
    ["modèle.gguf", "mod-le"],
    [".gguf", "model"],
    [`${"a".repeat(200)}.gguf`, "a".repeat(80)],
    ["m-00001-of-00003.gguf", "m-00001-of-00003"],
  ])("%s is %s", (path, name) => {
    expect(fileModelName(path)).toBe(name)
    expect(shortName(parseName(name))).toBe(`${name}:latest`)
  })
})

describe("fileStore()", () => {
  test("holds one model, under the name of the file, in any case", () => {
    const path = modelFile("My Model.gguf")
    const store = fileStore(path)
    expect(namesOf(store)).toEqual(["My-Model:latest"])
    expect(store.list().problems).toEqual([])
    expect(store.find(parseName("my-model"))).toBeDefined()
    expect(store.find(parseName("my-model:7b"))).toBeUndefined()
    expect(store.find(parseName("me/my-model"))).toBeUndefined()
  })

  test("its model can be resolved, and runs where the file lies", () => {
    const path = modelFile("there.gguf")
    const model = resolveModel(fileStore(path), parseName("there"))
    expect(model).toMatchObject({
      modelPath: path,
      params: undefined,
      template: undefined,
      system: undefined,
      licenses: [],
      config: {
        model_format: "gguf",
        model_family: "qwen3",
        model_families: ["qwen3"],
        model_type: "4.98M",
        file_type: "Q8_0",
      },
    })
    expect(model.id).toMatch(/^[0-9a-f]{64}$/)
    expect(model.sizeBytes).toBeGreaterThan(readFileSync(path).length)
  })

  test("has no other blobs", () => {
    const store = fileStore(modelFile("blobs.gguf"))
    const unknown = parseDigest(`sha256:${"0".repeat(64)}`)
    expect(store.blobPath(unknown)).toBeUndefined()
    expect(store.readBlob(unknown, 1000)).toBeUndefined()
    // Weights are read by path only: they would not fit in memory.
    const weights = store.list().models[0]?.manifest.layers[0]
    expect(weights?.mediaType).toBe(MEDIA_TYPES.model)
    expect(store.readBlob(parseDigest(weights?.digest ?? ""), 1000)).toBeUndefined()
  })

  test("a file that was written anew is another model", () => {
    const path = modelFile("anew.gguf")
    const [before] = fileStore(path).list().models
    utimesSync(path, 1_000_000, 1_000_000)
    const [after] = fileStore(path).list().models
    expect(after?.id).not.toBe(before?.id)
    expect(after?.modifiedAt).toEqual(new Date(1_000_000_000))
  })

  test.each<[string, (path: string) => void, string]>([
    ["is missing", () => {}, "not-found"],
    ["is empty", (path) => writeFileSync(path, ""), "invalid-input"],
    ["is text", (path) => writeFileSync(path, "Once upon a time\n".repeat(10)), "invalid-input"],
    ["is a folder", (path) => mkdirSync(path), "invalid-input"],
    [
      "is cut",
      (path) => writeFileSync(path, readFileSync(DEMO).subarray(0, 5000)),
      "invalid-input",
    ],
  ])("a file that %s is refused at once, by name", (_, make, code) => {
    const path = join(folder, "bad.gguf")
    rmSync(path, { recursive: true, force: true })
    make(path)
    expect(() => fileStore(path)).toThrow(
      expect.objectContaining({ code, message: expect.stringContaining("bad.gguf") }),
    )
  })
})

describe("demoStore()", () => {
  test("holds the demo model, greedy, where it lies in a checkout", () => {
    const store = demoStore(join(folder, "cache"))
    expect(namesOf(store)).toEqual(["demo:latest"])
    const model = resolveModel(store, parseName("DEMO"))
    expect(model.params).toEqual({ temperature: 0 })
    expect(readFileSync(model.modelPath).equals(readFileSync(DEMO))).toBe(true)
  })

  test("holds nothing else, and has the same id each time", () => {
    const store = demoStore(join(folder, "cache"))
    expect(store.find(parseName("other"))).toBeUndefined()
    const [first] = store.list().models
    const [second] = demoStore(join(folder, "cache")).list().models
    expect(second?.id).toBe(first?.id ?? "")
  })
})
