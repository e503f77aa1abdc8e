/**
 * Fetches a model from a registry: the quantisation that suits this machine, its blobs, then its manifest.
 *
 * The store changes in one step at the end: until then there are only blobs that no model names.
 *
 * @module
 */

import type { Quant } from "../registry/quants.ts"
import type { Repository } from "../registry/repository.ts"
import { retrying } from "../registry/retry.ts"
import type { Digest } from "../store/digest.ts"
import { type Manifest, parseManifest, uniqueBlobs } from "../store/manifest.ts"
import { fullName, type ModelName, parseName, shortName } from "../store/name.ts"
import { forgetPull, rememberPull } from "../store/pending.ts"
import { blobsOf } from "../store/writer.ts"
import { CriaError, errorMessage, toCriaError } from "../util/errors.ts"
import { checkManifest } from "./check-manifest.ts"
import type { Chooser } from "./choose.ts"
import { checkPullRoom, fetchBlob, type FetchContext } from "./fetch.ts"
import { chosenQuant, explainChoice, type QuantFit } from "./fit.ts"
import type { Progress } from "./progress.ts"
import { pullSplit } from "./pull-split.ts"

/** What a pull works with. */
export interface PullContext extends FetchContext {
  readonly chooser: Chooser
  /** Whether layers that nobody needs any more are kept. */
  readonly keepsUnused: boolean
}

/** Which form of the model is wanted. */
export interface PullWish {
  /** Quantisation to take of those that the repository has; undefined takes what fits. */
  readonly quant: string | undefined
  /** Whether the name has a tag, which decides, too. */
  readonly hasTag: boolean
}

/** What is going to be pulled. */
interface Target {
  /** What it is called here. */
  readonly name: ModelName
  /** What it is called there. */
  readonly tag: string
  /** What the registry's list says of it, when it was asked. */
  readonly quant?: Quant | undefined
}

/**
 * Fetches a model. The last step is `success`.
 *
 * @throws {CriaError} `not-found`, `unavailable`, `insufficient-memory` when no quantisation fits; the signal's reason.
 */
export async function* pullModel(
  context: PullContext,
  repository: Repository,
  wish: PullWish,
  signal: AbortSignal | undefined,
): AsyncGenerator<Progress, undefined> {
  yield { status: "pulling manifest" }
  const { name, tag, quant } = yield* chooseTarget(context, repository, wish, signal)
  const split = quant !== undefined && quant.files > 1 ? quant : undefined
  const source =
    split === undefined
      ? await fetchManifest(context, repository, tag, signal)
      : ({ kind: "split", quant: split } as const)
  const installed =
    source.kind === "split"
      ? yield* pullSplit(context, repository, { name, quant: source.quant }, signal)
      : yield* pullLayers(context, repository, { name, bytes: source.bytes }, signal)
  yield* removeUnused(context, installed.replaced, installed.kept)
  yield { status: "success" }
}

/** Says what was chosen, when there was a choice, or why there was none. */
async function* chooseTarget(
  { chooser }: PullContext,
  repository: Repository,
  { quant: label, hasTag }: PullWish,
  signal: AbortSignal | undefined,
): AsyncGenerator<Progress, Target> {
  const { name } = repository
  if (label !== undefined) {
    const quant = await chooser.find(repository, label, signal)
    const tag = quant?.tag ?? label
    return { name: parseName(`${name.host}/${name.namespace}/${name.model}:${tag}`), tag, quant }
  }
  if (hasTag) return { name, tag: name.tag }
  let fits: readonly QuantFit[]
  try {
    fits = await chooser.fits(repository, signal)
  } catch (error) {
    signal?.throwIfAborted()
    if (!(error instanceof CriaError)) throw error
    yield { status: `cannot choose a quantisation, taking ${name.tag}: ${error.message}` }
    return { name, tag: name.tag }
  }
  const [only] = fits
  if (only === undefined) return { name, tag: name.tag }
  const quant = fits.length > 1 ? chosenQuant(fits, shortName(name)) : only
  yield { status: explainChoice(quant) }
  return { name, tag: quant.tag, quant }
}

type Source =
  | { readonly kind: "manifest"; readonly bytes: Uint8Array }
  | { readonly kind: "split"; readonly quant: Quant }

/** The manifest of a tag; Hugging Face has none for a model in several files. */
async function fetchManifest(
  { chooser, patience }: PullContext,
  repository: Repository,
  tag: string,
  signal: AbortSignal | undefined,
): Promise<Source> {
  const { client, hub } = repository
  try {
    const bytes = await retrying(() => client.manifest(tag, signal), patience, signal)
    return { kind: "manifest", bytes }
  } catch (error) {
    signal?.throwIfAborted()
    const quant =
      hub === undefined
        ? undefined
        : await chooser.find(repository, tag, signal).catch(() => undefined)
    if (quant !== undefined && quant.files > 1) return { kind: "split", quant }
    const { code, message, hint } = toCriaError(error)
    throw new CriaError(code, `pull model manifest: ${message}`, {
      ...(hint === undefined ? {} : { hint }),
      cause: error,
    })
  }
}

/** A model that is there now. */
export interface Installed {
  /** The manifest that it took the place of. */
  readonly replaced: Manifest | undefined
  readonly kept: readonly Digest[]
}

async function* pullLayers(
  context: PullContext,
  { client }: Repository,
  { name, bytes }: { readonly name: ModelName; readonly bytes: Uint8Array },
  signal: AbortSignal | undefined,
): AsyncGenerator<Progress, Installed> {
  const { writer } = context
  const { manifest } = parseManifest(bytes)
  checkManifest(manifest, `Cannot pull "${fullName(name)}"`)
  const blobs = uniqueBlobs(manifest)
  await checkPullRoom(context, blobs)
  using _ = await rememberPull(writer.root, bytes)
  for (const blob of blobs) yield* fetchBlob(context, blob, client, signal)
  yield { status: "verifying sha256 digest" }
  yield { status: "writing manifest" }
  const replaced = await writer.writeManifest(name, bytes, { signal })
  forgetPull(writer.root, bytes)
  return { replaced, kept: blobsOf(manifest) }
}

async function* removeUnused(
  { writer, keepsUnused }: PullContext,
  replaced: Manifest | undefined,
  kept: readonly Digest[],
): AsyncGenerator<Progress, undefined> {
  const old = replaced === undefined ? [] : blobsOf(replaced).filter((d) => !kept.includes(d))
  if (old.length === 0 || keepsUnused) return
  yield { status: "removing unused layers" }
  try {
    await writer.removeUnreferenced(old)
  } catch (error) {
    yield { status: `couldn't remove unused layers: ${errorMessage(error)}` }
  }
}
