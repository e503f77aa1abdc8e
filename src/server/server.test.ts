import { describe, expect, test } from "bun:test"

import { delta, done, streamOf } from "../services/test-app.ts"
import { CriaError } from "../util/errors.ts"
import { TestServer } from "./test-server.ts"

describe("createRoutes() — what there is not", () => {
  test.each([
    ["GET", "/nowhere"],
    ["POST", "/api"],
    ["GET", "/api/"],
    ["GET", "/api/chat/more"],
    ["POST", "/v1/messages/count_tokens"],
    ["GET", "/v1/models/library/tiny"],
    ["GET", "/v1/models/"],
  ])("%s %s is 404", async (method, path) => {
    await using server = await TestServer.start()
    const { status, type, text } = await server.get(path, method)
    expect({ status, text }).toEqual({ status: 404, text: "404 page not found" })
    expect(type).toStartWith("text/plain")
  })

  test.each([
    ["GET", "/api/chat"],
    ["GET", "/api/generate"],
    ["PUT", "/api/show"],
    ["DELETE", "/api/tags"],
    ["POST", "/"],
    ["POST", "/api/ps"],
    ["GET", "/v1/chat/completions"],
    ["POST", "/v1/models"],
    ["DELETE", "/v1/models/tiny"],
  ])("%s %s is 405", async (method, path) => {
    await using server = await TestServer.start()
    const { status, type, text } = await server.get(path, method)
    expect({ status, text }).toEqual({ status: 405, text: "405 method not allowed" })
    expect(type).toStartWith("text/plain")
  })
})

describe("createRoutes() — the body", () => {
  test("counts, not the type that a client claims for it", async () => {
    await using server = await TestServer.start()
    for (const type of ["text/plain", "application/x-www-form-urlencoded", "application/json"]) {
      // oxlint-disable-next-line no-await-in-loop -- one after the other
      const response = await server.request("/api/show", {
        method: "POST",
        headers: { "Content-Type": type },
        body: '{"model":"tiny"}',
      })
      expect(response.status).toBe(200)
    }
  })

  test("may hold any text, and the answer too", async () => {
    await using server = await TestServer.start()
    const text = 'é 🦙 漢 \u2028 \0 <&> "x"\n'
    server.app.script = () => streamOf(delta(text), done())
    const response = await server.request("/api/generate", {
      method: "POST",
      body: JSON.stringify({ model: "tiny", prompt: text, stream: false }),
    })
    expect(((await response.json()) as { response: string }).response).toBe(text)
    expect(server.app.requests[0]?.input).toMatchObject({ messages: [{ content: text }] })
  })
})

describe("createRoutes() — what is logged", () => {
  test("an error that someone must look at, with its path and no prompt", async () => {
    await using server = await TestServer.start()
    server.app.loading = Promise.reject(new CriaError("internal", "the disk is gone"))
    await server.request("/api/generate", {
      method: "POST",
      body: JSON.stringify({ model: "tiny", prompt: "a secret" }),
    })
    expect(server.app.complaints).toEqual(["request failed /api/generate the disk is gone"])
  })

  test("a client's mistake is not", async () => {
    await using server = await TestServer.start()
    await server.request("/api/generate", { method: "POST", body: '{"model":"nope","prompt":"x"}' })
    expect(server.app.complaints).toEqual([])
  })
})
