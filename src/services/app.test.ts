import { describe, expect, test } from "bun:test"
import { copyFileSync } from "node:fs"
import { join } from "node:path"

import { readConfig } from "../config.ts"
import { TestStore } from "../store/test-store.ts"
import { SILENT } from "../util/log.ts"
import { createApp } from "./app.ts"

const DEMO = join(import.meta.dirname, "../../models/demo/cria-demo-q8_0.gguf")

function appOver(folder: TestStore, file?: string) {
  const config = readConfig({ CRIA_MODELS: folder.root, CRIA_CACHE: join(folder.root, "cache") })
  return createApp({ config, log: SILENT, file })
}

describe("createApp() — where models come from", () => {
  test("the store, and the demo model", async () => {
    using folder = new TestStore()
    folder.weights("tiny")
    await using app = appOver(folder)
    const names = app.catalog.installed().map(({ name }) => name)
    expect(names).toContain("tiny:latest")
    expect(names).toContain("demo:latest")
  })

  test("a model of the store wins over the demo model", async () => {
    using folder = new TestStore()
    folder.weights("demo")
    await using app = appOver(folder)
    const [demo, ...rest] = app.catalog.installed().filter(({ name }) => name === "demo:latest")
    expect(rest).toEqual([])
    expect(demo?.sizeBytes).toBeLessThan(1000)
  })

  test("a file, which is all there is then: a command that runs it must not get another", async () => {
    using folder = new TestStore()
    folder.weights("newer", Date.now() + 60_000)
    const file = join(folder.root, "demo.gguf")
    copyFileSync(DEMO, file)
    await using app = appOver(folder, file)
    expect(app.catalog.installed().map(({ name }) => name)).toEqual(["demo:latest"])
    const overlay = { system: undefined, options: {} }
    expect(app.catalog.describe("demo", overlay, false).model.stored.modelPath).toBe(file)
  })

  test("a file that is no model is refused at once", () => {
    using folder = new TestStore()
    expect(() => appOver(folder, join(folder.root, "nowhere.gguf"))).toThrow("nowhere.gguf")
  })
})
