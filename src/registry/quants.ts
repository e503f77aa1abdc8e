/**
 * Which quantisations a repository offers, by the names of its files or tags.
 *
 * @module
 */

import { type Layer, MEDIA_TYPES, parseManifest } from "../store/manifest.ts"
import { CriaError } from "../util/errors.ts"
import type { RegistryClient } from "./client.ts"
import { isPassing } from "./http.ts"
import type { HubFile } from "./hub.ts"
import type { Repository } from "./repository.ts"
import { type Patience, retrying } from "./retry.ts"

/** One of several forms of the same model. */
export interface Quant {
  /** The tag under which the registry gives it. */
  readonly tag: string
  /** Such as `Q4_K_M`, in upper case. */
  readonly label: string
  /** Of the weights. */
  readonly bytes: number
  /** Weights in so many files. Registries give one of several files under no tag. */
  readonly files: number
  /** Those files, in order, when they can be fetched one by one; else []. */
  readonly parts: readonly HubFile[]
}

/** A label, standing by itself between separators. */
const LABEL =
  /(?<=^|[-_./])((?:UD-)?(?:IQ\d_(?:XXS|XS|NL|S|M)|Q\d_(?:[01]|K(?:_(?:XS|S|M|L|XL))?)|TQ[12]_0|MXFP4(?:_MOE)?|NVFP4|BF16|FP?16|FP?32))(?=$|[-_./])/gi

const UNQUANTIZED: ReadonlySet<string> = new Set(["BF16", "F16", "FP16", "F32", "FP32"])

const SPLIT = /-\d{5}-of-(\d{5})$/

/** A manifest is asked for each: more are not one model in several forms. */
const TAGS_MAX = 40

/** What a registry says may be anything; a tag becomes part of a path. */
function isTag(text: string): boolean {
  return /^\w[\w.-]{0,127}$/.test(text)
}

/** The label in a file name or tag; the last one when there are several. */
export function quantLabel(text: string): string | undefined {
  return [...text.matchAll(LABEL)].at(-1)?.[1]?.toUpperCase()
}

/** Whether a label means weights as they were trained. */
export function isUnquantized(label: string): boolean {
  return UNQUANTIZED.has(label)
}

/** Whether a quantisation can be pulled. */
export function isAvailable({ files, parts }: Quant): boolean {
  return files === 1 || parts.length === files
}

/** The quantisations in a repository of Hugging Face, by its files. */
export function quantsOfFiles(files: readonly HubFile[]): Quant[] {
  const models = Map.groupBy(files, ({ path }) => stemOf(path)?.replace(SPLIT, ""))
  const quants = [...models].flatMap(([name, parts]) => {
    const label = name === undefined ? undefined : quantLabel(name)
    return label === undefined ? [] : (quantOf(label, parts) ?? [])
  })
  // A second file of the same label is another model; of one model, a single file is simpler than several.
  const byLabel = Map.groupBy(quants, ({ label }) => label)
  return [...byLabel.values()].flatMap(
    (same) => same.find((quant) => quant.files === 1) ?? same.slice(0, 1),
  )
}

/** The path of a file of weights without its ending; undefined for other files. */
function stemOf(path: string): string | undefined {
  const [, stem] = /^(.*)\.gguf$/i.exec(path) ?? []
  const base = stem?.split("/").at(-1)?.toLowerCase() ?? ""
  return base.includes("mmproj") || base.includes("imatrix") ? undefined : stem
}

/** Files of one name as a quantisation; undefined when some of them are missing. */
function quantOf(label: string, files: readonly HubFile[]): Quant | undefined {
  const parts = files.toSorted((a, b) => (a.path < b.path ? -1 : 1))
  const [, count = "1"] = SPLIT.exec(stemOf(parts[0]?.path ?? "") ?? "") ?? []
  if (parts.length !== Number(count)) return undefined
  const bytes = parts.reduce((sum, file) => sum + file.bytes, 0)
  const canBeFetched = parts.length > 1 && parts.every(({ digest }) => digest !== undefined)
  return { tag: label, label, bytes, files: parts.length, parts: canBeFetched ? parts : [] }
}

/** Tags that name the same model in several quantisations; [] when they name several models. */
export function quantTags(tags: readonly string[]): { tag: string; label: string }[] {
  const labelled = tags.filter(isTag).flatMap((tag) => {
    const label = quantLabel(tag)
    return label === undefined ? [] : [{ tag, label }]
  })
  const rests = labelled.map(({ tag, label }) => tag.toUpperCase().replace(label, ""))
  return new Set(rests).size === 1 ? labelled.slice(0, TAGS_MAX) : []
}

/**
 * Lists the quantisations of a repository, largest first; [] when the registry does not tell.
 *
 * @throws {CriaError} When the registry cannot be reached.
 */
export async function listQuants(
  { client, hub }: Repository,
  patience: Patience,
  signal?: AbortSignal,
): Promise<Quant[]> {
  const quants =
    hub === undefined
      ? await listTags(client, patience, signal)
      : quantsOfFiles(await retrying(() => hub.files(signal), patience, signal))
  return quants.toSorted((a, b) => b.bytes - a.bytes)
}

async function listTags(
  client: RegistryClient,
  patience: Patience,
  signal: AbortSignal | undefined,
): Promise<Quant[]> {
  const quants: Quant[] = []
  const tags = await retrying(() => client.tags(signal), patience, signal)
  for (const { tag, label } of quantTags(tags ?? [])) {
    // One after the other: this is no reason to knock on forty doors at once.
    // oxlint-disable-next-line no-await-in-loop
    const files = await weightsOf(() => client.manifest(tag, signal), patience, signal)
    const bytes = files.reduce((sum, { size }) => sum + size, 0)
    if (files.length > 0) quants.push({ tag, label, bytes, files: files.length, parts: [] })
  }
  return quants
}

/** The weights of a manifest; none when it is missing or damaged: other tags can be chosen all the same. */
async function weightsOf(
  fetch: () => Promise<Uint8Array>,
  patience: Patience,
  signal: AbortSignal | undefined,
): Promise<Layer[]> {
  try {
    const { manifest } = parseManifest(await retrying(fetch, patience, signal))
    return manifest.layers.filter(({ mediaType }) => mediaType === MEDIA_TYPES.model)
  } catch (error) {
    signal?.throwIfAborted()
    if (isPassing(error) || !(error instanceof CriaError)) throw error
    return []
  }
}
