import { describe, expect, test } from "bun:test"
import { rejects } from "node:assert/strict"

import * as fc from "fast-check"

import { readTar, type TarSource, writeTar } from "./tar.ts"

function file(name: string, content: string): TarSource {
  return { name, size: Buffer.byteLength(content), content: [Buffer.from(content)] }
}

async function written(sources: readonly TarSource[]): Promise<Buffer> {
  return Buffer.concat(await Array.fromAsync(writeTar(sources)))
}

/** An archive in pieces of so many bytes. */
async function* pieces(bytes: Uint8Array, length: number): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += length) yield bytes.subarray(at, at + length)
}

async function read(bytes: Uint8Array, length = 700): Promise<[string, string][]> {
  const entries: [string, string][] = []
  for await (const { name, content } of readTar(pieces(bytes, length))) {
    entries.push([name, Buffer.concat(await Array.fromAsync(content)).toString()])
  }
  return entries
}

/** A header with a right checksum and these fields changed. */
async function header(name: string, fields: { type?: string; size?: string }): Promise<Buffer> {
  const block = (await written([file(name, "")])).subarray(0, 512)
  if (fields.type !== undefined) block.write(fields.type, 156)
  if (fields.size !== undefined) block.write(fields.size, 124)
  block.fill(" ", 148, 156)
  const sum = block.reduce((total, byte) => total + byte, 0)
  block.write(`${sum.toString(8).padStart(6, "0")}\0 `, 148)
  return block
}

describe("writeTar() and readTar()", () => {
  test("what was written reads back, in pieces of any size", async () => {
    const contents = fc.array(fc.string({ maxLength: 2000 }), { maxLength: 5 })
    await fc.assert(
      fc.asyncProperty(contents, fc.integer({ min: 1, max: 3000 }), async (texts, length) => {
        const entries = texts.map((text, i): [string, string] => [`dir/file-${i}`, text])
        const bytes = await written(entries.map(([name, text]) => file(name, text)))
        expect(bytes.length % 512).toBe(0)
        expect(await read(bytes, length)).toEqual(entries)
      }),
      { numRuns: 50 },
    )
  })

  test("GNU tar reads it", async () => {
    const bytes = await written([file("a/b", "hello"), file("c", "x".repeat(1000))])
    const tar = Bun.spawnSync(["tar", "-xOf", "-", "a/b"], { stdin: bytes })
    expect(tar.stdout.toString()).toBe("hello")
  })

  test("an entry may be left unread", async () => {
    const bytes = await written([file("a", "x".repeat(5000)), file("b", "y")])
    const names: string[] = []
    for await (const { name } of readTar(pieces(bytes, 999))) names.push(name)
    expect(names).toEqual(["a", "b"])
  })

  test("sizes beyond eleven octal digits are written and read", async () => {
    const size = 9 * 2 ** 30
    const chunk = new Uint8Array(2 ** 24)
    const content = (function* () {
      for (let bytes = 0; bytes < size; bytes += chunk.length) yield chunk
    })()
    let total = 0
    const archive = writeTar([{ name: "big", size, content }, file("after", "x")])
    const seen: [string, number][] = []
    for await (const entry of readTar(archive)) {
      seen.push([entry.name, entry.size])
      if (entry.name === "big") for await (const part of entry.content) total += part.length
    }
    expect(seen).toEqual([
      ["big", size],
      ["after", 1],
    ])
    expect(total).toBe(size)
  })

  test("a source that is longer or shorter than it says is an error", async () => {
    await rejects(written([{ ...file("a", "xx"), size: 1 }]), { message: '"a" has 2 bytes, not 1' })
    await rejects(written([{ ...file("a", "xx"), size: 3 }]), { code: "conflict" })
  })
})

describe("readTar() — refuses", () => {
  test.each([
    ["an archive that ends early", (bytes: Buffer) => bytes.subarray(0, 600), "it ends early"],
    ["half a header", (bytes: Buffer) => bytes.subarray(0, 100), "it ends early"],
    ["something else", () => Buffer.alloc(1024, "no tar "), "a header is damaged"],
    ["gzip", () => Bun.gzipSync(Buffer.alloc(2048, Math.random().toString())), "it ends early"],
  ])("%s", async (_, damage, message) => {
    const bytes = await written([file("a", "x".repeat(200))])
    await rejects(read(damage(bytes)), { message: `Cannot read the archive: ${message}` })
  })

  test.each(["1", "2", "3", "4", "6", "7", "Z"])("entries of type %s", async (type) => {
    await rejects(read(await header("../../etc/passwd", { type })), {
      message: /is a link or a device/,
    })
  })

  test("a name of a gigabyte", async () => {
    await rejects(read(await header("n", { type: "L", size: "10000000000\0" })), {
      message: /a name of 1073741824 bytes/,
    })
  })

  test("any bytes with a CriaError", async () => {
    await fc.assert(
      fc.asyncProperty(fc.uint8Array({ maxLength: 3000 }), async (bytes) => {
        await read(bytes).catch((error: Error) => expect(error.name).toBe("CriaError"))
      }),
    )
  })
})
