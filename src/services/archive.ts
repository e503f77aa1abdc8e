/**
 * Models as an archive for machines without a network: a tar file in the OCI image layout, which other tools for
 * container images read too.
 *
 * @module
 */

import { hash } from "node:crypto"
import { createReadStream, statSync } from "node:fs"

import { z } from "zod"

import { type Digest, parseDigest, toDigest } from "../store/digest.ts"
import type { Store } from "../store/folder-store.ts"
import { parseJson } from "../store/json.ts"
import { MANIFEST_BYTES_MAX, MEDIA_TYPES, parseManifest, uniqueBlobs } from "../store/manifest.ts"
import { fullName, type ModelName, parseName, shortName } from "../store/name.ts"
import type { ModelStore } from "../store/store.ts"
import { blobsOf, type StoreWriter } from "../store/writer.ts"
import { CriaError } from "../util/errors.ts"
import { readTar, tarBytes, type TarEntry, type TarSource, writeTar } from "../util/tar.ts"
import { checkManifest } from "./check-manifest.ts"
import { manifestBytes } from "./library.ts"
import { byteSteps, type Progress } from "./progress.ts"

/** Where the layout says which model a manifest is. */
const NAME_ANNOTATION = "org.opencontainers.image.ref.name"

const LAYOUT = { imageLayoutVersion: "1.0.0" }

/** An archive that is yet to be written. */
export interface Archive {
  /** Of all chunks. */
  readonly bytes: number
  readonly chunks: AsyncGenerator<Uint8Array, void>
}

/**
 * Models as an archive. Blobs that several of them have are in it once.
 *
 * @throws {CriaError} `not-found` when a model or a blob of it is missing.
 */
export function exportModels(
  store: ModelStore,
  folders: readonly Store[],
  names: readonly string[],
): Archive {
  const blobs = new Map<Digest, TarSource>()
  const manifests = names.map((text) => {
    const name = parseName(text)
    const model = store.find(name)
    if (model === undefined) throw new CriaError("not-found", `model '${text}' not found`)
    for (const digest of blobsOf(model.manifest)) blobs.set(digest, blobSource(store, digest))
    const bytes = manifestBytes(folders, model)
    const digest = parseDigest(`sha256:${hash("sha256", bytes, "hex")}`)
    blobs.set(digest, textSource(blobName(digest), bytes))
    return {
      mediaType: model.manifest.mediaType ?? MEDIA_TYPES.manifest,
      digest,
      size: bytes.length,
      annotations: { [NAME_ANNOTATION]: fullName(model.name) },
    }
  })
  const sources = [
    jsonSource("oci-layout", LAYOUT),
    jsonSource("index.json", { schemaVersion: 2, manifests }),
    ...blobs.values(),
  ]
  return { bytes: tarBytes(sources), chunks: writeTar(sources) }
}

function blobName(digest: Digest): string {
  return `blobs/${digest.replace(":", "/")}`
}

function textSource(name: string, bytes: Uint8Array): TarSource {
  return { name, size: bytes.length, content: [bytes] }
}

function jsonSource(name: string, value: object): TarSource {
  return textSource(name, Buffer.from(JSON.stringify(value)))
}

function blobSource(store: ModelStore, digest: Digest): TarSource {
  const path = store.blobPath(digest)
  if (path === undefined) {
    const bytes = store.readBlob(digest, Number.MAX_SAFE_INTEGER)
    if (bytes !== undefined) return textSource(blobName(digest), bytes)
    throw new CriaError("not-found", `Cannot export: blob "${digest}" is missing`, {
      hint: "cria verify shows which models need it",
    })
  }
  return { name: blobName(digest), size: statSync(path).size, content: readFile(path) }
}

async function* readFile(path: string): AsyncGenerator<Uint8Array> {
  // Buffers, as no encoding was asked for.
  for await (const chunk of createReadStream(path, { highWaterMark: 2 ** 20 }))
    yield chunk as Buffer
}

interface Index {
  readonly manifests: readonly {
    readonly digest: string
    readonly annotations?: Readonly<Record<string, string>> | undefined
  }[]
}

const indexSchema: z.ZodType<Index> = z.object({
  manifests: z
    .array(
      z.object({
        digest: z.string(),
        annotations: z.record(z.string(), z.string()).optional(),
      }),
    )
    .max(1000),
})

/** Options of {@link importModels}. */
export interface ImportOptions {
  /** The name to give the model, when the archive has one only. */
  readonly rename?: string | undefined
  /** Keep blobs that only a replaced model had. */
  readonly keepsUnused?: boolean
  readonly signal?: AbortSignal | undefined
}

/**
 * Reads an archive and installs its models. Every blob's digest is checked while it is written.
 *
 * @returns Steps; in the end the names that were installed. Blobs of an archive that fails are removed again.
 * @throws {CriaError} `invalid-input` when it is no such archive or a digest is wrong.
 */
export async function* importModels(
  writer: StoreWriter,
  source: AsyncIterable<Uint8Array>,
  { rename, keepsUnused = false, signal }: ImportOptions = {},
): AsyncGenerator<Progress, string[]> {
  const renamed = rename === undefined ? undefined : parseName(rename)
  // Manifests are not blobs in our store, and what belongs to no model is not wanted.
  const unused: Digest[] = []
  let index: Index | undefined
  try {
    for await (const entry of readTar(source)) {
      const digest = blobDigest(entry.name)
      if (entry.name === "index.json") index = await readIndex(entry)
      if (digest === undefined) continue
      const { size } = entry
      const step = { status: `importing ${digest.slice(7, 19)}`, digest, total: size }
      yield { ...step, completed: 0 }
      const put = writer.putSteps(entry.content, { expected: digest, size, signal })
      const { isNew } = yield* byteSteps(put, step)
      if (isNew) unused.push(digest)
      yield { ...step, completed: size }
    }
    const models = modelsOf(writer, index, renamed)
    for (const { name, bytes } of models) {
      // One after the other: two may have the same name.
      // oxlint-disable-next-line no-await-in-loop
      const replaced = await writer.writeManifest(name, bytes)
      if (replaced !== undefined && !keepsUnused) unused.push(...blobsOf(replaced))
    }
    return models.map(({ name }) => shortName(name))
  } finally {
    await writer.removeUnreferenced(unused)
  }
}

/** `blobs/sha256/<hex>`. Other names are of no interest, and no name becomes a path. */
function blobDigest(name: string): Digest | undefined {
  const match = /^(?:\.\/)?blobs\/sha256\/([0-9a-f]{64})$/.exec(name)
  return match === null ? undefined : toDigest(`sha256:${match[1]}`)
}

async function readIndex({ size, content }: TarEntry): Promise<Index> {
  if (size > MANIFEST_BYTES_MAX) {
    const text = `Cannot read index.json: ${size} bytes, limit ${MANIFEST_BYTES_MAX}`
    throw new CriaError("invalid-input", text)
  }
  const chunks = await Array.fromAsync(content)
  try {
    return parseJson(indexSchema, Buffer.concat(chunks).toString("utf8"), "index.json")
  } catch (cause) {
    throw asInvalid(cause)
  }
}

/** A model that only has to be written down. */
interface ImportedModel {
  readonly name: ModelName
  /** Of its manifest. */
  readonly bytes: Buffer
}

/** All models of an archive, whose blobs are in the store now. Checks all of them. */
function modelsOf(
  writer: StoreWriter,
  index: Index | undefined,
  renamed: ModelName | undefined,
): ImportedModel[] {
  const manifests = index?.manifests ?? []
  if (manifests.length === 0) {
    const hint = "Expected a tar file in the OCI image layout, as cria export writes it"
    throw new CriaError("invalid-input", "Cannot import: the archive has no models", { hint })
  }
  if (renamed !== undefined && manifests.length > 1) {
    const text = `Cannot import ${manifests.length} models as "${shortName(renamed)}"`
    throw new CriaError("invalid-input", text, { hint: "Leave the name out" })
  }
  return manifests.map(({ digest, annotations = {} }) => {
    const bytes = writer.readBlob(parseDigest(digest), MANIFEST_BYTES_MAX)
    if (bytes === undefined) {
      throw new CriaError(
        "invalid-input",
        `Cannot import: manifest "${digest}" is not in the archive`,
      )
    }
    const name = renamed ?? nameOf(annotations)
    checkModel(writer, name, bytes)
    return { name, bytes }
  })
}

function nameOf(annotations: Readonly<Record<string, string>>): ModelName {
  const name = annotations[NAME_ANNOTATION]
  if (name !== undefined) return parseName(name)
  const hint = "Give one: cria import <file> <name>"
  throw new CriaError("invalid-input", "Cannot import: the archive does not name its model", {
    hint,
  })
}

/** @throws {CriaError} `invalid-input` when it is no manifest, or one of other files than are there. */
function checkModel(writer: StoreWriter, name: ModelName, bytes: Buffer): void {
  const action = `Cannot import "${fullName(name)}"`
  try {
    const { manifest } = parseManifest(bytes)
    checkManifest(manifest, action)
    for (const { digest, size } of uniqueBlobs(manifest)) {
      const found = statSync(writer.blobPath(digest), { throwIfNoEntry: false })?.size
      if (found === undefined) throw new Error(`${action}: ${digest} is not in the archive`)
      if (found !== size) {
        throw new Error(`${action}: ${digest} has ${found} bytes, its manifest says ${size}`)
      }
    }
  } catch (cause) {
    throw asInvalid(cause)
  }
}

function asInvalid(cause: unknown): CriaError {
  const text = cause instanceof Error ? cause.message : String(cause)
  return new CriaError("invalid-input", text, { cause })
}
