/**
 * Gets let in by one registry: answers its challenges and keeps the `Authorization` that it wants.
 *
 * Speaks Ollama's scheme (a signature by the user's key) and the container registries' (Basic, and Bearer tokens by
 * password, refresh token or nothing). A credential, a signature or a token is sent to the registry, to its own realm,
 * and to nobody else (CVE-2025-51471).
 *
 * @module
 */

import { randomBytes } from "node:crypto"

import { z } from "zod"

import { CriaError, errorMessage } from "../util/errors.ts"
import { type Challenge, parseChallenges } from "./challenge.ts"
import type { Credential } from "./credentials.ts"
import {
  discard,
  exchange,
  type HttpRequest,
  type Network,
  readText,
  statusError,
  withAdvice,
} from "./http.ts"
import { type Identity, signedAuthorization } from "./identity.ts"
import type { Door } from "./site.ts"

/** What an {@link Authorizer} draws on. */
export interface AuthSources {
  /** The user's credential for a registry; asked when the registry wants one. */
  credential(host: string): Promise<Credential | undefined>
  /** The user's key; asked when the registry wants a token and there is no credential. */
  identity(): Identity
  /** Further `registry=realm` pairs of hosts. */
  readonly realms: readonly string[]
}

/** Realms that are the registry's own although their host differs, by what their operators document. */
const KNOWN_REALMS: readonly string[] = [
  "registry.ollama.ai=ollama.com",
  "registry-1.docker.io=auth.docker.io",
  "registry.gitlab.com=gitlab.com",
  "hf.co=huggingface.co",
]

const TOKEN_BYTES_MAX = 64 * 1024

const tokenSchema = z
  .object({ token: z.string().nullish(), access_token: z.string().nullish() })
  .transform(({ token, access_token: access }) => token || access || "")
  // What can stand in a header.
  .pipe(z.string().regex(/^[\x21-\x7e]+$/))

/** Keeps the authorization for one registry and one repository. */
export class Authorizer implements Door {
  readonly #registry: URL
  readonly #network: Network
  readonly #sources: AuthSources
  #authorization: string | undefined
  #advice: string | undefined
  #renewal: Promise<void> | undefined

  constructor(registry: URL, network: Network, sources: AuthSources) {
    this.#registry = registry
    this.#network = network
    this.#sources = sources
  }

  /** The header for a URL; undefined for every other host than the registry's. */
  headerFor(url: URL): string | undefined {
    return url.origin === this.#registry.origin ? this.#authorization : undefined
  }

  /** What the user can do when it is not enough. */
  get advice(): string | undefined {
    return this.#advice
  }

  /**
   * Answers a challenge. Requests that meet one at the same time share the answer; each leaves when it is aborted.
   *
   * @param header `WWW-Authenticate` of the reply.
   * @param refused What the refused request was sent with.
   * @throws {CriaError} `unavailable` when there is no way in; the signal's reason.
   */
  async renew(
    header: string,
    refused: string | undefined,
    signal: AbortSignal | undefined,
  ): Promise<void> {
    if (this.#authorization !== refused) return
    this.#renewal ??= this.#answer(parseChallenges(header)).finally(() => {
      this.#renewal = undefined
    })
    await unlessAborted(this.#renewal, signal)
  }

  async #answer(challenges: readonly Challenge[]): Promise<void> {
    const { host } = this.#registry
    const bearer = challenges.find(({ scheme }) => scheme === "bearer")
    const credential = await this.#sources.credential(host)
    if (credential?.kind === "bearer") {
      this.#authorization = `Bearer ${credential.token}`
    } else if (bearer !== undefined) {
      this.#authorization = `Bearer ${await this.#token(bearer, credential)}`
    } else if (challenges.some(({ scheme }) => scheme === "basic")) {
      if (credential?.kind !== "password") throw denied(host)
      this.#authorization = basic(credential)
    } else throw denied(host)
  }

  async #token(challenge: Challenge, credential: Credential | undefined): Promise<string> {
    const realm = realmOf(challenge, this.#registry, this.#sources.realms)
    const service = challenge.parameters.get("service")
    const scopes = (challenge.parameters.get("scope") ?? "").split(" ").filter((s) => s !== "")
    const fields: [string, string][] = [
      ...(service === undefined ? [] : [["service", service] as [string, string]]),
      ...scopes.map((scope): [string, string] => ["scope", scope]),
    ]
    const request = (more: readonly [string, string][], authorization?: string): HttpRequest => {
      const url = new URL(realm)
      for (const [name, value] of [...fields, ...more]) url.searchParams.append(name, value)
      url.searchParams.sort()
      const headers = authorization === undefined ? {} : { Authorization: authorization }
      return { method: "GET", url, headers }
    }
    if (credential?.kind === "password") return this.#fetchToken(request([], basic(credential)))
    if (credential?.kind === "refresh-token") {
      return this.#fetchToken(exchangeRequest(realm, fields, credential.token))
    }
    const stamp: [string, string][] = [
      ["ts", String(Math.trunc(Date.now() / 1000))],
      ["nonce", randomBytes(16).toString("base64url")],
    ]
    // Registries that know no keys give tokens for what is public to those who say nothing.
    const anonymous = request([])
    const identity = this.#identity()
    if (identity === undefined) return this.#fetchToken(anonymous)
    const unsigned = request(stamp)
    const authorization = signedAuthorization(identity, "GET", unsigned.url.href)
    const signed = { ...unsigned, headers: { Authorization: authorization } }
    return this.#fetchToken(signed, anonymous)
  }

  /** The user's key; undefined when there is none and none can be made, which is no matter for what is public. */
  #identity(): Identity | undefined {
    const login = loginAdvice(this.#registry.host)
    try {
      const identity = this.#sources.identity()
      this.#advice = `${login}; or add the key in "${identity.path}.pub" to your account there`
      return identity
    } catch (error) {
      this.#advice = `${login}; there is no key to sign with: ${errorMessage(error)}`
      return undefined
    }
  }

  /** @param otherwise Sent when the first request is refused. */
  async #fetchToken(request: HttpRequest, otherwise?: HttpRequest): Promise<string> {
    const response = await exchange(this.#network, request)
    if (response.ok)
      return parseToken(await readText(response, TOKEN_BYTES_MAX, this.#network), request.url)
    if (otherwise !== undefined && response.status >= 400 && response.status < 500) {
      await discard(response)
      return this.#fetchToken(otherwise)
    }
    const subject = `Asked "${request.url.host}" for a token`
    const error = await statusError(response, subject, this.#network)
    throw withAdvice(error, this.#advice)
  }
}

/** Waits for what others wait for too. @throws The signal's reason. */
async function unlessAborted(work: Promise<void>, signal: AbortSignal | undefined): Promise<void> {
  const aborted = Promise.withResolvers<never>()
  const onAbort = () => aborted.reject(signal?.reason)
  signal?.addEventListener("abort", onAbort)
  // In the race, too: else nobody would hear when the work fails.
  if (signal?.aborted === true) onAbort()
  try {
    await Promise.race([work, aborted.promise])
  } finally {
    signal?.removeEventListener("abort", onAbort)
  }
}

/**
 * Where a challenge sends us for a token.
 *
 * @throws {CriaError} `unavailable` when that is not the registry's own.
 */
export function realmOf(challenge: Challenge, registry: URL, trusted: readonly string[]): URL {
  const text = challenge.parameters.get("realm") ?? ""
  const realm = URL.parse(text)
  const isWeb = realm?.protocol === "https:" || realm?.protocol === "http:"
  if (realm === null || !isWeb || realm.username !== "" || realm.password !== "") {
    const quoted = JSON.stringify(text.slice(0, 200))
    throw new CriaError("unavailable", `Cannot get a token: realm ${quoted} is no address`)
  }
  if (realm.protocol === "http:" && registry.protocol !== "http:") {
    throw new CriaError("unavailable", `Cannot get a token: realm "${realm.origin}" has no TLS`)
  }
  const pairs = [...KNOWN_REALMS, ...trusted]
  if (realm.host === registry.host || pairs.includes(`${registry.host}=${realm.host}`)) return realm
  throw new CriaError(
    "unavailable",
    `realm host "${realm.host}" does not match original host "${registry.host}"`,
    { hint: `If you trust it, set CRIA_REGISTRY_REALMS=${registry.host}=${realm.host}` },
  )
}

/** OAuth's way from a long-lived token to a short-lived one. */
function exchangeRequest(realm: URL, fields: [string, string][], token: string): HttpRequest {
  const form = new URLSearchParams([
    ["grant_type", "refresh_token"],
    ["client_id", "cria"],
    ...fields,
    ["refresh_token", token],
  ])
  return {
    method: "POST",
    url: realm,
    headers: { "Content-Type": "application/x-www-form-urlencoded" },
    body: Buffer.from(form.toString()),
  }
}

function parseToken(text: string, { host }: URL): string {
  const result = tokenSchema.safeParse(decoded(text))
  if (result.success) return result.data
  throw new CriaError(
    "unavailable",
    `Cannot use the token of "${host}": there is none in its reply`,
  )
}

function decoded(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

function basic({ user, password }: Extract<Credential, { kind: "password" }>): string {
  return `Basic ${Buffer.from(`${user}:${password}`).toString("base64")}`
}

function denied(host: string): CriaError {
  return new CriaError("unavailable", "unauthorized: access denied", {
    hint: loginAdvice(host),
  })
}

function loginAdvice(host: string): string {
  return `Log in with docker login ${host}, or put a user and password into ~/.docker/config.json`
}
