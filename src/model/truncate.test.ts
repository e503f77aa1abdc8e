import { describe, expect, test } from "bun:test"

import { leastEnough } from "./truncate.ts"

/** What is found where `needed` is enough, and how many attempts that took. */
function search(most: number, needed: number) {
  let attempts = 0
  const found = leastEnough(most, (count) => {
    attempts++
    expect(count).toBeGreaterThanOrEqual(1)
    expect(count).toBeLessThanOrEqual(most)
    return count >= needed ? { count } : undefined
  })
  return { found: found?.count, attempts }
}

describe("leastEnough()", () => {
  test("finds the smallest number that is enough, whatever it is", () => {
    for (let most = 1; most <= 40; most++) {
      for (let needed = 1; needed <= most; needed++) expect(search(most, needed).found).toBe(needed)
      expect(search(most, most + 1)).toEqual({ found: undefined, attempts: 1 })
    }
    expect(search(0, 1)).toEqual({ found: undefined, attempts: 0 })
  })

  test("takes few attempts", () => {
    for (const needed of [1, 2, 500, 999, 1000])
      expect(search(1000, needed).attempts).toBeLessThanOrEqual(11)
  })
})
