import { describe, expect, test } from "bun:test"
import { statfsSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"

import { CriaError } from "./errors.ts"
import { freeBytes, requireRoom } from "./room.ts"

function needTooMuch(): void {
  requireRoom(tmpdir(), 5e15, 'Cannot convert "m"')
}

describe("freeBytes()", () => {
  test("is that of the file system, also of paths that are not there yet", () => {
    const { blocks, bsize } = statfsSync(tmpdir())
    const free = freeBytes(join(tmpdir(), "none/none/none"))
    expect(free).toBeGreaterThan(0)
    expect(free).toBeLessThanOrEqual(blocks * bsize)
  })

  test.skipIf(process.platform !== "linux")(
    "is unknown where the file system does not tell",
    () => {
      expect(freeBytes("/proc")).toBe(Infinity)
    },
  )
})

describe("requireRoom()", () => {
  test("takes what fits, and says how much is missing of what does not", () => {
    requireRoom(tmpdir(), 1, "Cannot write")
    expect(needTooMuch).toThrow(CriaError)
    expect(needTooMuch).toThrow(
      /^Cannot convert "m": it takes 5000 TB, ".*" has room for [\d.]+ \wB$/,
    )
  })
})
