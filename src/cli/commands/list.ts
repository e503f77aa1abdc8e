/**
 * `cria list`, `cria ps` and `cria stop`.
 *
 * @module
 */

import type { PsModel, TagsModel } from "../../api/ollama.ts"
import type { Client } from "../../client/client.ts"
import { CriaError } from "../../util/errors.ts"
import { formatBytes, formatRelative } from "../../util/units.ts"
import { formatTable } from "../output.ts"

/** Further ahead than this is for ever. */
const FOREVER_MS = 20 * 365 * 24 * 3_600_000

/** Type of a KV cache that nobody asked for. */
const USUAL_CACHE = "f16"

/** Flags of `list` and `ps`. */
export interface ListFlags {
  readonly json?: boolean
}

/** Prints the installed models whose name begins with `prefix`, in any case. */
export async function list(
  client: Client,
  prefix = "",
  { json = false }: ListFlags = {},
): Promise<void> {
  const models = await client.tags()
  const shown = models.filter(({ name }) => name.toLowerCase().startsWith(prefix.toLowerCase()))
  if (json) console.log(JSON.stringify(shown))
  else console.log(formatTable(["NAME", "ID", "SIZE", "MODIFIED"], shown.map(listRow)))
}

/** Prints the loaded models whose name begins with `prefix`. */
export async function ps(
  client: Client,
  prefix = "",
  { json = false }: ListFlags = {},
): Promise<void> {
  const models = await client.ps()
  const shown = models.filter(({ name }) => name.startsWith(prefix))
  if (json) {
    console.log(JSON.stringify(shown))
    return
  }
  // As Ollama's, unless there is something else to say.
  const hasCache = shown.some(({ kv_cache_type: type = USUAL_CACHE }) => type !== USUAL_CACHE)
  const cache = hasCache ? ["CACHE"] : []
  const rows = shown.map((model) => psRow(model, Date.now(), hasCache))
  console.log(formatTable(["NAME", "ID", "SIZE", "PROCESSOR", "CONTEXT", ...cache, "UNTIL"], rows))
}

/** Unloads a model. */
export async function stop(client: Client, model: string): Promise<void> {
  try {
    await client.generateOnce({ model, keep_alive: 0 })
  } catch (error) {
    if (!(error instanceof CriaError && error.code === "not-found")) throw error
    throw new CriaError("not-found", `couldn't find model "${model}" to stop`)
  }
}

function listRow({ name, digest, size, modified_at: modified, remote_model }: TagsModel): string[] {
  const age = new Date(modified).getTime() - Date.now()
  const bytes = remote_model === undefined ? formatBytes(size) : "-"
  return [name, digest.slice(0, 12), bytes, formatRelative(Math.min(age, 0))]
}

function psRow(model: PsModel, now: number, hasCache: boolean): string[] {
  return [
    model.name,
    model.digest.slice(0, 12),
    formatBytes(model.size),
    processor(model),
    String(model.context_length),
    ...(hasCache ? [model.kv_cache_type ?? USUAL_CACHE] : []),
    until(new Date(model.expires_at).getTime() - now),
  ]
}

function processor({ size, size_vram: vram }: PsModel): string {
  if (vram === 0) return "100% CPU"
  if (vram === size) return "100% GPU"
  if (vram > size || size === 0) return "Unknown"
  const cpu = Math.round(((size - vram) / size) * 100)
  return `${cpu}%/${100 - cpu}% CPU/GPU`
}

function until(leftMs: number): string {
  if (leftMs < 0) return "Stopping..."
  return leftMs > FOREVER_MS ? "Forever" : formatRelative(leftMs)
}
