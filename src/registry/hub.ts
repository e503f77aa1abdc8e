/**
 * A repository of Hugging Face as a folder of files: what is in it, and their bytes.
 *
 * Its `/v2` protocol gives one GGUF file for a tag and knows no split ones; this is its own API, which does. The files
 * have digests, so that they are fetched like blobs.
 *
 * @module
 */

import { z } from "zod"

import { type Digest, toDigest } from "../store/digest.ts"
import type { ModelName } from "../store/name.ts"
import { CriaError } from "../util/errors.ts"
import type { BlobSource } from "./download.ts"
import { isPassing, isRefusal, type Network, readText } from "./http.ts"
import { type ByteRange, Site, type SiteOptions } from "./site.ts"

/** A file of a repository. */
export interface HubFile {
  readonly path: string
  readonly bytes: number
  /** Of its content; small files that are no weights have none. */
  readonly digest?: Digest
}

/** How to speak to Hugging Face. */
export interface HubOptions extends Pick<SiteOptions, "network" | "lookup"> {
  /** The user's token. It is sent to Hugging Face, and not to where that redirects. */
  readonly token: string | undefined
  /** Host of a mirror, with its port. */
  readonly mirror: string | undefined
}

const HUGGING_FACE: ReadonlySet<string> = new Set(["hf.co", "huggingface.co"])

const ORIGIN = "https://huggingface.co"

const LIST_BYTES_MAX = 16 * 2 ** 20
const PAGES_MAX = 10

const treeSchema = z.array(
  z.object({
    type: z.string(),
    path: z.string(),
    size: z.int().nonnegative(),
    lfs: z.object({ size: z.int().nonnegative(), oid: z.string().optional() }).nullish(),
  }),
)

/** Whether a host, with its port, is Hugging Face or the mirror that `HF_ENDPOINT` names. */
export function isHub(host: string, mirror: string | undefined): boolean {
  return HUGGING_FACE.has(host) || (mirror !== undefined && host === mirror)
}

/** The host in `HF_ENDPOINT`; undefined when there is none. */
export function mirrorHost(endpoint: string | undefined): string | undefined {
  return URL.parse(endpoint ?? "")?.host || undefined
}

/** See the module. */
export class Hub {
  readonly #site: Site
  readonly #network: Network
  readonly #origin: string
  readonly #repository: string

  /**
   * @param name Of a host for which {@link isHub} holds.
   * @param origin Where its registry is; the API of a mirror is there too.
   */
  constructor(name: ModelName, origin: string, { network, token, lookup }: HubOptions) {
    this.#origin = HUGGING_FACE.has(name.host) ? ORIGIN : origin
    this.#repository = `${name.namespace}/${name.model}`
    const own = this.#origin
    const door = {
      headerFor: (url: URL) =>
        token !== undefined && url.origin === own ? `Bearer ${token}` : undefined,
    }
    this.#network = network
    this.#site = new Site(new URL(own), { network, door, lookup })
  }

  /**
   * All files; [] when there is no such repository, or its list cannot be understood.
   *
   * @throws {CriaError} `unavailable` when Hugging Face cannot be reached, or not now, or does not want to.
   */
  async files(signal?: AbortSignal): Promise<HubFile[]> {
    const files: HubFile[] = []
    const path = `/api/models/${this.#repository}/tree/main?recursive=true`
    let url: URL | undefined = new URL(path, this.#origin)
    for (let page = 0; url !== undefined && page < PAGES_MAX; page++) {
      // Each page names the next.
      // oxlint-disable-next-line no-await-in-loop
      const { response } = await this.#site.follow({ method: "GET", url, signal })
      if (!response.ok) {
        // oxlint-disable-next-line no-await-in-loop
        const error = await this.#site.failure(response, `Asked "${url.host}" for a list of files`)
        if (isPassing(error) || isRefusal(error)) throw error
        return files
      }
      const [, next] = /<([^>]+)>\s*;\s*rel="?next"?/.exec(response.headers.get("Link") ?? "") ?? []
      // oxlint-disable-next-line no-await-in-loop
      files.push(...parseTree(await readText(response, LIST_BYTES_MAX, this.#network)))
      const following: URL | null = next === undefined ? null : URL.parse(next, url.href)
      url = following?.origin === this.#origin ? following : undefined
    }
    return files
  }

  /**
   * Opens a part of a file; see {@link Site.open}.
   *
   * @throws {CriaError} `not-found`, `unavailable`.
   */
  open(path: string, range: ByteRange, signal?: AbortSignal): Promise<Response> {
    const encoded = path.split("/").map(encodeURIComponent).join("/")
    const url = new URL(`/${this.#repository}/resolve/main/${encoded}`, this.#origin)
    return this.#site.open(url, range, path, signal)
  }
}

/** Files of a hub as a source of blobs. */
export function hubBlobs(hub: Hub, files: readonly HubFile[]): BlobSource {
  return {
    async openBlob(digest: Digest, range: ByteRange, signal?: AbortSignal): Promise<Response> {
      const file = files.find((candidate) => candidate.digest === digest)
      if (file === undefined) throw new CriaError("not-found", `no file has ${digest}`)
      return hub.open(file.path, range, signal)
    },
  }
}

function parseTree(text: string): HubFile[] {
  try {
    return treeSchema
      .parse(JSON.parse(text))
      .filter(({ type }) => type === "file")
      .map(({ path, size, lfs }) => {
        const digest = toDigest(`sha256:${lfs?.oid ?? ""}`)
        return { path, bytes: lfs?.size ?? size, ...(digest === undefined ? {} : { digest }) }
      })
  } catch {
    return []
  }
}
