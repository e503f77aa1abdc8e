import { describe, expect, test } from "bun:test"

import type { LoadedFacts, LoadOptions } from "../runner/protocol.ts"
import { canServe, pickVictim, type Resident } from "./policy.ts"

function resident(key: string, change: Partial<Resident> = {}): Resident {
  return { key, leases: 0, keepAliveMs: 1000, lastUsedMs: 0, ...change }
}

describe("pickVictim()", () => {
  test("takes the least recently used", () => {
    expect(
      pickVictim([resident("new", { lastUsedMs: 5 }), resident("old", { lastUsedMs: 2 })])?.key,
    ).toBe("old")
  })

  test("never takes one that is in use", () => {
    expect(
      pickVictim([resident("busy", { leases: 1 }), resident("idle", { lastUsedMs: 9 })])?.key,
    ).toBe("idle")
    expect(pickVictim([resident("busy", { leases: 2 })])).toBeUndefined()
  })

  test("takes one that shall stay for ever only when there is no other", () => {
    const forever = resident("forever", { keepAliveMs: Infinity })
    expect(pickVictim([forever, resident("recent", { lastUsedMs: 99 })])?.key).toBe("recent")
    expect(pickVictim([forever])?.key).toBe("forever")
  })
})

describe("canServe()", () => {
  const loaded: LoadOptions = { name: "m", path: "/m" }
  const facts: LoadedFacts = {
    contextTokens: 4096,
    parallel: 1,
    totalBytes: 0,
    gpuBytes: 0,
    llamaVersion: "",
    cacheType: "q8_0",
    flashAttention: "on",
  }

  test("lets a request that leaves the context open use a larger one that was asked for", () => {
    const had = { ...loaded, contextTokens: 8192 }
    expect(canServe(had, { ...facts, contextTokens: 8192 }, loaded)).toBe(true)
  })

  test.each<[string, Partial<LoadOptions>, Partial<LoadOptions>, boolean]>([
    ["a request without wishes", {}, {}, true],
    ["a smaller context", {}, { contextTokens: 2048 }, true],
    ["an equal context", {}, { contextTokens: 4096 }, true],
    ["a larger context", {}, { contextTokens: 8192 }, false],
    [
      "a context that was asked for before and capped by the model",
      { contextTokens: 9000 },
      { contextTokens: 8192 },
      true,
    ],
    [
      "a request that leaves it open, after one for less than most chats need",
      { contextTokens: 4096 },
      {},
      false,
    ],
    [
      "a request that leaves it open, where the model has no more",
      { contextTokens: 9000 },
      {},
      true,
    ],
    ["all layers on the GPU where it has some", { gpuLayers: 3 }, { gpuLayers: -1 }, false],
    ["all layers on the GPU where nobody said how many", {}, { gpuLayers: -1 }, true],
    ["no layers on the GPU where nobody said how many", {}, { gpuLayers: 0 }, false],
    ["another number of layers", { gpuLayers: 3 }, { gpuLayers: 4 }, false],
    ["the same number of layers", { gpuLayers: 0 }, { gpuLayers: 0 }, true],
    ["other threads", { threads: 2 }, { threads: 4 }, false],
    ["another batch", {}, { batchTokens: 256 }, false],
    ["the cache type that it has, whoever chose it", {}, { cacheType: "q8_0" }, true],
    ["another cache type", {}, { cacheType: "f16" }, false],
    ["another cache type for values", {}, { cacheType: "q8_0/f16" }, false],
    ["flash attention as it is", {}, { flashAttention: "on" }, true],
    ["flash attention that may be as it is", {}, { flashAttention: "auto" }, true],
    ["no flash attention where there is", {}, { flashAttention: "off" }, false],
    ["another way to read the file", { useMmap: true }, { useMmap: false }, false],
  ])("decides on %s", (_, had, wanted, result) => {
    expect(canServe({ ...loaded, ...had }, facts, { ...loaded, ...wanted })).toBe(result)
  })
})
