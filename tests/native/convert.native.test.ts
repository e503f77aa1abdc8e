import assert from "node:assert/strict"
import { readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { fileURLToPath } from "node:url"

import { loadModel } from "../../ffi/model.ts"
import { type ConvertType, convertFolder } from "../../src/convert/convert.ts"
import type { Architecture } from "../../src/convert/families.ts"
import { ModelFolder } from "../../src/convert/folder.ts"
import { Hyperparameters } from "../../src/convert/hyperparameters.ts"
import { readVocabulary } from "../../src/convert/vocabulary.ts"
import { readArray, readArrayBytes, readGguf } from "../../src/gguf/read.ts"
import { type GgufInput, writeGguf } from "../../src/gguf/write.ts"
import { LocalModel } from "../../src/model/local-model.ts"
import { DEMO, describe, Folder, GREEDY, library, test, VOCABULARIES } from "./support.ts"

const FIXTURES = fileURLToPath(new URL("../fixtures", import.meta.url))
const DEMO_FOLDER = join(FIXTURES, "hf-cria-demo")

/** What Hugging Face's own library makes of the texts; see `tokens.py` there. */
const HUGGING_FACE = JSON.parse(
  readFileSync(join(FIXTURES, "convert/tokens.json"), "utf8"),
) as Readonly<Record<string, readonly (readonly number[])[]>>

const CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+"
const REST = " ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
const BYTES = { type: "ByteLevel", add_prefix_space: false, use_regex: false }
const WORDS = { ...BYTES, use_regex: true }

function split(expression: string): object {
  const pattern = { type: "Split", pattern: { Regex: expression }, behavior: "Isolated" }
  return { type: "Sequence", pretokenizers: [pattern, BYTES] }
}

/** The rules that `tokenizer.json` of the model has, which its GGUF vocabulary does not tell. */
const BYTE_PAIRS: Readonly<Record<string, object>> = {
  "llama-bpe": split(`${CONTRACTIONS}|\\p{N}{1,3}|${REST}`),
  qwen2: split(`${CONTRACTIONS}|\\p{N}|${REST}`),
  qwen35: split(
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?[\\p{L}\\p{M}]+|\\p{N}| ?[^\\s\\p{L}\\p{M}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
  ),
  "gpt-2": WORDS,
  starcoder: {
    type: "Sequence",
    pretokenizers: [{ type: "Digits", individual_digits: true }, WORDS],
  },
  refact: {
    type: "Sequence",
    pretokenizers: [{ type: "Digits", individual_digits: true }, WORDS],
  },
}

const CASED = "[^\\r\\n\\p{L}\\p{N}]?"
const UPPER = "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]"
const LOWER = "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]"
const ENGLISH = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
const CASED_REST = " ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"

/** Rules of models whose vocabularies do not come with llama.cpp, as in `tokens.py` of the fixtures. */
const OTHER_RULES: Readonly<Record<string, object>> = {
  tekken: split(`${CASED}${UPPER}*${LOWER}+|${CASED}${UPPER}+${LOWER}*|\\p{N}|${CASED_REST}`),
  dbrx: split(`${CONTRACTIONS}|\\p{N}{1,3}|${REST}`),
  "gpt-4o": split(
    `${CASED}${UPPER}*${LOWER}+${ENGLISH}?|${CASED}${UPPER}+${LOWER}*${ENGLISH}?|\\p{N}{1,3}|${CASED_REST}`,
  ),
  smollm: {
    type: "Sequence",
    pretokenizers: [{ type: "Digits", individual_digits: true }, WORDS],
  },
}

/** A vocabulary that comes with llama.cpp. */
interface Real {
  readonly path: string
  readonly texts: readonly string[]
  readonly types: readonly number[]
  readonly scores: readonly number[]
  readonly merges: readonly string[]
  /** What is neither tokenizer nor anything that a vocabulary does not need. */
  readonly metadata: ReadonlyMap<string, GgufInput>
}

function readReal(name: string): Real {
  const path = join(VOCABULARIES, `ggml-vocab-${name}.gguf`)
  const { metadata } = readGguf(path)
  const values = (key: string): readonly unknown[] => {
    const value = metadata.get(`tokenizer.ggml.${key}`)
    return value?.type === "array" ? readArray(path, value) : []
  }
  const kept = [...metadata].flatMap(([key, value]): [string, GgufInput][] => {
    if (key.startsWith("tokenizer.")) return []
    if (value.type !== "array") return [[key, value]]
    const { elementType, length } = value
    return [[key, { type: "array", elementType, length, bytes: readArrayBytes(path, value) }]]
  })
  return {
    path,
    texts: values("tokens").map(String),
    types: values("token_type").map(Number),
    scores: values("scores").map(Number),
    merges: values("merges").map(String),
    metadata: new Map(kept),
  }
}

/**
 * Converts the tokenizer of a folder and tokenises with it the texts that llama.cpp comes with.
 *
 * @param others Expected tokens; without, those that come with the texts.
 */
async function checkTokens(
  real: Real,
  folder: Folder,
  architecture: Architecture,
  others?: readonly (readonly number[])[],
): Promise<void> {
  const config = new Hyperparameters({ vocab_size: real.texts.length }, "config.json")
  const source = new ModelFolder(folder.path)
  const vocabulary = readVocabulary({ architecture, config, folder: source })
  const target = folder.file("vocabulary.gguf")
  const metadata = new Map([...real.metadata, ...vocabulary.metadata])
  await writeGguf(target, { metadata, tensors: [] })
  using model = await loadModel(library, { paths: [target], vocabularyOnly: true })
  const texts = readFileSync(`${real.path}.inp`, "utf8").split("\n__ggml_vocab_test__\n")
  const lines = readFileSync(`${real.path}.out`, "utf8").split("\n")
  assert.ok(texts.length > 40)
  for (const [index, text] of texts.entries()) {
    const own = (lines[index] ?? "").trim().split(/\s+/).filter(Boolean).map(Number)
    const expected = others === undefined ? own : others[index]
    const tokens = [...model.tokenize(text, { addSpecial: false, parseSpecial: false })]
    assert.deepEqual(tokens, expected, JSON.stringify(text))
  }
}

function writeJson(folder: Folder, name: string, value: unknown): void {
  writeFileSync(folder.file(name), JSON.stringify(value))
}

function addedTokens(real: Real): object[] {
  return real.texts.flatMap((content, id) =>
    real.types[id] === 3 ? [{ id, content, special: true, normalized: false }] : [],
  )
}

describe("convert: real vocabularies cut text as their makers say", () => {
  for (const [name, rules] of Object.entries(BYTE_PAIRS)) {
    test(`byte pairs of ${name}`, async () => {
      using folder = new Folder()
      const real = readReal(name)
      const vocab = Object.fromEntries(real.texts.map((text, id) => [text, id]))
      writeJson(folder, "tokenizer.json", {
        added_tokens: addedTokens(real),
        pre_tokenizer: rules,
        model: { type: "BPE", vocab, merges: real.merges, ignore_merges: name === "llama-bpe" },
      })
      await checkTokens(real, folder, "qwen2")
    })
  }

  for (const [name, rules] of Object.entries(OTHER_RULES)) {
    test(`byte pairs of ${name}, with the vocabulary of llama-bpe`, async () => {
      using folder = new Folder()
      const real = readReal("llama-bpe")
      writeJson(folder, "tokenizer.json", {
        pre_tokenizer: rules,
        model: {
          type: "BPE",
          vocab: Object.fromEntries(real.texts.map((text, id) => [text, id])),
          merges: real.merges,
          ignore_merges: name === "tekken",
        },
      })
      await checkTokens(real, folder, "qwen2", HUGGING_FACE[name])
    })
  }

  for (const name of ["llama-spm", "phi-3"]) {
    test(`SentencePiece of ${name}`, async () => {
      using folder = new Folder()
      const real = readReal(name)
      writeFileSync(folder.file("tokenizer.model"), sentencePieces(real))
      await checkTokens(real, folder, "llama")
    })
  }

  test("SentencePiece of llama-spm in the form of character pairs", async () => {
    using folder = new Folder()
    const real = readReal("llama-spm")
    const ids = new Map(real.texts.map((text, id) => [text, id]))
    const merges = real.texts
      .flatMap((text, id) => (real.types[id] === 1 ? splits(text, id) : []))
      .filter(({ left, right }) => ids.has(left) && ids.has(right))
      .toSorted((a, b) => (real.scores[b.id] ?? 0) - (real.scores[a.id] ?? 0))
    writeJson(folder, "tokenizer.json", {
      added_tokens: addedTokens(real),
      model: {
        type: "BPE",
        byte_fallback: true,
        unk_token: "<unk>",
        vocab: Object.fromEntries(ids),
        merges: merges.map(({ left, right }) => [left, right]),
      },
    })
    await checkTokens(real, folder, "llama")
  })

  test("SentencePiece of gemma-4 in the form of character pairs", async () => {
    using folder = new Folder()
    const real = readReal("gemma-4")
    writeJson(folder, "tokenizer.json", {
      added_tokens: addedTokens(real),
      model: {
        type: "BPE",
        byte_fallback: true,
        unk_token: "<unk>",
        vocab: Object.fromEntries(real.texts.map((text, id) => [text, id])),
        merges: real.merges,
      },
    })
    await checkTokens(real, folder, "gemma3")
  })

  test("word pieces of bert-bge", async () => {
    using folder = new Folder()
    const real = readReal("bert-bge")
    const words = real.texts.map((text, id) => {
      if (real.types[id] === 3) return text
      return text.startsWith("▁") ? text.slice(1) : `##${text}`
    })
    writeJson(folder, "tokenizer.json", {
      added_tokens: addedTokens(real),
      normalizer: { type: "BertNormalizer", lowercase: true, strip_accents: null },
      model: { type: "WordPiece", vocab: Object.fromEntries(words.map((word, id) => [word, id])) },
    })
    writeJson(folder, "tokenizer_config.json", { unk_token: "[UNK]", cls_token: "[CLS]" })
    await checkTokens(real, folder, "bert")
  })
})

function splits(text: string, id: number): { left: string; right: string; id: number }[] {
  const characters = Array.from(text)
  return characters.slice(1).map((_, index) => ({
    left: characters.slice(0, index + 1).join(""),
    right: characters.slice(index + 1).join(""),
    id,
  }))
}

/** The file that SentencePiece writes: per token a message of text, score and type. */
function sentencePieces(real: Real): Buffer {
  return Buffer.concat(
    real.texts.map((content, id) => {
      const text = Buffer.from(content)
      const score = Buffer.alloc(4)
      score.writeFloatLE(real.scores[id] ?? 0)
      const piece = Buffer.concat([
        Buffer.from([0x0a, ...varint(text.length)]),
        text,
        Buffer.from([0x15]),
        score,
        Buffer.from([0x18, real.types[id] ?? 1]),
      ])
      return Buffer.concat([Buffer.from([0x0a, ...varint(piece.length)]), piece])
    }),
  )
}

function varint(value: number): number[] {
  return value < 128 ? [value] : [(value & 127) | 128, ...varint(value >> 7)]
}

async function convertDemo(folder: Folder, type: ConvertType): Promise<string> {
  const target = folder.file(`demo-${type}.gguf`)
  for await (const _ of convertFolder(DEMO_FOLDER, target, { type }));
  return target
}

async function answers(path: string): Promise<string[]> {
  await using model = await LocalModel.load(library, {
    name: "demo",
    path,
    contextTokens: 512,
    parallel: 1,
    flashAttention: "auto",
    cacheType: "f16",
  })
  const texts: string[] = []
  for (const content of [
    "What is the capital of France?",
    "2+3?",
    "Tell me a story about a cat.",
  ]) {
    let text = ""
    for await (const event of model.answer({
      input: {
        kind: "chat",
        messages: [{ role: "user", content }],
        tools: [],
        thinking: false,
        truncate: false,
        before: [],
      },
      sampling: GREEDY,
      maxTokens: 60,
      stop: [],
      wantsContext: false,
    })) {
      if (event.kind === "delta") text += event.content
    }
    texts.push(text)
  }
  return texts
}

describe("convert: the demo model", () => {
  test("answers as the file it ships in, converted to the same type", async () => {
    using folder = new Folder()
    const converted = await answers(await convertDemo(folder, "q8_0"))
    assert.deepEqual(converted, await answers(DEMO))
    assert.equal(converted[0], "The capital of France is Paris.")
  })

  test("answers in the type it was trained in", async () => {
    using folder = new Folder()
    const converted = await answers(await convertDemo(folder, "auto"))
    assert.equal(converted[0], "The capital of France is Paris.")
  })
})
