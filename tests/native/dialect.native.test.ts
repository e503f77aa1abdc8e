import assert from "node:assert/strict"
import { readdirSync, truncateSync } from "node:fs"
import { writeFile } from "node:fs/promises"
import { join } from "node:path"

import { loadModel } from "../../ffi/model.ts"
import { quantizeFile } from "../../ffi/quantize.ts"
import { inputOf } from "../../src/gguf/merge.ts"
import { readArray, readArrayBytes, readGguf } from "../../src/gguf/read.ts"
import { readLoadable, viewChunks } from "../../src/gguf/translate.ts"
import {
  type GgufInput,
  packNumbers,
  packStrings,
  type TensorSource,
  text,
  u32,
  writeGguf,
} from "../../src/gguf/write.ts"
import { LocalModel } from "../../src/model/local-model.ts"
import {
  bert,
  DIALECT_MODELS,
  type DialectModel,
  EMBEDDING_GEMMA,
  gemma3n,
  llama,
  type Shapes,
} from "./dialect-models.ts"
import { DEMO, describe, Folder, GREEDY, library, test, VOCABULARIES } from "./support.ts"

type Metadata = Map<string, GgufInput>

/** Small numbers that follow from the name of a tensor, whatever else is in the file. */
function numbersOf(name: string, count: number): Float32Array {
  let state = 7
  for (const character of name) state = (state * 31 + (character.codePointAt(0) ?? 0)) % 2 ** 31
  const numbers = new Float32Array(count)
  for (let i = 0; i < count; i++) {
    state = (state * 1_103_515_245 + 12_345) % 2 ** 31
    numbers[i] = (name.includes("norm") ? 1 : 0) + (state / 2 ** 31 - 0.5) / 2
  }
  return numbers
}

function tensorsOf(shapes: Shapes): TensorSource[] {
  return shapes.map(([name, ...dims]) => {
    const numbers = numbersOf(
      name,
      dims.reduce((product, size) => product * size, 1),
    )
    return { name, type: "F32", dims, chunks: [new Uint8Array(numbers.buffer)] }
  })
}

/** The tokenizer of a file. */
function tokenizerOf(path: string): Metadata {
  const keys = [...readGguf(path).metadata].filter(([key]) => key.startsWith("tokenizer."))
  return new Map(keys.map(([key, value]) => [key, inputOf(path, value)]))
}

const DEMO_TOKENIZER = tokenizerOf(DEMO)

function vocabulary(name: string): string {
  return join(VOCABULARIES, `ggml-vocab-${name}.gguf`)
}

/** Writes a model as llama.cpp wants it. */
async function writeStock(
  path: string,
  model: Omit<DialectModel, "ollama">,
  tokenizer: Metadata = DEMO_TOKENIZER,
): Promise<void> {
  const { architecture, fields } = model
  const metadata: Metadata = new Map([
    ["general.architecture", text(architecture)],
    ["general.file_type", u32(0)],
    ...tokenizer,
    ...Object.entries(model.tokenizer ?? {}),
    ...prefixed(architecture, fields),
  ])
  await writeGguf(path, { metadata, tensors: tensorsOf(model.tensors) })
}

/** Writes the same model as Ollama's registry has it. */
async function writeOllama(
  path: string,
  model: DialectModel,
  tokenizer: Metadata = DEMO_TOKENIZER,
): Promise<void> {
  const { ollama } = model
  const architecture = ollama.architecture ?? model.architecture
  const kept = Object.entries(model.fields).filter(([key]) => !ollama.without?.includes(key))
  const metadata: Metadata = new Map([
    ["general.architecture", text(architecture)],
    ["general.file_type", u32(0)],
    ...tokenizer,
    ...Object.entries(ollama.tokenizer ?? model.tokenizer ?? {}),
    ...prefixed(architecture, { ...Object.fromEntries(kept), ...ollama.fields }),
  ])
  const tensors = tensorsOf(model.tensors).map((tensor) => ({
    ...tensor,
    name: (ollama.names ?? []).reduce((name, rule) => name.replace(...rule), tensor.name),
  }))
  // Between others, as in real files.
  tensors.splice(3, 0, ...tensorsOf(ollama.extra ?? []))
  await writeGguf(path, { metadata, tensors })
}

function prefixed(
  architecture: string,
  fields: Readonly<Record<string, GgufInput>>,
): [string, GgufInput][] {
  return Object.entries(fields).map(([key, value]) => [`${architecture}.${key}`, value])
}

function load(path: string): Promise<LocalModel> {
  return LocalModel.load(library, {
    name: "m",
    path,
    contextTokens: 256,
    parallel: 1,
    flashAttention: "off",
    cacheType: "f16",
  })
}

/** The tokens of an answer, each with the likeliest and their probabilities. */
async function answer(path: string): Promise<unknown[]> {
  await using model = await load(path)
  const steps: unknown[] = []
  for await (const event of model.answer({
    input: { kind: "text", text: "one two three four" },
    sampling: GREEDY,
    maxTokens: 4,
    stop: [],
    logprobs: 3,
    wantsContext: false,
  })) {
    if (event.kind === "delta") steps.push(...event.logprobs)
  }
  return steps
}

/** The tokens of a prompt that Llama 3 cuts in another way than most, and of one more. */
async function promptTokens(path: string): Promise<readonly number[]> {
  await using model = await load(path)
  for await (const event of model.answer({
    input: { kind: "text", text: "In 2024 it's 12345 miles!" },
    sampling: GREEDY,
    maxTokens: 1,
    stop: [],
    wantsContext: true,
  })) {
    if (event.kind === "done") return event.context ?? []
  }
  return []
}

async function vector(path: string): Promise<number[]> {
  await using model = await load(path)
  return (await model.embed(["one two three four"])).flatMap((values) => [...values])
}

/** Fails unless both files of a folder give the same. */
async function expectSame(
  folder: Folder,
  outcome: (path: string) => Promise<readonly unknown[]>,
): Promise<void> {
  const expected = await outcome(folder.file("stock.gguf"))
  assert.ok(expected.length > 1)
  assert.deepEqual(await outcome(folder.file("ollama.gguf")), expected)
  assert.deepEqual(readdirSync(folder.path).toSorted(), ["ollama.gguf", "stock.gguf"])
}

describe("models of Ollama's registry answer as those made for llama.cpp", () => {
  for (const [title, model] of Object.entries(DIALECT_MODELS)) {
    test(title, async () => {
      using folder = new Folder()
      await writeStock(folder.file("stock.gguf"), model)
      await writeOllama(folder.file("ollama.gguf"), model)
      await expectSame(folder, answer)
    })
  }

  test("all of them can be quantised", async () => {
    for (const [title, model] of Object.entries(DIALECT_MODELS)) {
      using folder = new Folder()
      const [path, copy, output] = ["m.gguf", "copy.gguf", "out.gguf"].map((n) => folder.file(n))
      assert.ok(path !== undefined && copy !== undefined && output !== undefined)
      // Each quantiser takes all cores.
      // oxlint-disable no-await-in-loop
      await writeOllama(path, model)
      const { view } = readLoadable(path, title)
      assert.ok(view !== undefined)
      await writeFile(copy, viewChunks(view))
      await quantizeFile(library, { input: copy, output, type: "Q8_0" }, () => {})
      assert.ok((await answer(output)).length > 1, title)
      // oxlint-enable no-await-in-loop
    }
  })

  test("EmbeddingGemma", async () => {
    using folder = new Folder()
    await writeStock(folder.file("stock.gguf"), EMBEDDING_GEMMA)
    await writeOllama(folder.file("ollama.gguf"), EMBEDDING_GEMMA)
    await expectSame(folder, vector)
  })
})

describe("vocabularies of Ollama's registry", () => {
  test("tokens without a row in the embedding are left out", async () => {
    using folder = new Folder()
    const model = DIALECT_MODELS["Gemma 3"]
    assert.ok(model !== undefined)
    const { tokens, token_type: types } = demoArrays()
    const longer = new Map(DEMO_TOKENIZER)
    longer.set("tokenizer.ggml.tokens", packStrings([...tokens, "<image>"]))
    longer.set("tokenizer.ggml.token_type", packNumbers("i32", [...types, 3]))
    await writeStock(folder.file("stock.gguf"), model)
    await writeOllama(folder.file("ollama.gguf"), model, longer)
    await expectSame(folder, answer)
  })

  test("Gemma 3n: so are rows of the embedding that layers have none for", async () => {
    using folder = new Folder()
    const path = vocabulary("llama-spm")
    const [all, cut] = [tokenizerOf(path), tokenizerOf(path)]
    const count = 4096
    const arrays = arraysOf(path)
    cut.set("tokenizer.ggml.tokens", packStrings(arrays.tokens.slice(0, count)))
    cut.set("tokenizer.ggml.scores", packNumbers("f32", arrays.scores.slice(0, count)))
    cut.set("tokenizer.ggml.token_type", packNumbers("i32", arrays.token_type.slice(0, count)))
    // Bytes are not marked as such.
    all.set(
      "tokenizer.ggml.token_type",
      packNumbers(
        "i32",
        arrays.token_type.map((type) => (type === 6 ? 1 : type)),
      ),
    )
    await writeStock(folder.file("stock.gguf"), gemma3n(count), cut)
    const model = gemma3n(count)
    const longer = model.tensors.map(([name, ...dims]) =>
      name === "token_embd.weight"
        ? ([name, 64, arrays.tokens.length] as const)
        : ([name, ...dims] as const),
    )
    await writeOllama(folder.file("ollama.gguf"), { ...model, tensors: longer, ollama: {} }, all)
    await expectSame(folder, answer)
  })

  test("Llama 3 cuts text by its own rules, also when the file does not name them", async () => {
    using folder = new Folder()
    const tokenizer = tokenizerOf(vocabulary("llama-bpe"))
    const { length } = arraysOf(vocabulary("llama-bpe")).tokens
    await writeStock(folder.file("stock.gguf"), llama(length), tokenizer)
    const unnamed = new Map(tokenizer)
    unnamed.delete("tokenizer.ggml.pre")
    await writeOllama(folder.file("ollama.gguf"), { ...llama(length), ollama: {} }, unnamed)
    await expectSame(folder, promptTokens)
  })

  test("a map of characters in base64 is decoded", async () => {
    using folder = new Folder()
    const path = vocabulary("nomic-bert-moe")
    const tokenizer = tokenizerOf(path)
    const map = readGguf(path).metadata.get("tokenizer.ggml.precompiled_charsmap")
    assert.ok(map?.type === "array")
    const { length } = arraysOf(path).tokens
    await writeStock(folder.file("stock.gguf"), bert(length), tokenizer)
    const encoded = new Map(tokenizer)
    const base64 = Buffer.from(readArrayBytes(path, map)).toString("base64")
    encoded.set("tokenizer.ggml.precompiled_charsmap", packStrings(base64.split("")))
    await writeOllama(folder.file("ollama.gguf"), { ...bert(length), ollama: {} }, encoded)
    await expectSame(folder, vector)
  })
})

describe("a translated model", () => {
  test("that becomes shorter while it is read is an error, not a model of zeros", async () => {
    using folder = new Folder()
    const model = DIALECT_MODELS["gpt-oss"]
    assert.ok(model !== undefined)
    const path = folder.file("m.gguf")
    await writeOllama(path, model)
    const { paths, view } = readLoadable(path, "m")
    truncateSync(path, 300_000)
    await assert.rejects(loadModel(library, { paths, view }), {
      code: "invalid-input",
      message: /read error/,
    })
  })

  test("reports its progress, and loading it can be cancelled", async () => {
    using folder = new Folder()
    const model = DIALECT_MODELS["gpt-oss"]
    assert.ok(model !== undefined)
    const path = folder.file("m.gguf")
    await writeOllama(path, model)
    const options = {
      name: "m",
      path,
      contextTokens: 256,
      parallel: 1,
      flashAttention: "off",
      cacheType: "f16",
    } as const
    const aborted = AbortSignal.abort(new Error("enough"))
    await assert.rejects(LocalModel.load(library, options, { signal: aborted }), /enough/)
    const fractions: number[] = []
    await using loaded = await LocalModel.load(library, options, {
      onProgress: (fraction) => fractions.push(fraction),
    })
    assert.equal(loaded.facts.architecture, "gpt-oss")
    assert.ok(fractions.length > 0)
    assert.ok(fractions.every((fraction) => fraction >= 0 && fraction <= 1))
  })
})

interface TokenArrays {
  readonly tokens: readonly string[]
  readonly scores: readonly number[]
  readonly token_type: readonly number[]
}

function arraysOf(path: string): TokenArrays {
  const { metadata } = readGguf(path)
  const values = (key: string): readonly unknown[] => {
    const value = metadata.get(`tokenizer.ggml.${key}`)
    return value?.type === "array" ? readArray(path, value) : []
  }
  return {
    tokens: values("tokens").map(String),
    scores: values("scores").map(Number),
    token_type: values("token_type").map(Number),
  }
}

function demoArrays(): TokenArrays {
  return arraysOf(DEMO)
}
