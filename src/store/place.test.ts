import { describe, expect, test } from "bun:test"
import { rejects } from "node:assert/strict"
import {
  existsSync,
  lstatSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"

import { drain } from "../util/iterate.ts"
import { placeFile } from "./place.ts"

/** Folders that disappear with their owner; the second one on another disk where there is one. */
class Folders implements Disposable {
  readonly here: string
  readonly there: string

  constructor() {
    this.here = mkdtempSync(join(tmpdir(), "cria-place-"))
    this.there = mkdtempSync(join(MEMORY_DISK, "cria-place-"))
  }

  [Symbol.dispose](): void {
    for (const path of [this.here, this.there]) rmSync(path, { recursive: true, force: true })
  }
}

const MEMORY_DISK = existsSync("/dev/shm") ? "/dev/shm" : tmpdir()
const HAS_TWO_DISKS = statSync(MEMORY_DISK).dev !== statSync(tmpdir()).dev

const CONTENT = Buffer.alloc(3 * 2 ** 20 + 5, "content")

describe("placeFile()", () => {
  test("links on the same disk, without steps", async () => {
    using folders = new Folders()
    const [source, target] = [join(folders.here, "a"), join(folders.here, "b")]
    writeFileSync(source, CONTENT)
    const steps = placeFile(source, target)
    const { done, value } = await steps.next()
    expect(done).toBe(true)
    expect(value).toBeOneOf(["reflink", "hard link"])
    expect(readFileSync(target).equals(CONTENT)).toBe(true)
  })

  test("of a link, places what it leads to", async () => {
    using folders = new Folders()
    const source = join(folders.here, "a")
    writeFileSync(source, CONTENT)
    for (const [name, path] of Object.entries({ absolute: source, relative: "a" })) {
      const link = join(folders.here, name)
      symlinkSync(path, link)
      for (const folder of [folders.here, folders.there]) {
        const target = join(folder, `${name}-placed`)
        // oxlint-disable-next-line no-await-in-loop
        await drain(placeFile(link, target))
        expect(lstatSync(target).isFile()).toBe(true)
        expect(readFileSync(target).equals(CONTENT)).toBe(true)
      }
    }
  })

  test.skipIf(!HAS_TWO_DISKS)("copies to another disk, and tells how much", async () => {
    using folders = new Folders()
    const [source, target] = [join(folders.here, "a"), join(folders.there, "b")]
    writeFileSync(source, CONTENT)
    expect(await Array.fromAsync(placeFile(source, target))).toEqual([
      2 ** 20,
      2 * 2 ** 20,
      3 * 2 ** 20,
      CONTENT.length,
    ])
    expect(readFileSync(target).equals(CONTENT)).toBe(true)
    rmSync(target)
    expect(await drain(placeFile(source, target))).toBe("copy")
  })

  test.skipIf(!HAS_TWO_DISKS)("leaves nothing when it is cancelled or left", async () => {
    using folders = new Folders()
    const [source, target] = [join(folders.here, "a"), join(folders.there, "b")]
    writeFileSync(source, CONTENT)
    const controller = new AbortController()
    const steps = placeFile(source, target, controller.signal)
    await steps.next()
    controller.abort(new Error("enough"))
    await rejects(drain(steps), /enough/)
    expect(readdirSync(folders.there)).toEqual([])
    for await (const _ of placeFile(source, target)) break
    expect(readdirSync(folders.there)).toEqual([])
  })

  test.skipIf(!HAS_TWO_DISKS)("a file that becomes shorter meanwhile is no copy", async () => {
    using folders = new Folders()
    const [source, target] = [join(folders.here, "a"), join(folders.there, "b")]
    writeFileSync(source, CONTENT)
    const steps = placeFile(source, target)
    await steps.next()
    writeFileSync(source, "")
    await rejects(drain(steps), { code: "conflict" })
    expect(readdirSync(folders.there)).toEqual([])
  })
})
