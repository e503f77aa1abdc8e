/**
 * Creations under way: what each of them reads, so that nobody takes it for rubbish meanwhile.
 *
 * Several may read the same uploads, and the first to end must leave them to the others. A note is made young again as
 * its creation goes on; an old one is of a creation that has died, and keeps nothing.
 *
 * @module
 */
import { randomBytes } from "node:crypto"
import { mkdirSync, rmSync, statSync, utimesSync, writeFileSync } from "node:fs"
import { join } from "node:path"

import { type Digest, toDigest } from "./digest.ts"
import { cannotWrite } from "./durable.ts"
import { readFolder, readRegularFile } from "./files.ts"
import { withStoreLock } from "./lock.ts"

/** Beside `manifests` and `blobs`, where Ollama looks at nothing. A file for each creation, a digest a line. */
const CREATIONS_FOLDER = ".cria-creations"

/** So old are notes that nobody makes young: steps are seconds apart. As long as unused blobs stay. */
const NOTE_MS_MAX = 60 * 60 * 1000

/** Longest note: of more files than any model has. */
const NOTE_BYTES_MAX = 4 * 1024 * 1024

/** A creation under way. Dispose it when it has ended, however. */
export interface Creation extends Disposable {
  /** Says that it goes on. */
  renew(): void
}

/**
 * Notes that a creation begins. What is missing afterwards was missing before: whoever removes blobs looks at the notes
 * under the same lock.
 *
 * @param digests What it reads.
 * @throws {CriaError} `unavailable` when the store cannot be written, `busy`.
 */
export async function beginCreation(root: string, digests: Iterable<Digest>): Promise<Creation> {
  const path = join(root, CREATIONS_FOLDER, randomBytes(12).toString("hex"))
  await withStoreLock(root, () => {
    try {
      mkdirSync(join(root, CREATIONS_FOLDER), { recursive: true })
      writeFileSync(path, [...new Set(digests)].join("\n"))
    } catch (error) {
      throw cannotWrite(path, error)
    }
  })
  return {
    renew: () => makeYoung(path),
    [Symbol.dispose]() {
      rmSync(path, { force: true })
    },
  }
}

/**
 * What the creations under way read. Notes of those that have died are removed.
 *
 * @param nowMs Milliseconds since 1970.
 */
export function digestsInCreation(root: string, nowMs: number = Date.now()): Set<Digest> {
  const digests = new Set<Digest>()
  const folder = join(root, CREATIONS_FOLDER)
  for (const { name } of readFolder(folder)) {
    const path = join(folder, name)
    const stats = statSync(path, { throwIfNoEntry: false })
    if (stats === undefined) continue
    if (stats.mtimeMs < nowMs - NOTE_MS_MAX) rmSync(path, { force: true })
    else for (const digest of digestsOf(path)) digests.add(digest)
  }
  return digests
}

function digestsOf(path: string): Digest[] {
  try {
    const { bytes } = readRegularFile(path, NOTE_BYTES_MAX)
    return bytes
      .toString("utf8")
      .split("\n")
      .flatMap((line) => toDigest(line) ?? [])
  } catch {
    // Its creation has just ended.
    return []
  }
}

function makeYoung(path: string): void {
  try {
    const now = new Date()
    utimesSync(path, now, now)
  } catch {
    // Somebody has removed it; what it has kept is looked for again when the model is written down.
  }
}
