import { describe, expect, test } from "bun:test"

import { FakeRegistry } from "../../registry/fake-registry.ts"
import { TestServer } from "../test-server.ts"

/** A server, and a registry with the model `me/m`. */
async function start() {
  const registry = new FakeRegistry()
  registry.add("me/m:latest", [Buffer.from("weights")])
  const server = await TestServer.start()
  return {
    registry,
    server,
    name: `${registry.host}/me/m`,
    async [Symbol.asyncDispose]() {
      await server[Symbol.asyncDispose]()
      await registry[Symbol.asyncDispose]()
    },
  }
}

describe("POST /api/pull", () => {
  test("streams progress with zeros left out, and the model is there", async () => {
    await using world = await start()
    const { server, name } = world
    const { status, type, text } = await server.post("/api/pull", { model: name, insecure: true })
    expect({ status, type }).toEqual({ status: 200, type: "application/x-ndjson" })
    const lines = text.trim().split("\n")
    expect(lines[0]).toBe('{"status":"pulling manifest"}')
    expect(lines[1]).toMatch(
      /^\{"status":"pulling [0-9a-f]{12}","digest":"sha256:[0-9a-f]{64}","total":7(,"completed":7)?\}$/,
    )
    expect(lines.slice(-3)).toEqual([
      '{"status":"verifying sha256 digest"}',
      '{"status":"writing manifest"}',
      '{"status":"success"}',
    ])
    const { text: tags } = await server.get("/api/tags")
    expect(tags).toContain(`"${name}:latest"`)
  })

  test("without a stream the last line comes; name may stand for model", async () => {
    await using world = await start()
    const { server, name } = world
    const body = { name, insecure: true, stream: false, username: "ignored" }
    expect(await server.post("/api/pull", body)).toEqual({
      status: 200,
      type: "application/json",
      text: '{"status":"success"}',
    })
  })

  test("what is not there ends the stream with an error, or is a 500 without one", async () => {
    await using world = await start()
    const { registry, server } = world
    const model = `${registry.host}/me/none`
    const streamed = await server.post("/api/pull", { model, insecure: true })
    expect(streamed.status).toBe(200)
    const [first, last = ""] = streamed.text.trim().split("\n")
    expect(first).toBe('{"status":"pulling manifest"}')
    expect(JSON.parse(last)).toMatchObject({ error: "pull model manifest: file does not exist" })
    const whole = await server.post("/api/pull", { model, insecure: true, stream: false })
    expect(whole.status).toBe(500)
    expect(JSON.parse(whole.text)).toMatchObject({
      error: "pull model manifest: file does not exist",
    })
  })

  test.each([
    [{ model: "" }, "invalid model name"],
    [{ model: "a b" }, "invalid model name"],
    [{ model: "../../x" }, "invalid model name"],
    [{ model: "a/%2e%2e/b" }, "invalid model name"],
    [{ model: "h/n/m\u0000" }, "invalid model name"],
    [{ model: String.raw`h\n\m` }, "invalid model name"],
    [{ model: "http://h/n/m" }, "insecure protocol http"],
  ])("%j is refused before anything is asked", async (body, error) => {
    await using server = await TestServer.start()
    const { status, text } = await server.post("/api/pull", body)
    expect(status).toBe(400)
    expect(JSON.parse(text)).toMatchObject({ error })
  })

  test("offline, and registries that are not allowed, are 503", async () => {
    await using offline = await TestServer.start({ CRIA_OFFLINE: "1" })
    expect((await offline.post("/api/pull", { model: "m" })).status).toBe(503)
    await using picky = await TestServer.start({ CRIA_REGISTRIES: "hf.co" })
    expect((await picky.post("/api/pull", { model: "m" })).status).toBe(503)
  })
})

describe("POST /api/fit", () => {
  test("has the quantisations of a repository, or the one that is installed", async () => {
    await using world = await start()
    const { registry, server, name } = world
    registry.add("me/m:q4_0", [Buffer.alloc(2000)])
    registry.add("me/m:q8_0", [Buffer.alloc(3000)])
    const { status, text } = await server.post("/api/fit", { model: name, insecure: true })
    expect(status).toBe(200)
    const fit = { files: 1, place: "cpu", context: 8192 }
    expect(JSON.parse(text)).toEqual({
      memory: { gpu: 0, host: expect.any(Number) },
      quants: [
        { ...fit, quant: "Q8_0", tag: "q8_0", size: 3000, chosen: true },
        { ...fit, quant: "Q4_0", tag: "q4_0", size: 2000, chosen: false },
      ],
    })
    const installed = await server.post("/api/fit", { model: "tiny" })
    expect(JSON.parse(installed.text)).toMatchObject({ quants: [{ quant: "Q4_K_M" }] })
    expect((await server.post("/api/fit", { model: "none" })).status).toBe(404)
  })

  test("an installed model is measured when its registry cannot be asked", async () => {
    await using world = await start()
    const { registry, server, name } = world
    // A file that can be read is needed for what it says.
    const { text: tags } = await server.get("/api/tags")
    expect(tags).toContain("tiny")
    await server.post("/api/copy", { source: "tiny", destination: name })
    await registry[Symbol.asyncDispose]()
    const { status, text } = await server.post("/api/fit", { model: name, insecure: true })
    expect({ status, quants: (JSON.parse(text) as { quants: object[] }).quants }).toMatchObject({
      status: 200,
      quants: [{ quant: "Q4_K_M" }],
    })
    const other = await server.post("/api/fit", { model: `${name}-other`, insecure: true })
    expect({ status: other.status, text: other.text }).toMatchObject({
      status: 503,
      text: expect.stringContaining("Cannot reach"),
    })
    await using offline = await TestServer.start({ CRIA_OFFLINE: "1" })
    const fits = await offline.post("/api/fit", { model: "tiny" })
    expect(JSON.parse(fits.text)).toMatchObject({ quants: [{ quant: "Q4_K_M" }] })
    expect((await offline.post("/api/fit", { model: "none" })).status).toBe(503)
  })
})

describe("CRIA_HTTP_CHANGES=0", () => {
  test("nobody changes models over HTTP; what reads and runs them goes on", async () => {
    await using server = await TestServer.start({ CRIA_HTTP_CHANGES: "0" })
    const before = (await server.get("/api/tags")).text
    const blob = `/api/blobs/sha256:${"ab".repeat(32)}`
    for (const path of ["/api/pull", "/api/push", "/api/create", "/api/copy", blob]) {
      const { status, text } = await server.post(path, { model: "tiny", source: "tiny" })
      expect({ path, status }).toEqual({ path, status: 403 })
      expect(JSON.parse(text)).toEqual({
        error: "this server changes no models over HTTP",
        hint: expect.stringContaining("CRIA_HTTP_CHANGES=0"),
      })
    }
    const body = JSON.stringify({ model: "tiny" })
    const deleted = await server.request("/api/delete", { method: "DELETE", body })
    expect(deleted.status).toBe(403)
    expect((await server.get("/api/tags")).text).toBe(before)
    expect((await server.post("/api/show", { model: "tiny" })).status).toBe(200)
    expect((await server.post("/api/generate", { model: "tiny", prompt: "x" })).status).toBe(200)
  })
})

describe("POST /api/push", () => {
  test("sends an installed model", async () => {
    await using world = await start()
    const { registry, server, name } = world
    await server.post("/api/pull", { model: name, insecure: true })
    registry.blobs.clear()
    registry.manifests.clear()
    const { status, text } = await server.post("/api/push", { model: name, insecure: true })
    expect(status).toBe(200)
    expect(text.trim().split("\n").at(-1)).toBe('{"status":"success"}')
    expect([...registry.manifests.keys()]).toEqual(["me/m:latest"])
  })

  test("needs a name, and a model", async () => {
    await using server = await TestServer.start()
    expect((await server.post("/api/push", {})).status).toBe(400)
    const { text } = await server.post("/api/push", { model: "none" })
    expect(text.split("\n").slice(0, 2)).toEqual([
      '{"status":"retrieving manifest"}',
      '{"status":"couldn\'t retrieve manifest"}',
    ])
    expect((await server.post("/api/push", { model: "none", stream: false })).status).toBe(500)
  })
})
