import { afterEach, beforeEach, describe, expect, test } from "bun:test"
import {
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"

import { MemoryTier } from "../engine/prefix-tier.ts"
import { DiskTier, joinTiers } from "./disk-tier.ts"

let folder = ""

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "cria-disk-tier-"))
})

afterEach(() => rmSync(folder, { recursive: true, force: true }))

function tier(bytesMax = 1e6): DiskTier {
  return new DiskTier({ folder, bytesMax })
}

function tokens(...values: number[]): Int32Array {
  return Int32Array.from(values)
}

function state(size: number, value = 7): Uint8Array {
  return new Uint8Array(size).fill(value)
}

function find(from: DiskTier, scope: string, ...values: number[]) {
  return from.find(scope, { tokens: values, limit: values.length }, "prefix")
}

describe("DiskTier", () => {
  test("gives back what was put, before and after it is written, and in another process's life", async () => {
    const large = state(300_000)
    const first = tier()
    first.put("a", tokens(1, 2, 3), large)
    expect(find(first, "a", 1, 2, 3, 4)?.read()).toEqual(large)
    await first.flush()
    expect(find(first, "a", 1, 2, 3, 4)?.read()).toEqual(large)
    const found = find(tier(), "a", 1, 2, 9)
    expect({ agreeing: found?.agreeing, tokens: found?.tokens }).toEqual({
      agreeing: 2,
      tokens: tokens(1, 2, 3),
    })
    expect(found?.read()).toEqual(large)
  })

  test("keeps scopes apart", async () => {
    const first = tier()
    first.put("a", tokens(1, 2), state(10))
    expect(find(first, "b", 1, 2)).toBeUndefined()
    await first.flush()
    expect(find(tier(), "b", 1, 2)).toBeUndefined()
  })

  test("stays within its bytes, and forgets what was used longest ago", async () => {
    const first = tier(2500)
    first.put("a", tokens(1), state(1000, 1))
    first.put("a", tokens(2), state(1000, 2))
    await first.flush()
    await Bun.sleep(2)
    find(first, "a", 1)?.read()
    first.put("a", tokens(3), state(1000, 3))
    await first.flush()
    expect(first.bytes).toBeLessThanOrEqual(2500)
    expect([1, 2, 3].map((token) => find(first, "a", token) !== undefined)).toEqual([
      true,
      false,
      true,
    ])
    expect(readdirSync(folder)).toHaveLength(2)
    first.put("a", tokens(4), state(3000))
    expect(find(first, "a", 4)).toBeUndefined()
  })

  test("a smaller limit is kept to at the next start", async () => {
    const first = tier()
    for (const token of [1, 2, 3]) first.put("a", tokens(token), state(1000))
    await first.flush()
    expect(tier(1500).bytes).toBeLessThanOrEqual(1500)
    expect(readdirSync(folder)).toHaveLength(1)
  })

  test.each<[string, (path: string) => void]>([
    ["cut off", (path) => truncateSync(path, 200)],
    ["empty", (path) => truncateSync(path, 0)],
    ["something else", (path) => writeFileSync(path, "x".repeat(5000))],
    [
      "of another version",
      (path) =>
        writeFileSync(
          path,
          readFileSync(path, "latin1").replace('"format":1', '"format":9'),
          "latin1",
        ),
    ],
  ])("a file that is %s is not used, and removed", async (_, damage) => {
    const first = tier()
    first.put("a", tokens(1, 2, 3), state(1000))
    await first.flush()
    damage(join(folder, readdirSync(folder)[0] ?? ""))
    expect(find(tier(), "a", 1, 2, 3)).toBeUndefined()
    expect(readdirSync(folder)).toEqual([])
  })

  test("a state with a flipped bit is not given out", async () => {
    const first = tier()
    first.put("a", tokens(1, 2, 3), state(1000))
    await first.flush()
    const path = join(folder, readdirSync(folder)[0] ?? "")
    const bytes = readFileSync(path)
    bytes[bytes.length - 5] = 6
    writeFileSync(path, bytes)
    const again = tier()
    expect(find(again, "a", 1, 2, 3)?.read()).toBeUndefined()
    expect(find(again, "a", 1, 2, 3)).toBeUndefined()
    expect(readdirSync(folder)).toEqual([])
  })

  test("a file that another process removed is no entry any more", async () => {
    const first = tier()
    first.put("a", tokens(1), state(10))
    await first.flush()
    rmSync(join(folder, readdirSync(folder)[0] ?? ""))
    expect(find(first, "a", 1)?.read()).toBeUndefined()
    expect(find(first, "a", 1)).toBeUndefined()
  })

  test("what was half written when a process died is removed", () => {
    const [old, fresh] = [join(folder, "a.prefix.partial"), join(folder, "b.prefix.partial")]
    for (const path of [old, fresh]) writeFileSync(path, "half")
    utimesSync(old, 0, 0)
    tier()
    expect(readdirSync(folder)).toEqual(["b.prefix.partial"])
  })

  test("says when it cannot write, and goes on without", async () => {
    const complaints: string[] = []
    const gone = join(folder, "gone")
    const first = new DiskTier({
      folder: gone,
      bytesMax: 1e6,
      warn: (text) => complaints.push(text),
    })
    rmSync(gone, { recursive: true })
    first.put("a", tokens(1), state(10))
    await first.flush()
    expect(complaints[0]).toStartWith("Cannot keep a prefix on disk: ")
    expect(find(first, "a", 1)).toBeUndefined()
  })
})

describe("DiskTier where only whole states can be used", () => {
  test("finds and has only what agrees entirely", () => {
    const states = tier()
    states.put("a", tokens(1, 2, 3, 4), state(10))
    const lookup = { tokens: [1, 2, 3, 9], limit: 4 }
    expect(states.find("a", lookup, "whole")).toBeUndefined()
    expect(states.has("a", tokens(1, 2), "whole")).toBe(false)
    states.put("a", tokens(1, 2), state(10))
    expect(states.has("a", tokens(1, 2), "whole")).toBe(true)
    expect(states.find("a", lookup, "whole")?.agreeing).toBe(2)
  })
})

describe("joinTiers()", () => {
  test("puts a state into those that have only a longer one", () => {
    const [one, other] = [new MemoryTier(1000), new MemoryTier(1000)]
    one.put("a", tokens(1, 2, 3), state(10))
    const both = joinTiers([one, other])
    both.put("a", tokens(1, 2), state(10))
    expect([one, other].map((each) => each.has("a", tokens(1, 2), "whole"))).toEqual([true, true])
    both.put("a", tokens(1, 2), state(10))
    expect([one.bytes, other.bytes]).toEqual([20, 10])
  })

  test("puts into all and finds the longest", () => {
    const [small, large] = [new MemoryTier(10), new MemoryTier(1000)]
    const both = joinTiers([small, large])
    both.put("a", tokens(1, 2), state(8))
    both.put("a", tokens(1, 2, 3), state(100))
    expect(both.find("a", { tokens: [1, 2, 3, 4], limit: 4 }, "prefix")?.agreeing).toBe(3)
    expect(both.has("a", tokens(1, 2), "prefix")).toBe(true)
    expect(both.has("a", tokens(1, 2, 3), "prefix")).toBe(false)
  })
})
