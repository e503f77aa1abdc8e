/**
 * Fetches a model that Hugging Face has in several files, and makes one of them.
 *
 * Its registry gives such models under no tag. The files have digests, so they are fetched like blobs; the merged file
 * becomes the model's layer, under a manifest of our own that says what it was made of.
 *
 * @module
 */

import { hash } from "node:crypto"

import { hubBlobs } from "../registry/hub.ts"
import type { Quant } from "../registry/quants.ts"
import type { Repository } from "../registry/repository.ts"
import { type Layer, MEDIA_TYPES } from "../store/manifest.ts"
import { type ModelName, shortName } from "../store/name.ts"
import { forgetPull, rememberPull } from "../store/pending.ts"
import { CriaError } from "../util/errors.ts"
import { configOf, type CreateTexts } from "./create-texts.ts"
import { checkPullRoom, fetchBlob, type FetchContext, type WantedBlob } from "./fetch.ts"
import type { Progress } from "./progress.ts"
import type { Installed } from "./pull.ts"
import { Scratch } from "./scratch.ts"
import { layerOf, mergeParts, type WeightsLayer } from "./weights.ts"

/** Where a manifest of ours says which files its weights were merged from. */
const PARTS_ANNOTATION = "cria.merged-from"

const NO_TEXTS: CreateTexts = { licenses: [], parameters: {}, messages: [], info: {} }

/** What is to be pulled, and what it is called here. */
export interface SplitTarget {
  readonly name: ModelName
  readonly quant: Quant
}

/**
 * Installs a model of several files. Needs twice its size on the disk until it is merged.
 *
 * @throws {CriaError} `unavailable` when the files cannot be fetched or have no room, `invalid-input` when they are no
 *   model; the signal's reason.
 */
export async function* pullSplit(
  context: FetchContext,
  { hub }: Repository,
  target: SplitTarget,
  signal: AbortSignal | undefined,
): AsyncGenerator<Progress, Installed> {
  const { writer, stores } = context
  const { name, quant } = target
  const parts = quant.parts.flatMap(({ digest, bytes }) =>
    digest === undefined ? [] : { digest, size: bytes },
  )
  if (hub === undefined || parts.length < quant.files) throw cannotMerge(target)
  const present = installedLayer(context, name, parts)
  if (present !== undefined) {
    const { digest, size } = present
    yield { status: `pulling ${digest.slice(7, 19)}`, digest, total: size, completed: size }
    return { replaced: undefined, kept: [] }
  }
  await checkPullRoom(context, parts, quant.bytes)
  const noted = noteOf(parts)
  using running = await rememberPull(writer.root, noted)
  const source = hubBlobs(hub, quant.parts)
  for (const part of parts) yield* fetchBlob(context, part, source, signal)
  yield { status: "verifying sha256 digest" }
  using scratch = new Scratch(writer)
  const create = { store: stores.all, writer, command: [], scratch }
  const digests = parts.map(({ digest }) => digest)
  const { signal: never } = new AbortController()
  const merged = yield* mergeParts(create, quant.label, digests, signal ?? never)
  const layer = yield* layerOf(create, merged, signal ?? never)
  if (layer.mediaType !== MEDIA_TYPES.model) throw cannotMerge(target)
  yield { status: "writing manifest" }
  const bytes = await makeManifest(context, layer, parts)
  const replaced = await writer.writeManifest(name, bytes, { signal })
  forgetPull(writer.root, noted)
  running[Symbol.dispose]()
  await writer.removeUnreferenced(parts.map(({ digest }) => digest))
  return { replaced, kept: [layer.digest] }
}

/** The weights of an installed model that was merged from just these files. */
function installedLayer(
  { stores: { own }, writer }: FetchContext,
  name: ModelName,
  parts: readonly WantedBlob[],
): Layer | undefined {
  const manifest = own?.find(name)?.manifest
  if (manifest?.annotations?.[PARTS_ANNOTATION] !== annotationOf(parts)) return undefined
  const blobs = [...manifest.layers, manifest.config]
  if (!blobs.every(({ digest }) => writer.touchBlob(digest))) return undefined
  return manifest.layers.find(({ mediaType }) => mediaType === MEDIA_TYPES.model)
}

async function makeManifest(
  { writer }: FetchContext,
  { mediaType, digest, size, facts }: WeightsLayer,
  parts: readonly WantedBlob[],
): Promise<Buffer> {
  const config = await writer.putBytes(JSON.stringify(configOf({}, [facts], undefined, NO_TEXTS)))
  const manifest = {
    schemaVersion: 2,
    mediaType: MEDIA_TYPES.manifest,
    config: { mediaType: MEDIA_TYPES.config, digest: config.digest, size: config.size },
    layers: [{ mediaType, digest, size }],
    annotations: { [PARTS_ANNOTATION]: annotationOf(parts) },
  }
  return Buffer.from(`${JSON.stringify(manifest)}\n`)
}

/** A manifest that names the files, for as long as there is no other. */
function noteOf(parts: readonly WantedBlob[]): Buffer {
  const layers = parts.map((part) => ({ mediaType: MEDIA_TYPES.model, ...part }))
  return Buffer.from(JSON.stringify({ schemaVersion: 2, config: layers[0], layers }))
}

/** Stands for the files. Their own digests would count as blobs that the model needs. */
function annotationOf(parts: readonly WantedBlob[]): string {
  return hash("sha256", parts.map(({ digest }) => digest).join(), "hex")
}

function cannotMerge({ name, quant }: SplitTarget): CriaError {
  const text = `Cannot pull ${quant.label} of "${shortName(name)}": it is in ${quant.files} files that cannot be merged`
  const hint = `cria show --fit ${name.host}/${name.namespace}/${name.model} lists the others`
  return new CriaError("unavailable", text, { hint })
}
