import { describe, expect, test } from "bun:test"

import * as fc from "fast-check"

import { CriaError } from "../util/errors.ts"
import { fuzzBudget } from "../util/fuzz.ts"
import { formatModelfile } from "./format.ts"
import { decodeModelfile, type ModelfileCommand, parseModelfile } from "./parse.ts"

const FUZZ = fuzzBudget(0.5)

/** The value of a command after FROM. */
function valueOf(text: string): string | undefined {
  return parseModelfile(`FROM m\nSYSTEM ${text}`).at(-1)?.value
}

function messageOf(text: string): string {
  try {
    parseModelfile(text)
    return "no error"
  } catch (error) {
    return error instanceof CriaError ? error.message : String(error)
  }
}

describe("parseModelfile() — values", () => {
  test.each([
    ["  a  b  ", "a  b"],
    ['"x"', "x"],
    ['""', ""],
    ['"  x  "', "  x  "],
    ['"""x"""', "x"],
    ['"""x "y" z"""', 'x "y" z'],
    ['"""\nx\n"""', "\nx\n"],
    ['"""a"""b"""', 'a"""b'],
    ['"""x""""', 'x"'],
    ['"""\n"""', "\n"],
    ['"x" y\nz"', 'x" y\nz'],
    ['"a\r\nb"', "a\r\nb"],
    ["a # b", "a # b"],
    [String.raw`a\n"b`, String.raw`a\n"b`],
    ["'x'", "'x'"],
    ["a\tb", "a\tb"],
    ["a\u00a0b\u200dc\u0007d", "abcd"],
    ['"x"\u00a0', "x"],
    ["", ""],
    ["héllo 世界 😀", "héllo 世界 😀"],
  ])("%j is %j", (text, value) => {
    expect(valueOf(text)).toBe(value)
    expect(valueOf(`${text}\nLICENSE x`)).toBe("x")
  })
})

describe("parseModelfile() — commands", () => {
  test("are read in the order of the file, whatever their case", () => {
    const text =
      '# a comment\r\n\tfrom ./m.gguf\n\nPARAMETER  stop  "<|end|> "\nparameter top_k 3\nMESSAGE user Hi\nrequires 0.14.0\nDRAFT d'
    expect(parseModelfile(text)).toEqual([
      { command: "from", value: "./m.gguf" },
      { command: "parameter", name: "stop", value: "<|end|> " },
      { command: "parameter", name: "top_k", value: "3" },
      { command: "message", role: "user", value: "Hi" },
      { command: "requires", value: "0.14.0" },
      { command: "draft", value: "d" },
    ])
  })

  test.each([
    ["", "no FROM line"],
    ["SYSTEM x", "no FROM line"],
    ["FORM m", '(line 1): command must be one of "from", '],
    ["FROM m\nBAD x", '(line 2): command must be one of "from", '],
    ["FROM\nm", '(line 2): command must be one of "from", '],
    ["FROM m\r\nFR-OM x", '(line 3): command must be one of "from", '],
    ["FROM m\n{}", '(line 2): command must be one of "from", '],
    ["FROM m\nMESSAGE User Hi", '(line 2): message role must be one of "system", '],
    ["FROM m\nMESSAGE tool Hi", '(line 2): message role must be one of "system", '],
    ["FROM m\nPARAMETER top-k 3", "unexpected EOF: top"],
    ["FROM m\nPARAMETER top_k\n", "unexpected EOF: top_k"],
    ["FROM m\nMESSAGE us3r Hi", "unexpected EOF: us"],
    ["FROM m\nPARAMETER top_k", "unexpected EOF"],
    ["FROM", "unexpected EOF"],
    ['FROM m\nSYSTEM "never', "unexpected EOF"],
    ['FROM m\nSYSTEM """', "unexpected EOF"],
    ['FROM m\nSYSTEM """""\nx', "unexpected EOF"],
  ])("%j: %s", (text, message) => {
    expect(messageOf(text)).toStartWith(message)
  })

  test("an unclosed quote is found by its line", () => {
    expect(() => parseModelfile('FROM m\n\nSYSTEM "never\n\n\n')).toThrow(
      expect.objectContaining({ hint: expect.stringContaining("line 3") }),
    )
  })
})

describe("decodeModelfile()", () => {
  const text = "FROM ü😀\n"

  test.each([
    ["UTF-8", Buffer.from(text)],
    ["UTF-8 with a mark", Buffer.from(`\ufeff${text}`)],
    ["UTF-16 little-endian", Buffer.from(`\ufeff${text}`, "utf16le")],
    ["UTF-16 big-endian", Buffer.from(`\ufeff${text}`, "utf16le").swap16()],
  ])("reads %s", (_, bytes) => {
    expect(decodeModelfile(bytes)).toBe(text)
  })

  test("refuses 100 MB", () => {
    expect(() => decodeModelfile(new Uint8Array(100_000_000))).toThrow("limit 16777216")
  })
})

describe("parseModelfile() — properties", () => {
  const value = fc
    .string({ unit: fc.constantFrom("a", "ü", '"', " ", "\t", "\n", "#", "\\"), maxLength: 12 })
    // The one thing that the grammar cannot say.
    .filter((text) => !/"""[ \t]*[\r\n]/.test(text))
  const command: fc.Arbitrary<ModelfileCommand> = fc.oneof(
    fc.record({ command: fc.constantFrom("from", "system", "license", "template"), value }),
    fc.record({
      command: fc.constant("parameter" as const),
      name: fc.stringMatching(/^\w+$/),
      value,
    }),
    fc.record({
      command: fc.constant("message" as const),
      role: fc.constantFrom("user", "assistant"),
      value,
    }),
  )

  test("what is written reads back as it was", () => {
    fc.assert(
      fc.property(fc.array(command), (commands) => {
        const all: ModelfileCommand[] = [{ command: "from", value: "m" }, ...commands]
        expect(parseModelfile(formatModelfile(all))).toEqual(all)
      }),
      { numRuns: 500 },
    )
  })

  test(
    "any text gives commands or a CriaError",
    () => {
      const words = fc.constantFrom("FROM ", "MESSAGE ", "PARAMETER ", '"', '"""', "\n", "\r", "# ")
      const text = fc.array(fc.oneof(words, fc.string({ unit: "binary" })), { maxLength: 20 })
      fc.assert(
        fc.property(text, (parts) => {
          expect(messageOf(parts.join(""))).not.toStartWith("Error: ")
        }),
        FUZZ.parameters,
      )
    },
    FUZZ.timeoutMs,
  )

  test.each(['SYSTEM """', 'SYSTEM "', "SYSTEM ", "MESSAGE user ", "#", "FROM x\n", ""])(
    "16 MiB after %j take no more than linear time",
    (start) => {
      const text = `FROM m\n${start}${'a "\n\n \t'.repeat(2 ** 21)}`
      expect(messageOf(text.slice(0, 2 ** 24))).toBeString()
    },
  )
})
