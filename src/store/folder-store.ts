/**
 * A store that is a folder in Ollama's layout: cria's own, or one that Ollama fills.
 *
 * Owns the scan of `manifests/<host>/<namespace>/<model>/<tag>` and of nothing else. The folder is the truth, other
 * programs write to it: every list looks at every file, and reads those that have changed since the last one.
 *
 * @module
 */
import type { Dirent } from "node:fs"
import { join, resolve } from "node:path"

import { CriaError, toCriaError } from "../util/errors.ts"
import { blobFilePath, type Digest } from "./digest.ts"
import { FileMemory, stampOf } from "./file-memory.ts"
import { isRegularFile, readFolder, readRegularFile } from "./files.ts"
import { modelBytes, readManifest } from "./manifest.ts"
import {
  equalsIgnoringCase,
  fullName,
  manifestPath,
  manifestsFolder,
  type ModelName,
  nameFromParts,
  nameParts,
} from "./name.ts"
import {
  type ModelStore,
  newestFirst,
  type StoredModel,
  type StoreListing,
  type StoreProblem,
} from "./store.ts"

/** A {@link ModelStore} that is a folder. */
export interface Store extends ModelStore {
  /** Absolute path. */
  readonly root: string
  /** Whether models may not be added and removed here. */
  readonly readOnly: boolean
}

/**
 * Opens a store. A missing folder is an empty store, until someone fills it.
 *
 * @throws {CriaError} `unavailable` when the folder is there and cannot be read.
 */
export function openStore(root: string, options: { readonly readOnly: boolean }): Store {
  const folder = resolve(root)
  readFolder(manifestsFolder(folder))
  const manifests: Manifests = { root: folder, known: new FileMemory() }
  return {
    root: folder,
    readOnly: options.readOnly,
    list: () => listModels(manifests),
    find: (name) => findModel(manifests, name),
    blobPath: (digest) => findBlob(folder, digest),
    readBlob: (digest, bytesMax) => {
      const path = findBlob(folder, digest)
      return path === undefined ? undefined : readRegularFile(path, bytesMax).bytes
    },
  }
}

/** A folder, and what its manifests said when they were last read. */
interface Manifests {
  readonly root: string
  readonly known: FileMemory<StoredModel>
}

function listModels(manifests: Manifests): StoreListing {
  const { names, problems } = scanManifests(manifests.root)
  const models: StoredModel[] = []
  for (const name of names) {
    try {
      models.push(readModel(manifests, name))
    } catch (error) {
      const path = manifestPath(manifests.root, name)
      problems.push({ path, name, error: toCriaError(error) })
    }
  }
  return { models: newestFirst(models), problems }
}

function findModel(manifests: Manifests, name: ModelName): StoredModel | undefined {
  const { names, problems } = scanManifests(manifests.root, name)
  const installed = names.find((other) => fullName(other) === fullName(name)) ?? names[0]
  if (installed !== undefined) return readModel(manifests, installed)
  // This scan looked at nothing but the name, so what it could not read may be the model.
  if (problems[0] !== undefined) throw problems[0].error
  return undefined
}

function findBlob(root: string, digest: Digest): string | undefined {
  // A blob may be a link: installations share them over a network file system.
  const path = blobFilePath(root, digest)
  return isRegularFile(path) ? path : undefined
}

function readModel({ root, known }: Manifests, name: ModelName): StoredModel {
  const path = manifestPath(root, name)
  const stamp = stampOf(path, Date.now())
  const before = known.find(path, stamp)
  if (before !== undefined) return before
  const { manifest, id, modifiedAt } = readManifest(path)
  const model = { name, id, manifest, sizeBytes: modelBytes(manifest), modifiedAt }
  known.keep(path, stamp, model)
  return model
}

/** A walk through `manifests/` and what it has found. */
interface Scan {
  readonly root: string
  /** The four parts of the only name to look for, in any casing. */
  readonly wanted: readonly string[] | undefined
  readonly names: ModelName[]
  readonly problems: StoreProblem[]
}

/** Finds the names of all manifests, or of those that match `wanted`, without opening one. */
function scanManifests(root: string, wanted?: ModelName): Scan {
  const scan = { root, wanted: wanted && nameParts(wanted), names: [], problems: [] }
  scanFolder(scan, [])
  return scan
}

function scanFolder(scan: Scan, parts: readonly string[]): void {
  const folder = join(manifestsFolder(scan.root), ...parts)
  const wantedPart = scan.wanted?.[parts.length]
  for (const entry of readEntries(scan, folder)) {
    if (wantedPart !== undefined && !equalsIgnoringCase(wantedPart, entry.name)) continue
    const inner = [...parts, entry.name]
    if (entry.isSymbolicLink()) {
      addProblem(scan, join(folder, entry.name), "a symbolic link, want a file or folder")
    } else if (inner.length < 4) {
      if (entry.isDirectory()) scanFolder(scan, inner)
    } else if (!entry.isDirectory()) {
      const name = nameFromParts(inner)
      if (name !== undefined) scan.names.push(name)
      else addProblem(scan, join(folder, entry.name), "not the path of a valid model name")
    }
  }
}

function readEntries(scan: Scan, folder: string): readonly Dirent[] {
  try {
    return readFolder(folder)
  } catch (error) {
    scan.problems.push({ path: folder, error: toCriaError(error) })
    return []
  }
}

function addProblem(scan: Scan, path: string, reason: string): void {
  const error = new CriaError("internal", `Cannot read "${path}": ${reason}`)
  scan.problems.push({ path, error })
}
