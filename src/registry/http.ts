/**
 * One HTTP exchange with a machine that nobody trusts: bounded in time and memory, never redirected by itself.
 *
 * Owns timeouts, the limits of bodies, and the translation of failures into {@link Fault}s, from which callers decide
 * whether to try again. Proxies (`HTTPS_PROXY`, `NO_PROXY`) are Bun's business; registries and tokens that of others.
 *
 * @module
 */

import { gunzipSync, zstdDecompressSync } from "node:zlib"

import { z } from "zod"

import { CriaError, errorMessage } from "../util/errors.ts"
import { StallWatch } from "./stall-watch.ts"

/** How to speak to the network. */
export interface Network {
  readonly userAgent: string
  /** Certificate authorities in PEM, instead of those that Bun knows. */
  readonly ca?: string | undefined
  /** Milliseconds until the head of a reply has to be there. */
  readonly replyMs: number
  /** Milliseconds in which the other side has to take the next piece of what is sent, however long all of it takes. */
  readonly sendMs: number
  /** Like `replyMs` after a PUT or PATCH: the other side stores what it got before it answers. */
  readonly storeMs: number
  /** Milliseconds until all of the body of a small reply has to be there. */
  readonly bodyMs: number
}

/** A request. */
export interface HttpRequest {
  readonly method: "GET" | "HEAD" | "POST" | "PATCH" | "PUT" | "DELETE"
  readonly url: URL
  readonly headers?: Readonly<Record<string, string>>
  /** Pieces are taken as the connection takes them; no more once the reply has come. */
  readonly body?: Uint8Array | AsyncGenerator<Uint8Array, void> | undefined
  readonly signal?: AbortSignal | undefined
}

/** Why an exchange failed, as the cause of its `CriaError`. */
export class Fault {
  /** refused: nobody there. broken: it ended early. status: an answer that is an error. untrusted: bad certificate. */
  readonly kind: "refused" | "broken" | "status" | "untrusted"
  readonly status: number
  /** What the server asks for; undefined when it does not say. */
  readonly retryAfterMs: number | undefined
  readonly cause: unknown

  constructor(
    kind: Fault["kind"],
    details: { status?: number; retryAfterMs?: number | undefined; cause?: unknown } = {},
  ) {
    this.kind = kind
    this.status = details.status ?? 0
    this.retryAfterMs = details.retryAfterMs
    this.cause = details.cause
  }
}

/** Longest text of an error that is repeated. */
const ERROR_BYTES_MAX = 4096

/** Longer than this nobody waits because a server says so. */
const RETRY_AFTER_MS_MAX = 60_000

/** Statuses after which the same request may succeed. */
const PASSING: ReadonlySet<number> = new Set([408, 425, 429, 500, 502, 503, 504])

/** The reason for a failed exchange; undefined for errors of another kind. */
export function faultOf(error: unknown): Fault | undefined {
  return error instanceof CriaError && error.cause instanceof Fault ? error.cause : undefined
}

/** Whether the same request may succeed when it is sent again. */
export function isPassing(error: unknown): boolean {
  const fault = faultOf(error)
  if (fault === undefined) return false
  return fault.kind === "broken" || (fault.kind === "status" && PASSING.has(fault.status))
}

/** Whether a server has answered that it does not want to. */
export function isRefusal(error: unknown): boolean {
  const status = faultOf(error)?.status
  return status === 401 || status === 403
}

/** The same failure as one that passes, of a server that has answered before: it is only away. */
export function whenReached(error: unknown): unknown {
  const fault = faultOf(error)
  if (!(error instanceof CriaError) || fault?.kind !== "refused") return error
  const { code, message } = error
  return new CriaError(code, message, { cause: new Fault("broken", { cause: fault.cause }) })
}

/**
 * Sends a request and waits for the head of the reply, whatever its status.
 *
 * @throws {CriaError} `unavailable` with a {@link Fault} as its cause; what the body throws; the signal's reason when
 *   it was aborted.
 */
export async function exchange(network: Network, request: HttpRequest): Promise<Response> {
  const { method, url, headers = {}, body, signal } = request
  signal?.throwIfAborted()
  const stop = new AbortController()
  const answerMs = method === "PUT" || method === "PATCH" ? network.storeMs : network.replyMs
  const isStream = body !== undefined && !(body instanceof Uint8Array)
  using watch = new StallWatch(isStream ? network.sendMs : answerMs, () => stop.abort(LATE))
  const sent = isStream
    ? streamOf(body, {
        onPiece: () => watch.touch(),
        onEnd: () => watch.touch(answerMs),
        onError: (error) => stop.abort(error),
      })
    : body
  const init: BunFetchRequestInit = {
    method,
    redirect: "manual",
    decompress: false,
    // Bun gives up after five minutes by itself.
    timeout: false,
    headers: { "User-Agent": network.userAgent, "Accept-Encoding": "identity", ...headers },
    signal: signal === undefined ? stop.signal : AbortSignal.any([signal, stop.signal]),
    ...(sent === undefined ? {} : { body: sent }),
    ...(network.ca === undefined ? {} : { tls: { ca: network.ca } }),
  }
  try {
    return await fetch(url, init)
  } catch (error) {
    if (isStream) await body.return()
    signal?.throwIfAborted()
    const { aborted, reason } = stop.signal
    if (aborted && reason !== LATE) throw reason
    throw unreachable(url, aborted ? LATE : error)
  }
}

const LATE = new Error("no answer in time")

/** What happens to a body on its way out. */
interface BodyEvents {
  /** The connection has taken a piece. */
  readonly onPiece: () => void
  readonly onEnd: () => void
  readonly onError: (error: unknown) => void
}

function streamOf(
  pieces: AsyncGenerator<Uint8Array, void>,
  { onPiece, onEnd, onError }: BodyEvents,
): ReadableStream<Uint8Array> {
  return new ReadableStream({
    async pull(controller) {
      onPiece()
      const piece = await pieces.next().catch((error: unknown) => {
        onError(error)
        throw error
      })
      if (piece.done === true) onEnd()
      try {
        if (piece.done === true) controller.close()
        else controller.enqueue(piece.value)
      } catch {
        // The connection has gone meanwhile, which `fetch` says.
        await pieces.return()
      }
    },
    async cancel() {
      await pieces.return()
    },
  })
}

/** Certificates that do not check out, in OpenSSL's and BoringSSL's words. */
const CERTIFICATE = /CERT|SELF_SIGNED|ISSUER|TLS|SSL/

const NOBODY: ReadonlySet<string> = new Set([
  "ECONNREFUSED",
  "ENOTFOUND",
  "EHOSTUNREACH",
  "ENETUNREACH",
  "EAI_AGAIN",
  "ENETDOWN",
])

/** The error for a connection that failed. */
export function unreachable(url: URL, cause: unknown): CriaError {
  // System errors of Bun have a code.
  const code = (cause as { code?: string } | undefined)?.code ?? ""
  const text = `Cannot reach "${url.host}": ${errorMessage(cause)}`
  if (CERTIFICATE.test(code)) {
    return new CriaError("unavailable", text, {
      hint: `Set SSL_CERT_FILE to the certificate authority of "${url.host}"; --insecure is for registries without TLS`,
      cause: new Fault("untrusted", { cause }),
    })
  }
  const kind = NOBODY.has(code) ? "refused" : "broken"
  const hint = "Check the name, the network, and HTTPS_PROXY if there is a proxy"
  return new CriaError("unavailable", text, {
    ...(kind === "refused" ? { hint } : {}),
    cause: new Fault(kind, { cause }),
  })
}

/**
 * The error for a reply whose status says that it is none. Reads its body.
 *
 * @param subject What was asked for, for the text.
 */
export async function statusError(
  response: Response,
  subject: string,
  network: BodyLimit,
): Promise<CriaError> {
  const { status, headers } = response
  const cause = new Fault("status", {
    status,
    retryAfterMs: retryAfter(headers.get("Retry-After")),
  })
  const reason = await reasonOf(response, network)
  if (status === 401 || status === 403) {
    const hint = reason === "" ? {} : { hint: `"${new URL(response.url).host}" says: ${reason}` }
    return new CriaError("unavailable", "unauthorized: access denied", { ...hint, cause })
  }
  if (status === 404) {
    return new CriaError("not-found", "file does not exist", { hint: subject, cause })
  }
  const text = `${status}: ${reason || response.statusText}`
  return new CriaError("unavailable", text, { hint: subject, cause })
}

/** The same error, when it is a refusal, with what the user can do about it. */
export function withAdvice(error: CriaError, advice: string | undefined): CriaError {
  if (advice === undefined || !isRefusal(error)) return error
  const hint = error.hint === undefined ? advice : `${error.hint}\n${advice}`
  return new CriaError(error.code, error.message, { hint, cause: error.cause })
}

/** The shapes of errors that registries and Hugging Face send. */
const reasonSchema = z.union([
  z.object({ errors: z.array(z.object({ message: z.string() })).min(1) }),
  z.object({ error: z.string() }),
])

/** What a server says about its refusal, in one line; "" when that is nothing for people. */
async function reasonOf(response: Response, network: BodyLimit): Promise<string> {
  const body = await readText(response, ERROR_BYTES_MAX, network).catch(() => "")
  const text = body.trim() || (response.headers.get("X-Error-Message") ?? "")
  if (text.startsWith("<")) return ""
  return oneLine(reasonIn(text) ?? text)
}

function reasonIn(text: string): string | undefined {
  try {
    const { data } = reasonSchema.safeParse(JSON.parse(text))
    if (data === undefined) return undefined
    return "error" in data ? data.error : data.errors.map(({ message }) => message).join("; ")
  } catch {
    return undefined
  }
}

/** Control characters and line ends of a stranger's text made harmless. */
function oneLine(text: string): string {
  return text
    .trim()
    .slice(0, 500)
    .replaceAll(/[\p{Cc}\p{Cf}]+/gu, " ")
}

/** Seconds or a date. */
function retryAfter(header: string | null): number | undefined {
  if (header === null) return undefined
  const ms = /^\d{1,9}$/.test(header) ? Number(header) * 1000 : Date.parse(header) - Date.now()
  return Number.isFinite(ms) ? Math.min(Math.max(0, ms), RETRY_AFTER_MS_MAX) : undefined
}

/** Lets go of a reply whose body nobody wants. */
export async function discard(response: Response): Promise<void> {
  await response.body?.cancel().catch(() => {})
}

/** How long a small body may take. */
export type BodyLimit = Pick<Network, "bodyMs">

/** Like {@link readBytes}, as text. */
export async function readText(
  response: Response,
  bytesMax: number,
  network: BodyLimit,
): Promise<string> {
  return new TextDecoder().decode(await readBytes(response, bytesMax, network))
}

/**
 * Reads a small body. A compressed one counts with its full size, and is not unpacked further than the limit.
 *
 * @throws {CriaError} `unavailable` when it is longer, breaks off, or does not come in time.
 */
export async function readBytes(
  response: Response,
  bytesMax: number,
  { bodyMs }: BodyLimit,
): Promise<Uint8Array> {
  const url = new URL(response.url)
  const reader = response.body?.getReader()
  const chunks: Uint8Array[] = []
  let size = 0
  let isLate = false
  const end = () => reader?.cancel().catch(() => {})
  const timer = setTimeout(() => {
    isLate = true
    // The read that waits gives the end then.
    void end()
  }, bodyMs)
  try {
    for (;;) {
      // Each piece comes after the one before.
      // oxlint-disable-next-line no-await-in-loop
      const chunk = await reader?.read()
      if (chunk === undefined || chunk.done) break
      size += chunk.value.length
      if (size > bytesMax) throw tooLong(url, bytesMax)
      chunks.push(chunk.value)
    }
  } catch (error) {
    throw error instanceof CriaError ? error : unreachable(url, error)
  } finally {
    clearTimeout(timer)
    await end()
  }
  if (isLate) throw unreachable(url, LATE)
  return unpacked(Buffer.concat(chunks), response, bytesMax)
}

function unpacked(bytes: Uint8Array, response: Response, bytesMax: number): Uint8Array {
  const encoding = response.headers.get("Content-Encoding") ?? "identity"
  const url = new URL(response.url)
  try {
    if (encoding === "identity") return bytes
    if (encoding === "gzip") return gunzipSync(bytes, { maxOutputLength: bytesMax })
    if (encoding === "zstd") return zstdDecompressSync(bytes, { maxOutputLength: bytesMax })
  } catch (cause) {
    throw tooLong(url, bytesMax, cause)
  }
  throw new CriaError("unavailable", `Cannot read the reply of "${url.host}": ${encoding} encoding`)
}

function tooLong({ host }: URL, bytesMax: number, cause?: unknown): CriaError {
  const text = `Cannot read the reply of "${host}": more than ${bytesMax} bytes, or damaged`
  return new CriaError("unavailable", text, { cause })
}
