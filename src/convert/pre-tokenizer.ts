/**
 * Finds llama.cpp's name for the way a tokenizer cuts text into words before it merges bytes.
 *
 * llama.cpp's converter tokenises a fixed text and looks the result up in a table of models, so that it knows only
 * vocabularies it has seen. Here the rules themselves are compared, so that a vocabulary of one's own is known when its
 * rules are. Tokenizers that llama.cpp treats alike may get the name of another one than there.
 *
 * @module
 */

import { isObject, type JsonObject, shown } from "./json.ts"

/** Contractions in English, whatever their case. */
const CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
const WORD = "[^\\r\\n\\p{L}\\p{N}]?\\p{L}+"
const SYMBOLS = " ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*"
const SPACES = "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
const UPPER = "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]"
const LOWER = "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]"
const CASED = "[^\\r\\n\\p{L}\\p{N}]?"
const SYMBOLS_SLASH = " ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*"

const LLAMA3 = `${CONTRACTIONS}|${WORD}|\\p{N}{1,3}|${SYMBOLS}|${SPACES}`
/** The same words, as OpenAI writes it for its own library. */
const CL100K = `'(?i:[sdmt]|ll|ve|re)|[^\\r\\n\\p{L}\\p{N}]?+\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]++[\\r\\n]*|\\s*[\\r\\n]|\\s+(?!\\S)|\\s+`
const QWEN2 = `${CONTRACTIONS}|${WORD}|\\p{N}|${SYMBOLS}|${SPACES}`
const QWEN35 = `${CONTRACTIONS}|[^\\r\\n\\p{L}\\p{N}]?[\\p{L}\\p{M}]+|\\p{N}| ?[^\\s\\p{L}\\p{M}\\p{N}]+[\\r\\n]*|${SPACES}`
const TEKKEN = `${CASED}${UPPER}*${LOWER}+|${CASED}${UPPER}+${LOWER}*|\\p{N}|${SYMBOLS_SLASH}|${SPACES}`
const GPT4O = `${CASED}${UPPER}*${LOWER}+${CONTRACTIONS}?|${CASED}${UPPER}+${LOWER}*${CONTRACTIONS}?|\\p{N}{1,3}|${SYMBOLS_SLASH}|${SPACES}`

/** What else decides between names with the same rules. */
interface Traits {
  /** Words that are in the vocabulary are not merged. */
  readonly ignoresMerges: boolean
  /** Spaces before punctuation are removed from texts. */
  readonly cleansSpaces: boolean
}

/** Rules as {@link signature} writes them. */
const NAMES: Readonly<Record<string, (traits: Traits) => string>> = {
  words: () => "gpt-2",
  "digits, words": ({ cleansSpaces }) => (cleansSpaces ? "refact" : "smollm"),
  [`split ${LLAMA3}`]: ({ ignoresMerges }) => (ignoresMerges ? "llama-bpe" : "dbrx"),
  [`split ${CL100K}`]: ({ ignoresMerges }) => (ignoresMerges ? "llama-bpe" : "dbrx"),
  [`split ${QWEN2}`]: () => "qwen2",
  [`split ${QWEN35}`]: () => "qwen35",
  [`split ${TEKKEN}`]: () => "tekken",
  [`split ${GPT4O}`]: () => "gpt-4o",
}

/** For tokenizers that are not described but named. */
const BY_CLASS: Readonly<Record<string, string>> = {
  Qwen2Tokenizer: "qwen2",
  GPT2Tokenizer: "gpt-2",
  GPTNeoXTokenizer: "gpt-2",
}

/**
 * The name; undefined when llama.cpp has none for these rules.
 *
 * @param tokenizer The content of `tokenizer.json`.
 * @param settings That of `tokenizer_config.json`.
 */
export function preTokenizerName(tokenizer: JsonObject, settings: JsonObject): string | undefined {
  const model = isObject(tokenizer["model"]) ? tokenizer["model"] : {}
  const rules = signature(tokenizer["pre_tokenizer"])
  return Object.hasOwn(NAMES, rules)
    ? NAMES[rules]?.({
        ignoresMerges: model["ignore_merges"] === true,
        cleansSpaces: settings["clean_up_tokenization_spaces"] === true,
      })
    : undefined
}

/** The name for a class of Hugging Face's library; undefined for others. */
export function preTokenizerOfClass(name: unknown): string | undefined {
  return typeof name === "string" && Object.hasOwn(BY_CLASS, name) ? BY_CLASS[name] : undefined
}

/** Rules in one line, for comparing and for messages. */
export function signature(rules: unknown): string {
  return steps(rules).join(", ")
}

function steps(rules: unknown): string[] {
  if (!isObject(rules)) return []
  const inner = rules["pretokenizers"]
  switch (rules["type"]) {
    case "Sequence":
      return Array.isArray(inner) ? inner.flatMap(steps) : []
    case "ByteLevel":
      // Without a rule of its own it only writes bytes as characters, as all these tokenizers do.
      return rules["use_regex"] === false ? [] : ["words"]
    case "Digits":
      return [rules["individual_digits"] === true ? "digits" : "numbers"]
    case "Split": {
      const pattern = isObject(rules["pattern"]) ? rules["pattern"] : {}
      const expression = pattern["Regex"] ?? pattern["String"]
      const isPlain = rules["behavior"] === "Isolated" || rules["invert"] === true
      return [`${isPlain ? "split" : `split (${shown(rules["behavior"])})`} ${shown(expression)}`]
    }
    default:
      return [shown(rules["type"])]
  }
}
