/**
 * One repository of one registry: manifests, blobs and tags over the `/v2` protocol that Ollama's registry, Hugging
 * Face and all container registries speak.
 *
 * Knows the addresses and what replies mean. How a site is spoken to is `site.ts`; who tries again is for others.
 *
 * @module
 */

import { z } from "zod"

import type { Digest } from "../store/digest.ts"
import { MANIFEST_BYTES_MAX, MEDIA_TYPES } from "../store/manifest.ts"
import type { ModelName } from "../store/name.ts"
import { CriaError } from "../util/errors.ts"
import { Authorizer, type AuthSources } from "./auth.ts"
import { discard, isPassing, isRefusal, type Network, readBytes, readText } from "./http.ts"
import type { Lookup } from "./redirect.ts"
import { type ByteRange, Site, type SiteRequest } from "./site.ts"

/** What a client needs besides the name. */
export interface ClientOptions {
  readonly network: Network
  readonly auth: AuthSources
  /** Plain HTTP, as the user asked for. */
  readonly insecure: boolean
  /** For tests. */
  readonly lookup?: Lookup
}

/** Where an upload goes on. */
export type UploadStart =
  | { readonly kind: "mounted" }
  | { readonly kind: "open"; readonly url: URL }

const MANIFEST_TYPES = [MEDIA_TYPES.manifest, "application/vnd.oci.image.manifest.v1+json"].join(
  ", ",
)

const TAGS_BYTES_MAX = 4 * 1024 * 1024
const TAG_PAGES_MAX = 20

const tagsSchema = z.object({ tags: z.array(z.string()).nullish() })

/** See the module. */
export class RegistryClient {
  readonly base: URL
  readonly #site: Site
  readonly #network: Network

  /** @throws {CriaError} `invalid-input` for `http://` names without `insecure`. */
  constructor(name: ModelName, { network, auth, insecure, lookup }: ClientOptions) {
    if (name.scheme === "http" && !insecure) {
      const hint = "Use --insecure to speak to a registry without TLS"
      throw new CriaError("invalid-input", "insecure protocol http", { hint })
    }
    const scheme = insecure ? "http" : name.scheme
    this.base = new URL(`${scheme}://${name.host}/v2/${name.namespace}/${name.model}/`)
    const door = new Authorizer(new URL(this.base.origin), network, auth)
    this.#network = network
    this.#site = new Site(this.base, { network, door, lookup })
  }

  /** The manifest of a tag, as it came. @throws {CriaError} `not-found`, `unavailable`. */
  async manifest(tag: string, signal?: AbortSignal): Promise<Uint8Array> {
    const url = new URL(`manifests/${tag}`, this.base)
    const { response } = await this.#site.follow({
      method: "GET",
      url,
      signal,
      headers: { Accept: MANIFEST_TYPES },
    })
    if (response.ok) return readBytes(response, MANIFEST_BYTES_MAX, this.#network)
    throw await this.#site.failure(response, `Asked "${url.host}" for the manifest`)
  }

  async putManifest(tag: string, bytes: Uint8Array, signal?: AbortSignal): Promise<void> {
    const url = new URL(`manifests/${tag}`, this.base)
    // The type that the manifest says it has; the registry compares.
    const type = mediaTypeOf(bytes)
    const headers = { "Content-Type": type, "Content-Length": String(bytes.length) }
    const { response } = await this.#site.follow({
      method: "PUT",
      url,
      headers,
      signal,
      body: () => bytes,
    })
    if (!response.ok) throw await this.#site.failure(response, `Sent the manifest to "${url.host}"`)
    await discard(response)
  }

  /** Bytes of a blob in the registry; undefined when it is not there. */
  async blobBytes(digest: Digest, signal?: AbortSignal): Promise<number | undefined> {
    const url = this.#blobUrl(digest)
    const { response } = await this.#site.follow({ method: "HEAD", url, signal })
    await discard(response)
    if (response.status === 404) return undefined
    if (response.ok) return Number(response.headers.get("Content-Length") ?? Number.NaN)
    throw await this.#site.failure(response, `Asked "${url.host}" for ${digest}`)
  }

  /**
   * Opens a part of a blob. The reply is 206 with these bytes, or 200 with all of them.
   *
   * @throws {CriaError} `not-found`, `unavailable`.
   */
  openBlob(digest: Digest, range: ByteRange, signal?: AbortSignal): Promise<Response> {
    return this.#site.open(this.#blobUrl(digest), range, digest, signal)
  }

  /** Begins an upload, or finds that the registry can take the blob from another repository of its own. */
  async startUpload(
    digest: Digest,
    from: string | undefined,
    signal?: AbortSignal,
  ): Promise<UploadStart> {
    const url = new URL("blobs/uploads/", this.base)
    if (from !== undefined) {
      url.searchParams.set("mount", digest)
      url.searchParams.set("from", from)
    }
    const headers = { "Content-Length": "0" }
    const { response } = await this.#site.follow({ method: "POST", url, headers, signal })
    if (!response.ok) throw await this.#site.failure(response, `Asked "${url.host}" for an upload`)
    await discard(response)
    if (response.status === 201 && from !== undefined) return { kind: "mounted" }
    return { kind: "open", url: await this.uploadUrl(response, url) }
  }

  /** Where the next request of an upload goes. */
  async uploadUrl(response: Response, sent: URL): Promise<URL> {
    const { headers } = response
    const location = headers.get("Docker-Upload-Location") ?? headers.get("Location")
    if (location !== null) return this.#site.target(location, sent)
    throw new CriaError("unavailable", `Cannot upload to "${sent.host}": no Location in its reply`)
  }

  /** Where a part of an upload shall go instead. @throws {CriaError} `unavailable` when we will not send it there. */
  async storageUrl(location: string, sent: URL): Promise<URL> {
    return this.#site.target(location, sent)
  }

  /** All tags; undefined when the registry does not list them. @throws {CriaError} `unavailable`. */
  async tags(signal?: AbortSignal): Promise<string[] | undefined> {
    const tags: string[] = []
    let url: URL | undefined = new URL("tags/list", this.base)
    for (let page = 0; url !== undefined && page < TAG_PAGES_MAX; page++) {
      // Each page names the next.
      // oxlint-disable-next-line no-await-in-loop
      const { response } = await this.#site.follow({ method: "GET", url, signal })
      // oxlint-disable-next-line no-await-in-loop
      const found = response.ok ? await this.#readTags(response) : await this.#noTags(response, url)
      if (found === undefined) return page === 0 ? undefined : tags
      tags.push(...found)
      const [, next] = /<([^>]+)>\s*;\s*rel="?next"?/.exec(response.headers.get("Link") ?? "") ?? []
      const following: URL | null = next === undefined ? null : URL.parse(next, url.href)
      url = following?.origin === this.base.origin ? following : undefined
    }
    return tags
  }

  /** The error for a reply; see {@link Site.failure}. */
  failure(response: Response, subject: string): Promise<CriaError> {
    return this.#site.failure(response, subject)
  }

  /** Sends a request; see {@link Site.follow}. */
  follow(request: SiteRequest): Promise<{ response: Response; url: URL }> {
    return this.#site.follow(request)
  }

  /** A registry that lists nothing is none that cannot do so right now, or does not want to. */
  async #noTags(response: Response, { host }: URL): Promise<undefined> {
    const error = await this.#site.failure(response, `Asked "${host}" for its tags`)
    if (isPassing(error) || isRefusal(error)) throw error
  }

  /** Undefined for what is no list. */
  async #readTags(response: Response): Promise<string[] | undefined> {
    const text = await readText(response, TAGS_BYTES_MAX, this.#network)
    try {
      return tagsSchema.parse(JSON.parse(text)).tags ?? []
    } catch {
      return undefined
    }
  }

  #blobUrl(digest: Digest): URL {
    return new URL(`blobs/${digest}`, this.base)
  }
}

function mediaTypeOf(bytes: Uint8Array): string {
  // Parsed before: it came out of the store as a manifest.
  const { mediaType } = JSON.parse(new TextDecoder().decode(bytes)) as { mediaType?: string }
  return mediaType ?? MEDIA_TYPES.manifest
}
