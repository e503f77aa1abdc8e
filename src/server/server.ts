/**
 * The HTTP server: routes, checks and errors put together; listening; draining.
 *
 * @module
 */

import { type Context, Hono, type MiddlewareHandler } from "hono"
import { bodyLimit } from "hono/body-limit"

import type { Config, HostAddress } from "../config.ts"
import type { App } from "../services/app.ts"
import { CriaError, errorMessage } from "../util/errors.ts"
import type { Logger } from "../util/log.ts"
import { openaiError } from "./dialects/openai.ts"
import { toReply } from "./errors.ts"
import { checkHost, checkOrigin } from "./middleware.ts"
import { BLOBS_PATH, modelRoutes } from "./routes/models.ts"
import { ollamaRoutes } from "./routes/ollama.ts"
import { openaiRoutes } from "./routes/openai.ts"
import { registryRoutes } from "./routes/registry.ts"

/** Largest request body that is read into memory: a long conversation with images in base64. */
const BODY_BYTES_MAX = 256 * 2 ** 20

/** What a server is made of. */
export interface ServerOptions {
  readonly app: App
  readonly config: Config
  readonly log: Logger
  /** Named facts that `/api/version` gives beside the version of the API. */
  readonly version: Readonly<Record<string, string>>
}

/** A server that listens. */
export interface RunningServer {
  /** As a client calls it. */
  readonly url: string
  /** Takes no new connections; resolves when the requests in progress are over, or after `graceMs`. */
  drain(graceMs: number): Promise<void>
}

/** All routes with their checks, without a socket: tests call `request()` on it. */
export function createRoutes({ app, config, log, version }: ServerOptions): Hono {
  const hono = new Hono()
  // In this order: what browsers ask before a request gets its answer from the first.
  hono.use(checkOrigin(config.origins))
  hono.use(checkHost(isLoopback(config.host)))
  hono.use(limitBody)
  if (!config.allowsChanges) for (const path of CHANGES) hono.all(path, refuseChange)
  hono.route("/", ollamaRoutes(app, version))
  hono.route("/", modelRoutes(app))
  hono.route("/", registryRoutes(app))
  hono.route("/", openaiRoutes(app))
  hono.notFound((c) => {
    const isKnown = hono.routes.some(
      ({ path, method }) => method !== "ALL" && fits(path, c.req.path),
    )
    return isKnown ? c.text("405 method not allowed", 405) : c.text("404 page not found", 404)
  })
  hono.onError((error, c) => errorResponse(error, c, log))
  return hono
}

/** What changes which models are installed, or sends them away. */
const CHANGES = [
  "/api/pull",
  "/api/push",
  "/api/create",
  "/api/copy",
  "/api/delete",
  `${BLOBS_PATH}:digest`,
]

function refuseChange(c: Context): Response {
  const hint = "CRIA_HTTP_CHANGES=0 is set for it; cria's commands with the same setting still can"
  return c.json({ error: "this server changes no models over HTTP", hint }, 403)
}

const limited = bodyLimit({
  maxSize: BODY_BYTES_MAX,
  onError: (c) => c.json({ error: `request body is over ${BODY_BYTES_MAX} bytes` }, 413),
})

/** Uploads go to disk as they come; all other bodies are held in memory. */
const limitBody: MiddlewareHandler = (c, next) =>
  c.req.path.startsWith(BLOBS_PATH) ? next() : limited(c, next)

/** Whether a path belongs to a route, whose `:names` stand for one part each. */
function fits(route: string, path: string): boolean {
  return new RegExp(`^${route.replaceAll(/:\w+/g, "[^/]+")}$`).test(path)
}

/**
 * Starts to listen.
 *
 * @throws {CriaError} `conflict` when the port is in use, `unavailable` when the address cannot be used.
 */
export function listen(options: ServerOptions): RunningServer {
  const { host } = options.config
  const routes = createRoutes(options)
  try {
    const server = Bun.serve({
      hostname: host.hostname,
      port: host.port,
      // Loading a model can take minutes without a byte on the wire.
      idleTimeout: 0,
      // The routes have limits of their own.
      maxRequestBodySize: Number.MAX_SAFE_INTEGER,
      fetch: (request) => routes.fetch(request),
    })
    const hostname = host.hostname.includes(":") ? `[${host.hostname}]` : host.hostname
    return {
      url: `http://${hostname}:${server.port}`,
      async drain(graceMs) {
        const grace = setTimeout(() => void server.stop(true), graceMs)
        await server.stop()
        clearTimeout(grace)
      },
    }
  } catch (error) {
    throw listenError(host, error)
  }
}

function isLoopback({ hostname }: HostAddress): boolean {
  return hostname === "localhost" || hostname === "::1" || hostname.startsWith("127.")
}

/** In Go's words, which scripts look for. */
function listenError({ hostname, port }: HostAddress, cause: unknown): CriaError {
  const address = `${hostname.includes(":") ? `[${hostname}]` : hostname}:${port}`
  // System errors of Node and Bun have a code.
  const { code } = cause as { code?: unknown }
  if (code === "EADDRINUSE") {
    return new CriaError("conflict", `listen tcp ${address}: bind: address already in use`, {
      hint: "Another server runs there, perhaps cria or Ollama; set OLLAMA_HOST to another address",
      cause,
    })
  }
  return new CriaError("unavailable", `listen tcp ${address}: ${errorMessage(cause)}`, { cause })
}

function errorResponse(error: Error, c: Context, log: Logger): Response {
  const { status, message, hint, retryAfterSeconds = 1 } = toReply(error, c.req.raw.signal)
  if (status === 500) log.error("request failed", { path: c.req.path, error: message })
  const body = c.req.path.startsWith("/v1/")
    ? openaiError(status, message)
    : { error: message, ...(hint === undefined ? {} : { hint }) }
  return new Response(JSON.stringify(body), {
    status,
    headers: {
      "Content-Type": "application/json; charset=utf-8",
      ...(status === 503 ? { "Retry-After": String(retryAfterSeconds) } : {}),
    },
  })
}
