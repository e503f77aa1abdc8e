import { describe, expect, test } from "bun:test"
import { rejects } from "node:assert/strict"
import { readdirSync, readFileSync, statSync, writeFileSync } from "node:fs"
import { join } from "node:path"

import { TemporaryFolder } from "../gguf/raw-file.ts"
import { writeOutput } from "./output-file.ts"

async function* chunks(...texts: readonly string[]): AsyncGenerator<Uint8Array> {
  for (const text of texts) yield Buffer.from(text)
}

async function* breaking(): AsyncGenerator<Uint8Array> {
  yield Buffer.from("a")
  throw new Error("broken")
}

describe("writeOutput()", () => {
  test("a file is there when it is complete", async () => {
    using folder = new TemporaryFolder()
    const path = join(folder.path, "out")
    const names: string[][] = []
    async function* watched() {
      yield* chunks("a")
      names.push(readdirSync(folder.path))
      yield* chunks("b")
    }
    await writeOutput(path, 2, watched())
    expect(names).toEqual([[expect.stringMatching(/^out\.[0-9a-f]{8}\.partial$/)]])
    expect(readdirSync(folder.path)).toEqual(["out"])
    expect(readFileSync(path, "utf8")).toBe("ab")
  })

  test("leaves nothing when it fails", async () => {
    using folder = new TemporaryFolder()
    await rejects(writeOutput(join(folder.path, "out"), 2, breaking()), /broken/)
    await rejects(writeOutput(join(folder.path, "none/out"), 2, chunks("a")), {
      code: "unavailable",
      message: /ENOENT/,
    })
    await rejects(writeOutput(join(folder.path, "out"), 1e18, chunks("a")), {
      message: /it takes .* has room for/,
    })
    expect(readdirSync(folder.path)).toEqual([])
  })

  test("replaces no file, and says when it is a folder", async () => {
    using folder = new TemporaryFolder()
    const path = join(folder.path, "out")
    writeFileSync(path, "old")
    await rejects(writeOutput(path, 1, chunks("a")), { code: "conflict" })
    expect(readFileSync(path, "utf8")).toBe("old")
    await rejects(writeOutput(folder.path, 1, chunks("a")), { message: /it is a folder/ })
  })

  test.skipIf(process.platform !== "linux")("a device that fails stays", async () => {
    await rejects(writeOutput("/dev/full", 1, chunks("a")), {
      code: "unavailable",
      message: /^Cannot write "\/dev\/full": ENOSPC/,
    })
    expect(statSync("/dev/full").isCharacterDevice()).toBe(true)
    await writeOutput("/dev/null", 1, chunks("a"))
    expect(statSync("/dev/null").isCharacterDevice()).toBe(true)
  })
})
