import { describe, expect, test } from "bun:test"
import { execFileSync } from "node:child_process"
import { mkdirSync, symlinkSync } from "node:fs"
import { join } from "node:path"

import { isRegularFile, readFolder, readRegularFile } from "./files.ts"
import { TestStore } from "./test-store.ts"

const unreadable = expect.objectContaining({
  code: "unavailable",
  message: expect.stringMatching(/^Cannot read ".*: ensure path elements are traversable$/),
})
const unix = test.skipIf(process.platform === "win32")

describe("readRegularFile()", () => {
  test("returns the bytes of a file at the limit and refuses one byte more", () => {
    using folder = new TestStore()
    const path = folder.write("file", "12345678")
    expect(readRegularFile(path, 8).bytes.toString()).toBe("12345678")
    expect(() => readRegularFile(path, 7)).toThrow(`Cannot read "${path}": 8 bytes, limit 7`)
  })

  test("returns an empty file", () => {
    using folder = new TestStore()
    expect(readRegularFile(folder.write("file", ""), 8).bytes).toHaveLength(0)
  })

  test("refuses a folder and a missing file", () => {
    using folder = new TestStore()
    expect(() => readRegularFile(join(folder.root, "nothing"), 8)).toThrow(unreadable)
    expect(() => readRegularFile(folder.root, 8)).toThrow(/^Cannot read/)
  })

  unix("refuses a device and a FIFO without waiting for it", () => {
    using folder = new TestStore()
    const fifo = join(folder.root, "fifo")
    execFileSync("mkfifo", [fifo])
    expect(() => readRegularFile(fifo, 8)).toThrow(`Cannot read "${fifo}": not a regular file`)
    expect(() => readRegularFile("/dev/zero", 8)).toThrow("not a regular file")
  })
})

describe("isRegularFile()", () => {
  unix("holds for files and links to files only", () => {
    using folder = new TestStore()
    const path = (name: string): string => join(folder.root, name)
    folder.write("file", "x")
    mkdirSync(path("folder"))
    execFileSync("mkfifo", [path("fifo")])
    for (const target of ["file", "folder", "fifo", "nothing"]) {
      symlinkSync(target, path(`to-${target}`))
    }
    const names = ["file", "folder", "fifo", "nothing"].flatMap((name) => [name, `to-${name}`])
    expect(names.filter((name) => isRegularFile(path(name)))).toEqual(["file", "to-file"])
  })

  unix("throws when it cannot tell", () => {
    using folder = new TestStore()
    symlinkSync("loop", join(folder.root, "loop"))
    expect(() => isRegularFile(join(folder.root, "loop"))).toThrow(unreadable)
  })
})

describe("readFolder()", () => {
  test("takes a missing folder for an empty one", () => {
    using folder = new TestStore()
    expect(readFolder(join(folder.root, "no", "such"))).toEqual([])
  })

  test("throws for what is no folder", () => {
    using folder = new TestStore()
    expect(() => readFolder(folder.write("file", ""))).toThrow(unreadable)
  })
})
