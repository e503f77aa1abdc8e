import { describe, expect, test } from "bun:test"
import { execFileSync } from "node:child_process"
import { chmodSync, statSync, symlinkSync, truncateSync } from "node:fs"
import { join } from "node:path"

import { CriaError } from "../util/errors.ts"
import { MAX_ELEMENT_STRING_BYTES } from "./cursor.ts"
import {
  arrayPair,
  type Bytes,
  integer,
  pair,
  rawBytes,
  type RawFile,
  string,
  TemporaryFolder,
  tensor,
  valueType,
} from "./raw-file.ts"
import {
  MAX_KEY_BYTES,
  MAX_PAIRS,
  MAX_TENSORS,
  readArray,
  readArrayBytes,
  readGguf,
} from "./read.ts"
import { packStrings, writeGguf } from "./write.ts"

const DEMO_MODEL = new URL("../../models/demo/cria-demo-q8_0.gguf", import.meta.url).pathname

function readBytes(bytes: Uint8Array) {
  using folder = new TemporaryFolder()
  return readGguf(folder.write(bytes), { label: "x.gguf" })
}

function readRaw(raw: RawFile) {
  return readBytes(rawBytes(raw))
}

/** Expects `invalid-input` with a message that names the file and contains `problem`. */
function expectRefusal(read: () => unknown, problem: string) {
  const error = catchError(read)
  expect(error).toBeInstanceOf(CriaError)
  expect(error).toMatchObject({ code: "invalid-input" })
  expect(String(error)).toStartWith('CriaError: Cannot read "x.gguf" as GGUF: ')
  expect(String(error)).toContain(problem)
}

function catchError(run: () => unknown): unknown {
  try {
    run()
  } catch (error) {
    return error
  }
  throw new Error("Expected an error, none was thrown")
}

const text = (key: string, value: string) => pair(key, "string", string(value))
const u32 = (key: string, value: number) => pair(key, "u32", integer(4, value))
const i32 = (key: string, value: number) => pair(key, "i32", integer(4, value))
const vocabulary = (...texts: readonly string[]) => ({
  pairs: [
    arrayPair(
      "tokenizer.ggml.tokens",
      "string",
      texts.map((value) => string(value)),
    ),
  ],
})
const split = (no: number, count: number, total: number) => [
  pair("split.no", "u16", integer(2, no)),
  pair("split.count", "u16", integer(2, count)),
  pair("split.tensors.count", "i32", integer(4, total)),
]

describe("readGguf() — what is not a GGUF file", () => {
  test.each([0, 1, 3, 4, 8, 12, 23])("refuses a file of %i bytes", (bytes) => {
    const whole = rawBytes()
    expectRefusal(
      () => readBytes(whole.subarray(0, bytes)),
      `the file is ${bytes} bytes, a GGUF header has at least 24`,
    )
  })

  test.each([
    [{ magic: "ggml" }, 'it starts with "ggml", expected "GGUF"'],
    [{ magic: "\u0000\u001b[2" }, 'it starts with "\\u0000\\u001b[2", expected "GGUF"'],
    [{ version: 0 }, "it has GGUF version 0, expected 2 or 3"],
    [{ version: 1 }, "it has GGUF version 1, expected 2 or 3"],
    [{ version: 4 }, "it has GGUF version 4, expected 2 or 3"],
    [{ version: 0x0300_0000 }, "it is big-endian, expected little-endian"],
  ])("refuses %j", (raw, problem) => {
    expectRefusal(() => readRaw(raw), problem)
  })

  test("reports a missing file as not found", () => {
    expect(catchError(() => readGguf("/nowhere/x.gguf"))).toMatchObject({
      code: "not-found",
      message: 'Cannot read "/nowhere/x.gguf" as GGUF: no such file',
    })
  })

  test("refuses a folder", () => {
    using folder = new TemporaryFolder()
    expectRefusal(() => readGguf(folder.path, { label: "x.gguf" }), "it is a directory, not a file")
  })

  test("refuses a FIFO without waiting for a writer", () => {
    using folder = new TemporaryFolder()
    const path = join(folder.path, "fifo")
    execFileSync("mkfifo", [path])
    expectRefusal(
      () => readGguf(path, { label: "x.gguf" }),
      "it is a device, pipe or socket, not a file",
    )
  })

  test.each(["/dev/zero", "/dev/null"])("refuses %s without reading it", (path) => {
    expectRefusal(
      () => readGguf(path, { label: "x.gguf" }),
      "it is a device, pipe or socket, not a file",
    )
  })

  test("refuses a link that points at itself", () => {
    using folder = new TemporaryFolder()
    const path = join(folder.path, "loop")
    symlinkSync("loop", path)
    expectRefusal(() => readGguf(path, { label: "x.gguf" }), "opening it failed with ELOOP")
  })

  test("refuses a path with a NUL", () => {
    expectRefusal(() => readGguf("a\0b", { label: "x.gguf" }), "opening it failed")
  })

  // The superuser can read everything.
  test.skipIf(process.getuid?.() === 0)(
    "says what to do about a file that may not be read (needs a user other than root)",
    () => {
      using folder = new TemporaryFolder()
      const path = folder.write(rawBytes())
      chmodSync(path, 0o000)
      expectRefusal(() => readGguf(path, { label: "x.gguf" }), "permission denied")
      expect(catchError(() => readGguf(path))).toMatchObject({
        hint: expect.stringContaining("chmod"),
      })
    },
  )

  test("keeps the path out of messages when a label is given", () => {
    const error = catchError(() => readGguf("/secret/place.gguf", { label: "llama3" }))
    expect(String(error)).not.toContain("secret")
  })
})

describe("readGguf() — counts and lengths", () => {
  const tooManyTensors = `the number of tensors is %, expected at most ${MAX_TENSORS}`
  const tooManyPairs = `the number of metadata pairs is %, expected at most ${MAX_PAIRS}`

  test.each([2n ** 63n, 2n ** 64n - 1n, 2n ** 32n, 2n ** 61n + 1n, BigInt(MAX_TENSORS) + 1n])(
    "refuses %p tensors or pairs",
    (count) => {
      expectRefusal(
        () => readRaw({ tensorCount: count }),
        tooManyTensors.replace("%", String(count)),
      )
      expectRefusal(() => readRaw({ pairCount: count }), tooManyPairs.replace("%", String(count)))
    },
  )

  test("refuses counts that the file is too short for", () => {
    expectRefusal(
      () => readRaw({ tensorCount: 1000n }),
      "1000 tensors need at least 33000 bytes, 0 are left",
    )
    expectRefusal(
      () => readRaw({ pairCount: 1000n }),
      "1000 metadata pairs and 0 tensors need at least 14000",
    )
  })

  test.each<[string, Bytes, string]>([
    [
      "a key longer than the file",
      [...string("k", 1000n), ...valueType("u8"), 1, 1, 1],
      "key 0 needs 1000 bytes",
    ],
    [
      "a key of 2^64-1 bytes",
      [...string("k", 2n ** 64n - 1n), 0, 0, 0, 0, 0],
      "length of key 0 is 18446744073709551615",
    ],
    [
      "a key beyond the specification",
      string("k".repeat(MAX_KEY_BYTES + 1)),
      "length of key 0 is 65536",
    ],
    [
      "an empty key",
      [...string(""), ...valueType("u32"), 1, 0, 0, 0],
      'key 0 is "", expected a name',
    ],
    ["a NUL in a key", pair("a\0b", "u8", [1]), "expected a name"],
    [
      "an unknown value type",
      [...string("k"), ...integer(4, 13), 0],
      'key "k" has type 13, expected at most 12',
    ],
    ["a string longer than the file", pair("k", "string", string("v", 99n)), '"k" needs 99 bytes'],
    [
      "a string of 2^63 bytes",
      pair("k", "string", string("v", 2n ** 63n)),
      'length of "k" is 9223372036854775808',
    ],
    // A version-1 string has a length of 32 bits: what follows becomes the upper half.
    ["a version-1 string", pair("k", "string", integer(4, 4), [1, 2, 3, 4]), 'length of "k" is'],
    ["a boolean of 2", pair("k", "bool", [2]), '"k" is a boolean of 2, expected 0 or 1'],
    [
      "an array in an array",
      arrayPair("k", "array", [integer(12, 0)]),
      'key "k" is an array of arrays',
    ],
    [
      "an array of an unknown type",
      pair("k", "array", integer(4, 77), integer(8, 0)),
      'key "k" has type 77',
    ],
    ["2^64-1 strings", arrayPair("k", "string", [], 2n ** 64n - 1n), "length of array"],
    ["2^61+1 numbers of 8 bytes", arrayPair("k", "u64", [], 2n ** 61n + 1n), "length of array"],
    [
      "more numbers than bytes",
      arrayPair("k", "f32", [integer(4, 0)], 2),
      "is 2, expected at most 1",
    ],
    [
      "a string in an array longer than the file",
      arrayPair("k", "string", [string("v", 9n)]),
      "needs 9 bytes",
    ],
    [
      "a string in an array of 1 GiB",
      arrayPair("k", "string", [string("v", 2n ** 30n)]),
      `string 0 of "k" has 1073741824 bytes, expected at most ${MAX_ELEMENT_STRING_BYTES}`,
    ],
    [
      "a string in an array of 2^32 bytes",
      arrayPair("k", "string", [string("v", 2n ** 32n)]),
      "has 4294967296",
    ],
  ])("refuses %s", (_, pairBytes, problem) => {
    expectRefusal(() => readRaw({ pairs: [pairBytes] }), problem)
  })

  test("refuses a key that is there twice", () => {
    expectRefusal(() => readRaw({ pairs: [u32("k", 1), u32("k", 2)] }), 'key "k" is there twice')
  })

  test("cuts and escapes foreign text in messages", () => {
    const error = catchError(() =>
      readRaw({ pairs: [pair(`\u001b[31m${"k".repeat(5000)}`, "bool", [7])] }),
    )
    expect(String(error)).not.toContain("\u001b")
    expect(String(error).length).toBeLessThan(200)
  })

  test("accepts keys of the longest legal size", () => {
    const key = "k".repeat(MAX_KEY_BYTES)
    expect(readRaw({ pairs: [u32(key, 1)] }).metadata.get(key)).toEqual({ type: "u32", value: 1 })
  })

  test("reads an endless header in bounded time and memory", () => {
    using folder = new TemporaryFolder()
    const path = folder.write(rawBytes({ pairs: [arrayPair("k", "string", [], 10n ** 10n)] }))
    truncateSync(path, 2 ** 40) // sparse: zeros, which are empty strings
    Bun.gc(true)
    const rssBytes = process.memoryUsage.rss()
    expectRefusal(() => readGguf(path, { label: "x.gguf" }), "beyond the first 134217728 bytes")
    expect(process.memoryUsage.rss() - rssBytes).toBeLessThan(64 * 1024 * 1024)
  })

  test.each<[string, RawFile]>([
    ["tensors", { tensorCount: BigInt(MAX_TENSORS) }],
    ["pairs", { pairCount: BigInt(MAX_PAIRS) }],
    ["tokens", { pairs: [arrayPair("tokenizer.ggml.tokens", "string", [], 2n ** 21n)] }],
    ["numbers", { pairs: [arrayPair("k", "u64", [], 2n ** 40n)] }],
    ["string", { pairs: [pair("k", "string", integer(8, 2n ** 40n))] }],
  ])("allocates nothing for %s that are declared and not there", (_, raw) => {
    Bun.gc(true)
    const before = process.memoryUsage.rss()
    expect(catchError(() => readRaw(raw))).toBeInstanceOf(CriaError)
    expect(process.memoryUsage.rss() - before).toBeLessThan(64 * 1024 * 1024)
  })
})

describe("readGguf() — alignment", () => {
  test.each([0, 1, 3, 4, 48, 2 ** 31, 131_072])("refuses %i", (alignment) => {
    expectRefusal(
      () => readRaw({ pairs: [u32("general.alignment", alignment)] }),
      `"general.alignment" is ${alignment}, expected a power of two from 8 to 65536`,
    )
  })

  test.each<[string, Bytes]>([
    ["u64", pair("general.alignment", "u64", integer(8, 32))],
    ["string", text("general.alignment", "32")],
    ["array", arrayPair("general.alignment", "u32", [integer(4, 32)])],
  ])("refuses the type %s", (type, bytes) => {
    expectRefusal(
      () => readRaw({ pairs: [bytes] }),
      `"general.alignment" has type ${type}, expected u32`,
    )
  })

  test("obeys it", () => {
    const raw = {
      pairs: [u32("general.alignment", 8)],
      tensors: [tensor({ dims: [2n] })],
      dataBytes: 64,
    }
    const header = readRaw(raw)
    expect(header.alignment).toBe(8)
    expect(header.dataOffset % 8).toBe(0)
  })
})

describe("readGguf() — metadata that llama.cpp would trip over", () => {
  const model = (...pairs: readonly Bytes[]) => ({
    pairs: [text("general.architecture", "llama"), ...pairs],
  })

  test.each<[string, Bytes, string]>([
    ["block_count 0", u32("llama.block_count", 0), "is 0 (u32), expected an integer from 1 to 512"],
    ["block_count 513", u32("llama.block_count", 513), "is 513 (u32)"],
    ["block_count -1", i32("llama.block_count", -1), "is -1 (i32)"],
    [
      "block_count 2^63",
      pair("llama.block_count", "u64", integer(8, 2n ** 63n)),
      "expected an integer",
    ],
    ["block_count as string", text("llama.block_count", "32"), 'is "32" (string)'],
    [
      "block_count as float",
      pair("llama.block_count", "f32", integer(4, 0x42000000)),
      "is 32 (f32)",
    ],
    [
      "block_count as array",
      arrayPair("llama.block_count", "u32", [integer(4, 1)]),
      "an array of 1 × u32",
    ],
    [
      "head_count 0",
      u32("llama.attention.head_count", 0),
      "is 0 (u32), expected an integer from 1",
    ],
    [
      "head_count_kv 0",
      u32("llama.attention.head_count_kv", 0),
      "is 0 (u32), expected an integer from 1",
    ],
    ["head_count_kv as string", text("llama.attention.head_count_kv", "8"), 'is "8" (string)'],
    [
      "head_count_kv with a negative layer",
      arrayPair("llama.attention.head_count_kv", "i32", [integer(4, 8), integer(4, -8)]),
      "contains -8, expected integers from 0",
    ],
    [
      "head_count_kv of strings",
      arrayPair("llama.attention.head_count_kv", "string", [string("8")]),
      "an array of 1 × string, expected at most 512 integers",
    ],
    [
      "head_count_kv for 513 layers",
      arrayPair("llama.attention.head_count_kv", "u8", [integer(513, 0)], 513),
      "an array of 513 × u8, expected at most 512 integers",
    ],
    ["embedding_length 0", u32("llama.embedding_length", 0), "is 0 (u32)"],
    ["context_length 0", u32("llama.context_length", 0), "is 0 (u32)"],
    ["expert_count 1025", u32("llama.expert_count", 1025), "expected an integer from 0 to 1024"],
    [
      "full_attention_interval 0",
      u32("llama.full_attention_interval", 0),
      "expected an integer from 1",
    ],
    ["pooling_type 5", u32("llama.pooling_type", 5), "expected an integer from 0 to 4"],
    [
      "vocab_size 2^32-1",
      u32("llama.vocab_size", 2 ** 32 - 1),
      "expected an integer from 1 to 2097152",
    ],
    ["ssm.time_step_rank 0", u32("llama.ssm.time_step_rank", 0), "is 0 (u32)"],
    ["vision.patch_size 0", u32("llama.vision.patch_size", 0), "is 0 (u32)"],
    ["split.no as u32", u32("split.no", 0), '"split.no" has type u32, expected u16'],
    [
      "split.count without split.no",
      pair("split.count", "u16", integer(2, 2)),
      '"split.no" is missing',
    ],
    [
      "token types of u32",
      arrayPair("tokenizer.ggml.token_type", "u32", []),
      "expected an array of i32",
    ],
    ["scores as string", text("tokenizer.ggml.scores", "1"), "expected an array of f32 or i32"],
    [
      "tokens of numbers",
      arrayPair("tokenizer.ggml.tokens", "u8", []),
      "expected an array of string",
    ],
    [
      "merges of numbers",
      arrayPair("tokenizer.ggml.merges", "u8", []),
      "expected an array of string",
    ],
  ])("refuses %s", (_, bytes, problem) => {
    expectRefusal(() => readRaw(model(bytes)), problem)
  })

  test.each<[string, Bytes]>([
    ["a number", u32("general.architecture", 1)],
    ["an empty name", text("general.architecture", "")],
    ["a path", text("general.architecture", "../llama")],
  ])("refuses %s as architecture", (_, bytes) => {
    expectRefusal(() => readRaw({ pairs: [bytes] }), '"general.architecture" is ')
  })

  test("refuses parts that disagree with themselves", () => {
    expectRefusal(() => readRaw({ pairs: split(2, 2, 0) }), '"split.no" is 2, expected below the 2')
    expectRefusal(
      () => readRaw({ pairs: split(0, 2, 0), tensors: [tensor()], dataBytes: 32 }),
      '"split.tensors.count" is 0, expected at least the 1 tensors of this part',
    )
  })

  test("accepts layers without attention, and recurrent models without heads", () => {
    const hybrid = model(
      arrayPair("llama.attention.head_count_kv", "i32", [integer(4, 0), integer(4, 8)]),
    )
    expect(readRaw(hybrid).metadata.size).toBe(2)
    const recurrent = [
      text("general.architecture", "mamba2"),
      u32("mamba2.attention.head_count", 0),
    ]
    expect(readRaw({ pairs: recurrent }).metadata.size).toBe(2)
  })

  test("accepts encoders without blocks of their own", () => {
    const pairs = [text("general.architecture", "clip"), u32("clip.vision.block_count", 0)]
    expect(readRaw({ pairs }).metadata.size).toBe(2)
  })
})

describe("readGguf() — vocabulary", () => {
  test.each(["<0x-1>", "<0xZZ>", "<0x 1>", "<0x0g>"])("refuses the byte token %s", (token) => {
    expectRefusal(
      () => readRaw(vocabulary("a", token)),
      `token 1 is "${token}", expected two hexadecimal digits`,
    )
  })

  test("accepts byte tokens and what only looks like them", () => {
    expect(
      readRaw(vocabulary("<0x00>", "<0xfF>", "<0x>", "<0x123>", "<0xZZ", "0x-1")).metadata.size,
    ).toBe(1)
  })

  test("refuses a token that is there twice", () => {
    expectRefusal(
      () => readRaw(vocabulary("a", "b", "a")),
      'token 2 is "a" like one before it, expected each once',
    )
  })

  test("accepts empty tokens", () => {
    expect(readRaw(vocabulary("", "a", "")).metadata.size).toBe(1)
  })

  test("refuses fewer scores or types than tokens", () => {
    const { pairs } = vocabulary("a", "b")
    const types = arrayPair("tokenizer.ggml.token_type", "i32", [integer(4, 1)])
    expectRefusal(
      () => readRaw({ pairs: [...pairs, types] }),
      "expected one for each of the 2 tokens",
    )
  })

  test("accepts merges of texts that are no tokens, which llama.cpp looks up when it needs them", () => {
    const merges = arrayPair("tokenizer.ggml.merges", "string", [string("x y"), string("")])
    expect(readRaw({ pairs: [...vocabulary("a").pairs, merges] }).metadata.size).toBe(2)
  })
})

describe("readGguf() — tensors", () => {
  test.each<[string, readonly Bytes[], string]>([
    ["no dimensions", [tensor({ dims: [] })], 'tensor "t" has 0 dimensions, expected 1 to 4'],
    ["5 dimensions", [tensor({ dims: [1n, 1n, 1n, 1n, 1n] })], "has 5 dimensions"],
    ["2^31 dimensions", [tensor({ dimCount: 2 ** 31 })], "has 2147483648 dimensions"],
    [
      "a dimension of 0",
      [tensor({ dims: [8n, 0n] })],
      'dimension 1 of tensor "t" is 0, expected at least 1',
    ],
    ["a negative dimension", [tensor({ dims: [-8n] })], "dimension 0 of"],
    [
      "a size that wraps 64 bits",
      [tensor({ dims: [2n ** 32n, 2n ** 32n, 2n] })],
      "expected below 2^53 elements",
    ],
    [
      "a size that wraps to 0",
      [tensor({ dims: [2n ** 31n, 2n ** 31n, 4n] })],
      "expected below 2^53 elements",
    ],
    ["an unknown type", [tensor({ type: 43 })], 'tensor "t" has type 43, which ggml does not know'],
    ["a removed type", [tensor({ type: 31 })], "has type 31, which ggml does not know"],
    ["a type of 2^32-1", [tensor({ type: 2 ** 32 - 1 })], "has type 4294967295"],
    [
      "rows of broken blocks",
      [tensor({ type: 12, dims: [128n, 2n] })],
      "has rows of 128, expected a multiple of 256 for Q4_K",
    ],
    ["an unaligned offset", [tensor({ offset: 1n })], 'tensor "t" starts at offset 1, expected 0'],
    [
      "an offset of 2^64-1",
      [tensor({ offset: 2n ** 64n - 1n })],
      'the offset of tensor "t" is 18446744073709551615',
    ],
    ["data past the end", [tensor({ dims: [9n] })], "the file at 96: it may be incomplete"],
    [
      "overlapping data",
      [tensor(), tensor({ name: "u" })],
      'tensor "u" starts at offset 0, expected 32',
    ],
    [
      "a gap between data",
      [tensor(), tensor({ name: "u", offset: 64n })],
      "starts at offset 64, expected 32",
    ],
    ["the same name twice", [tensor(), tensor({ offset: 32n })], 'tensor "t" is there twice'],
    ["no name", [tensor({ name: "" })], 'tensor 0 is called "", expected a name'],
    ["a name that hides another", [tensor({ name: "t\0u" })], "expected a name"],
    [
      "a name of 64 bytes",
      [tensor({ name: "n".repeat(64) })],
      "length of name of tensor 0 is 64, expected at most 63",
    ],
  ])("refuses %s", (_, tensors, problem) => {
    expectRefusal(() => readRaw({ tensors, dataBytes: 32 }), problem)
  })

  test("refuses a file that ends in the tensor infos", () => {
    const bytes = rawBytes({
      tensors: [tensor(), tensor({ name: "u", offset: 32n })],
      dataBytes: 64,
    })
    expectRefusal(() => readBytes(bytes.subarray(0, 80)), "are left")
  })

  test("accepts data that ends without padding", () => {
    const header = readRaw({ tensors: [tensor({ dims: [3n] })], dataBytes: 12 })
    expect(header.tensors[0]).toMatchObject({ name: "t", elements: 3, bytes: 12, offset: 0 })
  })

  test("accepts a vocabulary without tensors, which ends unaligned", () => {
    const header = readRaw({ pairs: [u32("k", 1)] })
    expect(header.tensors).toEqual([])
    expect(header.dataOffset).toBe(header.fileBytes)
  })
})

describe("readGguf() — real files", () => {
  test("reads the demo model", () => {
    const header = readGguf(DEMO_MODEL)
    expect(header).toMatchObject({
      version: 3,
      alignment: 32,
      fileBytes: statSync(DEMO_MODEL).size,
    })
    expect(header.metadata.get("general.architecture")).toEqual({ type: "string", value: "qwen3" })
    expect(header.tensors.length).toBe(57)
    const last = header.tensors.at(-1)
    expect(header.dataOffset + (last?.offset ?? 0) + (last?.bytes ?? 0)).toBe(header.fileBytes)
  })

  test("leaves the vocabulary in the file until it is asked for", () => {
    const array = readGguf(DEMO_MODEL).metadata.get("tokenizer.ggml.tokens")
    if (array?.type !== "array") throw new Error("Expected an array")
    expect(array).toMatchObject({ elementType: "string", length: 4096, values: undefined })
    const tokens = readArray(DEMO_MODEL, array)
    expect(tokens.length).toBe(4096)
    expect(tokens).toContain("<|im_end|>")
    expect(readArrayBytes(DEMO_MODEL, array).length).toBe(array.byteLength)
  })

  test("keeps short arrays", () => {
    const pairs = [
      arrayPair("a", "i32", [integer(4, -1), integer(4, 2)]),
      arrayPair("b", "string", [string("x")]),
    ]
    const { metadata } = readRaw({ pairs })
    expect(metadata.get("a")).toMatchObject({ values: [-1, 2], byteLength: 8 })
    expect(metadata.get("b")).toMatchObject({ values: ["x"], byteLength: 9 })
  })

  test("reads version 2 like version 3", () => {
    expect(readRaw({ version: 2, pairs: [u32("k", 1)] }).version).toBe(2)
  })

  test("reads an array that is no longer there as an error", () => {
    using folder = new TemporaryFolder()
    const path = folder.write(rawBytes({ pairs: [arrayPair("k", "u8", [integer(2000, 0)], 2000)] }))
    const array = readGguf(path).metadata.get("k")
    truncateSync(path, 100)
    if (array?.type !== "array") throw new Error("Expected an array")
    expectRefusal(() => readArray(path, array, { label: "x.gguf" }), "are left")
  })

  test("does not read 150k tokens and as many merges until they are asked for", async () => {
    using folder = new TemporaryFolder()
    const path = join(folder.path, "m.gguf")
    const strings = packStrings(Array.from({ length: 150_000 }, (_, index) => `token${index}`))
    const keys = ["tokenizer.ggml.tokens", "tokenizer.ggml.merges"]
    const metadata = new Map(keys.map((key) => [key, strings]))
    await writeGguf(path, { metadata, tensors: [] })
    const { metadata: read } = readGguf(path)
    for (const key of keys) expect(read.get(key)).toMatchObject({ length: 150_000 })
  })
})
