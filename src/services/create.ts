/**
 * Creates a model from another one or from files: the use case behind `cria create` and `/api/create`.
 *
 * Everything is written to the store as blobs first; the model appears when its manifest does. Whatever goes wrong
 * before leaves at most blobs that no model has, which a prune removes.
 *
 * @module
 */

import type { ModelFacts } from "../gguf/facts.ts"
import { beginCreation } from "../store/creations.ts"
import type { Digest } from "../store/digest.ts"
import { type Layer, type Manifest, MEDIA_TYPES, type ModelConfig } from "../store/manifest.ts"
import { type ModelName, parseName, shortName, splitSource } from "../store/name.ts"
import { readTexts, type ResolvedTexts } from "../store/resolve.ts"
import { readConfig, type StoredModel } from "../store/store.ts"
import { blobsOf } from "../store/writer.ts"
import { CriaError } from "../util/errors.ts"
import { blobFile, ensureOwn } from "./blobs.ts"
import { chatFormatOf } from "./chat-format.ts"
import {
  type ConversionJob,
  convertFiles,
  convertType,
  isConvertible,
  noModelFiles,
} from "./conversion.ts"
import { checkTexts, configOf, type CreateTexts, textLayers } from "./create-texts.ts"
import { checkFileName } from "./file-name.ts"
import type { Progress } from "./progress.ts"
import { parseQuantization } from "./quantization.ts"
import { quantizeFile } from "./requantize.ts"
import { Scratch } from "./scratch.ts"
import { isNoTemplate } from "./template.ts"
import {
  type CreateParts,
  fileOfLayer,
  ggufFiles,
  isGguf,
  layerOf,
  type WeightsFile,
  type WeightsLayer,
} from "./weights.ts"

/** What to create. */
export interface CreateRequest {
  readonly model: string
  /** Name of a model; wins over files. */
  readonly from?: string | undefined
  readonly files: ReadonlyMap<string, Digest>
  readonly adapters: ReadonlyMap<string, Digest>
  readonly draftFiles: ReadonlyMap<string, Digest>
  readonly texts: CreateTexts
  readonly quantize?: string | undefined
  readonly draftQuantize?: string | undefined
  /** Blob with an importance matrix for the quantiser. */
  readonly imatrix?: Digest | undefined
  /** Blobs that were uploaded for this model alone: afterwards those go that no model has. */
  readonly discard: readonly Digest[]
}

/** What creating works with, and what it does with a base that is not installed. */
export interface CreateContext extends Omit<CreateParts, "scratch"> {
  /** Installs a model that is not here. */
  readonly pull?: (name: ModelName, signal: AbortSignal) => AsyncIterable<Progress>
  /** Keep blobs that the replaced model had. */
  readonly keepsUnused: boolean
}

/** How often a blob may be taken away by another process before we give up. */
const ATTEMPTS_MAX = 3

const NO_TEXTS: ResolvedTexts = {
  template: undefined,
  system: undefined,
  params: undefined,
  messages: undefined,
  licenses: [],
}

/** What the new model begins with. */
interface Base {
  readonly weights: readonly WeightsFile[]
  /** Layers of types that are carried along unread. */
  readonly others: readonly Layer[]
  readonly texts: ResolvedTexts
  readonly config: ModelConfig
}

/**
 * Creates a model. The last step is `success`.
 *
 * @throws {CriaError} `invalid-input` before the first step for whatever is wrong with the request itself.
 */
export async function* createModel(
  context: CreateContext,
  request: CreateRequest,
  signal: AbortSignal,
): AsyncGenerator<Progress, void> {
  const name = checkRequest(request)
  const digests = blobsToRead(request)
  const unused = [...request.discard]
  {
    using creation = await beginCreation(context.writer.root, digests)
    for (const digest of digests) blobFile(context, digest)
    for await (const step of createSteps({ context, name, request, unused }, signal)) {
      creation.renew()
      yield step
    }
  }
  if (unused.length > 0) await context.writer.removeUnreferenced(unused)
  yield { status: "success" }
}

/** A model that is being created. */
interface Creating {
  readonly context: CreateContext
  readonly name: ModelName
  readonly request: CreateRequest
  /** Gets blobs that are not needed when the model is there, but perhaps by others. */
  readonly unused: Digest[]
}

/** All but the last step. */
async function* createSteps(
  creating: Creating,
  signal: AbortSignal,
): AsyncGenerator<Progress, void> {
  const { context, request } = creating
  using scratch = new Scratch(context.writer)
  const parts = { ...context, scratch }
  const base =
    request.from === undefined
      ? yield* baseOfFiles(parts, request, signal)
      : yield* baseOfModel(context, request.from, signal)
  const model = base.weights.findLast(({ mediaType }) => mediaType === MEDIA_TYPES.model)
  const adapters = yield* adaptersOf(parts, request, model, signal)
  const drafts = yield* draftsOf(parts, request, signal)
  const kept = base.weights.filter((file) => !isReplaced(file, adapters, drafts))
  const files: WeightsFile[] = [...drafts]
  for (const file of [...kept, ...adapters]) {
    const isModel = file.mediaType === MEDIA_TYPES.model
    files.push(
      isModel && request.quantize !== undefined
        ? yield* quantizeFile(parts, file, quantization(request, request.quantize), signal)
        : file,
    )
  }
  const weights: WeightsLayer[] = []
  for (const file of files) weights.push(yield* layerOf(parts, file, signal))
  yield* install({ ...creating, base, weights }, signal)
  if (drafts.length > 0) yield { status: "the DRAFT model is kept, but not used yet" }
}

/** Everything that can be said without reading a file. */
function checkRequest(request: CreateRequest): ModelName {
  const name = parseName(request.model)
  if (request.from === undefined && request.files.size === 0) {
    const hint = "Name a model as `from`, or upload files and name them as `files`"
    throw new CriaError("invalid-input", "neither 'from' or 'files' was specified", { hint })
  }
  for (const files of [request.files, request.adapters, request.draftFiles]) {
    for (const file of files.keys()) checkFileName(file)
  }
  if (request.draftQuantize !== undefined && request.draftFiles.size === 0) {
    throw new CriaError("invalid-input", "--draft-quantize requires a DRAFT model")
  }
  for (const type of [request.quantize, request.draftQuantize]) {
    if (type !== undefined) parseQuantization(type)
  }
  if (request.from !== undefined) sourceName(request.from)
  checkTexts(request.texts)
  return name
}

/** What is not here is said at once, so that the client can upload it. */
function blobsToRead({ files, adapters, draftFiles, imatrix }: CreateRequest): Digest[] {
  const digests = [files, adapters, draftFiles].flatMap((some) => [...some.values()])
  return imatrix === undefined ? digests : [...digests, imatrix]
}

function sourceName(from: string): ModelName {
  const { base, source } = splitSource(from)
  if (source !== "cloud") return parseName(base)
  const text = "ollama cloud is disabled: remote model is unavailable"
  throw new CriaError("invalid-input", text)
}

function quantization({ imatrix }: CreateRequest, type: string) {
  return { type: parseQuantization(type), imatrix }
}

async function* baseOfModel(
  context: CreateContext,
  from: string,
  signal: AbortSignal,
): AsyncGenerator<Progress, Base> {
  const name = sourceName(from)
  const { store, pull } = context
  let stored = store.find(name)
  if (stored === undefined && pull !== undefined) {
    yield* pull(name, signal)
    stored = store.find(name)
  }
  if (stored === undefined) {
    const hint = `cria pull ${shortName(name)}, or is it a file? Write FROM ./${from.slice(0, 100)}`
    throw new CriaError("not-found", `model '${from}' not found`, { hint })
  }
  return readBase(context, stored)
}

const TEXT_TYPES: readonly string[] = [
  MEDIA_TYPES.template,
  MEDIA_TYPES.prompt,
  MEDIA_TYPES.system,
  MEDIA_TYPES.params,
  MEDIA_TYPES.messages,
  MEDIA_TYPES.license,
]

const WEIGHTS_TYPES: readonly string[] = [
  MEDIA_TYPES.model,
  MEDIA_TYPES.projector,
  MEDIA_TYPES.adapter,
  MEDIA_TYPES.draft,
]

function readBase(context: CreateContext, { manifest, name }: StoredModel): Base {
  const { store } = context
  const from = shortName(name)
  const ofTypes = (types: readonly string[]) =>
    manifest.layers.filter(({ mediaType }) => types.includes(mediaType))
  const known = [...TEXT_TYPES, ...WEIGHTS_TYPES]
  return {
    weights: ofTypes(WEIGHTS_TYPES).map((layer) => fileOfLayer(context, layer, from)),
    others: manifest.layers
      .filter(({ mediaType }) => !known.includes(mediaType))
      .map((layer) => ({ ...layer, from })),
    texts: readTexts(store, manifest),
    config: readConfig(store, manifest),
  }
}

async function* baseOfFiles(
  parts: CreateParts,
  request: CreateRequest,
  signal: AbortSignal,
): AsyncGenerator<Progress, Base> {
  const weights = yield* weightsFiles(parts, request, { files: request.files }, signal)
  const model = weights.findLast(({ mediaType }) => mediaType === MEDIA_TYPES.model)
  const { template = "" } = request.texts
  const isAsked = template === "" || isNoTemplate(template)
  const isChat = model?.facts.poolingType === undefined
  const params = model !== undefined && isAsked && isChat ? yield* stopsOf(model.facts) : undefined
  return { weights, others: [], texts: { ...NO_TEXTS, params }, config: {} }
}

/** Says how the model will be asked; the texts at which its answers end. */
async function* stopsOf({
  chatTemplate = "",
}: ModelFacts): AsyncGenerator<Progress, ResolvedTexts["params"]> {
  const format = chatFormatOf(chatTemplate)
  if (format !== undefined) {
    yield { status: `using autodetected template ${format.name}` }
    return { stop: format.stops }
  }
  const status =
    chatTemplate === ""
      ? "no chat template: the model gets prompts as they are"
      : "using the chat template of the model's file"
  yield { status }
  return undefined
}

/** Files in either form; `base` is the model that an adapter is for. */
async function* weightsFiles(
  parts: CreateParts,
  request: CreateRequest,
  { files, base }: Pick<ConversionJob, "files" | "base">,
  signal: AbortSignal,
): AsyncGenerator<Progress, WeightsFile[]> {
  if (isConvertible(files)) {
    const type = convertType(request.quantize && parseQuantization(request.quantize))
    const { model: name } = parseName(request.model)
    return [yield* convertFiles(parts, { files, name, type, base }, signal)]
  }
  for (const [name, digest] of files) {
    if (!(await isGguf(blobFile(parts, digest)))) throw noModelFiles([name])
  }
  return yield* ggufFiles(parts, files, signal)
}

async function* adaptersOf(
  parts: CreateParts,
  request: CreateRequest,
  base: WeightsFile | undefined,
  signal: AbortSignal,
): AsyncGenerator<Progress, WeightsFile[]> {
  const { adapters: files } = request
  if (files.size === 0) return []
  const found = yield* weightsFiles(parts, request, { files, base }, signal)
  if (found.length > 1) {
    throw new CriaError("invalid-input", "only one adapter is currently supported")
  }
  if (found.some(({ mediaType }) => mediaType !== MEDIA_TYPES.adapter)) {
    const text = "Cannot use the file of ADAPTER: it is a model, expected a LoRA adapter"
    throw new CriaError("invalid-input", text)
  }
  return found
}

async function* draftsOf(
  parts: CreateParts,
  request: CreateRequest,
  signal: AbortSignal,
): AsyncGenerator<Progress, WeightsFile[]> {
  if (request.draftFiles.size === 0) return []
  const found: WeightsFile[] = []
  const wanted = { ...request, quantize: request.draftQuantize }
  for (const file of yield* weightsFiles(parts, wanted, { files: request.draftFiles }, signal)) {
    const type = request.draftQuantize
    const quantized =
      type === undefined
        ? file
        : yield* quantizeFile(parts, file, quantization(request, type), signal)
    found.push({ ...quantized, mediaType: MEDIA_TYPES.draft })
  }
  return found
}

/** A new adapter or draft takes the place of the base's. */
function isReplaced(
  { mediaType }: WeightsFile,
  adapters: readonly WeightsFile[],
  drafts: readonly WeightsFile[],
): boolean {
  if (mediaType === MEDIA_TYPES.adapter) return adapters.length > 0
  return mediaType === MEDIA_TYPES.draft && drafts.length > 0
}

/** A model that only has to be written down. */
interface Prepared extends Creating {
  readonly base: Base
  readonly weights: readonly WeightsLayer[]
}

/** Writes texts, config and manifest. Another process may remove blobs at any time until the manifest is there. */
async function* install(prepared: Prepared, signal: AbortSignal): AsyncGenerator<Progress, void> {
  const { context, weights, base } = prepared
  const models = weights.filter(({ mediaType }) => mediaType === MEDIA_TYPES.model)
  if (models.length === 0 && base.others.length === 0) {
    throw new CriaError("invalid-input", "no files provided to convert", {
      hint: "None of the files is a model: FROM needs one beside projectors and adapters",
    })
  }
  for (const layer of weights) {
    yield { status: `${layer.isNew ? "creating new" : "using existing"} layer ${layer.digest}` }
  }
  for (let attempt = 1; ; attempt++) {
    // Each attempt begins where the one before has ended.
    for (const { digest } of [...weights, ...base.others]) {
      yield* ensureOwn(context, digest, signal)
    }
    const { manifest, statuses } = await writeTexts(prepared, models)
    if (attempt === 1) {
      yield* statuses
      yield { status: "writing manifest" }
    }
    if (await writeManifest(prepared, manifest, attempt, signal)) return
  }
}

async function writeTexts(
  { context, request, base, weights }: Prepared,
  models: readonly WeightsLayer[],
): Promise<{ manifest: Manifest; statuses: Progress[] }> {
  const statuses: Progress[] = []
  const put = async (mediaType: string, content: string): Promise<Layer> => {
    const { digest, size, isNew } = await context.writer.putBytes(content)
    statuses.push({ status: `${isNew ? "creating new" : "using existing"} layer ${digest}` })
    return { mediaType, digest, size }
  }
  const layers: Layer[] = weights.map(({ mediaType, digest, size, from }) => ({
    mediaType,
    digest,
    size,
    ...(from === undefined ? {} : { from }),
  }))
  for (const { mediaType, content } of textLayers(base.texts, request.texts)) {
    layers.push(await put(mediaType, content))
  }
  const draft = weights.find(({ mediaType }) => mediaType === MEDIA_TYPES.draft)
  const config = configOf(
    base.config,
    models.map(({ facts }) => facts),
    draft?.facts,
    request.texts,
  )
  return {
    manifest: {
      schemaVersion: 2,
      mediaType: MEDIA_TYPES.manifest,
      config: await put(MEDIA_TYPES.config, JSON.stringify(config)),
      layers: [...layers, ...base.others],
    },
    statuses,
  }
}

/** False when a blob is gone and it is worth another attempt. */
async function writeManifest(
  { context, name, unused }: Prepared,
  manifest: Manifest,
  attempt: number,
  signal: AbortSignal,
): Promise<boolean> {
  const { writer } = context
  try {
    const bytes = Buffer.from(`${JSON.stringify(manifest)}\n`)
    const replaced = await writer.writeManifest(name, bytes, { signal })
    if (replaced !== undefined && !context.keepsUnused) unused.push(...blobsOf(replaced))
    return true
  } catch (error) {
    const isGone = error instanceof CriaError && error.code === "conflict"
    if (isGone && attempt < ATTEMPTS_MAX) return false
    throw error
  }
}
