import { describe, expect, test } from "bun:test"
import { renameSync, writeFileSync } from "node:fs"

import { FileMemory, stampOf } from "./file-memory.ts"
import { TestStore } from "./test-store.ts"

const LATER = Date.now() + 60_000

describe("FileMemory", () => {
  test("knows a file for as long as it looks the same", () => {
    using store = new TestStore()
    const memory = new FileMemory<string>()
    const path = store.write("a", "one")
    const stamp = stampOf(path, LATER)
    expect(memory.find(path, stamp)).toBeUndefined()
    memory.keep(path, stamp, "one")
    expect(memory.find(path, stampOf(path, LATER))).toBe("one")
    // Another file of the same size, put in its place.
    renameSync(store.write("b", "two"), path)
    expect(memory.find(path, stampOf(path, LATER))).toBeUndefined()
  })

  test("keeps nothing of a file that could change unseen, or that is not there", () => {
    using store = new TestStore()
    const path = store.write("a", "one")
    expect(stampOf(path, Date.now())).toBeUndefined()
    expect(stampOf(`${path}/none`, LATER)).toBeUndefined()
    const memory = new FileMemory<string>()
    memory.keep(path, undefined, "one")
    expect(memory.find(path, undefined)).toBeUndefined()
    writeFileSync(path, "two")
  })
})
