import assert from "node:assert/strict"
import { readdirSync, writeFileSync } from "node:fs"
import { join } from "node:path"

import type { ChatEvent } from "../../src/chat/message.ts"
import { LocalModel } from "../../src/model/local-model.ts"
import type { LoadOptions } from "../../src/model/request.ts"
import { DEMO, describe, Folder, GREEDY, library, test } from "./support.ts"

const OPTIONS: LoadOptions = {
  name: "demo",
  path: DEMO,
  contextTokens: 512,
  parallel: 2,
  flashAttention: "auto",
  cacheType: "f16",
}

/** Loads the model, asks once, unloads it. */
async function askOnce(prompt: string, folder: string, change: Partial<LoadOptions> = {}) {
  const options = { ...OPTIONS, prefixDisk: { folder, bytesMax: 2 ** 26 }, ...change }
  await using model = await LocalModel.load(library, options)
  const request = {
    input: { kind: "text", text: prompt },
    sampling: GREEDY,
    maxTokens: 12,
    stop: [],
    wantsContext: false,
  } as const
  return await collect(model.answer(request))
}

async function collect(events: AsyncIterable<ChatEvent>) {
  let text = ""
  for await (const event of events) {
    if (event.kind === "delta") text += event.content
    if (event.kind === "done") return { text, usage: event.usage }
  }
  throw new Error("no done event")
}

const PROMPT = "The capital of France is a city with many bridges and old houses. ".repeat(8)

describe("prefixes on disk", () => {
  test("outlive the model that computed them, and change no answer", async () => {
    using folder = new Folder()
    const first = await askOnce(PROMPT, folder.path)
    const second = await askOnce(PROMPT, folder.path)
    assert.equal(first.usage.cachedTokens, 0)
    assert.equal(second.usage.cachedTokens, second.usage.promptTokens - 1)
    assert.equal(second.text, first.text)
    const longer = await askOnce(`${PROMPT}And so on.`, folder.path)
    assert.ok(longer.usage.cachedTokens > longer.usage.promptTokens - 16)
    assert.equal(longer.text, (await askOnce(`${PROMPT}And so on.`, folder.file("cold"))).text)
  })

  test("are done without where there can be no folder, with a warning", async () => {
    using folder = new Folder()
    writeFileSync(folder.file("file"), "")
    const warnings: string[] = []
    const prefixDisk = { folder: folder.file("file/prefixes"), bytesMax: 2 ** 26 }
    const hooks = { warn: (message: string) => void warnings.push(message) }
    await using model = await LocalModel.load(library, { ...OPTIONS, prefixDisk }, hooks)
    assert.equal(model.status.running, 0)
    assert.match(warnings.join("\n"), /^Cannot keep prefixes on disk: .*ENOTDIR/)
  })

  test("are not taken by a model that was loaded in another way", async () => {
    using folder = new Folder()
    await askOnce(PROMPT, folder.path)
    const { usage } = await askOnce(PROMPT, folder.path, { cacheType: "q8_0" })
    assert.equal(usage.cachedTokens, 0)
    const kinds = readdirSync(folder.path)
    assert.equal(kinds.length, 2)
    for (const kind of kinds) assert.equal(readdirSync(join(folder.path, kind)).length, 1)
  })
})
