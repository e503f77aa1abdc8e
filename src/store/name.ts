/**
 * The grammar of model names: `[scheme://][host[:port]/][namespace/]model[:tag]`.
 *
 * Owns parsing, validity, display and the one way a name becomes a path. It knows nothing about what is
 * installed: taking the casing of an installed model is `resolve.ts`.
 *
 * @module
 */
import { join } from "node:path"

import { assert, CriaError } from "../util/errors.ts"

/** How the registry of a name is reached. Only pull and push look at it; it is never stored. */
export type Scheme = "http" | "https"

/** A complete model name. Names from {@link parseName} and {@link nameFromParts} are valid in every part. */
export interface ModelName {
  readonly scheme: Scheme
  /** Host of the registry, with its port when it has one. */
  readonly host: string
  readonly namespace: string
  readonly model: string
  readonly tag: string
}

/** What a name stands for when the text leaves parts out, as Ollama fills them in. */
const DEFAULTS = {
  scheme: "https",
  host: "registry.ollama.ai",
  namespace: "library",
  tag: "latest",
} as const

/**
 * Valid parts, with Ollama's lengths. `\w` is ASCII here, so look-alike letters fail, and no part can be
 * `.`, `..` or hold a separator. A host may not end in `:`, so the drive of `C:/a/b` is not a host.
 */
const PARTS = {
  host: /^\w(?:[\w.:-]{0,348}[\w.-])?$/,
  namespace: /^\w[\w-]{0,79}$/,
  model: /^\w[\w.-]{0,79}$/,
  tag: /^\w[\w.-]{0,79}$/,
} as const

/** Characters of a refused text that an error repeats; the text can be a whole request body. */
const QUOTED_CHARS_MAX = 100

/**
 * Parses a name and fills in the defaults.
 *
 * Does not trim: requests do, with {@link splitSource}. Takes time linear in the length of `text`.
 *
 * @throws {CriaError} `invalid-input` with the text that clients know; the hint quotes `text`.
 */
export function parseName(text: string): ModelName {
  const [path, tag] = text.lastIndexOf(":") > text.lastIndexOf("/") ? cutLast(text, ":") : [text]
  const [owner, model] = cutFromEnd(path)
  const [origin, namespace] = owner === undefined ? [] : cutFromEnd(owner)
  const [scheme, host] = origin?.includes("://") ? cutFirst(origin, "://") : [undefined, origin]

  if (scheme === undefined || scheme === "http" || scheme === "https") {
    // An empty part is a mistake (`/m`, `m:`), so only a missing one takes its default.
    const name: ModelName = {
      scheme: scheme ?? DEFAULTS.scheme,
      host: host ?? DEFAULTS.host,
      namespace: namespace ?? DEFAULTS.namespace,
      model,
      tag: tag ?? DEFAULTS.tag,
    }
    if (isValidName(name)) return name
  }
  const quoted = JSON.stringify(text.slice(0, QUOTED_CHARS_MAX))
  throw new CriaError("invalid-input", "invalid model name", {
    hint: `Write [host[:port]/][namespace/]model[:tag] instead of ${quoted}`,
  })
}

/** Whether every part keeps to the grammar. */
export function isValidName(name: ModelName): boolean {
  return (
    PARTS.host.test(name.host) &&
    PARTS.namespace.test(name.namespace) &&
    PARTS.model.test(name.model) &&
    PARTS.tag.test(name.tag)
  )
}

/** Builds a name from the four levels of a manifest path; `undefined` when they are not a valid name. */
export function nameFromParts(parts: readonly string[]): ModelName | undefined {
  const [host = "", namespace = "", model = "", tag = ""] = parts
  const name = { scheme: DEFAULTS.scheme, host, namespace, model, tag }
  return parts.length === 4 && isValidName(name) ? name : undefined
}

/** The parts that name a manifest, outermost first. */
export function nameParts(name: ModelName): readonly [string, string, string, string] {
  return [name.host, name.namespace, name.model, name.tag]
}

/** The form people read: the default host and its default namespace hidden, the tag always shown. */
export function shortName(name: ModelName): string {
  const { host, namespace, model, tag } = name
  if (!equalsIgnoringCase(host, DEFAULTS.host)) return fullName(name)
  if (!equalsIgnoringCase(namespace, DEFAULTS.namespace)) return `${namespace}/${model}:${tag}`
  return `${model}:${tag}`
}

/** The form with nothing hidden: `host/namespace/model:tag`. */
export function fullName(name: ModelName): string {
  return `${name.host}/${name.namespace}/${name.model}:${name.tag}`
}

/** One text for all casings of a name, for sets and maps. */
export function nameKey(name: ModelName): string {
  return fullName(name).toLowerCase()
}

/** Whether two names mean the same model: equal in every part but for case, whatever the scheme. */
export function sameName(a: ModelName, b: ModelName): boolean {
  return nameKey(a) === nameKey(b)
}

/** Compares two name parts, which are ASCII. */
export function equalsIgnoringCase(a: string, b: string): boolean {
  return a.toLowerCase() === b.toLowerCase()
}

/** The folder of a store that holds its manifests. */
export function manifestsFolder(root: string): string {
  return join(root, "manifests")
}

/** Where the store at `root` keeps the manifest of `name`. The only way from a name to a path. */
export function manifestPath(root: string, name: ModelName): string {
  assert(isValidName(name), `a name that becomes a path is valid, not ${JSON.stringify(name)}`)
  return join(manifestsFolder(root), ...nameParts(name))
}

/** Where a request wants a model to run; see {@link splitSource}. */
export type ModelSource = "cloud" | "local" | "unspecified"

/**
 * Trims the model of a request and cuts its source suffix: `m:cloud`, `m:20b-cloud`, `m:local`, in any case.
 *
 * @returns `base`, still to be parsed, and where it shall run.
 * @throws {CriaError} `invalid-input` for two suffixes, with the text that clients know.
 */
export function splitSource(text: string): { base: string; source: ModelSource } {
  const reference = text.trim()
  const split = cutSource(reference)
  if (split.source !== "unspecified" && cutSource(split.base).source !== "unspecified") {
    const quoted = JSON.stringify(reference)
    throw new CriaError("invalid-input", `use either :local or :cloud, not both: ${quoted}`)
  }
  return split
}

function cutSource(text: string): { base: string; source: ModelSource } {
  if (/:cloud$/i.test(text)) return { base: text.slice(0, -":cloud".length), source: "cloud" }
  if (/:local$/i.test(text)) return { base: text.slice(0, -":local".length), source: "local" }
  // Behind the last ":" may be a port and a path: `host:5000/ns/my-cloud` is a plain name.
  const suffix = text.slice(text.lastIndexOf(":") + 1)
  if (suffix.length < text.length && !suffix.includes("/") && /-cloud$/i.test(suffix)) {
    return { base: text.slice(0, -"-cloud".length), source: "cloud" }
  }
  return { base: text, source: "unspecified" }
}

/** Cuts the last piece of a path off; there is nothing before it when the path has no `/`. */
function cutFromEnd(path: string): [before: string | undefined, last: string] {
  return path.includes("/") ? cutLast(path, "/") : [undefined, path]
}

function cutLast(text: string, separator: string): [before: string, after: string] {
  return cutAt(text, text.lastIndexOf(separator), separator.length)
}

function cutFirst(text: string, separator: string): [before: string, after: string] {
  return cutAt(text, text.indexOf(separator), separator.length)
}

function cutAt(text: string, index: number, width: number): [before: string, after: string] {
  return [text.slice(0, index), text.slice(index + width)]
}
