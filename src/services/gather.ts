/**
 * What a Modelfile refers to: which files are to be uploaded, under which names.
 *
 * Only the command line reads files that a user names; the server never does.
 *
 * @module
 */

import {
  existsSync,
  globSync,
  lstatSync,
  readdirSync,
  readFileSync,
  realpathSync,
  statSync,
} from "node:fs"
import { homedir } from "node:os"
import { basename, dirname, join, relative, resolve, sep } from "node:path"

import { readModel } from "../gguf/split.ts"
import type { ModelfileCommand } from "../modelfile/parse.ts"
import { CriaError } from "../util/errors.ts"

/** Files under the names that the server gets; the values are paths. */
export type FileMap = ReadonlyMap<string, string>

/** The parts of a Modelfile that are files or models. */
export interface Gathered {
  /** Name of the model that FROM names. */
  readonly from: string | undefined
  readonly files: FileMap
  readonly adapters: FileMap
  readonly draftFiles: FileMap
}

/**
 * Finds the files of a Modelfile.
 *
 * @param folder What relative paths begin at: that of the Modelfile.
 * @throws {CriaError} `not-found` for a path that leads nowhere, `invalid-input` for devices, for links that leave the
 *   folder they are in, and for folders without a model.
 */
export function gatherFiles(commands: readonly ModelfileCommand[], folder: string): Gathered {
  const valuesOf = (wanted: string): string[] =>
    commands.filter(({ command }) => command === wanted).map(({ value }) => value)
  let from: string | undefined
  const paths: string[] = []
  for (const value of valuesOf("from")) {
    const found = existingPath(value, folder)
    if (found === undefined) from = value
    else paths.push(found)
  }
  const adapter = valuesOf("adapter").at(-1)
  const draft = valuesOf("draft").at(-1)
  if (draft !== undefined && paths.includes(requirePath(draft, folder))) {
    throw new CriaError(
      "invalid-input",
      `DRAFT must not reference the same local path as FROM: ${draft}`,
    )
  }
  return {
    from,
    files: filesOf(paths),
    adapters: filesOf(adapter === undefined ? [] : [requirePath(adapter, folder)]),
    draftFiles: filesOf(draft === undefined ? [] : [requirePath(draft, folder)]),
  }
}

/** `~` is the home folder, `~ann` that of a user; relative paths begin at the Modelfile's. */
function expand(path: string, folder: string): string {
  const [start = "", user = ""] = /^~([^/\\]*)/.exec(path) ?? []
  if (start === "") return resolve(folder, path)
  const home = user === "" ? homedir() : homeOf(user)
  return home === undefined ? resolve(folder, path) : join(home, path.slice(start.length))
}

/** The home folder of a user; undefined when there is no such user. */
function homeOf(user: string): string | undefined {
  const listed = homeIn("/etc/passwd", user)
  if (listed !== undefined) return listed
  // Not all systems list their users in a file.
  const beside = join(dirname(homedir()), basename(user))
  return statSync(beside, { throwIfNoEntry: false })?.isDirectory() === true ? beside : undefined
}

function homeIn(file: string, user: string): string | undefined {
  if (!existsSync(file)) return undefined
  const lines = readFileSync(file, "utf8").split("\n")
  const fields = lines.map((line) => line.split(":")).find(([name]) => name === user)
  return fields?.[5]
}

/** Undefined when there is nothing and the text may be the name of a model. */
function existingPath(text: string, folder: string): string | undefined {
  if (text === "" || text.includes("\0")) return undefined
  const path = expand(text, folder)
  if (isThere(path, text)) return path
  if (!/^(?:\.{1,2}|~[^/\\]*)?[/\\]|\.(?:gguf|safetensors|bin)$|^[A-Za-z]:\\/.test(text))
    return undefined
  throw new CriaError("not-found", `Cannot find "${text.slice(0, 200)}"`, {
    hint: `Paths begin at the folder of the Modelfile, ${folder}`,
  })
}

/** What systems say of a path where nothing is, or can be. */
const NOTHING_THERE: readonly string[] = ["ENOENT", "ENOTDIR", "ENAMETOOLONG"]

function isThere(path: string, text: string): boolean {
  try {
    statSync(path)
    return true
  } catch (cause) {
    const code = cause instanceof Error && "code" in cause ? String(cause.code) : String(cause)
    if (NOTHING_THERE.includes(code)) return false
    throw new CriaError("invalid-input", `Cannot read "${text}": ${code}`, { cause })
  }
}

function requirePath(text: string, folder: string): string {
  const path = existingPath(text, folder)
  if (path !== undefined) return path
  throw new CriaError("not-found", `Cannot find "${text.slice(0, 200)}"`)
}

function filesOf(paths: readonly string[]): FileMap {
  const files = paths.flatMap((path) => {
    const stats = statSync(path)
    if (stats.isDirectory()) return filesOfFolder(path)
    if (stats.isFile()) return partsOf(path)
    const text = `Cannot use "${path}": it is a device, pipe or socket, expected a file or a folder`
    throw new CriaError("invalid-input", text)
  })
  const distinct = [...new Set(files)]
  const parent = commonParent(distinct)
  return new Map(distinct.map((path) => [relative(parent, path).split(sep).join("/"), path]))
}

/** All parts of a split model, of which a Modelfile names the first. */
function partsOf(path: string): readonly string[] {
  return /-\d{5}-of-\d{5}\.gguf$/.test(path) ? readModel(path).paths : [path]
}

function commonParent(paths: readonly string[]): string {
  const folders = paths.map((path) => dirname(path).split(sep))
  const [first = [], ...others] = folders
  const length = first.findIndex((part, i) => others.some((other) => other[i] !== part))
  const common = (length < 0 ? first : first.slice(0, length)).join(sep)
  return common === "" ? sep : common
}

/** Groups of files that are a model's weights; the first that is there counts. */
const WEIGHTS = [
  ["model*.safetensors", "*/model*.safetensors"],
  ["consolidated*.safetensors"],
  ["*.gguf"],
  // Adapters.
  ["adapter_model*.safetensors"],
]

/** What belongs to weights in safetensors: all that `src/convert` reads. */
const COMPANIONS = [
  "*.json",
  "*/*.json",
  "chat_template.jinja",
  "additional_chat_templates/*.jinja",
  "tokenizer.model",
  // Older tokenizers, in several files.
  "vocab.txt",
  "merges.txt",
  // The card: name, licence, origin.
  "README.md",
]

function filesOfFolder(folder: string): string[] {
  const found = (patterns: readonly string[]) =>
    patterns.flatMap((pattern) => globSync(pattern, { cwd: folder })).toSorted()
  const weights = WEIGHTS.map(found).find((names) => names.length > 0)
  if (weights === undefined) throw noModel(folder)
  const isGguf = weights[0]?.endsWith(".gguf") === true
  const companions = isGguf ? [] : found(COMPANIONS)
  const tokenizer =
    isGguf || companions.includes("tokenizer.model") ? [] : found(["*/tokenizer.model"])
  const names = [...weights, ...companions, ...tokenizer]
  for (const name of names) checkInside(folder, name)
  return names.map((name) => join(folder, name)).filter((path) => statSync(path).isFile())
}

function noModel(folder: string): CriaError {
  const hasPickles = readdirSync(folder).some((name) => /\.(bin|pth|pt|ckpt)$/.test(name))
  const hint = hasPickles
    ? "Its PyTorch files hold programs, which cria does not run: save the model as safetensors"
    : `Expected *.safetensors with a config.json, or *.gguf, in ${folder}`
  return new CriaError("invalid-input", "no Modelfile or safetensors files found", { hint })
}

/** A link may lead to another file of the same folder only. */
function checkInside(folder: string, name: string): void {
  const path = join(folder, name)
  const isLink = lstatSync(path).isSymbolicLink() || dirname(name) !== "."
  if (!isLink) return
  const target = realpathSync(path)
  const root = realpathSync(folder)
  if (target.startsWith(root + sep)) return
  const hint = folder.includes(".cache")
    ? "Download the model with --local-dir <dir> and use that folder"
    : `It leads to ${target}: put the file itself into ${basename(folder)}`
  throw new CriaError("invalid-input", `insecure path: ${name}`, { hint })
}
