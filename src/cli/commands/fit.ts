/**
 * `cria show --fit`: which quantisations of a repository fit this machine.
 *
 * @module
 */

import type { FitReply } from "../../api/ollama.ts"
import type { Config } from "../../config.ts"
import { formatBytes, formatGib } from "../../util/units.ts"
import { connectOrStart } from "../connect.ts"
import { formatTable } from "../output.ts"

const PLACES = { gpu: "on GPU", partly: "partly on GPU", cpu: "on CPU", none: "no" } as const

/** Prints the table, the best one marked. */
export async function showFit(
  config: Config,
  model: string,
  { insecure, json = false }: { readonly insecure?: boolean; readonly json?: boolean },
): Promise<void> {
  await using connection = await connectOrStart(config)
  const reply = await connection.client.fit({ model, insecure })
  console.log(json ? JSON.stringify(reply) : fitText(reply))
}

/** The table and what it was measured against. */
export function fitText({ memory, quants }: FitReply): string {
  const rows = quants.map(({ quant, size, files, place, context, chosen }) => [
    chosen ? `${quant} *` : quant,
    files > 1 ? `${formatBytes(size)} in ${files} files` : formatBytes(size),
    PLACES[place],
    place === "none" ? "-" : String(context),
  ])
  const gpu = memory.gpu > 0 ? `${formatGib(memory.gpu)} on GPUs, ` : ""
  const isAny = quants.some(({ chosen }) => chosen)
  const note = isAny ? "* is what a pull without a tag takes" : "none fits with a useful context"
  const table = formatTable(["QUANT", "SIZE", "FITS", "CONTEXT"], rows)
  return `${table}\n\nMemory: ${gpu}${formatGib(memory.host)} of RAM; ${note}`
}
