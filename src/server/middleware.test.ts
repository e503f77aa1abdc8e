import { describe, expect, test } from "bun:test"
import { hostname, networkInterfaces } from "node:os"

import { TestServer } from "./test-server.ts"

interface Call {
  readonly method?: string
  readonly path?: string
  readonly body?: object
  readonly headers?: Readonly<Record<string, string>>
  readonly env?: Readonly<Record<string, string>>
}

/** Calls a server that was started with some variables. */
async function call({ method = "GET", path = "/", body, headers = {}, env = {} }: Call) {
  await using server = await TestServer.start(env)
  const text = body === undefined ? {} : { body: JSON.stringify(body) }
  const response = await server.request(path, { method, headers, ...text })
  return { status: response.status, headers: response.headers, body: await response.text() }
}

const ALLOW = "Access-Control-Allow-Origin"

describe("Origin — who may call", () => {
  test.each([
    "http://localhost",
    "https://localhost",
    "http://localhost:3000",
    "http://127.0.0.1:8080",
    "https://127.0.0.1",
    "http://0.0.0.0:1",
    "app://obsidian.md",
    "file://",
    "file:///home/me/page.html",
    "tauri://localhost",
    "vscode-webview://abc",
    "vscode-file://vscode-app",
    "HTTP://LOCALHOST:3000",
  ])("%s may", async (origin) => {
    const { status, headers } = await call({ headers: { Origin: origin } })
    expect(status).toBe(200)
    expect(headers.get(ALLOW)).toBe(origin)
    expect(headers.get("Vary")).toBe("Origin")
  })

  test.each([
    "http://evil.example",
    "https://localhost.evil.example",
    "http://localhost.evil.example:3000",
    "http://evil.example?http://localhost",
    "http://xlocalhost",
    "http://127.0.0.1.evil.example",
    "http://127.0.0.2",
    "http://1270001",
    "chrome-extension://abc",
    "null",
  ])("%s may not", async (origin) => {
    const { status, headers, body } = await call({ headers: { Origin: origin } })
    expect({ status, body }).toEqual({ status: 403, body: "" })
    expect(headers.get(ALLOW)).toBeNull()
  })

  test("whoever sends no Origin may", async () => {
    const { status, headers } = await call({})
    expect(status).toBe(200)
    expect(headers.get(ALLOW)).toBeNull()
  })

  test.each(["http://my-pc.local:11434", "https://my-pc.local:11434"])(
    "a page of this server itself, %s, may",
    async (origin) => {
      const headers = { Origin: origin, Host: "my-pc.local:11434" }
      expect((await call({ headers })).status).toBe(200)
    },
  )

  test.each<[string, string, number]>([
    ["https://chat.example", "https://chat.example", 200],
    ["https://chat.example", "https://chat.example:8443", 403],
    ["https://chat.example:*", "https://chat.example:8443", 200],
    ["https://*.example", "https://a.b.example", 200],
    ["https://*.example", "http://a.example", 403],
    ["https://a.example", "https://axexample", 403],
    ["chrome-extension://*", "chrome-extension://abcdef", 200],
    ["*", "http://evil.example", 200],
    ["https://a.example,https://b.example", "https://b.example", 200],
  ])("OLLAMA_ORIGINS=%s: %s gets %d", async (allowed, origin, expected) => {
    const env = { OLLAMA_ORIGINS: allowed }
    expect((await call({ headers: { Origin: origin }, env })).status).toBe(expected)
  })
})

describe("Origin — every reply to an allowed page can be read by it", () => {
  const headers = { Origin: "http://localhost:3000" }
  const chat = { model: "tiny", messages: [{ role: "user", content: "hi" }] }

  test.each<[string, Call, number]>([
    ["a text", { path: "/" }, 200],
    ["an object", { path: "/api/tags" }, 200],
    ["a stream of lines", { method: "POST", path: "/api/chat", body: chat }, 200],
    [
      "a stream of events",
      { method: "POST", path: "/v1/chat/completions", body: { ...chat, stream: true } },
      200,
    ],
    ["a whole completion", { method: "POST", path: "/v1/chat/completions", body: chat }, 200],
    ["an error", { method: "POST", path: "/api/chat", body: { ...chat, model: "nope" } }, 404],
    ["an unknown path", { path: "/nowhere" }, 404],
    ["a wrong method", { path: "/api/chat" }, 405],
  ])("%s", async (_, request, expected) => {
    const reply = await call({ ...request, headers })
    expect(reply.status).toBe(expected)
    expect(reply.headers.get(ALLOW)).toBe("http://localhost:3000")
    expect(reply.headers.get("Vary")).toBe("Origin")
  })
})

describe("Origin — what browsers ask before", () => {
  const preflight = {
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "content-type",
  }

  test.each(["localhost:11434", "127.0.0.1:11434", "my-pc.local", undefined])(
    "gets all it needs to know, at the host %p",
    async (host) => {
      const headers = {
        Origin: "http://localhost:3000",
        ...preflight,
        ...(host === undefined ? {} : { Host: host }),
      }
      const reply = await call({ method: "OPTIONS", path: "/api/chat", headers })
      expect({ status: reply.status, body: reply.body }).toEqual({ status: 204, body: "" })
      expect(reply.headers.get(ALLOW)).toBe("http://localhost:3000")
      expect(reply.headers.get("Access-Control-Allow-Methods")?.split(",").toSorted()).toEqual([
        "DELETE",
        "GET",
        "HEAD",
        "OPTIONS",
        "PATCH",
        "POST",
        "PUT",
      ])
      const allowed = reply.headers.get("Access-Control-Allow-Headers")?.split(",") ?? []
      expect(allowed).toContain("Content-Type")
      expect(allowed).toContain("Authorization")
      expect(allowed).toContain("x-stainless-retry-count")
      for (const name of ["Scope", "Client", "Priority"])
        expect(allowed).toContain(`X-Cria-${name}`)
      expect(reply.headers.get("Access-Control-Max-Age")).toBe("43200")
    },
  )

  test("is refused to strangers", async () => {
    const headers = { Origin: "http://evil.example", ...preflight }
    const reply = await call({ method: "OPTIONS", path: "/api/chat", headers })
    expect(reply.status).toBe(403)
    expect(reply.headers.get(ALLOW)).toBeNull()
  })
})

describe("Host — of a server on loopback", () => {
  const [ownAddress = "127.0.0.1"] = Object.values(networkInterfaces())
    .flatMap((list) => list ?? [])
    .map(({ address, family }) => (family === "IPv6" ? `[${address}]` : address))

  test.each([
    "localhost",
    "localhost:11434",
    "LOCALHOST",
    "127.0.0.1:11434",
    "127.1.2.3",
    "10.0.0.5",
    "192.168.1.2:80",
    "172.16.0.1",
    "172.31.255.255",
    "0.0.0.0",
    "[::1]:11434",
    "[::1]",
    "[::]",
    "[fd00::1]:11434",
    "ollama.localhost",
    "my-pc.local:11434",
    "host.docker.internal",
    hostname(),
    hostname().toUpperCase(),
    ownAddress,
    `${ownAddress}:11434`,
  ])("%s is this machine", async (host) => {
    expect((await call({ headers: { Host: host } })).status).toBe(200)
  })

  test.each([
    "evil.example",
    "evil.example:11434",
    "localhost.evil.example",
    "127.0.0.1.evil.example",
    "10.evil.example",
    "8.8.8.8",
    "172.32.0.1",
    "172.15.0.1",
    "[2001:db8::1]:11434",
    "mylocal",
    "internal",
  ])("%s is not", async (host) => {
    const { status, body } = await call({ headers: { Host: host } })
    expect({ status, body }).toEqual({ status: 403, body: "" })
  })

  test("a page that points its own name at us is refused, though it is the same origin", async () => {
    const headers = { Host: "evil.example:11434", Origin: "http://evil.example:11434" }
    expect((await call({ headers })).status).toBe(403)
  })

  test("asking a name with OPTIONS is answered, a stranger's is not", async () => {
    const options = { method: "OPTIONS", path: "/api/tags" }
    expect((await call({ ...options, headers: { Host: "localhost" } })).status).toBe(204)
    expect((await call({ ...options, headers: { Host: "evil.example" } })).status).toBe(403)
  })
})

describe("Host — of a server that others reach", () => {
  test.each(["0.0.0.0", "192.168.1.2", "[::]", "models.example.com"])(
    "listening on %s it may have any name",
    async (address) => {
      const env = { OLLAMA_HOST: address }
      expect((await call({ headers: { Host: "models.example.com" }, env })).status).toBe(200)
    },
  )

  test.each(["localhost", "127.0.0.1", "127.0.0.5:80", "[::1]", "::1"])(
    "listening on %s it may not",
    async (address) => {
      const env = { OLLAMA_HOST: address }
      expect((await call({ headers: { Host: "models.example.com" }, env })).status).toBe(403)
    },
  )
})
