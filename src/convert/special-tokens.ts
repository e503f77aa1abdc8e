/**
 * Which tokens begin and end texts, whether a tokenizer adds them, and the chat template.
 *
 * Collected from four files that contradict each other, in the order that llama.cpp's converter trusts them: the
 * post-processor in `tokenizer.json`, `tokenizer_config.json`, `config.json`.
 *
 * @module
 */

import { flag, type GgufInput, packStrings, text, u32 } from "../gguf/write.ts"
import type { ModelFolder } from "./folder.ts"
import { isObject, type JsonObject, shown } from "./json.ts"

const KEYS = {
  bos: "bos",
  eos: "eos",
  unk: "unknown",
  sep: "seperator", // The spelling of the GGUF specification.
  pad: "padding",
  cls: undefined, // llama.cpp takes the token that begins a text.
  mask: "mask",
  eot: "eot",
  eom: "eom",
} as const

type TokenRole = keyof typeof KEYS

const ROLES: readonly TokenRole[] = ["bos", "eos", "unk", "sep", "pad", "cls", "mask"]

/** Roles whose adding can be switched. */
const ADDED = ["bos", "eos", "sep"] as const

type Added = Partial<Record<(typeof ADDED)[number], boolean>>

/** Special tokens as they are found. */
interface Found {
  /** Texts by role. */
  readonly texts: Map<TokenRole, string>
  readonly added: Added
}

/**
 * The keys of the special tokens, of the normaliser and of the chat template.
 *
 * @param tokens Number of tokens when ids are to be checked against it; others are left out.
 */
export function specialTokens(
  folder: ModelFolder,
  tokens: number | undefined,
): Map<string, GgufInput> {
  const tokenizer = folder.object("tokenizer.json")
  const settings = folder.object("tokenizer_config.json")
  const found: Found = { texts: namedTokens(settings), added: {} }
  if (tokenizer !== undefined) readPostProcessor(tokenizer, found, settings !== undefined)
  const ids = settings === undefined ? new Map<TokenRole, number>() : idsOf(found.texts, tokenizer)
  const config = folder.object("config.json") ?? {}
  for (const role of [...ROLES, "eot", "eom"] as const) {
    const id = configuredId(config, role)
    const isRole = ROLES.includes(role) || found.texts.has(role)
    if (isRole && id !== undefined && !ids.has(role)) ids.set(role, id)
  }
  const metadata = new Map<string, GgufInput>()
  const put = (key: string, value: GgufInput): void => {
    metadata.set(`tokenizer.ggml.${key}`, value)
  }
  for (const [role, id] of ids) {
    const key = KEYS[role]
    if (key !== undefined && (tokens === undefined || id < tokens)) put(`${key}_token_id`, u32(id))
  }
  for (const role of ADDED) {
    const said = settings?.[`add_${role}_token`]
    const isAdded = typeof said === "boolean" ? said : found.added[role]
    if (isAdded !== undefined) put(`add_${role}_token`, flag(isAdded))
  }
  for (const [key, value] of chatTemplates(folder, settings)) metadata.set(key, value)
  for (const [key, value] of normaliserFlags(tokenizer?.["normalizer"])) put(key, flag(value))
  return metadata
}

/** The text of a token, which stands in an object when it has properties. */
export function tokenText(value: unknown): string | undefined {
  const content = isObject(value) ? value["content"] : value
  return typeof content === "string" ? content : undefined
}

function namedTokens(settings: JsonObject | undefined): Map<TokenRole, string> {
  const texts = new Map<TokenRole, string>()
  for (const role of ROLES) {
    const content = tokenText(settings?.[`${role}_token`])
    if (content !== undefined) texts.set(role, content)
  }
  const [cls, sep] = [texts.get("cls"), texts.get("sep")]
  if (!texts.has("bos") && cls !== undefined) texts.set("bos", cls)
  if (!texts.has("eos") && sep !== undefined) texts.set("eos", sep)
  return texts
}

function readPostProcessor(tokenizer: JsonObject, found: Found, hasSettings: boolean): void {
  const processor = tokenizer["post_processor"]
  if (!isObject(processor)) return
  const all = Array.isArray(processor["processors"]) ? processor["processors"] : [processor]
  for (const each of all) {
    if (!isObject(each)) continue
    if (each["type"] === "RobertaProcessing") readRoberta(each, found)
    else if (each["type"] === "TemplateProcessing") readTemplate(each, found, hasSettings)
  }
}

function readRoberta(processor: JsonObject, { texts, added }: Found): void {
  Object.assign(added, { bos: true, eos: true, sep: true })
  for (const role of ["cls", "sep"] as const) {
    const pair: unknown = processor[role]
    const content: unknown = Array.isArray(pair) ? pair[0] : undefined
    if (!texts.has(role) && typeof content === "string") texts.set(role, content)
  }
}

/** `[CLS] A [SEP]`: what is added to one text, and between two. */
function readTemplate(processor: JsonObject, found: Found, hasSettings: boolean): void {
  const { texts, added } = found
  const single = Array.isArray(processor["single"]) ? processor["single"] : []
  const first = single.length > 1 ? specialId(single[0]) : undefined
  const last = single.length > 1 ? specialId(single.at(-1)) : undefined
  if (first !== undefined) {
    const isKnown = first === texts.get("bos") || first === texts.get("cls")
    for (const role of ["bos", "cls"] as const) {
      if (!hasSettings ? role === "bos" : !isKnown && !texts.has(role)) texts.set(role, first)
    }
    added.bos = first === texts.get("bos") || first === texts.get("cls")
  }
  if (last !== undefined) {
    const ends = texts.get("eos")
    if (hasSettings && last !== ends) {
      // What ended texts so far may end turns.
      const spare = (["eot", "eom"] as const).find((role) => !texts.has(role))
      if (spare !== undefined && ends !== undefined) texts.set(spare, ends)
    }
    texts.set("eos", last)
    added.eos = true
  }
  readPair(processor["pair"], found, { first, last })
}

function readPair(
  value: unknown,
  { texts, added }: Found,
  ends: { first: string | undefined; last: string | undefined },
): void {
  if (!Array.isArray(value) || value.length === 0) return
  const start = ends.first !== undefined && specialId(value[0]) === ends.first ? 1 : 0
  const stop = ends.last !== undefined && specialId(value.at(-1)) === ends.last ? -1 : undefined
  const inner: unknown[] = value.slice(start, stop)
  const middle = inner.slice(1, -1)
  if (sequenceId(inner[0]) !== "A" || sequenceId(inner.at(-1)) !== "B" || middle.length === 0)
    return
  const separators = [texts.get("sep"), texts.get("eos")]
  const isSeparator = (entry: unknown): boolean => {
    const id = specialId(entry)
    return id !== undefined && separators.includes(id)
  }
  added.sep =
    (isSeparator(middle[0]) && ends.last === undefined) ||
    (middle.length === 2 && isSeparator(middle[1]))
  const eos = texts.get("eos")
  if (added.sep && !texts.has("sep") && eos !== undefined) texts.set("sep", eos)
}

function specialId(entry: unknown): string | undefined {
  const token = isObject(entry) ? entry["SpecialToken"] : undefined
  return isObject(token) && typeof token["id"] === "string" ? token["id"] : undefined
}

function sequenceId(entry: unknown): unknown {
  const sequence = isObject(entry) ? entry["Sequence"] : undefined
  return isObject(sequence) ? sequence["id"] : undefined
}

function idsOf(
  texts: ReadonlyMap<TokenRole, string>,
  tokenizer: JsonObject | undefined,
): Map<TokenRole, number> {
  const added: unknown = tokenizer?.["added_tokens"]
  const ids = new Map<TokenRole, number>()
  for (const [role, content] of texts) {
    const token: unknown = Array.isArray(added)
      ? added.find((each) => isObject(each) && each["content"] === content)
      : undefined
    const id = isObject(token) ? token["id"] : undefined
    if (isTokenId(id)) ids.set(role, id)
  }
  return ids
}

function configuredId(config: JsonObject, role: TokenRole): number | undefined {
  const inner = config["text_config"]
  const key = `${role}_token_id`
  const id = config[key] ?? (isObject(inner) ? inner[key] : undefined)
  return isTokenId(id) ? id : undefined
}

/** Whether a value can be the number of a token. */
export function isTokenId(id: unknown): id is number {
  return typeof id === "number" && Number.isInteger(id) && id >= 0 && id < 2 ** 31
}

/** A template of its own wins over those in files beside the tokenizer. Several have names. */
function chatTemplates(
  folder: ModelFolder,
  settings: JsonObject | undefined,
): Map<string, GgufInput> {
  const metadata = new Map<string, GgufInput>()
  if (settings === undefined) return metadata
  const template = settings["chat_template"] ?? templateFile(folder)
  if (typeof template === "string") metadata.set("tokenizer.chat_template", text(template))
  if (!Array.isArray(template)) return metadata
  const names: string[] = []
  for (const each of template) {
    if (!isObject(each) || typeof each["template"] !== "string") continue
    const name = shown(each["name"]).replaceAll(/[^\w]/g, "")
    if (name === "default") metadata.set("tokenizer.chat_template", text(each["template"]))
    else {
      names.push(name)
      metadata.set(`tokenizer.chat_template.${name}`, text(each["template"]))
    }
  }
  if (names.length > 0) metadata.set("tokenizer.chat_templates", packStrings(names))
  return metadata
}

function templateFile(folder: ModelFolder): unknown {
  if (!folder.has("chat_template.jinja")) {
    return folder.object("chat_template.json")?.["chat_template"]
  }
  const template = folder.text("chat_template.jinja")
  const others = folder
    .names("additional_chat_templates")
    .filter((name) => name.endsWith(".jinja"))
    .map((name) => ({
      name: name.slice(0, -".jinja".length),
      template: folder.text(`additional_chat_templates/${name}`),
    }))
  return others.length === 0 ? template : [{ name: "default", template }, ...others]
}

function normaliserFlags(normaliser: unknown): Map<string, boolean> {
  const flags = new Map<string, boolean>()
  if (!isObject(normaliser)) return flags
  const inner = normaliser["normalizers"]
  if (normaliser["type"] === "Sequence" && Array.isArray(inner)) {
    for (const each of inner)
      for (const [key, value] of normaliserFlags(each)) flags.set(key, value)
  }
  if (normaliser["type"] === "Lowercase") flags.set("normalizer.lowercase", true)
  if (normaliser["type"] === "StripAccents") flags.set("normalizer.strip_accents", true)
  if (normaliser["type"] === "BertNormalizer") {
    for (const key of ["lowercase", "strip_accents"]) {
      const value = normaliser[key]
      if (typeof value === "boolean") flags.set(`normalizer.${key}`, value)
    }
  }
  return flags
}
