/**
 * A web site that nobody trusts: requests with its authorization, which stays with it, wherever it redirects.
 *
 * Follows and checks redirects, answers challenges, and remembers for a while where a file was found. What is asked for
 * is the business of those who ask.
 *
 * @module
 */

import { CriaError } from "../util/errors.ts"
import {
  discard,
  exchange,
  type HttpRequest,
  type Network,
  statusError,
  withAdvice,
  whenReached,
} from "./http.ts"
import { checkedRedirect, type Lookup } from "./redirect.ts"

/** How a site lets us in. */
export interface Door {
  /** The `Authorization` for a URL; undefined when it gets none. */
  headerFor(url: URL): string | undefined
  /** What the user can do when even that was not enough. */
  readonly advice?: string | undefined
  /** Answers the challenge of a request that was refused; without it, refused is refused. */
  readonly renew?: (
    challenge: string,
    refused: string | undefined,
    signal: AbortSignal | undefined,
  ) => Promise<void>
}

/** What a {@link Site} needs besides its address. */
export interface SiteOptions {
  readonly network: Network
  readonly door: Door
  /** For tests. */
  readonly lookup?: Lookup | undefined
}

/** A request before authorization; a body is made anew for each attempt. */
export type SiteRequest = Omit<HttpRequest, "body"> & {
  readonly body?: (() => NonNullable<HttpRequest["body"]>) | undefined
}

/** Bytes of a file, `end` not among them. */
export interface ByteRange {
  readonly start: number
  readonly end: number
}

const REDIRECTS_MAX = 10
const REDIRECTS: ReadonlySet<number> = new Set([301, 302, 303, 307, 308])

/** Statuses of a direct address that has expired. */
const EXPIRED: ReadonlySet<number> = new Set([400, 401, 403, 404, 410])

/** See the module. */
export class Site {
  readonly #origin: URL
  readonly #network: Network
  readonly #door: Door
  readonly #lookup: Lookup | undefined
  /** Whether it has answered before. */
  #isReached = false
  /** From the address of a file to where it was found on another site; good for minutes. */
  readonly #direct = new Map<string, URL>()

  /** @param origin Its address; what comes behind the host does not matter. */
  constructor(origin: URL, { network, door, lookup }: SiteOptions) {
    this.#origin = new URL(origin.origin)
    this.#network = network
    this.#door = door
    this.#lookup = lookup
  }

  /**
   * Sends a request and follows the redirects of reads. After the first reply, a site that cannot be reached counts as
   * one that will be again.
   *
   * @returns The reply, whatever its status, and where it came from.
   */
  async follow(request: SiteRequest): Promise<{ response: Response; url: URL }> {
    try {
      const reply = await this.#follow(request)
      this.#isReached = true
      return reply
    } catch (error) {
      throw this.#isReached ? whenReached(error) : error
    }
  }

  /**
   * Opens a part of a file. The reply is 206 with these bytes, or 200 with all of them.
   *
   * @param subject What it is, for the text of errors.
   * @throws {CriaError} `not-found`, `unavailable`.
   */
  async open(
    url: URL,
    { start, end }: ByteRange,
    subject: string,
    signal?: AbortSignal,
  ): Promise<Response> {
    const headers = { Range: `bytes=${start}-${end - 1}` }
    const direct = this.#direct.get(url.href)
    if (direct !== undefined) {
      const request = { method: "GET", url: direct, headers, signal } as const
      const response = await exchange(this.#network, request)
      if (!EXPIRED.has(response.status)) return this.#checkedFile(response, subject)
      this.#direct.delete(url.href)
      await discard(response)
    }
    const reply = await this.follow({ method: "GET", url, headers, signal })
    const response = await this.#checkedFile(reply.response, subject)
    if (reply.url.origin !== this.#origin.origin) this.#direct.set(url.href, reply.url)
    return response
  }

  /** The error for a reply that is none; see {@link statusError}. */
  async failure(response: Response, subject: string): Promise<CriaError> {
    return withAdvice(await statusError(response, subject, this.#network), this.#door.advice)
  }

  /** A `Location` that it has sent. @throws {CriaError} `unavailable` when we will not go there. */
  async target(location: string, from: URL): Promise<URL> {
    return checkedRedirect(location, from, this.#origin, this.#lookup)
  }

  async #follow(request: SiteRequest): Promise<{ response: Response; url: URL }> {
    const { body, ...rest } = request
    let { url } = request
    let isRenewed = false
    for (let redirects = 0; redirects <= REDIRECTS_MAX;) {
      const authorization = this.#door.headerFor(url)
      const headers = { ...rest.headers, ...(authorization && { Authorization: authorization }) }
      // Each reply decides about the next request.
      // oxlint-disable-next-line no-await-in-loop
      const response = await exchange(this.#network, { ...rest, url, headers, body: body?.() })
      const location = response.headers.get("Location")
      const isRead = request.method === "GET" || request.method === "HEAD"
      const isRefused = response.status === 401 && url.origin === this.#origin.origin
      if (isRefused && !isRenewed && this.#door.renew !== undefined) {
        isRenewed = true
        const challenge = response.headers.get("WWW-Authenticate") ?? ""
        // oxlint-disable-next-line no-await-in-loop
        await discard(response)
        // oxlint-disable-next-line no-await-in-loop
        await this.#door.renew(challenge, authorization, request.signal)
      } else if (isRead && REDIRECTS.has(response.status) && location !== null) {
        redirects++
        // oxlint-disable-next-line no-await-in-loop
        await discard(response)
        // oxlint-disable-next-line no-await-in-loop
        url = await this.target(location, url)
      } else return { response, url }
    }
    const text = `maximum redirects exceeded (${REDIRECTS_MAX}) for directURL`
    throw new CriaError("unavailable", text, { hint: `Asked "${request.url.host}"` })
  }

  async #checkedFile(response: Response, subject: string): Promise<Response> {
    const { host } = new URL(response.url)
    const encoding = response.headers.get("Content-Encoding") ?? "identity"
    if (encoding !== "identity") {
      await discard(response)
      const text = `Cannot read ${subject}: "${host}" sends it as ${encoding}`
      throw new CriaError("unavailable", text)
    }
    if (response.status === 200 || response.status === 206) return response
    throw await this.failure(response, `Asked "${host}" for ${subject}`)
  }
}
