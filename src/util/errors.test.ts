import { describe, expect, test } from "bun:test"

import { assert, CriaError, errorMessage, toCriaError, unreachable } from "./errors.ts"

describe("CriaError", () => {
  test("keeps code, message, hint and cause", () => {
    const cause = new Error("ENOENT")
    const error = new CriaError("not-found", "Cannot find it", { hint: "cria pull it", cause })
    expect(error).toBeInstanceOf(Error)
    expect(error).toMatchObject({
      name: "CriaError",
      code: "not-found",
      message: "Cannot find it",
      hint: "cria pull it",
      cause,
    })
  })

  test("has no cause when none was given", () => {
    expect("cause" in new CriaError("busy", "x")).toBe(false)
    expect(new CriaError("busy", "x").hint).toBeUndefined()
  })
})

describe("toCriaError() — whatever was thrown", () => {
  test("is left alone when it is one", () => {
    const error = new CriaError("conflict", "x")
    expect(toCriaError(error)).toBe(error)
  })

  test.each<[string, unknown, string]>([
    ["an error", new TypeError("x is not a function"), "x is not a function"],
    ["a text", "oops", "oops"],
    ["nothing", undefined, "undefined"],
    ["an object", { a: 1 }, "[object Object]"],
  ])("%s becomes internal, with the message that it has", (_, thrown, message) => {
    expect(errorMessage(thrown)).toBe(message)
    const error = toCriaError(thrown)
    expect(error).toMatchObject({ code: "internal", message })
    expect(error.cause).toBe(thrown)
  })
})

describe("assert() and unreachable()", () => {
  test("name the invariant that is broken", () => {
    expect(() => assert(true, "never seen")).not.toThrow()
    expect(() => assert(0, "cells are counted")).toThrow("Broken invariant: cells are counted")
    // What types rule out and data can bring all the same.
    expect(() => unreachable("x" as never)).toThrow('Broken invariant: unexpected "x"')
  })
})
