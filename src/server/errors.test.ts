import { describe, expect, test } from "bun:test"

import { CriaError, ERROR_CODES } from "../util/errors.ts"
import { type ErrorStatus, toReply, toStreamReply } from "./errors.ts"

const STATUSES: Readonly<Record<(typeof ERROR_CODES)[number], ErrorStatus>> = {
  "invalid-input": 400,
  "not-found": 404,
  conflict: 409,
  busy: 503,
  "insufficient-memory": 500,
  unavailable: 503,
  internal: 500,
}

const BUSY = "server busy, please try again.  maximum pending requests exceeded"

describe("toReply()", () => {
  test.each(ERROR_CODES)("%s has its status", (code) => {
    const reply = toReply(new CriaError(code, "what was wrong", { hint: "what helps" }))
    const message = code === "busy" ? `${BUSY}: what was wrong` : "what was wrong"
    expect(reply).toEqual({ status: STATUSES[code], message, hint: "what helps" })
  })

  test("a server that is busy says so in Ollama's words, how many wait, and when to come back", () => {
    const error = new CriaError("busy", "512 others wait already", { retryAfterSeconds: 9 })
    expect(toReply(error)).toMatchObject({
      status: 503,
      message: `${BUSY}: 512 others wait already`,
      retryAfterSeconds: 9,
    })
    expect(toReply(new CriaError("busy", BUSY)).message).toBe(BUSY)
  })

  test("what nobody expected is 500 with its own text", () => {
    const reply = { status: 500, message: "x is not a function", hint: undefined } as const
    expect(toReply(new TypeError("x is not a function"))).toEqual(reply)
    expect(toReply("x is not a function")).toEqual(reply)
  })

  test("a client that went away is 499, whatever that broke", () => {
    const gone = { status: 499, message: "request canceled", hint: undefined } as const
    const error = new CriaError("internal", "broken pipe")
    expect(toReply(error, AbortSignal.abort())).toEqual(gone)
    expect(toReply(error, new AbortController().signal).status).toBe(500)
  })
})

describe("toStreamReply()", () => {
  test("says that the model broke, unless it was the request", () => {
    expect(toStreamReply(new CriaError("internal", "it died: SIGKILL")).message).toBe(
      "an error was encountered while running the model: it died: SIGKILL",
    )
    expect(toStreamReply(new CriaError("invalid-input", "no room")).message).toBe("no room")
  })
})
