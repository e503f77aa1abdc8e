import { describe, expect, test } from "bun:test"
import { rejects } from "node:assert/strict"

import { TestServer } from "../server/test-server.ts"
import { breakingAfter, delta, done, streamOf } from "../services/test-app.ts"
import { CriaError } from "../util/errors.ts"
import { Client } from "./client.ts"

const CHAT = { model: "tiny", messages: [{ role: "user", content: "hi" }] }

/** A client of a server in this process. */
function clientOf(server: TestServer): Client {
  return new Client("http://localhost:11434", (url, init) => server.request(url, init))
}

/** A client whose server always answers the same. */
function answering(status: number, body: string, statusText = ""): Client {
  return new Client("http://localhost", () =>
    Promise.resolve(new Response(body, { status, statusText })),
  )
}

describe("Client — is there a server?", () => {
  test("yes", async () => {
    await using server = await TestServer.start()
    expect(await clientOf(server).isUp()).toBe(true)
  })

  test("no, when nobody answers", async () => {
    const client = new Client("http://localhost", () => Promise.reject(new Error("ECONNREFUSED")))
    expect(await client.isUp()).toBe(false)
  })

  test("something else, when it does not know us", async () => {
    await rejects(answering(404, "").isUp(), {
      code: "unavailable",
      message: "http://localhost answers 404: it is no cria server",
    })
  })
})

describe("Client — calls", () => {
  test("list, describe and load", async () => {
    await using server = await TestServer.start()
    const client = clientOf(server)
    expect(await client.ps()).toEqual([])
    const loaded = await client.generateOnce({ model: "tiny", stream: true })
    expect(loaded).toMatchObject({ done: true, done_reason: "load" })
    expect((await client.tags()).map(({ name }) => name)).toEqual(["tiny:latest"])
    expect((await client.ps()).map(({ name }) => name)).toEqual(["tiny:latest"])
    expect((await client.show("tiny")).model_info["tokenizer.ggml.tokens"]).toBeNull()
    expect((await client.show("tiny", true)).model_info["tokenizer.ggml.tokens"]).toEqual([
      "a",
      "b",
    ])
  })

  test("stream answers, a reply at a time", async () => {
    await using server = await TestServer.start()
    server.app.script = () => streamOf(delta("é🦙\n"), delta("b"), done())
    const generated = await Array.fromAsync(
      clientOf(server).generate({ model: "tiny", prompt: "x" }),
    )
    expect(generated.map(({ response }) => response)).toEqual(["é🦙\n", "b", ""])
    const chatted = await Array.fromAsync(clientOf(server).chat(CHAT))
    expect(chatted.map(({ message }) => message.content)).toEqual(["é🦙\n", "b", ""])
  })

  test("leaving a stream ends the answer", async () => {
    await using server = await TestServer.start()
    server.app.script = async function* () {
      for (;;) yield delta("word ")
    }
    for await (const _ of clientOf(server).chat(CHAT)) break
    expect(server.app.leases).toBe(0)
  })

  test("the signal reaches the server", async () => {
    await using server = await TestServer.start()
    server.app.loading = new Promise(() => {})
    const controller = new AbortController()
    const answer = Array.fromAsync(clientOf(server).chat(CHAT, controller.signal))
    await server.app.firstLoad
    controller.abort()
    await rejects(answer, { message: "request canceled" })
  })
})

describe("Client — errors", () => {
  test("have the server's text, code and hint", async () => {
    await using server = await TestServer.start()
    const client = clientOf(server)
    const expected = {
      code: "not-found",
      message: "model 'nope' not found",
      hint: "cria list shows what is installed",
    }
    await rejects(Array.fromAsync(client.chat({ ...CHAT, model: "nope" })), expected)
    await rejects(client.generateOnce({ model: "nope" }), expected)
  })

  test("in mid-stream come after the replies before them", async () => {
    await using server = await TestServer.start()
    server.app.script = () =>
      breakingAfter(new CriaError("internal", "the runner died"), delta("a"))
    const replies = clientOf(server).chat(CHAT)
    expect((await replies.next()).value).toMatchObject({ message: { content: "a" } })
    await rejects(replies.next(), {
      code: "internal",
      message: "an error was encountered while running the model: the runner died",
    })
  })

  test.each<[number, string]>([
    [400, "invalid-input"],
    [404, "not-found"],
    [409, "conflict"],
    [503, "unavailable"],
    [500, "internal"],
    [418, "internal"],
  ])("status %d is %s", async (status, code) => {
    const client = answering(status, '{"error":"no"}')
    await rejects(client.tags(), { code, message: "no", hint: undefined })
  })

  test.each<[string, string]>([
    ["<html>Bad Gateway</html>", "502 Bad Gateway: <html>Bad Gateway</html>"],
    ["", "502 Bad Gateway: "],
    ["null", "502 Bad Gateway: null"],
    ["{}", "{}"],
  ])("of a proxy, %j, are shown as they are", async (body, message) => {
    await rejects(answering(502, body, "Bad Gateway").tags(), { code: "internal", message })
  })
})
