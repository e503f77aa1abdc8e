import { describe, expect, test } from "bun:test"

import { CriaError } from "../util/errors.ts"
import { fromFailure, parseFrame, toFailure } from "./protocol.ts"

describe("a failure", () => {
  test("crosses to the server with everything that a client is told", () => {
    const error = new CriaError("busy", "too many", { hint: "later", retryAfterSeconds: 9 })
    const line = JSON.stringify({ type: "request-failed", id: 1, failure: toFailure(error) })
    const frame = parseFrame(line)
    if (frame?.type !== "request-failed") throw new Error("it is a failure")
    expect(fromFailure(frame.failure)).toEqual(error)
    expect(fromFailure(frame.failure)).toMatchObject({ hint: "later", retryAfterSeconds: 9 })
    const plain = new CriaError("internal", "broken")
    expect(fromFailure(toFailure(plain))).toEqual(plain)
  })
})
