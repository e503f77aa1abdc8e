import { describe, expect, test } from "bun:test"

import { parseOptions } from "./parameters.ts"

const INTEGERS =
  "num_ctx num_batch num_gpu main_gpu num_thread draft_num_predict num_keep seed num_predict top_k repeat_last_n".split(
    " ",
  )
const FLOATS =
  "top_p min_p typical_p temperature repeat_penalty presence_penalty frequency_penalty".split(" ")

/** The status is 500, as Ollama's. */
function refusal(message: string): object {
  return expect.objectContaining({ code: "internal", message })
}

describe("parseOptions() — types", () => {
  test.each(INTEGERS)("%s is an integer; a float is cut", (name) => {
    expect(parseOptions({ [name]: 7 })).toEqual({ [name]: 7 })
    expect(parseOptions({ [name]: -1 })).toEqual({ [name]: -1 })
    expect(parseOptions({ [name]: 7.9 })).toEqual({ [name]: 7 })
    expect(parseOptions({ [name]: -7.9 })).toEqual({ [name]: -7 })
    for (const value of ["7", true, [7], { a: 7 }]) {
      const expected = refusal(`option "${name}" must be of type integer`)
      expect(() => parseOptions({ [name]: value })).toThrow(expected)
    }
  })

  test.each(FLOATS)("%s is a float", (name) => {
    expect(parseOptions({ [name]: 0.25 })).toEqual({ [name]: 0.25 })
    expect(parseOptions({ [name]: 2 })).toEqual({ [name]: 2 })
    for (const value of ["0.5", false, [0.5], {}]) {
      const expected = refusal(`option "${name}" must be of type float32`)
      expect(() => parseOptions({ [name]: value })).toThrow(expected)
    }
  })

  test("use_mmap is a boolean", () => {
    expect(parseOptions({ use_mmap: false })).toEqual({ use_mmap: false })
    for (const value of [0, 1, "true", []]) {
      const expected = refusal('option "use_mmap" must be of type boolean')
      expect(() => parseOptions({ use_mmap: value })).toThrow(expected)
    }
  })

  test("stop is a list of texts; a bare text is wrong", () => {
    expect(parseOptions({ stop: ["a", "b"] })).toEqual({ stop: ["a", "b"] })
    expect(parseOptions({ stop: [] })).toEqual({ stop: [] })
    for (const value of ["a", 1, { 0: "a" }]) {
      expect(() => parseOptions({ stop: value })).toThrow(
        refusal('option "stop" must be of type array'),
      )
    }
    for (const value of [["a", 1], [null], [["a"]]]) {
      expect(() => parseOptions({ stop: value })).toThrow(
        refusal('option "stop" must be of an array of strings'),
      )
    }
  })

  test("a number that JSON cannot hold is refused, whatever its option", () => {
    for (const name of ["num_ctx", "temperature"]) {
      for (const value of [Infinity, -Infinity, Number.NaN]) {
        expect(() => parseOptions({ [name]: value })).toThrow(`option "${name}" must be of type`)
      }
    }
  })
})

describe("parseOptions() — what is not given or not known", () => {
  test.each([...INTEGERS, ...FLOATS, "use_mmap", "stop"])("%s may be null", (name) => {
    expect(parseOptions({ [name]: null })).toEqual({})
  })

  test("unknown names are reported, whatever their value, and left out", () => {
    const unknown: string[] = []
    const given = { mirostat: 1, tfs_z: "x", NUM_CTX: 1, toString: 1, seed: 3 }
    expect(parseOptions(given, (name) => unknown.push(name))).toEqual({ seed: 3 })
    expect(unknown).toEqual(["mirostat", "tfs_z", "NUM_CTX", "toString"])
  })

  test("an unknown name with null is nothing to report", () => {
    const unknown: string[] = []
    expect(parseOptions({ mirostat: null }, (name) => unknown.push(name))).toEqual({})
    expect(unknown).toEqual([])
  })
})
