import { afterEach, beforeEach, describe, expect, test } from "bun:test"
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"

import { unpackFile, unpackNative } from "./unpack.ts"

const CONTENT = "weights ".repeat(10_000)

let root = ""
let source = ""
let cache = ""
const originalTmp = process.env["TMPDIR"]

beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), "cria-unpack-"))
  source = join(root, "model.gguf")
  cache = join(root, "cache")
  writeFileSync(source, CONTENT)
  // The folder that is used when the cache cannot be: never the real one.
  process.env["TMPDIR"] = join(root, "tmp")
  mkdirSync(join(root, "tmp"))
})

afterEach(() => {
  if (originalTmp === undefined) delete process.env["TMPDIR"]
  else process.env["TMPDIR"] = originalTmp
  rmSync(root, { recursive: true, force: true })
})

/** The folder for those whose cache cannot be written. */
function fallback(): string {
  return join(root, "tmp", `cria-${process.getuid?.() ?? 0}`)
}

/** A folder that nobody can make: even root cannot make one below a file. */
function impossibleFolder(): string {
  return join(source, "cache")
}

describe("unpackFile() — into the cache", () => {
  test("writes the file under its name, for nobody else to read", () => {
    const path = unpackFile(source, "k1", cache)
    expect(path).toBe(join(cache, "files", "k1", "model.gguf"))
    expect(readFileSync(path, "utf8")).toBe(CONTENT)
    expect(statSync(path).mode & 0o077).toBe(0)
    expect(statSync(join(path, "..")).mode & 0o077).toBe(0)
    expect(existsSync(fallback())).toBe(false)
  })

  test("does it once: the second time the source is not even read", () => {
    const path = unpackFile(source, "k1", cache)
    const before = statSync(path)
    rmSync(source)
    expect(unpackFile(source, "k1", cache)).toBe(path)
    expect(statSync(path).ino).toBe(before.ino)
    expect(statSync(path).mtimeMs).toBe(before.mtimeMs)
  })

  test("keeps contents with different keys apart", () => {
    const first = unpackFile(source, "k1", cache)
    writeFileSync(source, "other")
    const second = unpackFile(source, "k2", cache)
    expect(readFileSync(first, "utf8")).toBe(CONTENT)
    expect(readFileSync(second, "utf8")).toBe("other")
  })

  test("writes a file again that a cleaner of caches took away", () => {
    const path = unpackFile(source, "k1", cache)
    rmSync(path)
    expect(unpackFile(source, "k1", cache)).toBe(path)
    expect(readFileSync(path, "utf8")).toBe(CONTENT)
  })

  test("leaves nothing half-written behind when the source cannot be read", () => {
    rmSync(source)
    expect(() => unpackFile(source, "k1", cache)).toThrow("ENOENT")
    expect(readdirSync(join(cache, "files"))).toEqual([])
  })

  test("lets processes that do it at the same moment all end with the whole file", async () => {
    const module = join(import.meta.dirname, "unpack.ts")
    const script = `
      import { unpackFile } from ${JSON.stringify(module)}
      process.stdout.write(unpackFile(${[source, "k1", cache].map((text) => JSON.stringify(text)).join()}))`
    const children = Array.from({ length: 4 }, () =>
      Bun.spawn([process.execPath, "-e", script], { stdout: "pipe", stderr: "inherit" }),
    )
    const paths = await Promise.all(children.map((child) => new Response(child.stdout).text()))
    const path = join(cache, "files", "k1", "model.gguf")
    expect(paths).toEqual([path, path, path, path])
    expect(readFileSync(path, "utf8")).toBe(CONTENT)
    expect(readdirSync(join(cache, "files"))).toEqual(["k1"])
  })
})

describe("unpackFile() — when the cache cannot be written", () => {
  test("takes the folder for temporary files, and finds it there again", () => {
    const path = unpackFile(source, "k1", impossibleFolder())
    expect(path).toBe(join(fallback(), "files", "k1", "model.gguf"))
    expect(readFileSync(path, "utf8")).toBe(CONTENT)
    const { ino } = statSync(path)
    expect(unpackFile(source, "k1", impossibleFolder())).toBe(path)
    expect(statSync(path).ino).toBe(ino)
  })

  test("does not trust a folder for temporary files that others can write", () => {
    const planted = join(fallback(), "files", "k1", "model.gguf")
    mkdirSync(join(planted, ".."), { recursive: true })
    writeFileSync(planted, "evil")
    chmodSync(fallback(), 0o777)
    expect(() => unpackFile(source, "k1", impossibleFolder())).toThrow("not ours alone")
  })

  test("does not look into the folder for temporary files while the cache can be written", () => {
    const planted = join(fallback(), "files", "k1", "model.gguf")
    mkdirSync(join(planted, ".."), { recursive: true })
    writeFileSync(planted, "evil")
    expect(readFileSync(unpackFile(source, "k1", cache), "utf8")).toBe(CONTENT)
  })

  test("says which variable helps when no folder can be written", () => {
    process.env["TMPDIR"] = impossibleFolder()
    expect(() => unpackFile(source, "k1", impossibleFolder())).toThrow(
      expect.objectContaining({
        code: "unavailable",
        message: expect.stringMatching(/^Cannot unpack files of the executable: .*; /),
        hint: "Set CRIA_CACHE to a folder that can be written",
      }),
    )
  })
})

describe("unpackNative() — in a checkout", () => {
  test("finds nothing inside and writes nothing", () => {
    expect(unpackNative(cache)).toBeUndefined()
    expect(existsSync(cache)).toBe(false)
  })
})
