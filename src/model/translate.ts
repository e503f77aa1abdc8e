/**
 * Files that llama.cpp does not load as they are, rewritten once into the cache.
 *
 * A copy costs its size on the disk; llama.cpp can neither rename tensors nor leave any out while it loads. The original
 * stays as it is: its digest is what the registry knows.
 *
 * @module
 */

import { hash } from "node:crypto"
import { existsSync, mkdirSync, renameSync, rmSync, statSync } from "node:fs"
import { basename, join } from "node:path"

import { type Translation, translationOf } from "../gguf/dialect.ts"
import { mergedContent } from "../gguf/merge.ts"
import { readArray } from "../gguf/read.ts"
import { type GgufModel, readModel } from "../gguf/split.ts"
import {
  type GgufContent,
  type GgufInput,
  packFlags,
  packNumbers,
  packStrings,
  text,
  writeGguf,
} from "../gguf/write.ts"
import { CriaError, errorMessage } from "../util/errors.ts"

/** Raised when the rules change, so that old copies are not used. */
const VERSION = 1

/** Arrays with one element per token. */
const PER_TOKEN = ["tokens", "scores", "token_type"].map((name) => `tokenizer.ggml.${name}`)

/**
 * The path of a file that llama.cpp loads: the one that is given, or a translation of it.
 *
 * @param options.cache Folder for the translation; without one, a file that needs it is refused.
 * @param options.label What errors call the model.
 * @throws {CriaError} `unavailable` when it cannot be translated or written, `invalid-input` when it is damaged.
 */
export async function loadablePath(
  path: string,
  options: { readonly cache: string | undefined; readonly label: string },
): Promise<string> {
  const { cache, label } = options
  const model = readModel(path, { label })
  const translation = translationOf(model.header, label)
  if (translation === undefined) return path
  if (cache === undefined) {
    const reason = `llama.cpp knows "${translation.from}" in another form, and there is no folder to write it to`
    throw new CriaError("unavailable", `Cannot run "${label}": ${reason}`)
  }
  const target = join(cache, "translated", `${identity(path)}-${VERSION}.gguf`)
  if (!existsSync(target)) await write(target, translatedContent(model, translation), label)
  return target
}

/** Blobs are named by their content; other files are told by where they are and when they changed. */
function identity(path: string): string {
  const name = basename(path)
  if (/^sha256-[0-9a-f]{64}$/.test(name)) return name.slice("sha256-".length)
  const { size, mtimeMs } = statSync(path)
  return hash("sha256", `${path}\0${size}\0${mtimeMs}`, "hex")
}

async function write(target: string, content: GgufContent, label: string): Promise<void> {
  const temporary = `${target}.${process.pid}`
  try {
    mkdirSync(join(target, ".."), { recursive: true })
    await writeGguf(temporary, content)
    renameSync(temporary, target)
  } catch (cause) {
    rmSync(temporary, { force: true })
    const reason = `its translation for llama.cpp cannot be written: ${errorMessage(cause)}`
    throw new CriaError("unavailable", `Cannot run "${label}": ${reason}`, {
      hint: "It needs as much space as the model; set CRIA_CACHE to a folder on another disk",
      cause,
    })
  }
}

/** The content of the file in llama.cpp's form. */
export function translatedContent(model: GgufModel, translation: Translation): GgufContent {
  const { metadata, tensors } = mergedContent(model)
  const entries = [...metadata].map(([key, value]): [string, GgufInput] => [
    translation.keyName(key),
    translatedValue(model, translation, [key, value]),
  ])
  const missing = [...translation.defaults].filter(
    ([key]) => !entries.some(([present]) => present === key),
  )
  return {
    metadata: new Map([...entries, ...missing]),
    tensors: tensors.flatMap((tensor) => {
      const name = translation.tensorName(tensor.name)
      return name === undefined ? [] : [{ ...tensor, name }]
    }),
  }
}

function translatedValue(
  { paths, header }: GgufModel,
  { architecture, keyName, sections, tokens }: Translation,
  [key, value]: readonly [string, GgufInput],
): GgufInput {
  if (key === "general.architecture") return text(architecture)
  const array = header.metadata.get(key)
  if (array?.type !== "array") return value
  const elements = () => readArray(paths[0] ?? "", array)
  if (keyName(key) === sections) {
    return packNumbers("i32", [...elements().map(Number), 0, 0, 0, 0].slice(0, 4))
  }
  if (tokens === undefined || !PER_TOKEN.includes(key)) return value
  const kept = elements().slice(0, tokens)
  if (array.elementType === "string") return packStrings(kept.map(String))
  if (array.elementType === "bool") return packFlags(kept.map(Boolean))
  return packNumbers(array.elementType === "f32" ? "f32" : "i32", kept.map(Number))
}
