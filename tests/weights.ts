/**
 * Files made from the demo model, for tests of what changes weights.
 *
 * @module
 */

import { readFileSync } from "node:fs"
import { fileURLToPath } from "node:url"

import type { GgufTensor } from "../src/gguf/format.ts"
import { inputOf, tensorsOf } from "../src/gguf/merge.ts"
import { readGguf } from "../src/gguf/read.ts"
import { f32, type GgufInput, type TensorSource, text, u32, writeGguf } from "../src/gguf/write.ts"

const DEMO = fileURLToPath(new URL("../models/demo/cria-demo-q8_0.gguf", import.meta.url))

const BLOCK_ELEMENTS = 32
const BLOCK_BYTES = 34

/** A 16-bit float. */
function half(bits: number): number {
  const exponent = (bits >> 10) & 31
  const fraction = bits & 1023
  const size = exponent === 0 ? fraction * 2 ** -24 : (1024 + fraction) * 2 ** (exponent - 25)
  return bits & 0x8000 ? -size : size
}

/** The numbers of a tensor in Q8_0: a scale and 32 bytes per block. */
function numbersOf(bytes: Uint8Array): Float32Array {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  const numbers = new Float32Array((bytes.length / BLOCK_BYTES) * BLOCK_ELEMENTS)
  for (let i = 0; i < numbers.length; i++) {
    const block = Math.floor(i / BLOCK_ELEMENTS) * BLOCK_BYTES
    const scale = half(view.getUint16(block, true))
    numbers[i] = scale * view.getInt8(block + 2 + (i % BLOCK_ELEMENTS))
  }
  return numbers
}

const demo = readGguf(DEMO)
const file = readFileSync(DEMO)

function bytesOf({ offset, bytes }: GgufTensor): Uint8Array {
  return file.subarray(demo.dataOffset + offset, demo.dataOffset + offset + bytes)
}

function bytesOfNumbers(numbers: Float32Array): Uint8Array {
  return new Uint8Array(numbers.buffer)
}

/** Writes the demo model in F32, or its first layers. */
export async function writeFloats(path: string, layers = Infinity): Promise<void> {
  const kept = demo.tensors.filter(({ name }) => {
    const [, layer = 0] = /^blk\.(\d+)\./.exec(name) ?? []
    return Number(layer) < layers
  })
  const tensors = kept.map((tensor): TensorSource => {
    const { name, dims, type } = tensor
    const bytes = bytesOf(tensor)
    const chunks = [type.name === "Q8_0" ? bytesOfNumbers(numbersOf(bytes)) : bytes]
    return { name, dims, type: "F32", chunks }
  })
  const metadata = metadataOfDemo().set("general.file_type", u32(0))
  if (layers < Infinity) metadata.set("qwen3.block_count", u32(layers))
  await writeGguf(path, { metadata, tensors })
}

/** Writes the demo model with some tensors full of zeros. */
export async function writeWithout(path: string, names: readonly string[]): Promise<void> {
  const tensors = tensorsOf(DEMO, demo).map((tensor, i) => {
    const size = demo.tensors[i]?.bytes ?? 0
    return names.includes(tensor.name) ? { ...tensor, chunks: [new Uint8Array(size)] } : tensor
  })
  await writeGguf(path, { metadata: metadataOfDemo(), tensors })
}

/** Writes an adapter that takes some tensors of the demo model away, times a factor. */
export async function writeAdapter(
  path: string,
  names: readonly string[],
  { factor = 1, architecture = "qwen3" } = {},
): Promise<void> {
  const tensors = names.flatMap((name): TensorSource[] => {
    const tensor = demo.tensors.find((other) => other.name === name)
    if (tensor === undefined) throw new Error(`the demo model has ${name}`)
    const [columns = 0, rows = 0] = tensor.dims
    const identity = new Float32Array(columns * columns)
    for (let i = 0; i < columns; i++) identity[i * columns + i] = 1
    const negative = numbersOf(bytesOf(tensor)).map((value) => -value * factor)
    return [
      {
        name: `${name}.lora_a`,
        type: "F32",
        dims: [columns, columns],
        chunks: [bytesOfNumbers(identity)],
      },
      {
        name: `${name}.lora_b`,
        type: "F32",
        dims: [columns, rows],
        chunks: [bytesOfNumbers(negative)],
      },
    ]
  })
  const rank = tensors[0]?.dims[0] ?? 1
  const metadata = new Map<string, GgufInput>([
    ["general.architecture", text(architecture)],
    ["general.type", text("adapter")],
    ["adapter.type", text("lora")],
    // Divided by the rank it is 1.
    ["adapter.lora.alpha", f32(rank)],
  ])
  await writeGguf(path, { metadata, tensors })
}

/** Writes an importance matrix that finds every column of every matrix equally important. */
export async function writeImportance(path: string): Promise<void> {
  const metadata = new Map<string, GgufInput>([
    ["general.type", text("imatrix")],
    ["general.architecture", text("imatrix")],
    [
      "imatrix.datasets",
      { type: "array", elementType: "string", length: 0, bytes: new Uint8Array() },
    ],
    ["imatrix.chunk_count", u32(1)],
    ["imatrix.chunk_size", u32(512)],
  ])
  const matrices = demo.tensors.filter(({ dims }) => dims.length === 2)
  const tensors = matrices.flatMap(({ name, dims: [columns = 0] }): TensorSource[] => [
    {
      name: `${name}.in_sum2`,
      type: "F32",
      dims: [columns, 1],
      chunks: [bytesOfNumbers(new Float32Array(columns).fill(1))],
    },
    {
      name: `${name}.counts`,
      type: "F32",
      dims: [1, 1],
      chunks: [bytesOfNumbers(new Float32Array(1).fill(1))],
    },
  ])
  await writeGguf(path, { metadata, tensors })
}

function metadataOfDemo(): Map<string, GgufInput> {
  return new Map([...demo.metadata].map(([key, value]) => [key, inputOf(DEMO, value)]))
}
