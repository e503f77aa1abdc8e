/**
 * Which quantisations a repository offers, by the names of its files or tags.
 *
 * @module
 */

import { z } from "zod"

import { MEDIA_TYPES, parseManifest } from "../store/manifest.ts"
import type { RegistryClient } from "./client.ts"
import { discard, exchange, type Network, readText } from "./http.ts"

/** One of several forms of the same model. */
export interface Quant {
  /** The tag under which the registry gives it. */
  readonly tag: string
  /** Such as `Q4_K_M`, in upper case. */
  readonly label: string
  /** Of the weights. */
  readonly bytes: number
  /** More than one for split files, which registries do not give under a tag. */
  readonly files: number
}

/** A label, standing by itself between separators. */
const LABEL =
  /(?<=^|[-_./])((?:UD-)?(?:IQ\d_(?:XXS|XS|NL|S|M)|Q\d_(?:[01]|K(?:_(?:XS|S|M|L|XL))?)|TQ[12]_0|MXFP4(?:_MOE)?|NVFP4|BF16|FP?16|FP?32))(?=$|[-_./])/gi

const UNQUANTIZED: ReadonlySet<string> = new Set(["BF16", "F16", "FP16", "F32", "FP32"])

const SPLIT = /-\d{5}-of-(\d{5})$/

const HUGGING_FACE: ReadonlySet<string> = new Set(["hf.co", "huggingface.co"])

const LIST_BYTES_MAX = 16 * 2 ** 20
const PAGES_MAX = 10

/** A manifest is asked for each: more are not one model in several forms. */
const TAGS_MAX = 40

const treeSchema = z.array(
  z.object({
    type: z.string(),
    path: z.string(),
    size: z.int().nonnegative(),
    lfs: z.object({ size: z.int().nonnegative() }).nullish(),
  }),
)

/** The label in a file name or tag; the last one when there are several. */
export function quantLabel(text: string): string | undefined {
  return [...text.matchAll(LABEL)].at(-1)?.[1]?.toUpperCase()
}

/** Whether a label means weights as they were trained. */
export function isUnquantized(label: string): boolean {
  return UNQUANTIZED.has(label)
}

/** The quantisations in a repository of Hugging Face, by its files. */
export function quantsOfFiles(
  files: readonly { readonly path: string; readonly bytes: number }[],
): Quant[] {
  const found = new Map<string, { bytes: number; files: number }>()
  for (const { path, bytes } of files) {
    const [, stem] = /^(.*)\.gguf$/i.exec(path) ?? []
    const base = stem?.split("/").at(-1)?.toLowerCase() ?? ""
    if (stem === undefined || base.includes("mmproj") || base.includes("imatrix")) continue
    const label = quantLabel(stem.replace(SPLIT, ""))
    if (label === undefined) continue
    const before = found.get(label)
    // A second file of the same label is another model, unless both are parts of one.
    if (before !== undefined && !SPLIT.test(stem)) continue
    found.set(label, { bytes: bytes + (before?.bytes ?? 0), files: 1 + (before?.files ?? 0) })
  }
  return [...found].map(([label, { bytes, files: count }]) => ({
    tag: label,
    label,
    bytes,
    files: count,
  }))
}

/** Tags that name the same model in several quantisations; [] when they name several models. */
export function quantTags(tags: readonly string[]): { tag: string; label: string }[] {
  const labelled = tags.flatMap((tag) => {
    const label = quantLabel(tag)
    return label === undefined ? [] : [{ tag, label }]
  })
  const rests = labelled.map(({ tag, label }) => tag.toUpperCase().replace(label, ""))
  return new Set(rests).size === 1 ? labelled.slice(0, TAGS_MAX) : []
}

/**
 * Lists the quantisations of the client's repository, largest first; [] when the registry does not tell.
 *
 * @throws {CriaError} When the registry cannot be reached.
 */
export async function listQuants(
  client: RegistryClient,
  network: Network,
  token: string | undefined,
  signal?: AbortSignal,
): Promise<Quant[]> {
  const isHub = HUGGING_FACE.has(client.base.host)
  const quants = isHub
    ? quantsOfFiles(await listFiles(hubUrl(client.base), network, token, signal))
    : await listTags(client, signal)
  return quants.toSorted((a, b) => b.bytes - a.bytes)
}

/** From the `/v2` address of a repository to the list of its files. */
function hubUrl({ pathname }: URL): URL {
  const repository = pathname.replace(/^\/v2\//, "").replace(/\/$/, "")
  return new URL(`https://huggingface.co/api/models/${repository}/tree/main?recursive=true`)
}

/** The files of a repository of Hugging Face, from its own API. [] when there is no such repository. */
export async function listFiles(
  first: URL,
  network: Network,
  token?: string,
  signal?: AbortSignal,
): Promise<{ path: string; bytes: number }[]> {
  const files: { path: string; bytes: number }[] = []
  const headers: Record<string, string> =
    token === undefined ? {} : { Authorization: `Bearer ${token}` }
  let url: URL | undefined = first
  for (let page = 0; url !== undefined && page < PAGES_MAX; page++) {
    // Each page names the next.
    // oxlint-disable-next-line no-await-in-loop
    const response: Response = await exchange(network, { method: "GET", url, headers, signal })
    // Repositories that were renamed are found under their new name.
    const target = response.headers.get("Location")
    const isMoved = response.status >= 300 && response.status < 400 && target !== null
    const next = /<([^>]+)>\s*;\s*rel="?next"?/.exec(response.headers.get("Link") ?? "")?.[1]
    if (response.ok) {
      // oxlint-disable-next-line no-await-in-loop
      files.push(...parseTree(await readText(response, LIST_BYTES_MAX)))
    } else {
      // oxlint-disable-next-line no-await-in-loop
      await discard(response)
    }
    const following = isMoved ? target : response.ok ? next : undefined
    const parsed: URL | null = following === undefined ? null : URL.parse(following, url.href)
    url = parsed?.origin === first.origin ? parsed : undefined
  }
  return files
}

function parseTree(text: string): { path: string; bytes: number }[] {
  try {
    return treeSchema
      .parse(JSON.parse(text))
      .filter(({ type }) => type === "file")
      .map(({ path, size, lfs }) => ({ path, bytes: lfs?.size ?? size }))
  } catch {
    return []
  }
}

async function listTags(client: RegistryClient, signal?: AbortSignal): Promise<Quant[]> {
  const quants: Quant[] = []
  for (const { tag, label } of quantTags((await client.tags(signal)) ?? [])) {
    // One after the other: this is no reason to knock on forty doors at once.
    // oxlint-disable-next-line no-await-in-loop
    const { manifest } = parseManifest(await client.manifest(tag, signal))
    const weights = manifest.layers.filter(({ mediaType }) => mediaType === MEDIA_TYPES.model)
    const bytes = weights.reduce((sum, { size }) => sum + size, 0)
    if (weights.length > 0) quants.push({ tag, label, bytes, files: weights.length })
  }
  return quants
}
