import { describe, expect, test } from "bun:test"
import { hash, randomBytes } from "node:crypto"
import { mkdtempSync, rmSync, statSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"

import { PartialBlob } from "./partial.ts"

const MIB = 2 ** 20

describe("PartialBlob", () => {
  test("a part that becomes shorter while it is written has no more than its size", async () => {
    const folder = mkdtempSync(join(tmpdir(), "cria-partial-"))
    const content = randomBytes(16 * MIB)
    try {
      await using blob = await PartialBlob.open(join(folder, "blob-partial"), content.length)
      const [part] = blob.parts
      if (part === undefined) throw new Error("no part")
      // One piece larger than what two connections leave each other.
      const writing = blob.append(part, [content.subarray(0, 12 * MIB)])
      const rest = blob.split(part)
      await writing
      expect(part).toMatchObject({ offset: 0, size: 8 * MIB, completed: 8 * MIB })
      if (rest === undefined) throw new Error("not split")
      await blob.append(rest, [content.subarray(8 * MIB), Buffer.alloc(MIB)])
      expect(rest).toMatchObject({ offset: 8 * MIB, size: 8 * MIB, completed: 8 * MIB })
      expect(statSync(blob.path).size).toBe(content.length)
      const hex = await blob.hash(new AbortController().signal)
      expect(hex).toBe(hash("sha256", content, "hex"))
    } finally {
      rmSync(folder, { recursive: true, force: true })
    }
  })
})
