import { describe, expect, test } from "bun:test"
import { closeSync, ftruncateSync, openSync, writeSync } from "node:fs"
import { join } from "node:path"

import { TemporaryFolder } from "../gguf/raw-file.ts"
import { elementsOf, type SafetensorsType, type StoredTensor } from "./safetensors.ts"
import { tensorSource } from "./stream.ts"
import { type PlannedTensor, wholePart } from "./tensors.ts"

function stored(
  folder: TemporaryFolder,
  type: SafetensorsType,
  shape: readonly number[],
  data: Uint8Array,
): StoredTensor {
  const path = join(folder.path, `${shape.join("x")}-${type}`)
  const file = openSync(path, "w")
  writeSync(file, data)
  closeSync(file)
  return { name: "t", type, shape, path, byteOffset: 0, bytes: data.length }
}

async function floats(planned: PlannedTensor): Promise<number[]> {
  const values: number[] = []
  for await (const chunk of tensorSource(planned, "F32").chunks) {
    values.push(...new Float32Array(chunk.buffer, chunk.byteOffset, chunk.length / 4))
  }
  return values
}

function bytesOf(values: readonly number[]): Uint8Array {
  return new Uint8Array(Float32Array.from(values).buffer)
}

const COUNT = Array.from({ length: 12 }, (_, index) => index)

describe("tensorSource()", () => {
  test("interleaves the halves of each head", async () => {
    using folder = new TemporaryFolder()
    const tensor = stored(folder, "F32", [8, 1], bytesOf(COUNT.slice(0, 8)))
    const planned = { name: "q", shape: [8, 1], parts: [wholePart(tensor)], headRows: 4 }
    expect(await floats(planned)).toEqual([0, 2, 1, 3, 4, 6, 5, 7])
  })

  test("takes rows out of the middle, and the rows of several tensors", async () => {
    using folder = new TemporaryFolder()
    const tensor = stored(folder, "F32", [6, 2], bytesOf(COUNT))
    const part = { ...wholePart(tensor), firstRow: 1, rows: 2 }
    const planned = { name: "x", shape: [2, 2, 2], parts: [part, { ...part, firstRow: 4 }] }
    expect(await floats(planned)).toEqual([2, 3, 4, 5, 8, 9, 10, 11])
  })

  test("multiplies with the factor of the block, also when rows are reordered and blocks stand over", async () => {
    using folder = new TemporaryFolder()
    const weights = stored(folder, "I8", [4, 3], Uint8Array.from(Array(12).fill(1) as number[]))
    const factors = stored(folder, "F32", [2, 2], bytesOf([1, 2, 3, 4]))
    const scale = { stored: factors, blockRows: 2, blockColumns: 2, columns: 2 }
    const planned = { name: "x", shape: [4, 3], parts: [wholePart(weights, scale)] }
    expect(await floats(planned)).toEqual([1, 1, 2, 1, 1, 2, 3, 3, 4, 3, 3, 4])
    // Rows 0, 2, 1, 3.
    expect(await floats({ ...planned, headRows: 4 })).toEqual([1, 1, 2, 3, 3, 4, 1, 1, 2, 3, 3, 4])
  })

  test("transposes, and adds to norms in the precision of the model", async () => {
    using folder = new TemporaryFolder()
    const tensor = stored(folder, "F32", [2, 3], bytesOf(COUNT.slice(0, 6)))
    const planned = { name: "x", shape: [3, 2], parts: [wholePart(tensor)], isTransposed: true }
    expect(await floats(planned)).toEqual([0, 3, 1, 4, 2, 5])
    const half = new Uint8Array(Float16Array.of(0.00012207).buffer)
    const norm = stored(folder, "F16", [1], half)
    expect(await floats({ name: "n", shape: [1], parts: [wholePart(norm)], shift: 1 })).toEqual([1])
  })

  test("needs no more memory for larger tensors", async () => {
    using folder = new TemporaryFolder()
    const path = join(folder.path, "large")
    // Without content on the disk: a hole.
    const file = openSync(path, "w")
    const bytes = 768 * 1024 * 1024
    ftruncateSync(file, bytes)
    closeSync(file)
    const shape = [bytes / 4096, 2048]
    const tensor: StoredTensor = { name: "t", type: "BF16", shape, path, byteOffset: 0, bytes }
    expect(2 * elementsOf(shape)).toBe(bytes)
    Bun.gc(true)
    const before = process.memoryUsage().rss
    let read = 0
    let most = 0
    for await (const chunk of tensorSource({ name: "t", shape, parts: [wholePart(tensor)] }, "BF16")
      .chunks) {
      read += chunk.length
      most = Math.max(most, process.memoryUsage().rss - before)
    }
    expect(read).toBe(bytes)
    // Chunks are 2 MiB; the rest is what the runtime likes to keep.
    expect(most).toBeLessThan(128 * 1024 * 1024)
  })
})
