import { describe, expect, test } from "bun:test"

import { z } from "zod"

import { flag, list, parseBody, text } from "./parts.ts"

const schema = z.object({
  model: text,
  keep_alive: text,
  stream: flag(true),
  raw: flag(false),
  items: list(z.object({ name: text })),
  limit: z.number().nullish(),
})

function parse(body: unknown): unknown {
  return parseBody(schema, typeof body === "string" ? body : JSON.stringify(body), "EOF")
}

const EMPTY = { model: "", keep_alive: "", stream: true, raw: false, items: [] }

describe("parseBody() — bodies", () => {
  test.each(["", " ", "\r\n\t "])("an empty body, %p, has its own text", (body) => {
    expect(() => parse(body)).toThrow(
      expect.objectContaining({ code: "invalid-input", message: "EOF" }),
    )
  })

  test.each(["{", "nonsense", '{"model":}', '{"model":"a"', "'a'", '{"model":"a"} {}'])(
    "%p is no JSON, and the complaint says so",
    (body) => {
      expect(() => parse(body)).toThrow(
        expect.objectContaining({
          code: "invalid-input",
          message: expect.stringMatching(/^Cannot read the request as JSON: ./),
        }),
      )
    },
  )

  test.each(["[]", "1", '"a"', "true", "null"])("%p is no object", (body) => {
    expect(() => parse(body)).toThrow(
      expect.objectContaining({
        code: "invalid-input",
        message: expect.stringMatching(/^Cannot read the request: .*expected object/),
      }),
    )
  })

  test("blanks around the object do no harm", () => {
    expect(parse(' \n{"model":"a"}\n\n')).toEqual({ ...EMPTY, model: "a" })
  })
})

describe("parseBody() — fields", () => {
  test("what is missing or null has its default", () => {
    expect(parse({})).toEqual(EMPTY)
    const nulls = { model: null, keep_alive: null, stream: null, raw: null, items: null }
    expect(parse(nulls)).toEqual(EMPTY)
  })

  test("unknown fields are ignored", () => {
    expect(parse({ model: "a", nonsense: { deep: [1] } })).toEqual({ ...EMPTY, model: "a" })
  })

  test.each(["MODEL", "Model", "mOdEl"])("%s is the model, as in Go", (name) => {
    expect(parse({ [name]: "a" })).toEqual({ ...EMPTY, model: "a" })
  })

  test("of two casings of a name the later one counts", () => {
    expect(parse('{"Keep_Alive":"1m","keep_alive":"2m"}')).toEqual({ ...EMPTY, keep_alive: "2m" })
    expect(parse('{"keep_alive":"2m","Keep_Alive":"1m"}')).toEqual({ ...EMPTY, keep_alive: "1m" })
  })

  test("a field cannot reach the prototype of objects", () => {
    parse('{"__proto__":{"model":"evil"},"model":"a"}')
    expect(Reflect.get({}, "model")).toBeUndefined()
  })

  test.each<[object, string, string]>([
    [{ model: 1 }, '"model"', "expected string"],
    [{ stream: "yes" }, '"stream"', "expected boolean"],
    [{ items: {} }, '"items"', "expected array"],
    [{ items: [{ name: "a" }, { name: 5 }] }, '"items.1.name"', "expected string"],
    [{ items: [null] }, '"items.0"', "expected object"],
    [{ limit: "3" }, '"limit"', "expected number"],
  ])("%j names the field and what was expected", (body, field, reason) => {
    expect(() => parse(body)).toThrow(
      expect.objectContaining({
        code: "invalid-input",
        message: expect.stringContaining(`Cannot read ${field}: `),
      }),
    )
    expect(() => parse(body)).toThrow(reason)
  })
})
