/**
 * The GGUF file format as data: value types, tensor types, file-type labels and what a parsed header is.
 *
 * Knows no file and no model. Ids and block sizes are those of ggml (`ggml.h`, `ggml-common.h`); the file
 * layout is the one of `gguf.h`: magic, version, counts, metadata, tensor infos, padding, tensor data.
 *
 * @module
 */

import { assert } from "../util/errors.ts"

/** The first four bytes of every GGUF file. */
export const GGUF_MAGIC = "GGUF"

/** The version we write. Versions 2 and 3 have the same little-endian layout and are both read. */
export const GGUF_VERSION = 3

/** Bytes. What `general.alignment` is when the key is absent (`GGUF_DEFAULT_ALIGNMENT`). */
export const DEFAULT_ALIGNMENT = 32

/** Metadata value types; the position in the list is the id in the file (`enum gguf_type`). */
export const VALUE_TYPES = [
  "u8",
  "i8",
  "u16",
  "i16",
  "u32",
  "i32",
  "f32",
  "bool",
  "string",
  "array",
  "u64",
  "i64",
  "f64",
] as const

/** Any type of a metadata value. */
export type GgufValueType = (typeof VALUE_TYPES)[number]

/** A type an array element can have: arrays do not nest. */
export type GgufElementType = Exclude<GgufValueType, "array">

/** Bytes of one element. For strings the length prefix, which is also the least a string takes. */
export const ELEMENT_BYTES: Readonly<Record<GgufElementType, number>> = {
  u8: 1,
  i8: 1,
  u16: 2,
  i16: 2,
  u32: 4,
  i32: 4,
  f32: 4,
  bool: 1,
  string: 8,
  u64: 8,
  i64: 8,
  f64: 8,
}

/** One decoded element: `u64` and `i64` are bigint, all other numbers are number. */
export type GgufElement = string | number | bigint | boolean

/** A metadata value that is not an array. */
export type GgufScalar =
  | {
      readonly type: "u8" | "i8" | "u16" | "i16" | "u32" | "i32" | "f32" | "f64"
      readonly value: number
    }
  | { readonly type: "u64"; readonly value: bigint }
  | { readonly type: "i64"; readonly value: bigint }
  | { readonly type: "bool"; readonly value: boolean }
  | { readonly type: "string"; readonly value: string }

/** An array as the reader reports it: where it lies, and its elements only when they are few. */
export interface GgufArray {
  readonly type: "array"
  readonly elementType: GgufElementType
  readonly length: number
  /** From the start of the file to the first element. */
  readonly byteOffset: number
  readonly byteLength: number
  /** Undefined for long arrays, which stay in the file until `readArray` is called. */
  readonly values: readonly GgufElement[] | undefined
}

/** A metadata value as the reader reports it. */
export type GgufValue = GgufScalar | GgufArray

/** One tensor info. */
export interface GgufTensor {
  readonly name: string
  readonly type: TensorType
  /** 1 to 4 sizes, all at least 1, the row length first (ggml's `ne`, the reverse of PyTorch's shape). */
  readonly dims: readonly number[]
  /** The product of `dims`. */
  readonly elements: number
  /** Bytes of the data, without padding. */
  readonly bytes: number
  /** Bytes from {@link GgufHeader.dataOffset}. */
  readonly offset: number
}

/** Everything before the tensor data of one file. */
export interface GgufHeader {
  readonly version: number
  /** Bytes. */
  readonly alignment: number
  /** In file order. */
  readonly metadata: ReadonlyMap<string, GgufValue>
  /** In file order, which is the order of their data. */
  readonly tensors: readonly GgufTensor[]
  /** From the start of the file to the first tensor; aligned when there is at least one. */
  readonly dataOffset: number
  readonly fileBytes: number
}

// id, name, elements per block, bytes per block. Ids 4, 5, 31-33 and 36-38 were removed from ggml.
const TENSOR_TYPE_ROWS = [
  [0, "F32", 1, 4],
  [1, "F16", 1, 2],
  [2, "Q4_0", 32, 18],
  [3, "Q4_1", 32, 20],
  [6, "Q5_0", 32, 22],
  [7, "Q5_1", 32, 24],
  [8, "Q8_0", 32, 34],
  [9, "Q8_1", 32, 36],
  [10, "Q2_K", 256, 84],
  [11, "Q3_K", 256, 110],
  [12, "Q4_K", 256, 144],
  [13, "Q5_K", 256, 176],
  [14, "Q6_K", 256, 210],
  [15, "Q8_K", 256, 292],
  [16, "IQ2_XXS", 256, 66],
  [17, "IQ2_XS", 256, 74],
  [18, "IQ3_XXS", 256, 98],
  [19, "IQ1_S", 256, 50],
  [20, "IQ4_NL", 32, 18],
  [21, "IQ3_S", 256, 110],
  [22, "IQ2_S", 256, 82],
  [23, "IQ4_XS", 256, 136],
  [24, "I8", 1, 1],
  [25, "I16", 1, 2],
  [26, "I32", 1, 4],
  [27, "I64", 1, 8],
  [28, "F64", 1, 8],
  [29, "IQ1_M", 256, 56],
  [30, "BF16", 1, 2],
  [34, "TQ1_0", 256, 54],
  [35, "TQ2_0", 256, 66],
  [39, "MXFP4", 32, 17],
  [40, "NVFP4", 64, 36],
  [41, "Q1_0", 128, 18],
  [42, "Q2_0", 64, 18],
] as const

/** The name of a tensor type, as ggml spells it but in capitals. */
export type TensorTypeName = (typeof TENSOR_TYPE_ROWS)[number][1]

/** How ggml stores the elements of a tensor. */
export interface TensorType {
  /** The number in the file (`enum ggml_type`). */
  readonly id: number
  readonly name: TensorTypeName
  /** Elements per block; rows are whole numbers of blocks. */
  readonly blockElements: number
  readonly blockBytes: number
}

/** Every tensor type of the pinned llama.cpp. */
export const TENSOR_TYPES: readonly TensorType[] = TENSOR_TYPE_ROWS.map(
  ([id, name, blockElements, blockBytes]) => ({ id, name, blockElements, blockBytes }),
)

const TYPES_BY_ID = new Map(TENSOR_TYPES.map((type) => [type.id, type]))
const TYPES_BY_NAME = new Map(TENSOR_TYPES.map((type) => [type.name, type]))

/** The type with this number in a file; undefined for numbers that ggml does not know or has removed. */
export function tensorTypeById(id: number): TensorType | undefined {
  return TYPES_BY_ID.get(id)
}

/** The type with this name. */
export function tensorType(name: TensorTypeName): TensorType {
  const type = TYPES_BY_NAME.get(name)
  assert(type, `tensor type "${name}" is in the table`)
  return type
}

/** Bytes of `elements` elements of a type; `elements` is a multiple of the block size. */
export function elementsBytes(type: TensorType, elements: number): number {
  return (elements / type.blockElements) * type.blockBytes
}

/** The first multiple of `alignment` that is not below `offset`. Exact up to 2^53. */
export function alignUp(offset: number, alignment: number): number {
  return Math.ceil(offset / alignment) * alignment
}

// `enum llama_ftype`, except 4: Ollama's own number for gpt-oss, a value that llama.cpp no longer uses.
const FILE_TYPE_LABELS: ReadonlyMap<number, string> = new Map([
  [1, "F16"],
  [2, "Q4_0"],
  [3, "Q4_1"],
  [4, "MXFP4"],
  [7, "Q8_0"],
  [8, "Q5_0"],
  [9, "Q5_1"],
  [10, "Q2_K"],
  [11, "Q3_K_S"],
  [12, "Q3_K_M"],
  [13, "Q3_K_L"],
  [14, "Q4_K_S"],
  [15, "Q4_K_M"],
  [16, "Q5_K_S"],
  [17, "Q5_K_M"],
  [18, "Q6_K"],
  [19, "IQ2_XXS"],
  [20, "IQ2_XS"],
  [21, "Q2_K_S"],
  [22, "IQ3_XS"],
  [23, "IQ3_XXS"],
  [24, "IQ1_S"],
  [25, "IQ4_NL"],
  [26, "IQ3_S"],
  [27, "IQ3_M"],
  [28, "IQ2_S"],
  [29, "IQ2_M"],
  [30, "IQ4_XS"],
  [31, "IQ1_M"],
  [32, "BF16"],
  [36, "TQ1_0"],
  [37, "TQ2_0"],
  [38, "MXFP4_MOE"],
  [39, "NVFP4"],
  [40, "Q1_0"],
  [41, "Q2_0"],
])

/** The label of `general.file_type`. Like Ollama, "unknown" also for 0, which would be all F32. */
export function fileTypeLabel(fileType: number | undefined): string {
  return (fileType === undefined ? undefined : FILE_TYPE_LABELS.get(fileType)) ?? "unknown"
}
