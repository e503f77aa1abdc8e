import { describe, expect, test } from "bun:test"

import * as fc from "fast-check"

import { Slots } from "./slots.ts"

describe("Slots", () => {
  test("hands out the lowest free id", () => {
    const slots = new Slots(3, 30)
    expect([slots.acquire(5), slots.acquire(5), slots.acquire(5)]).toEqual([0, 1, 2])
    slots.release(1)
    expect(slots.acquire(5)).toBe(1)
  })

  test("gives nothing when ids or cells are short", () => {
    const slots = new Slots(2, 10)
    expect(slots.acquire(10)).toBe(0)
    expect(slots.acquire(1)).toBeUndefined()
    slots.release(0)
    slots.acquire(1)
    slots.acquire(1)
    expect(slots.acquire(1)).toBeUndefined()
  })

  test("refuses to release an id twice", () => {
    const slots = new Slots(1, 10)
    slots.acquire(1)
    slots.release(0)
    expect(() => slots.release(0)).toThrow("released twice")
  })

  test("keeps free + reserved = total in any order of events", () => {
    fc.assert(
      fc.property(fc.array(fc.integer({ min: -4, max: 20 })), (events) => {
        const slots = new Slots(4, 40)
        const held: number[] = []
        for (const event of events) {
          if (event > 0) {
            const id = slots.acquire(event)
            if (id !== undefined) held.push(id)
          } else {
            const [id] = held.splice(Math.abs(event) % Math.max(1, held.length), 1)
            if (id !== undefined) slots.release(id)
          }
          expect(slots.freeCells + slots.reservedCells).toBe(40)
          expect(slots.freeCells).toBeGreaterThanOrEqual(0)
          expect(new Set(held).size).toBe(held.length)
        }
      }),
    )
  })
})
