/**
 * Where a registry may send us: anywhere on the network that it is on itself.
 *
 * A registry on the internet must not point at this machine or its private network (CVE-2026-5530), nor from TLS to
 * plain HTTP. What a name means is looked up; a proxy looks names up itself, so then only addresses are checked.
 *
 * @module
 */

import { lookup } from "node:dns/promises"
import { BlockList, isIP } from "node:net"

import { CriaError } from "../util/errors.ts"

/** From a host name to its addresses; [] when it has none. */
export type Lookup = (hostname: string) => Promise<readonly string[]>

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

async function isPrivate({ hostname }: URL, look: Lookup): Promise<boolean> {
  const name = hostname.replace(/^\[|\]$/g, "")
  const addresses = isIP(name) === 0 ? await look(name) : [name]
  return addresses.some(isPrivateAddress)
}

function isPrivateAddress(address: string): boolean {
  const family = isIP(address) === 6 ? "ipv6" : "ipv4"
  // An IPv4 address in the clothes of IPv6 is checked as what it is.
  return PRIVATE.check(address, family)
}

async function systemLookup(hostname: string): Promise<readonly string[]> {
  if (usesProxy()) return []
  try {
    return (await lookup(hostname, { all: true })).map(({ address }) => address)
  } catch {
    // The request itself will say so.
    return []
  }
}

function usesProxy(): boolean {
  return ["HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"].some(
    (name) => (process.env[name] ?? "") !== "",
  )
}

function refused({ host }: URL, target: string, why: string): CriaError {
  return new CriaError("unavailable", `"${host}" redirects to ${target}, ${why}: not followed`)
}
