import { describe, expect, test } from "bun:test"

import * as fc from "fast-check"

import { decodeElements, encodeElements } from "./elements.ts"
import type { SafetensorsType } from "./safetensors.ts"

function decode(type: SafetensorsType, bytes: readonly number[]): number[] {
  return [...decodeElements(type, Uint8Array.from(bytes), new Float32Array(64))]
}

function halves(bytes: Uint8Array): number[] {
  return [...new Uint16Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 2)]
}

describe("decodeElements()", () => {
  test("knows 8-bit floats: ordinary, tiny, largest, and what is none", () => {
    expect(decode("F8_E4M3", [0x00, 0x01, 0x08, 0x38, 0x7e, 0xfe, 0x7f])).toEqual([
      0,
      2 ** -9,
      2 ** -6,
      1,
      448,
      -448,
      Number.NaN,
    ])
    expect(decode("F8_E5M2", [0x01, 0x3c, 0x7b, 0x7c, 0xfc, 0x7d])).toEqual([
      2 ** -16,
      1,
      57_344,
      Number.POSITIVE_INFINITY,
      Number.NEGATIVE_INFINITY,
      Number.NaN,
    ])
  })

  test("knows the types of whole numbers and the wide ones", () => {
    expect(decode("I8", [0xff, 2])).toEqual([-1, 2])
    expect(decode("I64", [0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff])).toEqual([-2])
    expect(decode("F64", [0, 0, 0, 0, 0, 0, 0xf0, 0xbf])).toEqual([-1])
    expect(decode("BF16", [0x80, 0x3f])).toEqual([1])
    expect(decode("BOOL", [1, 0])).toEqual([1, 0])
  })
})

describe("encodeElements()", () => {
  test("rounds bfloat16 to the nearest, ties to even, and keeps what is no number", () => {
    const words = Uint32Array.from([
      0x3f80_8000, 0x3f81_8000, 0x3f80_8001, 0x7f80_0001, 0x7f7f_ffff,
    ])
    expect(halves(encodeElements("BF16", new Float32Array(words.buffer)))).toEqual([
      0x3f80, 0x3f82, 0x3f81, 0x7fc0, 0x7f80,
    ])
  })

  test("bfloat16 and 16-bit floats come back as they went in", () => {
    fc.assert(
      fc.property(fc.uint16Array({ minLength: 1, maxLength: 32 }), (numbers) => {
        for (const type of ["BF16", "F16"] as const) {
          const bytes = new Uint8Array(numbers.buffer, numbers.byteOffset, numbers.byteLength)
          const values = decodeElements(type, bytes, new Float32Array(numbers.length))
          const isNumber = values.map((value) => (Number.isNaN(value) ? 0 : 1))
          const back = halves(encodeElements(type, values))
          for (const [index, number] of numbers.entries()) {
            if (isNumber[index] === 1) expect(back[index]).toBe(number)
          }
        }
      }),
    )
  })

  test("Q8_0 rounds halves away from zero and stores nothing as nothing", () => {
    const values = new Float32Array(64)
    values.set([127, 0.5, -0.5, 1.5, 0.49999997, -127])
    const bytes = new Int8Array(encodeElements("Q8_0", values).buffer)
    expect(halves(new Uint8Array(bytes.buffer, 0, 2))).toEqual([0x3c00])
    expect([...bytes.subarray(2, 8)]).toEqual([127, 1, -1, 2, 0, -127])
    expect([...bytes.subarray(34)].every((byte) => byte === 0)).toBe(true)
  })
})
