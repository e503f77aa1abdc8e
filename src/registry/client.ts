/**
 * One repository of one registry: manifests, blobs and tags over the `/v2` protocol that Ollama's registry, Hugging
 * Face and all container registries speak.
 *
 * Follows redirects, answers challenges, checks sizes. Where bytes go, and who tries again, is for others.
 *
 * @module
 */

import { z } from "zod"

import type { Digest } from "../store/digest.ts"
import { MANIFEST_BYTES_MAX, MEDIA_TYPES } from "../store/manifest.ts"
import type { ModelName } from "../store/name.ts"
import { CriaError } from "../util/errors.ts"
import { Authorizer, type AuthSources } from "./auth.ts"
import {
  discard,
  exchange,
  type HttpRequest,
  type Network,
  readBytes,
  readText,
  statusError,
  whenReached,
} from "./http.ts"
import { checkedRedirect, type Lookup } from "./redirect.ts"

/** What a client needs besides the name. */
export interface ClientOptions {
  readonly network: Network
  readonly auth: AuthSources
  /** Plain HTTP, as the user asked for. */
  readonly insecure: boolean
  /** For tests. */
  readonly lookup?: Lookup
}

/** A request before authorization; a body is made anew for each attempt. */
export type RegistryRequest = Omit<HttpRequest, "body"> & {
  readonly body?: (() => NonNullable<HttpRequest["body"]>) | undefined
}

/** Bytes of a blob, `end` not among them. */
export interface ByteRange {
  readonly start: number
  readonly end: number
}

/** Where an upload goes on. */
export type UploadStart =
  | { readonly kind: "mounted" }
  | { readonly kind: "open"; readonly url: URL }

const REDIRECTS_MAX = 10
const REDIRECTS: ReadonlySet<number> = new Set([301, 302, 303, 307, 308])

/** Statuses of a direct address that has expired. */
const EXPIRED: ReadonlySet<number> = new Set([400, 401, 403, 404, 410])

const MANIFEST_TYPES = [MEDIA_TYPES.manifest, "application/vnd.oci.image.manifest.v1+json"].join(
  ", ",
)

const TAGS_BYTES_MAX = 4 * 1024 * 1024
const TAG_PAGES_MAX = 20

const tagsSchema = z.object({ tags: z.array(z.string()).nullish() })

/** See the module. */
export class RegistryClient {
  readonly base: URL
  readonly #registry: URL
  readonly #network: Network
  readonly #auth: Authorizer
  readonly #lookup: Lookup | undefined
  /** Whether the registry has answered before. */
  #isReached = false
  /** Where the registry's storage has a blob; good for minutes. */
  readonly #direct = new Map<Digest, URL>()

  /** @throws {CriaError} `invalid-input` for `http://` names without `insecure`. */
  constructor(name: ModelName, { network, auth, insecure, lookup }: ClientOptions) {
    if (name.scheme === "http" && !insecure) {
      const hint = "Use --insecure to speak to a registry without TLS"
      throw new CriaError("invalid-input", "insecure protocol http", { hint })
    }
    const scheme = insecure ? "http" : name.scheme
    this.base = new URL(`${scheme}://${name.host}/v2/${name.namespace}/${name.model}/`)
    this.#registry = new URL(this.base.origin)
    this.#network = network
    this.#auth = new Authorizer(this.#registry, network, auth)
    this.#lookup = lookup
  }

  /** The manifest of a tag, as it came. @throws {CriaError} `not-found`, `unavailable`. */
  async manifest(tag: string, signal?: AbortSignal): Promise<Uint8Array> {
    const url = new URL(`manifests/${tag}`, this.base)
    const { response } = await this.follow({
      method: "GET",
      url,
      signal,
      headers: { Accept: MANIFEST_TYPES },
    })
    if (response.ok) return readBytes(response, MANIFEST_BYTES_MAX)
    throw await statusError(response, `Asked "${url.host}" for the manifest`)
  }

  async putManifest(tag: string, bytes: Uint8Array, signal?: AbortSignal): Promise<void> {
    const url = new URL(`manifests/${tag}`, this.base)
    // The type that the manifest says it has; the registry compares.
    const type = mediaTypeOf(bytes)
    const headers = { "Content-Type": type, "Content-Length": String(bytes.length) }
    const { response } = await this.follow({
      method: "PUT",
      url,
      headers,
      signal,
      body: () => bytes,
    })
    if (!response.ok) throw await statusError(response, `Sent the manifest to "${url.host}"`)
    await discard(response)
  }

  /** Bytes of a blob in the registry; undefined when it is not there. */
  async blobBytes(digest: Digest, signal?: AbortSignal): Promise<number | undefined> {
    const url = this.#blobUrl(digest)
    const { response } = await this.follow({ method: "HEAD", url, signal })
    await discard(response)
    if (response.status === 404) return undefined
    if (response.ok) return Number(response.headers.get("Content-Length") ?? Number.NaN)
    throw await statusError(response, `Asked "${url.host}" for ${digest}`)
  }

  /**
   * Opens a part of a blob. The reply is 206 with these bytes, or 200 with all of them.
   *
   * @throws {CriaError} `not-found`, `unavailable`.
   */
  async openBlob(digest: Digest, range: ByteRange, signal?: AbortSignal): Promise<Response> {
    const headers = { Range: `bytes=${range.start}-${range.end - 1}` }
    const direct = this.#direct.get(digest)
    if (direct !== undefined) {
      const response = await exchange(this.#network, {
        method: "GET",
        url: direct,
        headers,
        signal,
      })
      if (!EXPIRED.has(response.status)) return checkedBlob(response, digest)
      this.#direct.delete(digest)
      await discard(response)
    }
    const url = this.#blobUrl(digest)
    const reply = await this.follow({ method: "GET", url, headers, signal })
    const blob = await checkedBlob(reply.response, digest)
    if (reply.url.origin !== this.#registry.origin) this.#direct.set(digest, reply.url)
    return blob
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
    const { response } = await this.follow({ method: "POST", url, headers, signal })
    if (!response.ok) throw await statusError(response, `Asked "${url.host}" for an upload`)
    await discard(response)
    if (response.status === 201 && from !== undefined) return { kind: "mounted" }
    return { kind: "open", url: await this.uploadUrl(response, url) }
  }

  /** Where the next request of an upload goes. */
  async uploadUrl(response: Response, sent: URL): Promise<URL> {
    const { headers } = response
    const location = headers.get("Docker-Upload-Location") ?? headers.get("Location")
    if (location !== null) return checkedRedirect(location, sent, this.#registry, this.#lookup)
    throw new CriaError("unavailable", `Cannot upload to "${sent.host}": no Location in its reply`)
  }

  /** Where a part of an upload shall go instead. @throws {CriaError} `unavailable` when we will not send it there. */
  async storageUrl(location: string, sent: URL): Promise<URL> {
    return checkedRedirect(location, sent, this.#registry, this.#lookup)
  }

  /** All tags; undefined when the registry does not list them. */
  async tags(signal?: AbortSignal): Promise<string[] | undefined> {
    const tags: string[] = []
    let url: URL | undefined = new URL("tags/list", this.base)
    for (let page = 0; url !== undefined && page < TAG_PAGES_MAX; page++) {
      // Each page names the next.
      // oxlint-disable-next-line no-await-in-loop
      const { response } = await this.follow({ method: "GET", url, signal })
      // oxlint-disable-next-line no-await-in-loop
      const found = await readTags(response)
      if (found === undefined) return page === 0 ? undefined : tags
      tags.push(...found)
      const [, next] = /<([^>]+)>\s*;\s*rel="?next"?/.exec(response.headers.get("Link") ?? "") ?? []
      const following: URL | null = next === undefined ? null : URL.parse(next, url.href)
      url = following?.origin === this.#registry.origin ? following : undefined
    }
    return tags
  }

  /**
   * Sends a request with the registry's authorization and follows redirects of reads. The authorization stays with
   * the registry. After the first reply, a registry that cannot be reached counts as one that will be again.
   */
  async follow(request: RegistryRequest): Promise<{ response: Response; url: URL }> {
    try {
      const reply = await this.#follow(request)
      this.#isReached = true
      return reply
    } catch (error) {
      throw this.#isReached ? whenReached(error) : error
    }
  }

  async #follow(request: RegistryRequest): Promise<{ response: Response; url: URL }> {
    const { body, ...rest } = request
    let { url } = request
    let isRenewed = false
    for (let redirects = 0; redirects <= REDIRECTS_MAX;) {
      const authorization = this.#auth.headerFor(url)
      const headers = { ...rest.headers, ...(authorization && { Authorization: authorization }) }
      // Each reply decides about the next request.
      // oxlint-disable-next-line no-await-in-loop
      const response = await exchange(this.#network, { ...rest, url, headers, body: body?.() })
      const location = response.headers.get("Location")
      const isRead = request.method === "GET" || request.method === "HEAD"
      if (response.status === 401 && !isRenewed && url.origin === this.#registry.origin) {
        isRenewed = true
        const challenge = response.headers.get("WWW-Authenticate") ?? ""
        // oxlint-disable-next-line no-await-in-loop
        await discard(response)
        // oxlint-disable-next-line no-await-in-loop
        await this.#auth.renew(challenge, authorization, request.signal)
      } else if (isRead && REDIRECTS.has(response.status) && location !== null) {
        redirects++
        // oxlint-disable-next-line no-await-in-loop
        await discard(response)
        // oxlint-disable-next-line no-await-in-loop
        url = await checkedRedirect(location, url, this.#registry, this.#lookup)
      } else return { response, url }
    }
    const text = `maximum redirects exceeded (${REDIRECTS_MAX}) for directURL`
    throw new CriaError("unavailable", text, { hint: `Asked "${request.url.host}"` })
  }

  #blobUrl(digest: Digest): URL {
    return new URL(`blobs/${digest}`, this.base)
  }
}

async function checkedBlob(response: Response, digest: Digest): Promise<Response> {
  const encoding = response.headers.get("Content-Encoding") ?? "identity"
  if (encoding !== "identity") {
    await discard(response)
    const { host } = new URL(response.url)
    throw new CriaError("unavailable", `Cannot read ${digest}: "${host}" sends it as ${encoding}`)
  }
  if (response.status === 200 || response.status === 206) return response
  throw await statusError(response, `Asked "${new URL(response.url).host}" for ${digest}`)
}

async function readTags(response: Response): Promise<string[] | undefined> {
  if (!response.ok) {
    await discard(response)
    return undefined
  }
  const text = await readText(response, TAGS_BYTES_MAX)
  try {
    return tagsSchema.parse(JSON.parse(text)).tags ?? []
  } catch {
    return undefined
  }
}

function mediaTypeOf(bytes: Uint8Array): string {
  // Parsed before: it came out of the store as a manifest.
  const { mediaType } = JSON.parse(new TextDecoder().decode(bytes)) as { mediaType?: string }
  return mediaType ?? MEDIA_TYPES.manifest
}
