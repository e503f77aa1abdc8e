import { describe, expect, test } from "bun:test"
import { mkdirSync } from "node:fs"

import * as fc from "fast-check"

import { TemporaryFolder } from "../gguf/raw-file.ts"
import { CriaError } from "../util/errors.ts"
import { fuzzBudget } from "../util/fuzz.ts"
import { compareCodePoints, readSafetensors } from "./safetensors.ts"

const FUZZ = fuzzBudget(1)

/** A file with a header as text, and so many bytes of data. */
function fileOf(header: string, dataBytes: number, headerBytes?: bigint): Uint8Array {
  const text = Buffer.from(header)
  const length = Buffer.alloc(8)
  length.writeBigUInt64LE(headerBytes ?? BigInt(text.length))
  return Buffer.concat([length, text, Buffer.alloc(dataBytes)])
}

function entry(shape: readonly number[], from: number, to: number, dtype = "F32"): object {
  return { dtype, shape, data_offsets: [from, to] }
}

function read(bytes: Uint8Array): ReturnType<typeof readSafetensors> {
  using folder = new TemporaryFolder()
  return readSafetensors(folder.write(bytes, "m.safetensors"), "m.safetensors")
}

const GOOD = { b: entry([2, 2], 0, 16), a: entry([3], 16, 28), __metadata__: { format: "pt" } }

describe("readSafetensors()", () => {
  test("gives names, types, shapes and places, ordered by name", () => {
    const header = JSON.stringify(GOOD)
    const start = 8 + header.length
    expect(read(fileOf(header, 28))).toMatchObject([
      { name: "a", type: "F32", shape: [3], byteOffset: start + 16, bytes: 12 },
      { name: "b", type: "F32", shape: [2, 2], byteOffset: start, bytes: 16 },
    ])
  })

  test("takes padding after the header, and tensors without elements", () => {
    expect(read(fileOf(`${JSON.stringify({ a: entry([0, 4], 0, 0) })}   `, 0))).toHaveLength(1)
  })

  const refused: readonly (readonly [string, Uint8Array, RegExp])[] = [
    ["an empty file", new Uint8Array(), /0 bytes, expected at least 8/],
    ["a header that is longer than the file", fileOf("{}", 0, 3n), /header has 3 bytes/],
    ["a huge header", fileOf("{}", 0, 2n ** 63n), /expected at most 100000000/],
    [
      "more names than any model has",
      fileOf(`{${'"a":0,'.repeat(2 ** 22)}"a":0}`, 0),
      /4194305 names, limit 4194304/,
    ],
    ["what is not JSON", fileOf("{nope", 0), /not JSON/],
    ["what does not begin with a brace", fileOf(" {}", 0), /does not start/],
    ["what is not UTF-8", Buffer.from([2, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xfe]), /not UTF-8/],
    ["a list", fileOf("{}[]", 0), /not JSON/],
    [
      "an entry without a type",
      fileOf('{"a":{"shape":[],"data_offsets":[0,4]}}', 4),
      /wrong entry/,
    ],
    [
      "a type that is not known",
      fileOf(JSON.stringify({ a: entry([1], 0, 4, "F99") }), 4),
      /"F99"/,
    ],
    [
      "a type named like a method",
      fileOf(JSON.stringify({ a: entry([1], 0, 4, "toString") }), 4),
      /"toString"/,
    ],
    ["a negative size", fileOf(JSON.stringify({ a: entry([-1], 0, 4) }), 4), /wrong entry/],
    [
      "sizes whose product is too large",
      fileOf(JSON.stringify({ a: entry([2 ** 52, 2 ** 52], 0, 4) }), 4),
      /expected/,
    ],
    [
      "bytes that do not fit the shape",
      fileOf(JSON.stringify({ a: entry([2], 0, 4) }), 4),
      /has 4 bytes, expected 8/,
    ],
    ["an end before the beginning", fileOf(JSON.stringify({ a: entry([1], 4, 0) }), 4), /-4 bytes/],
    ["data beyond the file", fileOf(JSON.stringify({ a: entry([2], 0, 8) }), 4), /4 bytes of data/],
    [
      "data after the last tensor",
      fileOf(JSON.stringify({ a: entry([1], 0, 4) }), 8),
      /8 bytes of data/,
    ],
    [
      "tensors that overlap",
      fileOf(JSON.stringify({ a: entry([2], 0, 8), b: entry([2], 4, 12) }), 12),
      /"b" overlaps/,
    ],
    [
      "a gap",
      fileOf(JSON.stringify({ a: entry([1], 0, 4), b: entry([1], 8, 12) }), 12),
      /"b" leaves a gap/,
    ],
    [
      "a name that is there twice",
      fileOf(
        `{"a":${JSON.stringify(entry([1], 0, 4))},"a":${JSON.stringify(entry([1], 0, 4))}}`,
        4,
      ),
      /a name is there twice/,
    ],
    [
      "a key of an entry that is there twice",
      fileOf('{"a":{"dtype":"F32","dtype":"F32","shape":[1],"data_offsets":[0,4]}}', 4),
      /a name is there twice/,
    ],
  ]
  for (const [what, bytes, message] of refused) {
    test(`refuses ${what}`, () => {
      expect(() => read(bytes)).toThrow(message)
      expect(() => read(bytes)).toThrow(CriaError)
    })
  }

  test("refuses a folder, and says when there is no file", () => {
    using folder = new TemporaryFolder()
    mkdirSync(`${folder.path}/d.safetensors`)
    expect(() => readSafetensors(`${folder.path}/d.safetensors`)).toThrow(CriaError)
    expect(() => readSafetensors(`${folder.path}/none`)).toThrow(/ENOENT/)
  })

  test(
    "reads or refuses whatever bytes a header has, in bounded time",
    () => {
      const header = JSON.stringify(GOOD)
      const change = fc.tuple(fc.nat(header.length - 1), fc.string({ maxLength: 3 }))
      fc.assert(
        fc.property(fc.array(change, { minLength: 1, maxLength: 4 }), (changes) => {
          let text = header
          for (const [at, piece] of changes) text = text.slice(0, at) + piece + text.slice(at + 1)
          try {
            for (const tensor of read(fileOf(text, 28))) {
              expect(tensor.byteOffset + tensor.bytes).toBeLessThanOrEqual(
                8 + Buffer.byteLength(text) + 28,
              )
            }
          } catch (error) {
            if (!(error instanceof CriaError)) throw error
          }
        }),
        FUZZ.parameters,
      )
    },
    FUZZ.timeoutMs,
  )
})

describe("compareCodePoints()", () => {
  test("orders as Python does, also above the basic plane", () => {
    const names = ["\u{1F600}", "\u{FF5E}", "b", "a10", "a9"]
    expect(names.toSorted(compareCodePoints)).toEqual(["a10", "a9", "b", "\u{FF5E}", "\u{1F600}"])
  })
})
