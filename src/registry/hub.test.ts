import { describe, expect, test } from "bun:test"
import { rejects } from "node:assert/strict"

import { parseName } from "../store/name.ts"
import { FakeRegistry } from "./fake-registry.ts"
import { Hub, isHub, mirrorHost } from "./hub.ts"

const NETWORK = { userAgent: "test", replyMs: 5000, sendMs: 5000, storeMs: 5000, bodyMs: 5000 }

function hubAt(origin: string, repository: string): Hub {
  const name = parseName(`${new URL(origin).host}/${repository}`)
  return new Hub(name, new URL(origin).origin, {
    network: NETWORK,
    token: "secret",
    mirror: name.host,
  })
}

/** Answers each request by its path. */
function serve(answer: (url: URL) => Response) {
  const seen: (string | null)[] = []
  const server = Bun.serve({
    port: 0,
    hostname: "127.0.0.1",
    fetch(request) {
      seen.push(request.headers.get("Authorization"))
      return answer(new URL(request.url))
    },
  })
  return {
    seen,
    origin: server.url.origin,
    [Symbol.dispose]: () => void server.stop(true),
  }
}

test("a hub is Hugging Face, or the mirror that is named", () => {
  expect(isHub("hf.co", undefined)).toBe(true)
  expect(isHub("huggingface.co", "mirror.example")).toBe(true)
  expect(isHub("mirror.example:8080", mirrorHost("https://mirror.example:8080/"))).toBe(true)
  expect(isHub("registry.example", mirrorHost(undefined))).toBe(false)
  expect(mirrorHost("nonsense")).toBeUndefined()
})

describe("Hub.files()", () => {
  test("follows pages and renamed repositories; the token stays with the site", async () => {
    using other = serve(() => Response.json([]))
    using site = serve(({ pathname, searchParams, origin }) => {
      if (pathname.includes("/u/old/")) {
        return Response.redirect(`${origin}/api/models/u/new/tree/main`, 307)
      }
      if (pathname.includes("/u/away/")) return Response.redirect(`${other.origin}/x`, 307)
      const name = searchParams.has("page") ? "second" : "first"
      const file = {
        type: "file",
        path: `${name}.gguf`,
        size: 3,
        lfs: { size: 9, oid: "ab".repeat(32) },
      }
      const folder = { type: "directory", path: "x", size: 0 }
      return Response.json([file, folder, { type: "file", path: "README.md", size: 2 }], {
        headers: name === "first" ? { Link: `<${origin}${pathname}?page=2>; rel="next"` } : {},
      })
    })
    const digest = `sha256:${"ab".repeat(32)}`
    expect(await hubAt(site.origin, "u/old").files()).toMatchObject([
      { path: "first.gguf", bytes: 9, digest },
      { path: "README.md", bytes: 2 },
      { path: "second.gguf", bytes: 9, digest },
      { path: "README.md", bytes: 2 },
    ])
    expect(new Set(site.seen)).toEqual(new Set(["Bearer secret"]))
    expect(await hubAt(site.origin, "u/away").files()).toEqual([])
    expect(other.seen).toEqual([null])
  })

  test.each(["<html>", "{}", '[{"path":5}]', "[]"])("%j is no list of files", async (text) => {
    using site = serve(() => new Response(text))
    expect(await hubAt(site.origin, "u/m").files()).toEqual([])
  })

  test("what is not there is empty; what is not there now, or not for us, is an error", async () => {
    using site = serve(({ pathname }) => {
      const [, status = "404"] = /\/u\/m(\d+)\//.exec(pathname) ?? []
      return new Response(null, { status: Number(status) })
    })
    expect(await hubAt(site.origin, "u/none").files()).toEqual([])
    await rejects(hubAt(site.origin, "u/m503").files(), { code: "unavailable", message: /^503/ })
    for (const name of ["u/m401", "u/m403"]) {
      await rejects(hubAt(site.origin, name).files(), { message: "unauthorized: access denied" })
    }
  })
})

describe("Hub.open()", () => {
  test("gives ranges of files, from where they are; the token does not go there", async () => {
    await using registry = new FakeRegistry()
    await using storage = new FakeRegistry()
    for (const site of [registry, storage]) {
      site.files.set("u/m/a folder/x#1.gguf", Buffer.from("0123456789".repeat(20)))
    }
    registry.storage = storage.origin
    const hub = hubAt(registry.origin, "u/m")
    for (let i = 0; i < 2; i++) {
      const reply = await hub.open("a folder/x#1.gguf", { start: 5, end: 12 })
      expect({ status: reply.status, text: await reply.text() }).toEqual({
        status: 206,
        text: "5678901",
      })
    }
    // The second time the way is known.
    expect(registry.log.map(({ authorization }) => authorization)).toEqual(["Bearer secret"])
    expect(storage.log.map(({ authorization }) => authorization)).toEqual([null, null])
    await rejects(hub.open("none.gguf", { start: 0, end: 1 }), { code: "not-found" })
  })
})
