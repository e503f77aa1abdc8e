import { describe, expect, test } from "bun:test"

import { FakeCells, type FakeMemory } from "./fake-cells.ts"

/** Cells of a kind, with sequence 0 over tokens 0, 1, 2 … */
function cellsOf(kind: FakeMemory, length: number, total = 64): FakeCells {
  const cells = new FakeCells(kind, 4, total)
  for (let position = 0; position < length; position++) cells.add(0, position, position)
  return cells
}

const KINDS: readonly FakeMemory[] = ["dense", "window", "recurrent"]

describe("FakeCells", () => {
  describe.each([...KINDS])("%s", (kind) => {
    test("shows a sequence the tokens that it was given", () => {
      expect(cellsOf(kind, 20).visible(0)).toEqual(Array.from({ length: 20 }, (_, i) => i))
    })

    test("throws on a position that does not follow, a full cache and an id that is not there", () => {
      const cells = cellsOf(kind, 3, 4)
      expect(() => cells.add(0, 2, 9)).toThrow("position 2 after 3 tokens")
      expect(() => cells.add(0, 4, 9)).toThrow("position 4 after 3 tokens")
      cells.add(0, 3, 9)
      expect(() => cells.add(1, 0, 9)).toThrow("there are no cells left")
      expect(() => cells.length(4)).toThrow("sequence 4 does not exist")
    })

    test("shares all of a sequence, and frees it with its last owner", () => {
      const cells = cellsOf(kind, 6)
      cells.copy(0, 1, 0, -1)
      expect(cells.used).toBe(6)
      cells.add(0, 6, 50)
      cells.add(1, 6, 60)
      expect([cells.visible(0).at(-1), cells.visible(1).at(-1), cells.used]).toEqual([50, 60, 8])
      expect(cells.remove(0, 0, -1)).toBe(true)
      expect([cells.length(0), cells.used]).toEqual([0, 7])
      expect(cells.remove(1, 0, -1)).toBe(true)
      expect(cells.used).toBe(0)
    })

    test("throws on sharing with itself, and on sharing what is not there", () => {
      const cells = cellsOf(kind, 3)
      expect(() => cells.copy(0, 0, 0, -1)).toThrow("there is nothing to share")
      expect(() => cells.copy(0, 1, 0, 4)).toThrow("there is nothing to share")
    })
  })

  test("dense: shares and removes any part at the end", () => {
    const cells = cellsOf("dense", 6)
    cells.copy(0, 1, 0, 4)
    expect(cells.visible(1)).toEqual([0, 1, 2, 3])
    expect(cells.remove(0, 2, -1)).toBe(true)
    expect([cells.visible(0), cells.visible(1), cells.used]).toEqual([[0, 1], [0, 1, 2, 3], 4])
    cells.copy(1, 0, 2, 4)
    expect([cells.visible(0), cells.used]).toEqual([[0, 1, 2, 3], 4])
  })

  test("dense: throws on gaps, on holes, and on cells that a sequence has already", () => {
    const cells = cellsOf("dense", 6)
    expect(() => cells.copy(0, 1, 2, 4)).toThrow("positions 0 to 2 would be missing")
    cells.copy(0, 1, 0, 4)
    expect(() => cells.copy(0, 1, 3, 5)).toThrow("position 3 cannot be shared")
    expect(cells.remove(0, 2, 4)).toBe(true)
    expect(() => cells.visible(0)).toThrow("sequence 0 has a hole at 2")
    expect(() => cells.copy(0, 2, 0, 5)).toThrow("position 2 cannot be shared")
    cells.remove(1, 3, 4)
    expect(() => cells.add(1, 4, 9)).toThrow("position 4 after 3 tokens")
  })

  test.each(["window", "recurrent"] as const)("%s: refuses parts of a sequence", (kind) => {
    const cells = cellsOf(kind, 6)
    expect(cells.remove(0, 3, -1)).toBe(false)
    expect(cells.remove(0, 0, 5)).toBe(false)
    expect(cells.length(0)).toBe(6)
    expect(() => cells.copy(0, 1, 0, 4)).toThrow("shares whole sequences only")
    cells.add(1, 0, 9)
    expect(() => cells.copy(0, 1, 0, -1)).toThrow("shares whole sequences only")
  })

  test("window: keeps what two sequences hold when one of them moves on", () => {
    const cells = cellsOf("window", 4)
    cells.copy(0, 1, 0, -1)
    for (let position = 4; position < 20; position++) cells.add(0, position, position)
    cells.add(1, 4, 99)
    expect(cells.visible(1)).toEqual([0, 1, 2, 3, 99])
    expect(cells.used).toBe(21)
  })
})
