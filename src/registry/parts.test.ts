import { describe, expect, test } from "bun:test"

import { array, assert, nat, property, record } from "fast-check"

import {
  completedBytes,
  formatNote,
  frontBytes,
  parseNote,
  planParts,
  SPLIT_BYTES_MIN,
  splitPart,
} from "./parts.ts"

const MIB = 2 ** 20

describe("planParts()", () => {
  test.each([
    [0, 0],
    [1, 1],
    [16 * MIB, 1],
    [16 * MIB + 1, 2],
    [2 ** 31, 128],
    [400e9, 400],
  ])("%d bytes are %d parts", (bytes, count) => {
    expect(planParts(bytes, [], 0)).toHaveLength(count)
  })

  test("covers the blob exactly and believes no note that cannot be true", () => {
    const note = record({ N: nat(9), Offset: nat(90), Size: nat(90), Completed: nat(90) })
    assert(
      property(nat(100), nat(100), array(note, { maxLength: 8 }), (total, fileBytes, notes) => {
        const parts = planParts(total, notes, fileBytes)
        let end = 0
        for (const [i, part] of parts.entries()) {
          expect(part.index).toBe(i)
          expect(part.offset).toBe(end)
          expect(part.size).toBeGreaterThan(0)
          end += part.size
          const isThere = (byte: number) =>
            byte < Math.min(total, fileBytes) &&
            notes.some(
              ({ Offset, Completed, Size }) =>
                Completed <= Size && byte >= Offset && byte < Offset + Completed,
            )
          for (let byte = part.offset; byte < part.offset + part.completed; byte++) {
            expect(isThere(byte)).toBe(true)
          }
        }
        expect(end).toBe(total)
      }),
    )
  })

  test("notes of different plans count together", () => {
    const notes = [
      { N: 0, Offset: 0, Size: 100, Completed: 60 },
      { N: 1, Offset: 50, Size: 50, Completed: 40 },
      { N: 7, Offset: 200, Size: 10, Completed: 10 },
    ]
    const parts = planParts(300, notes, 300)
    expect(completedBytes(parts)).toBe(100)
    expect(frontBytes(parts)).toBe(90)
  })
})

describe("splitPart()", () => {
  test("gives the second half of what is missing away", () => {
    const part = { index: 0, offset: 100, size: 20 * MIB, completed: 4 * MIB }
    expect(splitPart(part, 9)).toEqual({
      index: 9,
      offset: 100 + 12 * MIB,
      size: 8 * MIB,
      completed: 0,
    })
    expect(part.size).toBe(12 * MIB)
  })

  test("leaves what is hardly worth a request", () => {
    const part = { index: 0, offset: 0, size: 2 * SPLIT_BYTES_MIN - 1, completed: 0 }
    expect(splitPart(part, 1)).toBeUndefined()
  })
})

describe("notes", () => {
  test("are Ollama's, all of one length", () => {
    const text = formatNote({ index: 3, offset: 5, size: 7, completed: 2 })
    expect(JSON.parse(text)).toEqual({ N: 3, Offset: 5, Size: 7, Completed: 2 })
    const far = Number.MAX_SAFE_INTEGER
    expect(formatNote({ index: 999_999, offset: far, size: far, completed: far })).toHaveLength(
      text.length,
    )
    expect(parseNote(text)).toEqual({ N: 3, Offset: 5, Size: 7, Completed: 2 })
  })

  test.each([
    "",
    "{",
    "null",
    '{"N":0}',
    '{"N":0,"Offset":-1,"Size":1,"Completed":1}',
    '{"N":0,"Offset":1e99,"Size":1,"Completed":1}',
  ])("%j is none", (text) => {
    expect(parseNote(text)).toBeUndefined()
  })
})
