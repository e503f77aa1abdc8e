import { describe, expect, test } from "bun:test"

import { CACHE_TYPES, splitCacheSetting, parseCacheSetting } from "./cache-type.ts"

describe("parseCacheSetting()", () => {
  test.each(CACHE_TYPES)("%s is one for both", (type) => {
    expect(parseCacheSetting(type)).toBe(type)
    expect(splitCacheSetting(type)).toEqual({ keys: type, values: type })
  })

  test("takes one for keys and one for values", () => {
    expect(parseCacheSetting("q8_0/f16")).toBe("q8_0/f16")
    expect(splitCacheSetting("q8_0/f16")).toEqual({ keys: "q8_0", values: "f16" })
  })

  test("is read in any case, and one that is said twice is one", () => {
    expect(parseCacheSetting(" Q8_0/q8_0 ")).toBe("q8_0")
  })

  test.each(["", "/", "q8_0/", "/q8_0", "q8", "q4_K", "f16/f16/f16", "f16 q8_0", "toString"])(
    "%p is none",
    (text) => {
      expect(parseCacheSetting(text)).toBeUndefined()
    },
  )
})
