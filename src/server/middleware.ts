/**
 * What every request passes first: the check of the Host header and the rules for browsers.
 *
 * A page in a browser can send requests to localhost. The Host check keeps out pages that re-point their own name
 * here (DNS rebinding, CVE-2024-28224); the Origin check keeps out all pages but local ones and those that the user
 * allowed.
 *
 * @module
 */

import { hostname, networkInterfaces } from "node:os"

import type { Context, MiddlewareHandler } from "hono"

const METHODS = "GET,POST,PUT,PATCH,DELETE,HEAD,OPTIONS"
const MAX_AGE_SECONDS = 12 * 3600

const STAINLESS = [
  "arch",
  "async",
  "custom-poll-interval",
  "helper-method",
  "lang",
  "os",
  "package-version",
  "poll-helper",
  "retry-count",
  "runtime",
  "runtime-version",
  "timeout",
]

const HEADERS = [
  "Authorization",
  "Content-Type",
  "User-Agent",
  "Accept",
  "X-Requested-With",
  "OpenAI-Beta",
  ...["Scope", "Client", "Priority"].map((name) => `X-Cria-${name}`),
  ...STAINLESS.map((name) => `x-stainless-${name}`),
].join(",")

const LOCAL_ORIGINS = [
  ...["localhost", "127.0.0.1", "0.0.0.0"].flatMap((host) => [
    `http://${host}`,
    `https://${host}`,
    `http://${host}:*`,
    `https://${host}:*`,
  ]),
  ...["app", "file", "tauri", "vscode-webview", "vscode-file"].map((scheme) => `${scheme}://*`),
]

/**
 * Refuses requests whose Host header cannot mean this machine. Only for servers on loopback: others are reached
 * under names that we cannot know.
 */
export function checkHost(isLoopback: boolean): MiddlewareHandler {
  return async (context, next) => {
    if (!isLoopback) return next()
    const host = hostOf(context.req.header("Host") ?? "")
    if (isOwnAddress(host)) return next()
    if (!isOwnName(host)) return context.body(null, 403)
    return context.req.method === "OPTIONS" ? context.body(null, 204) : next()
  }
}

/** Answers pre-flight requests and refuses origins that are not allowed. Requests without Origin pass. */
export function checkOrigin(allowed: readonly string[]): MiddlewareHandler {
  const patterns = [...allowed, ...LOCAL_ORIGINS].map(originPattern)
  return async (context, next) => {
    const origin = context.req.header("Origin")
    if (origin === undefined || isSameOrigin(context, origin)) return next()
    if (!patterns.some((pattern) => pattern.test(origin))) return context.body(null, 403)
    // On `res` and not by `header()`: those are lost when a route answers with a Response of its own.
    context.res.headers.set("Access-Control-Allow-Origin", origin)
    context.res.headers.set("Vary", "Origin")
    if (context.req.method !== "OPTIONS") return next()
    context.header("Access-Control-Allow-Methods", METHODS)
    context.header("Access-Control-Allow-Headers", HEADERS)
    context.header("Access-Control-Max-Age", String(MAX_AGE_SECONDS))
    return context.body(null, 204)
  }
}

function isSameOrigin(context: Context, origin: string): boolean {
  const host = context.req.header("Host")
  return host !== undefined && (origin === `http://${host}` || origin === `https://${host}`)
}

/** `*` stands for anything. */
function originPattern(origin: string): RegExp {
  const escaped = origin.replaceAll(/[.+?^${}()|[\]\\]/g, String.raw`\$&`).replaceAll("*", ".*")
  return new RegExp(`^${escaped}$`, "i")
}

/** The Host header without its port, and without the brackets of IPv6. */
function hostOf(header: string): string {
  const bracketed = /^\[([^\]]*)\]/.exec(header)?.[1]
  return (bracketed ?? header.replace(/:\d*$/, "")).toLowerCase()
}

function isOwnName(host: string): boolean {
  return (
    host === "" ||
    host === "localhost" ||
    host === hostname().toLowerCase() ||
    [".localhost", ".local", ".internal"].some((ending) => host.endsWith(ending))
  )
}

/** An address that is loopback, private, unspecified or one of this machine's own. */
function isOwnAddress(host: string): boolean {
  if (/^(127\.|10\.|192\.168\.|172\.(1[6-9]|2\d|3[01])\.)[\d.]+$/.test(host)) return true
  if (["0.0.0.0", "::", "::1"].includes(host) || /^f[cd][\da-f]*:/.test(host)) return true
  const own = Object.values(networkInterfaces()).flatMap((list) => list ?? [])
  return own.some(({ address }) => address === host)
}
