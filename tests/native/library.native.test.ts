import assert from "node:assert/strict"
import { readdirSync } from "node:fs"

import { type ChatEvent, type EngineStatus, type Model, openModel } from "../../src/index.ts"
import { DEMO, describe, Folder, test } from "./support.ts"

const PROMPT = "The capital of France is a city with many bridges and old houses. ".repeat(8)

async function ask(events: AsyncIterable<ChatEvent>) {
  for await (const event of events) if (event.kind === "done") return event.usage
  throw new Error("no done event")
}

const once = (model: Model, options: Parameters<Model["complete"]>[1] = {}) =>
  ask(model.complete(PROMPT, { temperature: 0, maxTokens: 4, ...options }))

describe("the library", () => {
  test("takes terms: scopes share nothing with others, and null with nobody", async () => {
    await using model = await openModel(DEMO, { contextTokens: 512, parallel: 2 })
    const whole = (await once(model)).promptTokens - 1
    const cached = async (cacheScope: string | null) =>
      (await once(model, { cacheScope })).cachedTokens
    assert.deepEqual(
      [await cached("a"), await cached("a"), await cached("b"), await cached(null)],
      [0, whole, 0, 0],
    )
    assert.equal((await once(model)).cachedTokens, whole)
  })

  test("takes priority and client, and says what the engine does", async () => {
    await using model = await openModel(DEMO, { contextTokens: 512, parallel: 1, queueMax: 1 })
    const seen: EngineStatus[] = []
    const watching = (async () => {
      for await (const status of model.statuses()) {
        seen.push(status)
        if (status.counters.finished === 2) return
      }
    })()
    await Promise.all([
      once(model, { priority: "batch", client: "indexer", maxTokens: 40 }),
      once(model, { priority: "interactive", client: "ann" }),
    ])
    await watching
    const requests = seen.flatMap((status) => status.requests)
    const terms = new Set(requests.map(({ priority, client }) => `${priority} ${client}`))
    assert.deepEqual([...terms].toSorted(), ["batch indexer", "interactive ann"])
    assert.equal(model.status.counters.finished, 2)
  })

  test("keeps prompts on disk, and shifts a context that is full", async () => {
    using folder = new Folder()
    const options = {
      contextTokens: 256,
      parallel: 1,
      cacheType: "q8_0",
      flashAttention: "on",
      prefixRamBytes: 2 ** 20,
      prefixDisk: { folder: folder.path, bytesMax: 2 ** 24 },
    } as const
    {
      await using model = await openModel(DEMO, options)
      assert.equal((await once(model)).cachedTokens, 0)
    }
    assert.equal(readdirSync(folder.path).length, 1)
    await using model = await openModel(DEMO, options)
    const usage = await once(model, {
      maxTokens: 250,
      shift: { keepTokens: 8 },
      format: { type: "array", items: { type: "integer" }, minItems: 300 },
    })
    assert.ok(usage.cachedTokens > 100)
    assert.ok(usage.shiftedTokens > 0)
  })

  test("says what it goes on without", async () => {
    const warnings: string[] = []
    const log = {
      debug() {},
      info() {},
      error() {},
      warn: (text: string) => void warnings.push(text),
    }
    const prefixDisk = { folder: `${DEMO}/prefixes`, bytesMax: 2 ** 20 }
    await using model = await openModel(DEMO, { contextTokens: 256, prefixDisk, log })
    assert.ok(model.contextTokens > 0)
    assert.match(warnings.join("\n"), /Cannot keep prefixes on disk/)
  })
})
