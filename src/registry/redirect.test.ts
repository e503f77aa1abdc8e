import { describe, expect, test } from "bun:test"
import { rejects } from "node:assert/strict"

import { realmOf } from "./auth.ts"
import type { Challenge } from "./challenge.ts"
import { checkedRedirect, systemLookup } from "./redirect.ts"

const PUBLIC = new URL("https://registry.example/v2/a/b/")

/** A network where names that begin with `private` mean 10.0.0.1. */
function look(name: string): Promise<string[]> {
  return Promise.resolve([name.startsWith("private") ? "10.0.0.1" : "93.184.216.34"])
}

function challenge(realm: string): Challenge {
  return { scheme: "bearer", parameters: new Map([["realm", realm]]) }
}

describe("checkedRedirect()", () => {
  test.each([
    ["/x", "https://registry.example/x"],
    ["https://cdn.example/x?sig=1", "https://cdn.example/x?sig=1"],
    ["https://93.184.216.34/x", "https://93.184.216.34/x"],
  ])("goes to %s", async (location, expected) => {
    expect((await checkedRedirect(location, PUBLIC, PUBLIC, look)).href).toBe(expected)
  })

  test.each([
    "http://cdn.example/x",
    "https://private.example/x",
    "https://127.0.0.1/x",
    "https://127.1/x",
    "https://private.example./x",
    "https://0x7f000001/x",
    "https://[::1]/x",
    "https://[::ffff:127.0.0.1]/x",
    "https://[::ffff:169.254.169.254]/x",
    "https://[fd00::1]/x",
    "https://169.254.169.254/latest/meta-data",
    "https://10.1.2.3/",
    "https://172.31.0.1/",
    "https://192.168.1.1/",
    "https://0.0.0.0/",
    "https://user:pass@cdn.example/",
    "file:///etc/passwd",
    "ftp://cdn.example/",
    "https://",
  ])("does not go to %s", async (location) => {
    await rejects(checkedRedirect(location, PUBLIC, PUBLIC, look), { code: "unavailable" })
  })

  test("a registry on a private network may send us around there, with or without TLS", async () => {
    const registry = new URL("http://private.example:5000/v2/")
    const to = await checkedRedirect("http://10.9.9.9/x", registry, registry, look)
    expect(to.href).toBe("http://10.9.9.9/x")
  })
})

const PROXY = "http://proxy.example:3128"

function ask(host: string, environment: Record<string, string>): Promise<readonly string[]> {
  const url = new URL(`https://${host}/`)
  return systemLookup(host, url, { environment, resolve: () => Promise.resolve(["10.0.0.1"]) })
}

function nowhere(): Promise<readonly string[]> {
  return Promise.reject(new Error("ENOTFOUND"))
}

describe("systemLookup()", () => {
  test.each<[string, Record<string, string>]>([
    ["intranet.corp", {}],
    ["intranet.corp", { HTTP_PROXY: PROXY }],
    ["intranet.corp", { HTTPS_PROXY: PROXY, NO_PROXY: "localhost, .corp" }],
    ["intranet.corp", { https_proxy: PROXY, no_proxy: "Corp:443" }],
    ["intranet.corp", { HTTPS_PROXY: PROXY, NO_PROXY: "*" }],
  ])("%s is looked up with %j", async (host, environment) => {
    expect(await ask(host, environment)).toEqual(["10.0.0.1"])
  })

  test("a name that a proxy serves is its business", async () => {
    const environment = { HTTPS_PROXY: PROXY, NO_PROXY: "localhost,,127.0.0.1" }
    expect(await ask("intranet.corp", environment)).toEqual([])
  })

  test.each(["localhost", "x.localhost"])("%s is this machine, proxy or not", async (host) => {
    expect(await ask(host, { HTTPS_PROXY: PROXY })).toEqual(["127.0.0.1"])
  })

  test("a name that has no addresses has none", async () => {
    const url = new URL("https://nowhere.example/")
    const parts = { environment: {}, resolve: nowhere }
    expect(await systemLookup("nowhere.example", url, parts)).toEqual([])
  })
})

describe("realmOf()", () => {
  const registry = new URL("https://r.example:5000")

  test("is the registry itself, a known pair, or one that the user trusts", () => {
    const own = "https://r.example:5000/token"
    expect(realmOf(challenge(own), registry, []).href).toBe(own)
    const hub = realmOf(
      challenge("https://auth.docker.io/token"),
      new URL("https://registry-1.docker.io"),
      [],
    )
    expect(hub.host).toBe("auth.docker.io")
    const trusted = ["r.example:5000=auth.example"]
    expect(realmOf(challenge("https://auth.example/t"), registry, trusted).host).toBe(
      "auth.example",
    )
  })

  test.each([
    "https://thief.example/token",
    "https://r.example/token",
    "https://r.example:5001/token",
    "https://r.example:5000.thief.example/token",
    "https://r.example:5000@thief.example/token",
    "http://r.example:5000/token",
    "javascript:alert(1)",
    "",
    "/token",
  ])("is not %j", (realm) => {
    expect(() => realmOf(challenge(realm), registry, [])).toThrow()
  })
})
