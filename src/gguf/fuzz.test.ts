import { describe, expect, test } from "bun:test"
import { closeSync, ftruncateSync, openSync, writeSync } from "node:fs"
import { join } from "node:path"

import * as fc from "fast-check"

import { CriaError } from "../util/errors.ts"
import { cpuMs, fuzzBudget } from "../util/fuzz.ts"
import { modelFacts } from "./facts.ts"
import { arrayPair, integer, pair, rawBytes, string, TemporaryFolder, tensor } from "./raw-file.ts"
import { readArray, readGguf } from "./read.ts"

const FUZZ = fuzzBudget(2)

/** Time on the processor that is far more than any of these small files takes. */
const READ_MS_MAX = 5000

/** More than the tests themselves allocate between collections; far less than a declared length. */
const GROWTH_BYTES_MAX = 256 * 1024 * 1024

// Every value type, the keys that are checked, tensors of several types.
const VALID = rawBytes({
  pairs: [
    pair("general.architecture", "string", string("llama")),
    pair("general.alignment", "u32", integer(4, 32)),
    pair("general.file_type", "u32", integer(4, 15)),
    pair("llama.block_count", "u32", integer(4, 2)),
    pair("llama.embedding_length", "u32", integer(4, 256)),
    pair("llama.attention.head_count", "u32", integer(4, 4)),
    arrayPair("llama.attention.head_count_kv", "i32", [integer(4, 0), integer(4, 2)]),
    pair("split.no", "u16", integer(2, 0)),
    pair("a.u8", "u8", [1]),
    pair("a.i8", "i8", [1]),
    pair("a.i16", "i16", integer(2, -1)),
    pair("a.f32", "f32", integer(4, 0x3f800000)),
    pair("a.bool", "bool", [1]),
    pair("a.u64", "u64", integer(8, 1)),
    pair("a.i64", "i64", integer(8, -1)),
    pair("a.f64", "f64", integer(8, 0x3ff0000000000000n)),
    arrayPair("tokenizer.ggml.tokens", "string", [string("<0x00>"), string("a"), string("")]),
    arrayPair("tokenizer.ggml.token_type", "i32", [integer(4, 6), integer(4, 1), integer(4, 1)]),
  ],
  tensors: [
    tensor({ name: "a", dims: [8n, 2n] }),
    tensor({ name: "b", type: 8, dims: [32n], offset: 64n }),
    tensor({ name: "c", type: 12, dims: [256n], offset: 128n }),
  ],
  dataBytes: 272,
})

/** A file that is overwritten again and again. */
class Scratch implements Disposable {
  readonly #folder = new TemporaryFolder()
  readonly #path = join(this.#folder.path, "x.gguf")
  readonly #fd = openSync(this.#path, "w+")

  /** Reads the bytes as a model, with everything that may be asked of it. */
  read(bytes: Uint8Array): "model" | "refused" {
    ftruncateSync(this.#fd, 0)
    writeSync(this.#fd, bytes, 0, bytes.length, 0)
    const startMs = cpuMs()
    try {
      const header = readGguf(this.#path)
      for (const value of header.metadata.values()) {
        if (value.type === "array") readArray(this.#path, value)
      }
      modelFacts(header)
      return "model"
    } catch (error) {
      if (error instanceof CriaError && error.code === "invalid-input") return "refused"
      throw error
    } finally {
      expect(cpuMs() - startMs).toBeLessThan(READ_MS_MAX)
    }
  }

  [Symbol.dispose](): void {
    closeSync(this.#fd)
    this.#folder[Symbol.dispose]()
  }
}

describe("readGguf() — damaged files", () => {
  test("reads the file that is damaged below", () => {
    using scratch = new Scratch()
    expect(scratch.read(VALID)).toBe("model")
  })

  test("refuses the file cut at any byte", () => {
    using scratch = new Scratch()
    for (let bytes = 0; bytes < VALID.length; bytes += 1) {
      expect(scratch.read(VALID.subarray(0, bytes))).toBe("refused")
    }
  })

  test("reads or refuses the file with any bytes changed", () => {
    using scratch = new Scratch()
    const change = fc.tuple(fc.nat({ max: VALID.length - 1 }), fc.nat({ max: 255 }))
    fc.assert(
      fc.property(fc.array(change, { minLength: 1, maxLength: 8 }), (changes) => {
        const bytes = VALID.slice()
        for (const [at, value] of changes) bytes[at] = value
        scratch.read(bytes)
      }),
      { numRuns: 500 },
    )
  })

  test("reads or refuses anything after the magic", () => {
    using scratch = new Scratch()
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 300 }), (tail) => {
        scratch.read(Uint8Array.from([...VALID.subarray(0, 8), ...tail]))
      }),
      { numRuns: 500 },
    )
  })

  test(
    `reads or refuses whatever comes in ${FUZZ.seconds} s, in bounded memory`,
    () => {
      using scratch = new Scratch()
      const seed = Date.now()
      const endMs = performance.now() + 1000 * FUZZ.seconds
      Bun.gc(true)
      const startBytes = process.memoryUsage.rss()
      const changes = fc.sample(fc.array(mutation, { minLength: 1, maxLength: 5 }), {
        seed,
        numRuns: 10_000,
      })
      for (let run = 0; performance.now() < endMs; run += 1) {
        const bytes = (changes[run % changes.length] ?? []).reduce(
          (whole, mutate) => mutate(whole, run),
          VALID,
        )
        try {
          scratch.read(bytes)
        } catch (cause) {
          throw new Error(`Seed ${seed}, run ${run}: ${Buffer.from(bytes).toString("base64")}`, {
            cause,
          })
        }
      }
      expect(process.memoryUsage.rss() - startBytes).toBeLessThan(GROWTH_BYTES_MAX)
    },
    FUZZ.timeoutMs,
  )
})

type Mutation = (bytes: Uint8Array, run: number) => Uint8Array

/** Numbers on which bounds checks go wrong. */
const EXTREMES = [
  0n,
  1n,
  31n,
  2n ** 31n,
  2n ** 32n - 1n,
  2n ** 53n,
  2n ** 61n + 1n,
  2n ** 63n,
  2n ** 64n - 1n,
]

// The run takes part, so that repeated samples do different things.
const mutation: fc.Arbitrary<Mutation> = fc.oneof(
  fc
    .tuple(fc.nat(), fc.constantFrom(...EXTREMES), fc.constantFrom(1, 2, 4, 8))
    .map(([at, value, size]): Mutation => (bytes, run) => {
      const copy = bytes.slice()
      const start = (at + run) % Math.max(1, copy.length - size)
      for (const [index, byte] of integer(size, value).entries()) copy[start + index] = byte
      return copy
    }),
  fc.tuple(fc.nat(), fc.nat({ max: 40 })).map(([at, count]): Mutation => (bytes, run) => {
    const start = (at + run) % bytes.length
    return Uint8Array.from([...bytes.subarray(0, start), ...bytes.subarray(start + count)])
  }),
  fc
    .tuple(fc.nat(), fc.uint8Array({ maxLength: 40 }))
    .map(([at, inserted]): Mutation => (bytes, run) => {
      const start = (at + run) % bytes.length
      return Uint8Array.from([...bytes.subarray(0, start), ...inserted, ...bytes.subarray(start)])
    }),
)
