import { describe, expect, test } from "bun:test"
import { join } from "node:path"

import * as fc from "fast-check"

import { blobFilePath, digestFileName, parseDigest, toDigest } from "./digest.ts"

const HEX = "0123456789abcdef".repeat(4)

describe("parseDigest()", () => {
  test.each([`sha256:${HEX}`, `sha256-${HEX}`, `sha256-${HEX.toUpperCase()}`, `SHA256:${HEX}`])(
    "normalises %s",
    (text) => {
      expect(String(parseDigest(text))).toBe(`sha256:${HEX}`)
    },
  )

  test.each<[string, string[]]>([
    ["no digest", ["", "sha256", "sha256:", HEX, `:${HEX}`, `${HEX}:sha256`]],
    ["another algorithm", [`sha512:${HEX}`, `md5:${HEX}`, `\u017Fha256:${HEX}`]],
    [
      "another separator",
      [`sha256_${HEX}`, `sha256::${HEX}`, `sha256-:${HEX}`, `sha256\uFF1A${HEX}`],
    ],
    ["another length", [`sha256:${HEX}0`, `sha256:${HEX.slice(1)}`, "sha256:".repeat(100_000)]],
    [
      "text around it",
      [` sha256:${HEX}`, `sha256:${HEX}\n`, `sha256:${HEX}\0`, `x\nsha256:${HEX}`],
    ],
    ["other digits", [`sha256:${HEX.slice(1)}g`, `sha256:${HEX.slice(1)}\u0430`]],
    ["a path", ["sha256:../../../../etc/passwd", `sha256:../${HEX.slice(3)}`, `../sha256:${HEX}`]],
    ["a Windows path", [`sha256:..\\${HEX.slice(3)}`, `C:\\sha256-${HEX}`, `%2e%2e/sha256-${HEX}`]],
    ["another file of the store", [`sha256-${HEX}-partial`, `sha256-${HEX}/../x`]],
  ])("refuses %s", (_, texts) => {
    for (const text of texts) {
      expect(toDigest(text)).toBeUndefined()
      expect(() => parseDigest(text)).toThrow(
        expect.objectContaining({ code: "invalid-input", message: "invalid digest format" }),
      )
    }
  })
})

describe("digestFileName() and blobFilePath()", () => {
  test("give the name and the place in the store", () => {
    const digest = parseDigest(`sha256:${HEX}`)
    expect(digestFileName(digest)).toBe(`sha256-${HEX}`)
    expect(blobFilePath("/store", digest)).toBe(join("/store", "blobs", `sha256-${HEX}`))
  })

  test("go back and forth, and stay in blobs/ whatever the text", () => {
    const pieces = fc.constantFrom(
      "sha256",
      ":",
      "-",
      "..",
      "/",
      "\\",
      HEX,
      HEX.toUpperCase(),
      "\0",
      "a",
    )
    fc.assert(
      fc.property(fc.array(pieces, { maxLength: 5 }), (parts) => {
        const digest = toDigest(parts.join(""))
        if (digest === undefined) return
        expect(parseDigest(digestFileName(digest))).toBe(digest)
        expect(digestFileName(digest)).toMatch(/^sha256-[0-9a-f]{64}$/)
      }),
      { numRuns: 5000 },
    )
  })
})
