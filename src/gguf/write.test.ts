import { describe, expect, test } from "bun:test"
import { existsSync, readFileSync } from "node:fs"
import { join } from "node:path"

import * as fc from "fast-check"

import { type GgufHeader, type GgufValue } from "./format.ts"
import { TemporaryFolder } from "./raw-file.ts"
import { readArrayBytes, readGguf } from "./read.ts"
import {
  encodeGguf,
  f32,
  flag,
  type GgufContent,
  type GgufInput,
  packFlags,
  packNumbers,
  packStrings,
  type TensorSource,
  text,
  u32,
  writeGguf,
} from "./write.ts"

const DEMO_MODEL = new URL("../../models/demo/cria-demo-q8_0.gguf", import.meta.url).pathname

/** What to write to get the file again that a header was read from. */
function contentOf(path: string, header: GgufHeader): GgufContent {
  const file = readFileSync(path)
  const packed = ([key, value]: readonly [string, GgufValue]): [string, GgufInput] => {
    if (value.type !== "array") return [key, value]
    const { type, elementType, length } = value
    return [key, { type, elementType, length, bytes: readArrayBytes(path, value) }]
  }
  const tensors = header.tensors.map(({ name, type, dims, offset, bytes }): TensorSource => {
    const start = header.dataOffset + offset
    return { name, type: type.name, dims, chunks: [file.subarray(start, start + bytes)] }
  })
  return { metadata: new Map([...header.metadata].map(packed)), tensors }
}

async function expectRoundTrip(path: string): Promise<void> {
  const copy = `${path}.copy`
  await writeGguf(copy, contentOf(path, readGguf(path)))
  expect(readFileSync(copy).equals(readFileSync(path))).toBe(true)
}

async function* inChunks(bytes: Uint8Array, chunkBytes: number) {
  for (let at = 0; at < bytes.length; at += chunkBytes) {
    yield await Promise.resolve(bytes.subarray(at, at + chunkBytes))
  }
}

async function* failing() {
  yield await Promise.resolve(new Uint8Array(4))
  throw new Error("disk on fire")
}

/** The error that a promise ends with, as text; empty when it does not. */
async function rejection(promise: Promise<unknown>): Promise<string> {
  return promise.then(() => "", String)
}

/** Encodes a file with one tensor, of 8 × F32 unless told otherwise. */
async function encode(tensor: Partial<TensorSource>, metadata = new Map<string, GgufInput>()) {
  const whole: TensorSource = {
    name: "t",
    type: "F32",
    dims: [8],
    chunks: [new Uint8Array(32)],
    ...tensor,
  }
  return Array.fromAsync(encodeGguf({ metadata, tensors: [whole] }))
}

const metadataValue: fc.Arbitrary<GgufInput> = fc.oneof(
  fc.nat({ max: 255 }).map((value) => ({ type: "u8" as const, value })),
  fc.integer({ min: -128, max: 127 }).map((value) => ({ type: "i8" as const, value })),
  fc.nat({ max: 65_535 }).map((value) => ({ type: "u16" as const, value })),
  fc.integer({ min: -32_768, max: 32_767 }).map((value) => ({ type: "i16" as const, value })),
  fc.nat({ max: 2 ** 32 - 1 }).map(u32),
  fc.integer().map((value) => ({ type: "i32" as const, value })),
  fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }).map((value) => ({ type: "u64" as const, value })),
  fc
    .bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n })
    .map((value) => ({ type: "i64" as const, value })),
  fc.float({ noNaN: true }).map(f32),
  fc.double({ noNaN: true }).map((value) => ({ type: "f64" as const, value })),
  fc.boolean().map(flag),
  fc.string({ unit: "binary" }).map(text),
  fc.array(fc.integer()).map((values) => packNumbers("i32", values)),
  fc.array(fc.string({ unit: "binary" })).map(packStrings),
  fc.array(fc.boolean()).map(packFlags),
)

const tensorSource = fc
  .record({
    name: fc.stringMatching(/^[a-z.]{1,60}$/),
    type: fc.constantFrom("F32" as const, "F16" as const, "I8" as const),
    dims: fc.array(fc.integer({ min: 1, max: 5 }), { minLength: 1, maxLength: 4 }),
  })
  .map(({ name, type, dims }): TensorSource => {
    const elements = dims.reduce((product, size) => product * size, 1)
    const bytes = new Uint8Array(elements * { F32: 4, F16: 2, I8: 1 }[type]).fill(elements)
    return { name, type, dims, chunks: inChunks(bytes, 7) }
  })

const content = fc.record({
  metadata: fc
    .array(fc.tuple(fc.stringMatching(/^test\.[a-z]{1,9}$/), metadataValue))
    .map((pairs) => new Map(pairs)),
  tensors: fc.uniqueArray(tensorSource, { selector: (tensor) => tensor.name, maxLength: 5 }),
  alignment: fc.constantFrom(undefined, 8, 64),
})

describe("writeGguf()", () => {
  test("writes what the reader reads", async () => {
    await fc.assert(
      fc.asyncProperty(content, async ({ metadata, tensors, alignment }) => {
        using folder = new TemporaryFolder()
        const path = join(folder.path, "m.gguf")
        if (alignment !== undefined) metadata.set("general.alignment", u32(alignment))
        await writeGguf(path, { metadata, tensors })
        const header = readGguf(path)
        expect(header.alignment).toBe(alignment ?? 32)
        expect([...header.metadata.keys()]).toEqual([...metadata.keys()])
        for (const [key, value] of metadata) {
          const { type } = value
          const expected =
            type === "array"
              ? { type, elementType: value.elementType, length: value.length }
              : value
          expect(header.metadata.get(key)).toMatchObject(expected)
        }
        expect(
          header.tensors.map(({ name, type, dims }) => ({ name, type: type.name, dims })),
        ).toEqual(tensors.map(({ name, type, dims }) => ({ name, type, dims: [...dims] })))
        await expectRoundTrip(path)
      }),
      { numRuns: 50 },
    )
  })

  test("reproduces the demo model byte for byte", async () => {
    using folder = new TemporaryFolder()
    await expectRoundTrip(folder.write(readFileSync(DEMO_MODEL)))
  })

  test("leaves no file behind when a tensor source fails", async () => {
    using folder = new TemporaryFolder()
    const path = join(folder.path, "m.gguf")
    const tensors: TensorSource[] = [{ name: "t", type: "F32", dims: [8], chunks: failing() }]
    expect(await rejection(writeGguf(path, { metadata: new Map(), tensors }))).toContain(
      "disk on fire",
    )
    expect(existsSync(path)).toBe(false)
  })
})

describe("encodeGguf()", () => {
  test.each<[string, Partial<TensorSource>, string]>([
    ["too few bytes", { chunks: [new Uint8Array(31)] }, 'tensor "t" has 32 bytes, 31 given'],
    [
      "too many bytes",
      { chunks: [new Uint8Array(33)] },
      'tensor "t" has at most 32 bytes, 33 given',
    ],
    ["rows of broken blocks", { type: "Q8_0" }, 'rows of tensor "t" are whole Q8_0 blocks'],
    ["a name that is too long", { name: "n".repeat(64) }, "fits 63 bytes"],
  ])("is broken by %s", async (_, tensor, problem) => {
    expect(await rejection(encode(tensor))).toContain(problem)
  })

  test.each([-1, 2 ** 32, 1.5, Number.NaN])("is broken by the u32 %p", async (value) => {
    const metadata = new Map([["k", u32(value)]])
    expect(await rejection(encode({}, metadata))).toContain("is an integer that fits u32")
  })

  test("aligns the data of every tensor", async () => {
    const chunks = await encode({ dims: [1], chunks: [new Uint8Array(4)] })
    expect(chunks.reduce((total, chunk) => total + chunk.length, 0) % 32).toBe(0)
  })
})
