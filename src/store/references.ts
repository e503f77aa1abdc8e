/**
 * Which blobs are in use: those that any manifest names.
 *
 * Reads more than it understands: a digest counts wherever it stands in a manifest, and the trees of other versions
 * of Ollama count too, where a manifest is itself a blob. To delete too little costs disk; too much costs a model.
 *
 * @module
 */
import { hash } from "node:crypto"
import { readdirSync } from "node:fs"
import { join } from "node:path"

import { type Digest, parseDigest } from "./digest.ts"
import { systemErrorCode } from "./durable.ts"
import { readRegularFile } from "./files.ts"
import { MANIFEST_BYTES_MAX, parseManifest } from "./manifest.ts"

/** The tree that cria reads, and the one that newer versions of Ollama write. */
const TREES = ["manifests", "manifests-v2"]

/** What the manifests of a store name. */
export interface References {
  readonly digests: ReadonlySet<Digest>
  /** False when some file could not even be read, so that nobody knows what it names. */
  readonly areKnown: boolean
  /** False when some file is no manifest, perhaps one that was cut off. */
  readonly areSound: boolean
}

/** Collects what every file below the manifest trees of a store names. Reads some 50 files a millisecond. */
export function collectReferences(root: string): References {
  const digests = new Set<Digest>()
  let areKnown = true
  let areSound = true
  for (const tree of TREES) {
    const { files, isWhole } = filesBelow(join(root, tree))
    areKnown &&= isWhole
    for (const file of files) {
      const bytes = contentOf(file)
      if (bytes === undefined) areKnown = false
      else {
        areSound &&= isManifest(bytes)
        addDigests(digests, bytes)
        // There a manifest is a link to a blob.
        if (tree !== "manifests") digests.add(digestOf(bytes))
      }
    }
  }
  return { digests, areKnown, areSound: areKnown && areSound }
}

function filesBelow(folder: string): { files: string[]; isWhole: boolean } {
  try {
    const files = readdirSync(folder, { withFileTypes: true, recursive: true })
      .filter((entry) => !entry.isDirectory() && !isTemporaryManifest(entry.name))
      .map((entry) => join(entry.parentPath, entry.name))
    return { files, isWhole: true }
  } catch (error) {
    return { files: [], isWhole: systemErrorCode(error) === "ENOENT" }
  }
}

/** A manifest that is being written, or was when the power failed; it names nothing yet. */
export function isTemporaryManifest(fileName: string): boolean {
  return fileName.startsWith(".cria-")
}

function contentOf(file: string): Buffer | undefined {
  try {
    return readRegularFile(file, MANIFEST_BYTES_MAX).bytes
  } catch {
    return undefined
  }
}

function isManifest(bytes: Buffer): boolean {
  try {
    parseManifest(bytes)
    return true
  } catch {
    return false
  }
}

function addDigests(digests: Set<Digest>, bytes: Buffer): void {
  for (const [text] of bytes.toString("latin1").matchAll(/sha256[:-][0-9a-fA-F]{64}/g)) {
    digests.add(parseDigest(text))
  }
}

function digestOf(bytes: Buffer): Digest {
  return parseDigest(`sha256:${hash("sha256", bytes, "hex")}`)
}
