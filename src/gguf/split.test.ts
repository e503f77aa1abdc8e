import { describe, expect, test } from "bun:test"
import { readFileSync, rmSync } from "node:fs"
import { join } from "node:path"

import { CriaError } from "../util/errors.ts"
import { modelFacts } from "./facts.ts"
import { integer, pair, rawBytes, string, TemporaryFolder, tensor } from "./raw-file.ts"
import { readGguf } from "./read.ts"
import { readModel, splitPaths } from "./split.ts"

interface Part {
  readonly no?: number
  readonly count?: number
  readonly total?: number
  readonly tensorName?: string
}

function partBytes({ no = 0, count = 3, total = 3, tensorName = `t${no}` }: Part): Uint8Array {
  const pairs = [
    pair("general.architecture", "string", string("llama")),
    pair("split.no", "u16", integer(2, no)),
    pair("split.count", "u16", integer(2, count)),
    pair("split.tensors.count", "i32", integer(4, total)),
  ]
  return rawBytes({ pairs, tensors: [tensor({ name: tensorName })], dataBytes: 32 })
}

const nameOf = (number: number, count = 3) => `m-0000${number}-of-0000${count}.gguf`

/** Writes three parts, some of them different; returns the path of the first. */
function writeParts(
  folder: TemporaryFolder,
  different: Readonly<Record<number, Part>> = {},
): string {
  for (const no of [0, 1, 2]) folder.write(partBytes({ no, ...different[no] }), nameOf(no + 1))
  return join(folder.path, nameOf(1))
}

function expectError(run: () => unknown, code: string, problem: string) {
  try {
    run()
  } catch (error) {
    expect(error).toBeInstanceOf(CriaError)
    expect(error).toMatchObject({ code })
    expect(String(error)).toContain(problem)
    return
  }
  throw new Error("Expected an error, none was thrown")
}

describe("splitPaths()", () => {
  test("names all parts in order", () => {
    using folder = new TemporaryFolder()
    const path = writeParts(folder)
    expect(splitPaths(path, readGguf(path))).toEqual(
      [1, 2, 3].map((number) => join(folder.path, nameOf(number))),
    )
  })

  test.each([
    ["without split keys", rawBytes()],
    ["split into one", partBytes({ count: 1, total: 1 })],
  ])("is the only path for a file %s, whatever its name", (_, bytes) => {
    using folder = new TemporaryFolder()
    const path = folder.write(bytes, "sha256-00")
    expect(splitPaths(path, readGguf(path))).toEqual([path])
  })

  test("reports a missing part", () => {
    using folder = new TemporaryFolder()
    const path = writeParts(folder)
    rmSync(join(folder.path, nameOf(2)))
    expectError(
      () => splitPaths(path, readGguf(path), { label: "m" }),
      "not-found",
      'Cannot load "m": part 2 of 3 is missing, expected "…-00002-of-00003.gguf" beside it',
    )
  })

  test.each([
    [
      "a name without numbers",
      "m.gguf",
      partBytes({}),
      'expected a name that ends in "-00001-of-00003.gguf"',
    ],
    [
      "another count in the name",
      nameOf(1, 4),
      partBytes({}),
      "its name says part 1 of 4, its header part 1 of 3",
    ],
    [
      "99999 parts in the name",
      "m-00001-of-99999.gguf",
      partBytes({}),
      "its name says part 1 of 99999",
    ],
    [
      "another number in the name",
      nameOf(1),
      partBytes({ no: 1 }),
      "its name says part 1 of 3, its header part 2 of 3",
    ],
    [
      "a part that is not the first",
      nameOf(2),
      partBytes({ no: 1 }),
      "it is part 2 of 3, expected part 1",
    ],
  ])("refuses %s", (_, name, bytes, problem) => {
    using folder = new TemporaryFolder()
    const path = folder.write(bytes, name)
    expectError(() => splitPaths(path, readGguf(path)), "invalid-input", problem)
  })
})

describe("readModel()", () => {
  test("adds up the parts", () => {
    using folder = new TemporaryFolder()
    const { header, otherParts, paths } = readModel(writeParts(folder))
    const fileBytes = paths.reduce((total, path) => total + readFileSync(path).length, 0)
    expect(modelFacts(header, otherParts)).toMatchObject({
      parameterCount: 24,
      weightsBytes: 96,
      fileBytes,
    })
  })

  test.each<[string, Readonly<Record<number, Part>>, string]>([
    [
      "the same part twice",
      { 2: { no: 1, tensorName: "t2" } },
      "it is part 2 of 3, expected part 3 of 3",
    ],
    [
      "a part of another model",
      { 1: { count: 2, total: 2 } },
      "it is part 2 of 2, expected part 2 of 3",
    ],
    [
      "fewer tensors than announced",
      { 0: { total: 4 } },
      "have 3 tensors with 3 names, expected 4 of each",
    ],
    [
      "a tensor in two parts",
      { 1: { tensorName: "t0" } },
      "have 3 tensors with 2 names, expected 3 of each",
    ],
  ])("refuses %s", (_, different, problem) => {
    using folder = new TemporaryFolder()
    const path = writeParts(folder, different)
    expectError(() => readModel(path), "invalid-input", problem)
  })

  test("refuses a part without numbers", () => {
    using folder = new TemporaryFolder()
    const path = writeParts(folder)
    folder.write(rawBytes(), nameOf(3))
    expectError(() => readModel(path), "invalid-input", "it has no split.no, expected part 3 of 3")
  })

  test("keeps paths out of messages when a label is given", () => {
    using folder = new TemporaryFolder()
    const path = writeParts(folder)
    folder.write(new Uint8Array(3), nameOf(2))
    expectError(
      () => readModel(path, { label: "m" }),
      "invalid-input",
      'Cannot read "m part 2" as GGUF: the file is 3 bytes',
    )
  })
})
