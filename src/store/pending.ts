/**
 * Pulls under way: the manifest of each, so that nothing of what they have fetched is taken for rubbish.
 *
 * A model appears when all its blobs are there; until then no manifest names those that are. A pull that ended early
 * is remembered too, for some days: it may be gone on with.
 *
 * @module
 */
import { hash } from "node:crypto"
import { mkdirSync, rmSync, statSync, writeFileSync } from "node:fs"
import { join } from "node:path"

import type { Digest } from "./digest.ts"
import { cannotWrite } from "./durable.ts"
import { readFolder, readRegularFile } from "./files.ts"
import { MANIFEST_BYTES_MAX, parseManifest } from "./manifest.ts"

/** Beside `manifests` and `blobs`, where Ollama looks at nothing. A file for each, named by its digest. */
const PULLS_FOLDER = ".cria-pulls"

/**
 * Remembers a pull.
 *
 * @param manifest What it is to install.
 * @throws {CriaError} `unavailable` when the store cannot be written.
 */
export function rememberPull(root: string, manifest: Uint8Array): void {
  const path = pullPath(root, manifest)
  try {
    mkdirSync(join(root, PULLS_FOLDER), { recursive: true })
    // Over an older one: then it counts as new. One that is cut off by a crash names nothing.
    writeFileSync(path, manifest)
  } catch (error) {
    throw cannotWrite(path, error)
  }
}

/** Forgets a pull that has come to its end. */
export function forgetPull(root: string, manifest: Uint8Array): void {
  rmSync(pullPath(root, manifest), { force: true })
}

/**
 * The blobs of all pulls that are remembered. Those that began before `before` are forgotten.
 *
 * @param before Milliseconds since 1970.
 */
export function pendingDigests(root: string, before: number): Set<Digest> {
  const digests = new Set<Digest>()
  const folder = join(root, PULLS_FOLDER)
  for (const { name } of readFolder(folder)) {
    const path = join(folder, name)
    if (statSync(path).mtimeMs < before) rmSync(path, { force: true })
    else for (const digest of digestsOf(path)) digests.add(digest)
  }
  return digests
}

function digestsOf(path: string): Digest[] {
  try {
    const { manifest } = parseManifest(readRegularFile(path, MANIFEST_BYTES_MAX).bytes)
    return [manifest.config, ...manifest.layers].map(({ digest }) => digest)
  } catch {
    return []
  }
}

function pullPath(root: string, manifest: Uint8Array): string {
  return join(root, PULLS_FOLDER, hash("sha256", manifest, "hex"))
}
