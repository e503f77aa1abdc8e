import { describe, expect, test } from "bun:test"

import { faultOf, statusError } from "./http.ts"

const LIMIT = { bodyMs: 5000 }

/** A reply with an address, as `fetch` gives it. */
function reply(body: string, init: ResponseInit): Response {
  const response = new Response(body, init)
  Object.defineProperty(response, "url", { value: "https://hub.example/x" })
  return response
}

describe("statusError()", () => {
  test.each<[string, ResponseInit, string]>([
    ["Access to model u/m is restricted.", { status: 403 }, "Access to model u/m is restricted."],
    [
      '{"errors":[{"code":"DENIED","message":"quota is used up"}]}',
      { status: 403 },
      "quota is used up",
    ],
    ['{"error":"Invalid username or password."}', { status: 401 }, "Invalid username or password."],
    [
      "",
      { status: 403, headers: { "X-Error-Message": "Accept the licence" } },
      "Accept the licence",
    ],
    ["no\u001b[2J\nway", { status: 403 }, "no [2J way"],
  ])("%j: who refuses may say why", async (body, init, reason) => {
    const error = await statusError(reply(body, init), "Asked", LIMIT)
    expect(error).toMatchObject({
      code: "unavailable",
      message: "unauthorized: access denied",
      hint: `"hub.example" says: ${reason}`,
    })
    expect(faultOf(error)?.status).toBe(init.status)
  })

  test("a page for browsers is no reason", async () => {
    const error = await statusError(reply("<html>no", { status: 403 }), "Asked", LIMIT)
    expect(error.hint).toBeUndefined()
  })

  test("other statuses are said with what the body says", async () => {
    const body = '{"error":"The specified tag is not available"}'
    const error = await statusError(reply(body, { status: 400 }), "Asked for it", LIMIT)
    expect(error).toMatchObject({
      message: "400: The specified tag is not available",
      hint: "Asked for it",
    })
    const missing = await statusError(reply("x", { status: 404 }), "Asked for it", LIMIT)
    expect(missing).toMatchObject({ code: "not-found", message: "file does not exist" })
  })
})
