/**
 * Turns the tokenizer of a model into the `tokenizer.` metadata of a GGUF file.
 *
 * Decides by what is in the folder: a SentencePiece file, its equivalent in JSON, byte pairs, or word pieces. Types,
 * scores and the padding to the size of the embeddings are those of llama.cpp's converter.
 *
 * @module
 */

import { flag, type GgufInput, packNumbers, packStrings, text, u32 } from "../gguf/write.ts"
import type { Architecture } from "./families.ts"
import type { ModelFolder } from "./folder.ts"
import type { Hyperparameters } from "./hyperparameters.ts"
import { isObject } from "./json.ts"
import { preTokenizerName, preTokenizerOfClass, signature } from "./pre-tokenizer.ts"
import { readSentencePieces, TOKEN_TYPES } from "./sentencepiece.ts"
import { specialTokens, tokenText } from "./special-tokens.ts"
import { readTokenizer, type TokenizerFile } from "./tokenizer-json.ts"

/** A vocabulary as it is written. */
export interface Vocabulary {
  readonly metadata: ReadonlyMap<string, GgufInput>
  /** Tokens, with those that pad it. */
  readonly tokens: number
}

/** The score of a token that no merge makes. */
const ADDED_SCORE = -1000
const UNUSED_SCORE = -10_000

const SENTENCE_PIECES = "tokenizer.model"

/** The end of a turn, by llama.cpp's converter: in the first Gemma, and in CodeLlama, known by its vocabulary. */
const GEMMA_TURN_END = 107
const CODE_LLAMA_TOKENS = 32_016
const CODE_LLAMA_TURN_END = 32_010

/** Models of code that do without a token at the beginning; by the size of their vocabulary. */
const GRANITE_CODE_TOKENS = 49_152

interface Context {
  readonly architecture: Architecture
  readonly config: Hyperparameters
  readonly folder: ModelFolder
}

/** Tokens while they are collected. */
interface Tokens {
  readonly texts: string[]
  readonly types: number[]
  /** Only of SentencePiece. */
  readonly scores?: number[]
}

/**
 * Reads the tokenizer of a model.
 *
 * @throws {CriaError} `not-found` when there is none; `invalid-input` when it is of a kind that llama.cpp lacks.
 */
export function readVocabulary(context: Context): Vocabulary {
  const { folder, architecture, config } = context
  const settings = folder.object("tokenizer_config.json") ?? {}
  const isGpt2 = architecture === "phi3" && settings["tokenizer_class"] === "GPT2Tokenizer"
  const metadata = folder.has(SENTENCE_PIECES) && !isGpt2 ? fromPieces(context) : fromJson(context)
  const put = (key: string, value: GgufInput): void => {
    metadata.map.set(`tokenizer.ggml.${key}`, value)
  }
  const addTurnEnd = (id: number): void => {
    if (!metadata.map.has("tokenizer.ggml.eot_token_id")) put("eot_token_id", u32(id))
  }
  if (isLlama(architecture)) {
    const prefix = settings["add_prefix_space"]
    if (typeof prefix === "boolean") put("add_space_prefix", flag(prefix))
    if (config.count("vocab_size") === CODE_LLAMA_TOKENS) addTurnEnd(CODE_LLAMA_TURN_END)
    if (config.count("vocab_size") === GRANITE_CODE_TOKENS) put("add_bos_token", flag(false))
  }
  if (architecture.startsWith("gemma") && metadata.isSentencePiece) {
    put("add_space_prefix", flag(false))
    if (architecture === "gemma") addTurnEnd(GEMMA_TURN_END)
  }
  return { metadata: metadata.map, tokens: metadata.tokens }
}

/**
 * Rows of the embedding matrix that have tokens; undefined when all rows are kept.
 *
 * Gemma 3 has rows for images after those for tokens, which llama.cpp does not want.
 */
export function embeddingRows(context: Context, vocabulary: Vocabulary): number | undefined {
  const { folder, architecture } = context
  if (architecture !== "gemma3") return undefined
  if (folder.has(SENTENCE_PIECES)) return vocabulary.tokens
  const tokenizer = readTokenizer(folder)
  return tokenizer === undefined
    ? undefined
    : new Set([...tokenizer.tokens.keys(), ...tokenizer.added.map((token) => token.id)]).size
}

interface Written {
  readonly map: Map<string, GgufInput>
  readonly tokens: number
  readonly isSentencePiece: boolean
}

function isLlama(architecture: Architecture): boolean {
  return architecture === "llama" || architecture === "granite" || architecture === "smollm3"
}

function write(
  kind: string,
  pre: string,
  tokens: Tokens,
  {
    folder,
    merges,
    checksIds,
  }: { folder: ModelFolder; merges?: readonly string[]; checksIds: boolean },
): Written {
  const map = new Map<string, GgufInput>([
    ["tokenizer.ggml.model", text(kind)],
    ["tokenizer.ggml.pre", text(pre)],
    ["tokenizer.ggml.tokens", packStrings(tokens.texts)],
  ])
  if (tokens.scores !== undefined)
    map.set("tokenizer.ggml.scores", packNumbers("f32", tokens.scores))
  map.set("tokenizer.ggml.token_type", packNumbers("i32", tokens.types))
  if (merges !== undefined && merges.length > 0)
    map.set("tokenizer.ggml.merges", packStrings(merges))
  const count = tokens.texts.length
  for (const [key, value] of specialTokens(folder, checksIds ? count : undefined))
    map.set(key, value)
  return { map, tokens: count, isSentencePiece: kind === "llama" }
}

function fromPieces(context: Context): Written {
  const { folder, config, architecture } = context
  const pieces = readSentencePieces(folder, SENTENCE_PIECES)
  const count = config.count("vocab_size") || pieces.length
  const tokens = {
    texts: Array.from({ length: count }, (_, id) => pieces[id]?.text ?? `[PAD${id}]`),
    types: Array.from({ length: count }, (_, id) => pieces[id]?.type ?? TOKEN_TYPES.unused),
    scores: Array.from({ length: count }, (_, id) => pieces[id]?.score ?? UNUSED_SCORE),
  }
  const add = (id: number, content: string, type: number): void => {
    if (id >= count) return
    tokens.texts[id] = content
    tokens.types[id] = type
    tokens.scores[id] = ADDED_SCORE
  }
  for (const [content, id] of Object.entries(folder.object("added_tokens.json") ?? {})) {
    if (typeof id === "number") add(id, content, TOKEN_TYPES.userDefined)
  }
  for (const token of addedInSettings(context)) {
    const isControl = token.isSpecial || (architecture !== "phi3" && looksSpecial(token.content))
    const content =
      isControl || architecture === "phi3" ? token.content : token.content.replaceAll("▁", " ")
    add(token.id, content, isControl ? TOKEN_TYPES.control : TOKEN_TYPES.userDefined)
  }
  return write("llama", "default", tokens, { folder, checksIds: true })
}

/** For Phi-3 also those of `tokenizer.json`. */
function addedInSettings({ folder, architecture }: Context): TokenizerFile["added"] {
  const decoder = folder.object("tokenizer_config.json")?.["added_tokens_decoder"]
  const listed = architecture === "phi3" ? folder.object("tokenizer.json")?.["added_tokens"] : []
  const all: readonly (readonly [unknown, unknown])[] = [
    ...Object.entries(isObject(decoder) ? decoder : {}),
    ...(Array.isArray(listed) ? listed : []).map(
      (token: unknown) => [isObject(token) ? token["id"] : undefined, token] as const,
    ),
  ]
  return all.flatMap(([key, token]) => {
    const id = Number(key)
    const content = tokenText(token)
    if (!Number.isInteger(id) || id < 0 || content === undefined) return []
    return [{ id, content, isSpecial: isObject(token) && token["special"] === true }]
  })
}

function fromJson(context: Context): Written {
  const { folder, architecture, config } = context
  const tokenizer = readTokenizer(folder)
  if (tokenizer === undefined) {
    const hint = "tokenizer.json or tokenizer.model is expected beside the weights"
    throw folder.missing("a tokenizer", hint)
  }
  if (architecture === "bert" || architecture === "nomic-bert") {
    return fromWordPieces(tokenizer, context)
  }
  if (tokenizer.kind !== "BPE") {
    throw folder.wrong("tokenizer.json", `its model is ${tokenizer.kind}, expected BPE`)
  }
  if (tokenizer.hasByteTokens) return fromCharacterPairs(tokenizer, context)
  const pre =
    Object.keys(tokenizer.file).length === 0
      ? preTokenizerOfClass(tokenizer.settings["tokenizer_class"])
      : preTokenizerName(tokenizer.file, tokenizer.settings)
  if (pre === undefined) {
    const rules = signature(tokenizer.file["pre_tokenizer"])
    throw folder.wrong(
      "tokenizer.json",
      `llama.cpp does not cut text like it does: ${rules || "not at all"}`,
    )
  }
  const tokens = paddedTokens(tokenizer, config, folder)
  return write("gpt2", pre, tokens, { folder, merges: tokenizer.merges, checksIds: false })
}

/** All ids up to the size of the embeddings. */
function paddedTokens(
  tokenizer: TokenizerFile,
  config: Hyperparameters,
  folder: ModelFolder,
): Tokens {
  const added = new Map(tokenizer.added.map((token) => [token.id, token]))
  const largest = [...tokenizer.tokens.keys(), ...added.keys()].reduce((a, b) => Math.max(a, b), 0)
  const count = config.count("vocab_size") ?? largest + 1
  if (largest >= count) {
    throw folder.wrong("tokenizer.json", `it has token ${largest}, the model only ${count} tokens`)
  }
  const texts: string[] = []
  const types: number[] = []
  for (let id = 0; id < count; id += 1) {
    const extra = added.get(id)
    const content = extra?.content ?? tokenizer.tokens.get(id)
    const isControl = extra !== undefined && (extra.isSpecial || looksSpecial(extra.content))
    texts.push(
      extra === undefined || isControl
        ? (content ?? `[PAD${id}]`)
        : extra.content.replaceAll("▁", " "),
    )
    if (content === undefined) types.push(TOKEN_TYPES.unused)
    else if (extra === undefined) types.push(TOKEN_TYPES.normal)
    else types.push(isControl ? TOKEN_TYPES.control : TOKEN_TYPES.userDefined)
  }
  return { texts, types }
}

/**
 * SentencePiece in the form of byte pairs. The score that decides in llama.cpp which pair is merged first is the place
 * of the merge; llama.cpp's converter gives all tokens the same, so that its models merge from left to right.
 */
function fromCharacterPairs(tokenizer: TokenizerFile, { folder }: Context): Written {
  const places = new Map<string, number>()
  for (const [place, merge] of tokenizer.merges.entries()) {
    const made = merge.replace(" ", "")
    if (!places.has(made)) places.set(made, place)
  }
  const added = new Map(tokenizer.added.map((token) => [token.id, token]))
  const largest = [...tokenizer.tokens.keys(), ...added.keys()].reduce((a, b) => Math.max(a, b), 0)
  const ids = Array.from({ length: largest + 1 }, (_, id) => id)
  const model = tokenizer.file["model"]
  const unknown = isObject(model) ? model["unk_token"] : undefined
  const texts = ids.map((id) => tokenizer.tokens.get(id) ?? added.get(id)?.content ?? `[PAD${id}]`)
  const types = ids.map((id) => {
    const content = texts[id] ?? ""
    if (/^<0x[0-9A-Fa-f]{2}>$/.test(content)) return TOKEN_TYPES.byte
    if (content === unknown) return TOKEN_TYPES.unknown
    const extra = added.get(id)
    if (extra?.isSpecial === true) return TOKEN_TYPES.control
    if (extra !== undefined) return TOKEN_TYPES.userDefined
    return tokenizer.tokens.has(id) ? TOKEN_TYPES.normal : TOKEN_TYPES.unused
  })
  const scores = texts.map((content) => -(places.get(content) ?? -ADDED_SCORE + places.size))
  return write("llama", "default", { texts, types, scores }, { folder, checksIds: true })
}

/** llama.cpp marks the beginnings of words instead of their continuations. */
function fromWordPieces(tokenizer: TokenizerFile, { folder, config }: Context): Written {
  if (tokenizer.kind !== "WordPiece") {
    throw folder.wrong("tokenizer.json", `its model is ${tokenizer.kind}, expected WordPiece`)
  }
  const { texts, types } = paddedTokens(tokenizer, config, folder)
  const marked = texts.map((content, id) => {
    if (types[id] === TOKEN_TYPES.control) return content
    return content.startsWith("##") ? content.slice(2) : `▁${content}`
  })
  // llama.cpp cuts all of them alike; the name is the one its converter knows most of them by.
  const written = write("bert", "jina-v2-en", { texts: marked, types }, { folder, checksIds: true })
  written.map.set("tokenizer.ggml.token_type_count", u32(config.count("type_vocab_size") ?? 1))
  return written
}

/** Some models do not say of tokens that they are special. */
function looksSpecial(content: string): boolean {
  return (
    ["<pad>", "<mask>", "<2mass>", "[@BOS@]"].includes(content) ||
    /^<\|.*\|>$/s.test(content) ||
    /^<｜.*｜>$/s.test(content) ||
    /^<unused.*>$/s.test(content)
  )
}
