import { describe, expect, test } from "bun:test"
import { totalmem } from "node:os"

import { memoryState } from "./memory.ts"

describe("memoryState() — sane numbers", () => {
  test("available memory is a part of the total, and the total fits the machine", () => {
    const { totalBytes, availableBytes } = memoryState()
    expect(Number.isSafeInteger(totalBytes)).toBe(true)
    expect(Number.isSafeInteger(availableBytes)).toBe(true)
    expect(availableBytes).toBeGreaterThan(0)
    expect(availableBytes).toBeLessThanOrEqual(totalBytes)
    // A container has less than its machine, and never more.
    expect(totalBytes).toBeLessThanOrEqual(totalmem())
    expect(totalBytes).toBeGreaterThan(64 * 2 ** 20)
  })

  test("is close to what it said a moment ago", () => {
    const [first, second] = [memoryState(), memoryState()]
    expect(second.totalBytes).toBe(first.totalBytes)
    const change = Math.abs(second.availableBytes - first.availableBytes)
    expect(change).toBeLessThan(first.totalBytes / 2)
  })
})
