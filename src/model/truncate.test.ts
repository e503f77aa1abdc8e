import { describe, expect, test } from "bun:test"

import { leastEnough } from "./truncate.ts"

/** What is found where `needed` is enough, and how many attempts that took. */
async function search(most: number, needed: number) {
  let attempts = 0
  const found = await leastEnough(most, (count) => {
    attempts++
    expect(count).toBeGreaterThanOrEqual(1)
    expect(count).toBeLessThanOrEqual(most)
    return Promise.resolve(count >= needed ? { count } : undefined)
  })
  return { found: found?.count, attempts }
}

describe("leastEnough()", () => {
  test("finds the smallest number that is enough, whatever it is", async () => {
    const pairs = Array.from({ length: 40 }, (_, i) => i + 1).flatMap((most) =>
      Array.from({ length: most + 1 }, (_, i) => [most, i + 1] as const),
    )
    const results = await Promise.all(pairs.map(([most, needed]) => search(most, needed)))
    for (const [i, [most, needed]] of pairs.entries()) {
      if (needed <= most) expect(results[i]?.found).toBe(needed)
      else expect(results[i]).toEqual({ found: undefined, attempts: 1 })
    }
    expect(await search(0, 1)).toEqual({ found: undefined, attempts: 0 })
  })

  test.each([1, 2, 500, 999, 1000])("takes few attempts for %d", async (needed) => {
    expect((await search(1000, needed)).attempts).toBeLessThanOrEqual(11)
  })
})
