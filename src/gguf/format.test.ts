import { describe, expect, test } from "bun:test"

import {
  alignUp,
  elementsBytes,
  fileTypeLabel,
  TENSOR_TYPES,
  tensorType,
  tensorTypeById,
} from "./format.ts"

describe("tensor types", () => {
  test("have distinct ids and names", () => {
    expect(new Set(TENSOR_TYPES.map((type) => type.id)).size).toBe(TENSOR_TYPES.length)
    expect(new Set(TENSOR_TYPES.map((type) => type.name)).size).toBe(TENSOR_TYPES.length)
  })

  test.each([4, 5, 31, 38, 43, -1])("do not include %i", (id) => {
    expect(tensorTypeById(id)).toBeUndefined()
  })

  // 4.5, 6.5625 and 8.5 bits per weight.
  test.each([
    ["F32", 1024],
    ["Q4_K", 144],
    ["Q6_K", 210],
    ["Q8_0", 272],
  ] as const)("%s takes %i bytes for 256 elements", (name, bytes) => {
    expect(elementsBytes(tensorType(name), 256)).toBe(bytes)
  })
})

describe("fileTypeLabel()", () => {
  test.each([
    [1, "F16"],
    [7, "Q8_0"],
    [15, "Q4_K_M"],
    [32, "BF16"],
    [38, "MXFP4_MOE"],
    [0, "unknown"],
    [5, "unknown"],
    [1024, "unknown"],
    [undefined, "unknown"],
  ])("%p is %s", (fileType, label) => {
    expect(fileTypeLabel(fileType)).toBe(label)
  })
})

describe("alignUp()", () => {
  test.each([
    [0, 32, 0],
    [1, 32, 32],
    [32, 32, 32],
    [2 ** 52 + 1, 8, 2 ** 52 + 8],
  ])("%i to a multiple of %i is %i", (offset, alignment, aligned) => {
    expect(alignUp(offset, alignment)).toBe(aligned)
  })
})
