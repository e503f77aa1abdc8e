import { afterEach, beforeEach, describe, expect, test } from "bun:test"
import {
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmdirSync,
  rmSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"

import type { TierEntry } from "../engine/prefix-tier.ts"
import { DiskTier } from "./disk-tier.ts"

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

/** The entry of a scope for exactly these tokens. */
function find(from: DiskTier, scope: string, ...values: number[]): TierEntry | undefined {
  return [...from.entries(scope)].find(({ tokens: all }) => all.join() === values.join())
}

function put(into: DiskTier, scope: string, all: Int32Array, bytes: Uint8Array, from = 0): void {
  into.put(scope, { tokens: all, from }, bytes)
}

describe("DiskTier", () => {
  test("gives back what was put, before and after it is written, and in another process's life", async () => {
    const large = state(9_000_000).map((_, i) => i % 251)
    const first = tier(1e8)
    put(first, "a", tokens(1, 2, 3), large, 1)
    expect(find(first, "a", 1, 2, 3)?.read()).toEqual(large)
    await first.flush()
    expect(await find(first, "a", 1, 2, 3)?.read()).toEqual(large)
    const found = find(tier(1e8), "a", 1, 2, 3)
    expect(found).toMatchObject({ from: 1, tokens: tokens(1, 2, 3) })
    expect(await found?.read()).toEqual(large)
  })

  test("says that it gets on while it writes", async () => {
    let pieces = 0
    const onProgress = () => void pieces++
    const slow = new DiskTier({ folder, bytesMax: 1e8, onProgress })
    put(slow, "a", tokens(1), state(9_000_000))
    await slow.flush()
    // Hashed and written in three pieces each, and the tokens in one.
    expect(pieces).toBeGreaterThanOrEqual(6)
  })

  test("keeps scopes apart, however long their names", async () => {
    const first = tier()
    const scopes = ["a", "b".repeat(300), `${"b".repeat(300)}c`]
    for (const [i, scope] of scopes.entries()) put(first, scope, tokens(1, 2), state(10, i))
    await first.flush()
    const again = tier()
    for (const [i, scope] of scopes.entries())
      expect(await find(again, scope, 1, 2)?.read()).toEqual(state(10, i))
    expect(find(again, "c", 1, 2)).toBeUndefined()
  })

  test("stays within its bytes, and forgets what was used longest ago", async () => {
    const first = tier(2500)
    put(first, "a", tokens(1), state(1000, 1))
    put(first, "a", tokens(2), state(1000, 2))
    await first.flush()
    await Bun.sleep(2)
    await find(first, "a", 1)?.read()
    put(first, "a", tokens(3), state(1000, 3))
    await first.flush()
    expect(first.bytes).toBeLessThanOrEqual(2500)
    expect([1, 2, 3].map((token) => find(first, "a", token) !== undefined)).toEqual([
      true,
      false,
      true,
    ])
    expect(readdirSync(folder)).toHaveLength(2)
    expect([first.accepts(2500), first.accepts(3000)]).toEqual([true, false])
    put(first, "a", tokens(4), state(3000))
    expect(find(first, "a", 4)).toBeUndefined()
  })

  test("forgets the end of a prefix before its beginning", async () => {
    const first = tier()
    put(first, "a", tokens(1, 2, 3, 4), state(1000), 2)
    put(first, "a", tokens(1, 2), state(1000))
    await first.flush()
    for (const name of readdirSync(folder)) utimesSync(join(folder, name), 1000, 1000)
    expect([...tier(1500).entries("a")].map(({ from }) => from)).toEqual([0])
  })

  test("takes no more than it can write when the disk does not keep up", async () => {
    const slow = tier(2 ** 40)
    expect(slow.accepts(512 * 2 ** 20)).toBe(true)
    // However large: there is nothing beside it.
    expect(slow.accepts(2 ** 32)).toBe(true)
    put(slow, "a", tokens(1), state(1000))
    expect(slow.accepts(512 * 2 ** 20)).toBe(false)
    await slow.flush()
    expect(slow.accepts(512 * 2 ** 20)).toBe(true)
  })

  test("a smaller limit is kept to at the next start", async () => {
    const first = tier()
    for (const token of [1, 2, 3]) put(first, "a", tokens(token), state(1000))
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
          readFileSync(path, "latin1").replace('"format":2', '"format":9'),
          "latin1",
        ),
    ],
  ])("a file that is %s is not used, and removed", async (_, damage) => {
    const first = tier()
    put(first, "a", tokens(1, 2, 3), state(1000))
    await first.flush()
    damage(join(folder, readdirSync(folder)[0] ?? ""))
    expect(find(tier(), "a", 1, 2, 3)).toBeUndefined()
    expect(readdirSync(folder)).toEqual([])
  })

  test("a state with a flipped bit is not given out", async () => {
    const first = tier()
    put(first, "a", tokens(1, 2, 3), state(1000))
    await first.flush()
    const path = join(folder, readdirSync(folder)[0] ?? "")
    const bytes = readFileSync(path)
    bytes[bytes.length - 5] = 6
    writeFileSync(path, bytes)
    const again = tier()
    expect(await find(again, "a", 1, 2, 3)?.read()).toBeUndefined()
    expect(find(again, "a", 1, 2, 3)).toBeUndefined()
    expect(readdirSync(folder)).toEqual([])
  })

  test("a file that another process removed is no entry any more", async () => {
    const first = tier()
    put(first, "a", tokens(1), state(10))
    await first.flush()
    rmSync(join(folder, readdirSync(folder)[0] ?? ""))
    expect(await find(first, "a", 1)?.read()).toBeUndefined()
    expect(find(first, "a", 1)).toBeUndefined()
  })

  test("a file that cannot be read now is not used, and stays", async () => {
    const first = tier()
    put(first, "a", tokens(1), state(10))
    await first.flush()
    const path = join(folder, readdirSync(folder)[0] ?? "")
    renameSync(path, `${path}.kept`)
    mkdirSync(path)
    expect(await find(first, "a", 1)?.read()).toBeUndefined()
    expect(find(first, "a", 1)).toBeUndefined()
    rmdirSync(path)
    renameSync(`${path}.kept`, path)
    expect(await find(tier(), "a", 1)?.read()).toEqual(state(10))
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
    put(first, "a", tokens(1), state(10))
    await first.flush()
    expect(complaints[0]).toStartWith("Cannot keep a prefix on disk: ")
    expect(find(first, "a", 1)).toBeUndefined()
  })

  test("what is forgotten before it is written leaves no file", async () => {
    const first = tier()
    put(first, "a", tokens(1), state(10))
    find(first, "a", 1)?.forget()
    put(first, "a", tokens(2), state(10))
    await first.flush()
    expect(readdirSync(folder)).toHaveLength(1)
    find(first, "a", 2)?.forget()
    expect(readdirSync(folder)).toEqual([])
  })
})
