/**
 * Pulls under way: the manifest of each, so that nothing of what they have fetched is taken for rubbish.
 *
 * A model appears when all its blobs are there; until then no manifest names those that are. A pull that ended early
 * is remembered too, for some days: it may be gone on with. One that runs has a lock that dies with its process.
 *
 * @module
 */
import { hash } from "node:crypto"
import { mkdirSync, rmSync, statSync, writeFileSync } from "node:fs"
import { basename, join } from "node:path"

import { type Digest, parseDigest, toDigest } from "./digest.ts"
import { cannotWrite } from "./durable.ts"
import { readFolder, readRegularFile } from "./files.ts"
import { tryFileLock, withStoreLock } from "./lock.ts"
import { MANIFEST_BYTES_MAX, parseManifest } from "./manifest.ts"

/** Beside `manifests` and `blobs`, where Ollama looks at nothing. A file for each, named by its digest. */
const PULLS_FOLDER = ".cria-pulls"

/**
 * Remembers a pull. Until the result is disposed, removing other models leaves the blobs that it names.
 *
 * @param manifest What it is to install.
 * @throws {CriaError} `unavailable` when the store cannot be written, `busy` when it is locked.
 */
export async function rememberPull(root: string, manifest: Uint8Array): Promise<Disposable> {
  const path = pullPath(root, manifest)
  // Whoever removes blobs has looked before this, or sees it.
  return withStoreLock(root, () => {
    try {
      mkdirSync(join(root, PULLS_FOLDER), { recursive: true })
      // Over an older one: then it counts as new. One that is cut off by a crash names nothing.
      writeFileSync(path, manifest)
    } catch (error) {
      throw cannotWrite(path, error)
    }
    // A second pull of the same needs no lock while the first one has it.
    const lock = tryFileLock(root, parseDigest(`sha256:${basename(path)}`))
    return lock ?? { [Symbol.dispose]() {} }
  })
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
  for (const path of notes(root)) {
    const stats = statSync(path, { throwIfNoEntry: false })
    if (stats === undefined) continue // Its pull has just ended.
    if (stats.mtimeMs < before) rmSync(path, { force: true })
    else for (const digest of digestsOf(path)) digests.add(digest)
  }
  return digests
}

/** The blobs of the pulls that run, in whichever process. */
export function runningDigests(root: string): Set<Digest> {
  const running = notes(root).filter((path) => {
    const digest = toDigest(`sha256:${basename(path)}`)
    if (digest === undefined) return false
    using lock = tryFileLock(root, digest)
    return lock === undefined
  })
  return new Set(running.flatMap(digestsOf))
}

function notes(root: string): string[] {
  const folder = join(root, PULLS_FOLDER)
  return readFolder(folder).map(({ name }) => join(folder, name))
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
