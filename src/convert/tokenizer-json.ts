/**
 * Reads `tokenizer.json`, the file of Hugging Face's tokenizers: vocabulary, merges and added tokens.
 *
 * Owns the forms that file comes in, and the older form in two files (`vocab.json` and `merges.txt`). What becomes of
 * the tokens in a GGUF file is the business of `vocabulary.ts`.
 *
 * @module
 */

import type { CriaError } from "../util/errors.ts"
import type { ModelFolder } from "./folder.ts"
import { isObject, type JsonObject, shown } from "./json.ts"

/** A token that was added to a vocabulary. */
export interface AddedToken {
  readonly id: number
  readonly content: string
  readonly isSpecial: boolean
}

/** A tokenizer. */
export interface TokenizerFile {
  readonly kind: "BPE" | "WordPiece" | "Unigram"
  /** BPE over characters, with tokens for bytes: SentencePiece in another form. */
  readonly hasByteTokens: boolean
  /** Tokens by id, without the added ones that are nowhere else. */
  readonly tokens: ReadonlyMap<number, string>
  /** Two parts with a space between them, in the order in which they are merged. */
  readonly merges: readonly string[]
  readonly added: readonly AddedToken[]
  /** The file as it is; empty when there is none. */
  readonly file: JsonObject
  readonly settings: JsonObject
}

const NAME = "tokenizer.json"

/** The highest id: more than any vocabulary has, and few enough to be counted to. */
const TOKENS_MAX: number = 2 ** 21

/**
 * Reads the tokenizer of a model; undefined when it has none of these files.
 *
 * @throws {CriaError} `invalid-input` when a file is broken.
 */
export function readTokenizer(folder: ModelFolder): TokenizerFile | undefined {
  const settings = folder.object("tokenizer_config.json") ?? {}
  const file = folder.object(NAME)
  if (file === undefined) return readTwoFiles(folder, settings)
  const model = file["model"]
  if (!isObject(model)) throw folder.wrong(NAME, 'it has no "model"')
  const wrong = (problem: string): CriaError => folder.wrong(NAME, problem)
  const kind = kindOf(model)
  if (kind === undefined) {
    throw wrong(`its model is ${shown(model["type"])}, expected BPE, WordPiece or Unigram`)
  }
  return {
    kind,
    hasByteTokens: model["byte_fallback"] === true,
    tokens: tokensOf(model["vocab"], wrong),
    merges: mergesOf(model["merges"] ?? [], wrong),
    added: addedTokens(file["added_tokens"], settings, wrong),
    file,
    settings,
  }
}

/** Old files do not say the type. */
function kindOf(model: JsonObject): TokenizerFile["kind"] | undefined {
  const type = model["type"] ?? (model["merges"] === undefined ? "WordPiece" : "BPE")
  return type === "BPE" || type === "WordPiece" || type === "Unigram" ? type : undefined
}

function readTwoFiles(folder: ModelFolder, settings: JsonObject): TokenizerFile | undefined {
  const isWordPiece = !folder.has("vocab.json") && folder.has("vocab.txt")
  if (!folder.has("vocab.json") && !isWordPiece) return undefined
  const wrong = (problem: string): CriaError => folder.wrong("vocab.json", problem)
  const words = isWordPiece ? folder.text("vocab.txt").replace(/\n$/, "").split("\n") : []
  const listed = Object.fromEntries(words.map((word, id) => [word.replace(/\r$/, ""), id]))
  const extra = folder.object("added_tokens.json") ?? {}
  const added = addedTokens(
    Object.entries(extra).map(([content, id]) => ({ id, content, special: false })),
    settings,
    wrong,
  )
  return {
    kind: isWordPiece ? "WordPiece" : "BPE",
    hasByteTokens: false,
    tokens: tokensOf(isWordPiece ? listed : folder.json("vocab.json"), wrong),
    merges: isWordPiece ? [] : mergeLines(folder),
    added: isWordPiece && added.length === 0 ? namedSpecials(listed, settings) : added,
    file: {},
    settings,
  }
}

/** A vocabulary in a text file says nowhere which of its words are special. */
function namedSpecials(
  words: Readonly<Record<string, number>>,
  settings: JsonObject,
): AddedToken[] {
  return ["pad", "unk", "cls", "sep", "mask"].flatMap((role) => {
    const named = settings[`${role}_token`]
    const content = typeof named === "string" ? named : `[${role.toUpperCase()}]`
    const id = words[content]
    return id === undefined ? [] : [{ id, content, isSpecial: true }]
  })
}

function mergeLines(folder: ModelFolder): string[] {
  const [first = "", ...lines] = folder.text("merges.txt").split("\n")
  const all = first.startsWith("#") ? lines : [first, ...lines]
  return all.map((line) => line.trim()).filter((line) => line.split(" ").length === 2)
}

function tokensOf(vocabulary: unknown, wrong: (problem: string) => CriaError): Map<number, string> {
  // Unigram has pairs of text and score.
  const entries: readonly (readonly [unknown, unknown])[] = Array.isArray(vocabulary)
    ? vocabulary.map((pair: unknown, id) => [Array.isArray(pair) ? pair[0] : undefined, id])
    : Object.entries(isObject(vocabulary) ? vocabulary : {})
  const tokens = new Map<number, string>()
  for (const [content, id] of entries) {
    if (typeof content !== "string" || !isTokenId(id)) {
      throw wrong(`token ${JSON.stringify(content)} has number ${JSON.stringify(id)}`)
    }
    tokens.set(id, content)
  }
  if (tokens.size === 0) throw wrong("its vocabulary is empty")
  return tokens
}

function isTokenId(id: unknown): id is number {
  return typeof id === "number" && Number.isInteger(id) && id >= 0 && id < TOKENS_MAX
}

function mergesOf(merges: unknown, wrong: (problem: string) => CriaError): string[] {
  if (!Array.isArray(merges)) throw wrong('its "merges" are not a list')
  return merges.map((merge: unknown) => {
    if (typeof merge === "string") return merge
    const [left, right, ...rest]: unknown[] = Array.isArray(merge) ? merge : []
    if (typeof left === "string" && typeof right === "string" && rest.length === 0) {
      // A space would look like the one between the parts; this is the letter that stands for it elsewhere.
      return `${left.replaceAll(" ", "Ġ")} ${right.replaceAll(" ", "Ġ")}`
    }
    throw wrong(`a merge is ${JSON.stringify(merge)}, expected two parts`)
  })
}

/** Those of the file, then those that only the settings name. */
function addedTokens(
  listed: unknown,
  settings: JsonObject,
  wrong: (problem: string) => CriaError,
): AddedToken[] {
  const decoder = settings["added_tokens_decoder"]
  const more = isObject(decoder)
    ? Object.entries(decoder).map(([id, token]) => ({
        ...(isObject(token) ? token : {}),
        id: Number(id),
      }))
    : []
  const tokens = new Map<number, AddedToken>()
  for (const token of [...(Array.isArray(listed) ? listed : []), ...more] as unknown[]) {
    const { id, content, special } = isObject(token)
      ? { id: token["id"], content: token["content"], special: token["special"] }
      : {}
    if (!isTokenId(id) || typeof content !== "string") {
      throw wrong(`an added token is ${JSON.stringify(token)?.slice(0, 80)}`)
    }
    if (!tokens.has(id)) tokens.set(id, { id, content, isSpecial: special === true })
  }
  return [...tokens.values()]
}
