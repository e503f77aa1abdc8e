/**
 * From the name in a request to the name that is installed, and to all that a runner needs of the model.
 *
 * Reads manifests and small layers; weights are only located. What a template or an option means is not known here.
 *
 * @module
 */
import { z } from "zod"

import { CriaError } from "../util/errors.ts"
import { parseJson } from "./json.ts"
import { type Layer, type Manifest, MEDIA_TYPES, type ModelConfig } from "./manifest.ts"
import { equalsIgnoringCase, fullName, type ModelName, sameName, shortName } from "./name.ts"
import {
  installedNames,
  type ModelStore,
  readConfig,
  readText,
  requireBlob,
  type StoredModel,
} from "./store.ts"

/** The texts of a model. */
export interface ResolvedTexts {
  /** Go template. */
  readonly template: string | undefined
  readonly system: string | undefined
  /** Options, unchecked; `stop` is an array. */
  readonly params: Readonly<Record<string, unknown>> | undefined
  readonly messages: readonly StoredMessage[] | undefined
  readonly licenses: readonly string[]
}

/** A model with all its files present and its texts read. */
export interface ResolvedModel extends ResolvedTexts {
  /** In the casing in which it is installed. */
  readonly name: ModelName
  /** Hex sha256 of the manifest's bytes, without `sha256:`. */
  readonly id: string
  readonly modifiedAt: Date
  readonly sizeBytes: number
  /** GGUF of the weights. */
  readonly modelPath: string
  /** The model that the weights were taken from, as its manifest calls it. */
  readonly parentModel: string | undefined
  readonly projectorPaths: readonly string[]
  readonly adapterPaths: readonly string[]
  /** GGUF of the draft model for speculative decoding. */
  readonly draftPath: string | undefined
  readonly config: ModelConfig
}

/** A model that answers on another machine: what is installed is a stub without weights. */
export interface RemoteModel extends ResolvedTexts {
  /** In the casing in which it is installed. */
  readonly name: ModelName
  readonly modifiedAt: Date
  readonly config: ModelConfig
  /** Where it answers, such as `https://ollama.com:443`, and what it is called there. */
  readonly remoteHost: string
  readonly remoteModel: string
}

/** A message of the model's MESSAGE layer: images, tool calls and whatever else it came with stay as they are. */
export interface StoredMessage {
  readonly role: string
  readonly content: string
  readonly [field: string]: unknown
}

const paramsSchema = z.record(z.string(), z.unknown())

const messagesSchema: z.ZodType<StoredMessage[]> = z.array(
  z.looseObject({ role: z.string(), content: z.string().default("") }),
)

/**
 * Gives a name the casing of what is installed.
 *
 * A model of that name wins; without one each part takes the casing of any installed part that matches, so that a
 * new model does not come to differ from its neighbours by case only. Reads the whole store: for names that are
 * about to be written. To look a model up, `find` is enough.
 */
export function resolveName(store: ModelStore, name: ModelName): ModelName {
  const installed = installedNames(store.list())
  const match =
    installed.find((other) => fullName(other) === fullName(name)) ??
    installed.find((other) => sameName(other, name))

  const casing = (part: "host" | "namespace" | "model" | "tag"): string => {
    const parts = match === undefined ? installed.map((other) => other[part]) : [match[part]]
    if (parts.includes(name[part])) return name[part]
    return parts.find((other) => equalsIgnoringCase(other, name[part])) ?? name[part]
  }
  return {
    scheme: name.scheme,
    host: casing("host"),
    namespace: casing("namespace"),
    model: casing("model"),
    tag: casing("tag"),
  }
}

/**
 * Reads all that is needed to run a model.
 *
 * @param requested The name as the client wrote it, for the error.
 * @throws {CriaError} `not-found` with the texts that clients know when the model or one of its blobs is missing,
 *   `unavailable` when it is of a kind that cannot run here, `internal` when a layer is malformed.
 */
export function resolveModel(
  store: ModelStore,
  name: ModelName,
  requested: string = shortName(name),
): ResolvedModel {
  const model = store.find(name)
  if (model === undefined) {
    const hint = "cria list shows what is installed"
    throw new CriaError("not-found", `model '${requested}' not found`, { hint })
  }
  try {
    return readLayers(store, model)
  } catch (error) {
    if (!(error instanceof CriaError && error.code === "not-found")) throw error
    const text = `model "${requested}" not found, try pulling it first`
    throw new CriaError("not-found", text, { hint: error.message, cause: error })
  }
}

/** The stub of a model that answers on another machine; undefined when the name is not that of one. */
export function findRemote(store: ModelStore, name: ModelName): RemoteModel | undefined {
  const model = store.find(name)
  if (model === undefined) return undefined
  const config = readConfig(store, model.manifest)
  const { remote_host: remoteHost, remote_model: remoteModel } = config
  if (remoteHost === undefined || remoteHost === "") return undefined
  const { name: installed, modifiedAt, manifest } = model
  return {
    name: installed,
    modifiedAt,
    config,
    remoteHost,
    remoteModel: remoteModel ?? shortName(installed),
    ...readTexts(store, manifest),
  }
}

/**
 * That a model cannot be used because it answers elsewhere, in Ollama's words. Its status is 403, for which we have no
 * code; clients look at the words.
 */
export function remoteError(what: "model" | "details", hint?: string): CriaError {
  const subject = what === "model" ? "remote model is" : "remote model details are"
  const message = `ollama cloud is disabled: ${subject} unavailable`
  return new CriaError("invalid-input", message, hint === undefined ? {} : { hint })
}

function readLayers(store: ModelStore, model: StoredModel): ResolvedModel {
  const { name, id, modifiedAt, sizeBytes, manifest } = model
  const paths = (type: string): string[] =>
    layersOf(manifest, type).map((layer) => requireBlob(store, layer.digest))
  const modelPath = paths(MEDIA_TYPES.model).at(-1)
  if (modelPath === undefined) throw cannotRun(store, model)

  return {
    name,
    id,
    modifiedAt,
    sizeBytes,
    modelPath,
    parentModel: layersOf(manifest, MEDIA_TYPES.model).at(-1)?.from,
    projectorPaths: paths(MEDIA_TYPES.projector),
    adapterPaths: paths(MEDIA_TYPES.adapter),
    draftPath: paths(MEDIA_TYPES.draft).at(-1),
    ...readTexts(store, manifest),
    config: readConfig(store, manifest),
  }
}

/**
 * Reads the text layers of a model.
 *
 * @throws {CriaError} `not-found` when a blob is missing, `internal` when one is malformed.
 */
export function readTexts(store: ModelStore, manifest: Manifest): ResolvedTexts {
  // Of kinds that should occur once, the last one counts.
  const text = (...types: string[]): string | undefined => {
    const layer = layersOf(manifest, ...types).at(-1)
    return layer && readText(store, layer)
  }
  const params = text(MEDIA_TYPES.params)
  const messages = text(MEDIA_TYPES.messages)
  return {
    template: text(MEDIA_TYPES.template, MEDIA_TYPES.prompt),
    system: text(MEDIA_TYPES.system),
    params: params === undefined ? undefined : parseJson(paramsSchema, params, "params"),
    messages: messages === undefined ? undefined : parseJson(messagesSchema, messages, "messages"),
    licenses: layersOf(manifest, MEDIA_TYPES.license).map((layer) => readText(store, layer)),
  }
}

function layersOf(manifest: Manifest, ...types: readonly string[]): Layer[] {
  return manifest.layers.filter((layer) => types.includes(layer.mediaType))
}

function cannotRun(store: ModelStore, { name, manifest }: StoredModel): CriaError {
  const remote = findRemote(store, name)
  if (remote !== undefined) {
    const { remoteModel, remoteHost } = remote
    return remoteError(
      "model",
      `"${shortName(name)}" is "${remoteModel}" of ${remoteHost}; cria runs models on this machine`,
    )
  }
  if (manifest.layers.some((layer) => layer.mediaType === MEDIA_TYPES.tensor)) {
    const text = "this model requires MLX support, but the MLX runtime is not available"
    return new CriaError("unavailable", text)
  }
  return new CriaError("unavailable", `Cannot run "${shortName(name)}": it has no weights`)
}
