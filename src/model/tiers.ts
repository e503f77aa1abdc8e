/**
 * Where the prefixes of a loaded model go that no longer fit into its KV cells.
 *
 * @module
 */

import { createHash } from "node:crypto"
import { statSync } from "node:fs"
import { basename, join } from "node:path"

import { MemoryTier, type PrefixTier } from "../engine/prefix-tier.ts"
import { DiskTier } from "./disk-tier.ts"
import type { LoadedFacts, LoadOptions } from "./request.ts"

/** Makes the tiers that the options ask for. */
export function createTiers(
  options: LoadOptions,
  loaded: LoadedFacts,
): { readonly all: readonly PrefixTier[]; readonly disk: DiskTier | undefined } {
  const { prefixRamBytes, prefixDisk } = options
  const ram = prefixRamBytes === undefined ? [] : [new MemoryTier(prefixRamBytes)]
  if (prefixDisk === undefined) return { all: ram, disk: undefined }
  const folder = join(prefixDisk.folder, stateKey(options, loaded))
  const disk = new DiskTier({ folder, bytesMax: prefixDisk.bytesMax })
  return { all: [...ram, disk], disk }
}

/** What a saved state depends on: the weights, what acts on them, the layout of the cells, and who wrote it. */
function stateKey(options: LoadOptions, { llamaVersion, window }: LoadedFacts): string {
  const files = [options.path, ...(options.adapters ?? [])].map((path) => {
    const { size, mtimeMs } = statSync(path)
    // Blobs are named for their content.
    return basename(path).startsWith("sha256-") ? [basename(path), size] : [path, size, mtimeMs]
  })
  const { cacheType, cacheTypeK = cacheType, cacheTypeV = cacheType, flashAttention } = options
  return createHash("sha256")
    .update(JSON.stringify([files, cacheTypeK, cacheTypeV, flashAttention, window, llamaVersion]))
    .digest("hex")
    .slice(0, 32)
}
