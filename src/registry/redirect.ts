/**
 * Where a registry may send us: anywhere on the network that it is on itself.
 *
 * A registry on the internet must not point at this machine or its private network (CVE-2026-5530), nor from TLS to
 * plain HTTP. What a name means is looked up. A proxy looks up those that it serves itself, so of them only `localhost` is
 * checked.
 *
 * @module
 */

import { lookup } from "node:dns/promises"
import { BlockList, isIP } from "node:net"

import { CriaError } from "../util/errors.ts"

/** From the host name of a URL to its addresses; [] when it has none. */
export type Lookup = (hostname: string, url: URL) => Promise<readonly string[]>

/** Addresses that mean this machine, its network, or a cloud's metadata. */
const PRIVATE = new BlockList()
for (const [net, bits] of [
  ["0.0.0.0", 8],
  ["10.0.0.0", 8],
  ["100.64.0.0", 10],
  ["127.0.0.0", 8],
  ["169.254.0.0", 16],
  ["172.16.0.0", 12],
  ["192.0.0.0", 24],
  ["192.168.0.0", 16],
  ["198.18.0.0", 15],
  ["224.0.0.0", 3],
] as const) {
  PRIVATE.addSubnet(net, bits, "ipv4")
}
for (const [net, bits] of [
  ["::", 127],
  ["fc00::", 7],
  ["fe80::", 10],
  ["ff00::", 8],
  ["64:ff9b::", 96],
] as const) {
  PRIVATE.addSubnet(net, bits, "ipv6")
}

/**
 * Checks a redirect.
 *
 * @param location The header of the reply; may be relative to `from`.
 * @param registry Where the pull began.
 * @throws {CriaError} `unavailable` when we will not go there.
 */
export async function checkedRedirect(
  location: string,
  from: URL,
  registry: URL,
  look: Lookup = systemLookup,
): Promise<URL> {
  const to = URL.parse(location, from.href)
  const isWeb = to?.protocol === "https:" || to?.protocol === "http:"
  if (to === null || !isWeb || to.username !== "" || to.password !== "") {
    throw refused(from, JSON.stringify(location.slice(0, 200)), "which is no web address")
  }
  if (to.origin === registry.origin) return to
  if (to.protocol === "http:" && from.protocol === "https:") {
    throw refused(from, `"${to.origin}"`, "which has no TLS")
  }
  if (await isPrivate(to, look)) {
    if (!(await isPrivate(registry, look))) {
      throw refused(from, `"${to.origin}"`, "which is on a private network")
    }
  }
  return to
}

async function isPrivate(url: URL, look: Lookup): Promise<boolean> {
  const name = url.hostname.replace(/^\[|\]$/g, "").replace(/\.$/, "")
  const addresses = isIP(name) === 0 ? await look(name, url) : [name]
  return addresses.some(isPrivateAddress)
}

function isPrivateAddress(address: string): boolean {
  const family = isIP(address) === 6 ? "ipv6" : "ipv4"
  // An IPv4 address in the clothes of IPv6 is checked as what it is.
  return PRIVATE.check(address, family)
}

type Environment = Readonly<Record<string, string | undefined>>

interface Resolving {
  readonly environment?: Environment
  readonly resolve?: (hostname: string) => Promise<readonly string[]>
}

/** Asks the system, unless a proxy is asked. */
export async function systemLookup(
  hostname: string,
  url: URL,
  { environment = process.env, resolve = resolved }: Resolving = {},
): Promise<readonly string[]> {
  // This machine, whatever a resolver or a proxy says.
  if (hostname === "localhost" || hostname.endsWith(".localhost")) return ["127.0.0.1"]
  if (isProxied(url.protocol, hostname, environment)) return []
  try {
    return await resolve(hostname)
  } catch {
    // The request itself will say so.
    return []
  }
}

async function resolved(hostname: string): Promise<readonly string[]> {
  return (await lookup(hostname, { all: true })).map(({ address }) => address)
}

/** In doubt it is not: then the name is looked up, and checked. */
function isProxied(protocol: string, hostname: string, environment: Environment): boolean {
  const name = protocol === "https:" ? "https_proxy" : "http_proxy"
  const valuesOf = (key: string) => [environment[key], environment[key.toUpperCase()]]
  if (!valuesOf(name).some((value) => value !== undefined && value !== "")) return false
  const exceptions = valuesOf("no_proxy").flatMap((value) => (value ?? "").toLowerCase().split(","))
  return !exceptions.some((exception) => {
    const suffix = exception
      .trim()
      .replace(/:\d+$/, "")
      .replace(/^\*?\.?/, "")
    return exception.trim() !== "" && hostname.endsWith(suffix)
  })
}

function refused({ host }: URL, target: string, why: string): CriaError {
  return new CriaError("unavailable", `"${host}" redirects to ${target}, ${why}: not followed`)
}
