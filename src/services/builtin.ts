/**
 * Stores of one model each that is not in any folder: the demo model inside the executable, and a file of the user's
 * that is run where it lies.
 *
 * @module
 */

import { createHash } from "node:crypto"
import { readFileSync, statSync } from "node:fs"
import { basename } from "node:path"

import demoFile from "../../models/demo/cria-demo-q8_0.gguf" with { type: "file" }
import { modelFacts } from "../gguf/facts.ts"
import { readModel } from "../gguf/split.ts"
import { type Digest, parseDigest } from "../store/digest.ts"
import { type Layer, type Manifest, MEDIA_TYPES, modelBytes } from "../store/manifest.ts"
import { type ModelName, parseName, sameName } from "../store/name.ts"
import type { ModelStore, StoredModel, StoreListing } from "../store/store.ts"
import { isEmbedded } from "../util/executable.ts"
import { unpackFile } from "../util/unpack.ts"

/** The demo answers best when it is greedy. */
const DEMO_PARAMS = { temperature: 0 }

/**
 * The demo model, under the name `demo`.
 *
 * @param cache Folder for the unpacked file.
 */
export function demoStore(cache: string): ModelStore {
  return new SingleModelStore(parseName("demo"), () => {
    const digest = sha256(readFileSync(demoFile))
    const path = isEmbedded(demoFile) ? unpackFile(demoFile, digest.slice(7, 23), cache) : demoFile
    return { path, digest, params: DEMO_PARAMS }
  })
}

/**
 * A GGUF file, under its own name without the ending.
 *
 * @throws {CriaError} `invalid-input` or `not-found` when it is no model file.
 */
export function fileStore(path: string): ModelStore {
  readModel(path)
  const name = fileModelName(path)
  const { size, mtimeMs } = statSync(path)
  // Names the content well enough for one session; hashing gigabytes would keep the user waiting.
  const digest = sha256(`${path}\0${size}\0${mtimeMs}`)
  return new SingleModelStore(parseName(name), () => ({ path, digest }))
}

/** The name under which a file is run: its base name, with whatever names cannot have replaced. */
export function fileModelName(path: string): string {
  const base = basename(path).replace(/\.gguf$/i, "")
  const clean = base
    .replaceAll(/[^\w.-]/g, "-")
    .replace(/^[^\w]+/, "")
    .slice(0, 80)
  return clean === "" ? "model" : clean
}

interface ModelFile {
  readonly path: string
  readonly digest: Digest
  readonly params?: Readonly<Record<string, unknown>>
}

interface Opened extends StoredModel {
  /** The weights. */
  readonly file: ModelFile
  /** Config and parameters. */
  readonly texts: ReadonlyMap<Digest, string>
}

/** Holds one model; its files are touched when somebody asks for it. */
class SingleModelStore implements ModelStore {
  readonly #name: ModelName
  readonly #open: () => ModelFile
  #opened: Opened | undefined

  constructor(name: ModelName, open: () => ModelFile) {
    this.#name = name
    this.#open = open
  }

  list(): StoreListing {
    return { models: [this.#model()], problems: [] }
  }

  find(name: ModelName): StoredModel | undefined {
    return sameName(name, this.#name) ? this.#model() : undefined
  }

  blobPath(digest: Digest): string | undefined {
    const { file } = this.#model()
    return file.digest === digest ? file.path : undefined
  }

  readBlob(digest: Digest): Buffer | undefined {
    const text = this.#model().texts.get(digest)
    return text === undefined ? undefined : Buffer.from(text)
  }

  #model(): Opened {
    this.#opened ??= describe(this.#name, this.#open())
    return this.#opened
  }
}

/** A manifest as Ollama would have written it, and its blobs. */
function describe(name: ModelName, file: ModelFile): Opened {
  const { header, otherParts } = readModel(file.path)
  const facts = modelFacts(header, otherParts)
  const texts = new Map<Digest, string>()
  const layer = (mediaType: string, content: object): Layer => {
    const text = JSON.stringify(content)
    const digest = sha256(text)
    texts.set(digest, text)
    return { mediaType, digest, size: Buffer.byteLength(text) }
  }
  const config = layer(MEDIA_TYPES.config, {
    model_format: "gguf",
    model_family: facts.architecture,
    model_families: [facts.architecture],
    model_type: facts.parameterLabel,
    file_type: facts.quantization,
  })
  const weights = { mediaType: MEDIA_TYPES.model, digest: file.digest, size: facts.fileBytes }
  const params = file.params === undefined ? [] : [layer(MEDIA_TYPES.params, file.params)]
  const manifest: Manifest = { schemaVersion: 2, config, layers: [weights, ...params] }
  return {
    name,
    id: sha256(JSON.stringify(manifest)).slice("sha256:".length),
    manifest,
    sizeBytes: modelBytes(manifest),
    modifiedAt: new Date(statSync(file.path).mtimeMs),
    file,
    texts,
  }
}

function sha256(content: string | Uint8Array): Digest {
  return parseDigest(`sha256:${createHash("sha256").update(content).digest("hex")}`)
}
