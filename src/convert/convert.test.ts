import { describe, expect, test } from "bun:test"
import { rejects } from "node:assert/strict"
import { readdirSync } from "node:fs"
import { join } from "node:path"

import { TemporaryFolder } from "../gguf/raw-file.ts"
import { readGguf } from "../gguf/read.ts"
import { convertFolder, folderKind } from "./convert.ts"

const DEMO = join(import.meta.dirname, "../../tests/fixtures/hf-cria-demo")

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

describe("folderKind()", () => {
  test("knows a model, and a folder without one", () => {
    expect(folderKind(DEMO)).toBe("model")
    expect(folderKind(import.meta.dirname)).toBeUndefined()
  })
})
