import { describe, expect, test } from "bun:test"
import { rejects } from "node:assert/strict"

import { realmOf } from "./auth.ts"
import type { Challenge } from "./challenge.ts"
import { checkedRedirect } from "./redirect.ts"

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
