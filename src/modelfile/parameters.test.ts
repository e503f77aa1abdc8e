import { describe, expect, test } from "bun:test"

import { CACHE_TYPES } from "../engine/cache-type.ts"
import { parseOptions, parseParameters } from "./parameters.ts"

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

/** One parameter of a Modelfile. */
function parameter(name: string, value: string): Record<string, unknown> {
  return parseParameters([{ name, value }], () => {})
}

const CACHE_REFUSAL = `expected ${CACHE_TYPES.join(", ")}, or one for keys and one for values, such as q8_0/f16`

describe("the type of the KV cache", () => {
  test.each([
    ["q8_0", "q8_0"],
    ["Q4_0", "q4_0"],
    ["q8_0/f16", "q8_0/f16"],
    ["f16/f16", "f16"],
  ])("%s is the same in a Modelfile and in a request", (given, expected) => {
    expect(parameter("kv_cache_type", given)).toEqual({ kv_cache_type: expected })
    expect(parseOptions({ kv_cache_type: given })).toEqual({ kv_cache_type: expected } as never)
  })

  test("a wrong one names those that there are", () => {
    const message = `Cannot use kv_cache_type "q8": ${CACHE_REFUSAL}`
    const expected = expect.objectContaining({ code: "invalid-input", message }) as object
    expect(() => parameter("kv_cache_type", "q8")).toThrow(expected)
    expect(() => parseOptions({ kv_cache_type: "q8" })).toThrow(expected)
    expect(() => parseOptions({ kv_cache_type: 8 })).toThrow(
      refusal('option "kv_cache_type" must be of type string'),
    )
  })
})

describe("flash attention", () => {
  test.each<[string, string, unknown]>([
    ["on", "on", "on"],
    ["on", "true", true],
    ["off", "0", false],
    ["off", "OFF", "off"],
    ["auto", "auto", "auto"],
  ])("is %s for %p in a Modelfile and %p in a request", (expected, text, value) => {
    expect(parameter("flash_attention", text)).toEqual({ flash_attention: expected })
    expect(parseOptions({ flash_attention: value })).toEqual({ flash_attention: expected } as never)
  })

  test("is nothing else", () => {
    const message = 'Cannot use flash_attention "maybe": expected on, off or auto'
    expect(() => parameter("flash_attention", "maybe")).toThrow(message)
    expect(() => parseOptions({ flash_attention: "maybe" })).toThrow(message)
    expect(() => parseOptions({ flash_attention: 1 })).toThrow(
      refusal('option "flash_attention" must be of type string or boolean'),
    )
  })
})
