import { afterEach, beforeEach, describe, expect, test } from "bun:test"
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  rmSync,
  statSync,
  utimesSync,
  writeFileSync,
} from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"

import { createTiers, type StateIdentity, stateKey } from "./tiers.ts"

/** How blobs are called. */
const BLOB = `sha256-${"ab".repeat(32)}`

const DAY_SECONDS = 24 * 3600

let folder = ""

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "cria-tiers-"))
})

afterEach(() => rmSync(folder, { recursive: true, force: true }))

/** A file with so many bytes, and its path. */
function file(name: string, bytes = 10): string {
  const path = join(folder, name)
  writeFileSync(path, new Uint8Array(bytes))
  return path
}

const SETTINGS = { cacheType: "f16", flashAttention: "auto", isLong: false, llama: "1" }

function identity(change: Partial<StateIdentity> = {}): StateIdentity {
  return { files: [join(folder, "model.gguf")], settings: SETTINGS, ...change }
}

function open(parent: string, warnings: string[] = []) {
  const options = { name: "m", path: "/m", prefixDisk: { folder: parent, bytesMax: 1e6 } }
  return createTiers(options, identity(), { warn: (message) => warnings.push(message) })
}

describe("stateKey()", () => {
  test("is the same for the same files and settings, in whatever order these are", () => {
    file("model.gguf")
    const settings = Object.fromEntries(Object.entries(SETTINGS).toReversed())
    expect(stateKey(identity({ settings }))).toBe(stateKey(identity()))
    expect(stateKey(identity())).toMatch(/^[0-9a-f]{32}$/)
  })

  test.each(Object.keys(SETTINGS))("differs with %s", (name) => {
    file("model.gguf")
    const settings = { ...SETTINGS, [name]: "other" }
    expect(stateKey(identity({ settings }))).not.toBe(stateKey(identity()))
  })

  test("differs with an adapter, and with what is in a file", () => {
    const path = file("model.gguf")
    const adapter = file("adapter.gguf")
    const keys = [stateKey(identity()), stateKey(identity({ files: [path, adapter] }))]
    utimesSync(path, 1000, 1000)
    keys.push(stateKey(identity()))
    file("model.gguf", 11)
    utimesSync(path, 1000, 1000)
    keys.push(stateKey(identity()))
    expect(new Set(keys).size).toBe(4)
  })

  test("differs with the weights, though sizes and times are the same", () => {
    const path = join(folder, "model.gguf")
    const keys = [0, 5_000_000, 19_000_000].map((from) => {
      writeFileSync(path, new Uint8Array(20_000_000).fill(1, from))
      utimesSync(path, 1000, 1000)
      return stateKey(identity())
    })
    expect(new Set(keys).size).toBe(3)
  })

  test("of a blob is that of its content, wherever and since whenever it lies", () => {
    const blob = file(BLOB)
    mkdirSync(join(folder, "other"))
    const copy = file(`other/${BLOB}`)
    utimesSync(copy, 1000, 1000)
    expect(stateKey(identity({ files: [copy] }))).toBe(stateKey(identity({ files: [blob] })))
  })
})

describe("createTiers()", () => {
  test("makes none that nobody asked for", () => {
    const options = { name: "m", path: "/m" }
    expect(createTiers(options, identity(), {})).toEqual({ all: undefined, disk: undefined })
    const { all, disk } = createTiers({ ...options, prefixRamBytes: 1e6 }, identity(), {})
    expect([all?.persists, disk]).toEqual([false, undefined])
  })

  test("gives each identity a folder that nobody else reads", () => {
    file("model.gguf")
    const parent = join(folder, "prefixes")
    expect(open(parent).all?.persists).toBe(true)
    expect(readdirSync(parent)).toEqual([stateKey(identity())])
    if (process.platform !== "win32") expect(statSync(parent).mode & 0o777).toBe(0o700)
  })

  test("removes folders that nobody has used for a month, and marks its own as used", () => {
    file("model.gguf")
    const parent = join(folder, "prefixes")
    const own = join(parent, stateKey(identity()))
    const now = Date.now() / 1000
    for (const [name, days] of [
      ["old", 31],
      ["recent", 29],
      [stateKey(identity()), 40],
    ] as const) {
      mkdirSync(join(parent, name, "inner"), { recursive: true })
      utimesSync(join(parent, name), now - days * DAY_SECONDS, now - days * DAY_SECONDS)
    }
    open(parent)
    expect(["old", "recent"].map((name) => existsSync(join(parent, name)))).toEqual([false, true])
    expect(Math.abs(statSync(own).mtimeMs / 1000 - now)).toBeLessThan(DAY_SECONDS)
  })

  test("without a folder there is a warning, and what else was asked for", () => {
    file("model.gguf")
    const parent = join(file("not-a-folder"), "prefixes")
    const warnings: string[] = []
    const options = { name: "m", path: "/m", prefixRamBytes: 1e6 }
    const { all, disk } = createTiers(
      { ...options, prefixDisk: { folder: parent, bytesMax: 1e6 } },
      identity(),
      { warn: (message) => warnings.push(message) },
    )
    expect([all?.persists, disk]).toEqual([false, undefined])
    expect(warnings).toHaveLength(1)
    expect(warnings[0]).toStartWith("Cannot keep prefixes on disk: ")
    expect(open(parent).all).toBeUndefined()
  })
})
