/**
 * Files from Ollama's registry that llama.cpp does not load: what would have to be different in them.
 *
 * Some models there were made for Ollama's own engine. Names of keys and tensors differ, layers of an image encoder lie
 * in the same file, values are left out. Where that is all, the file can be translated; otherwise it is refused with the
 * reason. Owns how a rule is applied; the rules are in `dialect-rules.ts`, and `translate.ts` makes the file.
 *
 * @module
 */

import { CriaError } from "../util/errors.ts"
import { DialectFile } from "./dialect-file.ts"
import { REFUSED, RULES, type Rule } from "./dialect-rules.ts"
import type { GgufModel } from "./split.ts"
import type { GgufInput } from "./write.ts"

/** How a file has to be rewritten. */
export interface Translation {
  /** llama.cpp's name of the architecture. */
  readonly architecture: string
  /** Keys that get another name, by their old one; null for those that go. */
  readonly keys: ReadonlyMap<string, string | null>
  /** Values by their new key: of keys that there are, and of new ones. */
  readonly values: ReadonlyMap<string, GgufInput>
  /** New name of a tensor; undefined leaves it out. */
  readonly tensorName: (name: string) => string | undefined
  /** Tokens that the embedding has rows for: vocabulary and embedding are cut to it; undefined keeps all. */
  readonly tokens: number | undefined
}

/** Encoders of images and sounds inside of a model's file. */
const ENCODER = /^(?:v|mm|a)\./

const EMBEDDING = "token_embd.weight"

/** Tensors with a row for each token. */
export const TOKEN_ROWS: ReadonlySet<string> = new Set([EMBEDDING, "output.weight"])

/**
 * What has to be done so that llama.cpp loads a file; undefined when nothing.
 *
 * @param label What errors call the file.
 * @throws {CriaError} `unavailable` for models that cannot be translated.
 */
export function translationOf(model: GgufModel, label: string): Translation | undefined {
  const file = new DialectFile(model)
  const from = file.architecture
  const refused = Object.hasOwn(REFUSED, from) ? REFUSED[from] : undefined
  if (refused !== undefined) throw refusal(label, refused.reason, refused.hint)
  const rules = Object.hasOwn(RULES, from) ? (RULES[from] ?? []) : []
  const rule = rules.find(({ marks }) => marks === undefined || marks(file))
  if (rule !== undefined) return new Application(rule, file).translation()
  // A projector is made of nothing else, and is refused where a model is wanted.
  if (from === "clip" || !file.hasTensor(ENCODER)) return undefined
  throw refusal(
    label,
    `the encoder of images or sounds is inside of its file, and how "${from}" has it there is not known`,
    `Take a GGUF of the model that was made for llama.cpp: search Hugging Face for "${file.title ?? from} GGUF", then cria pull hf.co/USER/REPOSITORY`,
  )
}

/** One rule, applied to one file. */
class Application {
  readonly #rule: Rule
  readonly #file: DialectFile
  readonly #architecture: string

  constructor(rule: Rule, file: DialectFile) {
    const { becomes = file.architecture } = rule
    this.#rule = rule
    this.#file = file
    this.#architecture = typeof becomes === "string" ? becomes : becomes(file)
  }

  translation(): Translation {
    const { without, tensors = [] } = this.#rule
    const keys = this.#keys()
    return {
      architecture: this.#architecture,
      keys,
      values: this.#values(new Set([...this.#file.keys].map((key) => keys.get(key) ?? key))),
      tensorName: (name) =>
        ENCODER.test(name) || without?.test(name) === true ? undefined : renamed(name, tensors),
      tokens: this.#tokens(),
    }
  }

  /** New names of keys. A name that is there already stays, and its older form too: llama.cpp looks at the first. */
  #keys(): Map<string, string | null> {
    const { renames = {}, drops = [] } = this.#rule
    const prefix = `${this.#file.architecture}.`
    const keys = new Map<string, string | null>()
    for (const key of this.#file.keys) {
      if (!key.startsWith(prefix)) continue
      const bare = key.slice(prefix.length)
      const wanted = renames[bare]
      const name = wanted === undefined || this.#file.has(wanted) ? bare : wanted
      keys.set(key, drops.includes(bare) ? null : this.#full(name))
    }
    return keys
  }

  #values(present: ReadonlySet<string>): Map<string, GgufInput> {
    const { sets = {}, defaults = {} } = this.#rule
    const values = new Map<string, GgufInput>()
    for (const [key, value] of [...Object.entries(defaults), ...Object.entries(sets)]) {
      const full = this.#full(key)
      if (!Object.hasOwn(sets, key) && present.has(full)) continue
      const input = value(this.#file)
      if (input !== undefined) values.set(full, input)
    }
    values.set("general.architecture", { type: "string", value: this.#architecture })
    return values
  }

  #tokens(): number | undefined {
    const { rows = EMBEDDING } = this.#rule
    const limit = this.#file.rowsOf(rows)
    if (limit === undefined) return undefined
    const most = Math.max(this.#file.tokenCount, this.#file.rowsOf(EMBEDDING) ?? 0)
    return most > limit ? limit : undefined
  }

  #full(key: string): string {
    return key.startsWith("tokenizer.") ? key : `${this.#architecture}.${key}`
  }
}

function renamed(name: string, rules: NonNullable<Rule["tensors"]>): string {
  const rule = rules.find(([pattern]) => pattern.test(name))
  return rule === undefined ? name : name.replace(...rule)
}

function refusal(label: string, reason: string, hint: string): CriaError {
  return new CriaError("unavailable", `Cannot run ${JSON.stringify(label)}: ${reason}`, { hint })
}
