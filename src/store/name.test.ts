import { describe, expect, test } from "bun:test"
import { posix, sep, win32 } from "node:path"

import * as fc from "fast-check"

import { CriaError } from "../util/errors.ts"
import { cpuMs, fuzzBudget } from "../util/fuzz.ts"
import {
  fullName,
  isValidName,
  manifestPath,
  manifestsFolder,
  type ModelName,
  nameFromParts,
  nameKey,
  nameParts,
  parseName,
  sameName,
  shortName,
  splitSource,
} from "./name.ts"

const LIBRARY = { scheme: "https", host: "registry.ollama.ai", namespace: "library" } as const

/** Names over the whole grammar. */
/** Two tests take whatever comes. */
const FUZZ = fuzzBudget(0.2, 2)

const validName: fc.Arbitrary<ModelName> = fc.record({
  scheme: fc.constantFrom("http", "https"),
  host: fc.oneof(
    fc.constantFrom("registry.ollama.ai", "Registry.Ollama.AI", "localhost:5000"),
    fc.stringMatching(/^[A-Za-z0-9_]([A-Za-z0-9_.:-]{0,30}[A-Za-z0-9_.-])?$/),
  ),
  namespace: fc.oneof(
    fc.constantFrom("library", "Library"),
    fc.stringMatching(/^[A-Za-z0-9_][A-Za-z0-9_-]{0,30}$/),
  ),
  model: fc.stringMatching(/^[A-Za-z0-9_][A-Za-z0-9_.-]{0,30}$/),
  tag: fc.stringMatching(/^[A-Za-z0-9_][A-Za-z0-9_.-]{0,30}$/),
})

const HOSTILE_PIECES = [
  ...Array.from("./\\:\0%~@ \n-_aB7\uFF0E\uFF0F\u0430"),
  ..."..|//|%2e|%2f|C:|nul|http://|file://|a/b|x:y".split("|"),
]

/** Texts that try to be a path: every separator, dot and look-alike, in any order. */
const hostileText: fc.Arbitrary<string> = fc.oneof(
  fc.string({ unit: "binary" }),
  fc.array(fc.constantFrom(...HOSTILE_PIECES), { maxLength: 12 }).map((pieces) => pieces.join("")),
)

/** What {@link parseName} says of a text: a name, or `undefined` for the one error it may throw. */
function tryParse(text: string): ModelName | undefined {
  try {
    return parseName(text)
  } catch (error) {
    if (error instanceof CriaError && error.message === "invalid model name") return undefined
    throw error
  }
}

describe("parseName() — parts and defaults", () => {
  test.each<[string, ModelName]>([
    ["m", { ...LIBRARY, model: "m", tag: "latest" }],
    ["m:7b-q4_K_M", { ...LIBRARY, model: "m", tag: "7b-q4_K_M" }],
    ["_m.1-x:_t", { ...LIBRARY, model: "_m.1-x", tag: "_t" }],
    ["Me/M", { ...LIBRARY, namespace: "Me", model: "M", tag: "latest" }],
    ["C:x", { ...LIBRARY, model: "C", tag: "x" }],
    ["h/n/m", { scheme: "https", host: "h", namespace: "n", model: "m", tag: "latest" }],
    [
      "http://localhost:5000/n/m:t",
      { scheme: "http", host: "localhost:5000", namespace: "n", model: "m", tag: "t" },
    ],
    [
      "localhost:5000/n/m",
      { scheme: "https", host: "localhost:5000", namespace: "n", model: "m", tag: "latest" },
    ],
    [
      "https://hf.co/user/Repo-GGUF:Q4_K_M",
      { scheme: "https", host: "hf.co", namespace: "user", model: "Repo-GGUF", tag: "Q4_K_M" },
    ],
  ])("%s", (text, name) => {
    expect(parseName(text)).toEqual(name)
  })

  test("accepts each part at its full length and refuses one character more", () => {
    const [host, namespace, model, tag] = [350, 80, 80, 80].map((length) => "x".repeat(length))
    expect(tryParse(`${host}/${namespace}/${model}:${tag}`)).toBeDefined()
    expect(tryParse(`${host}x/${namespace}/${model}:${tag}`)).toBeUndefined()
    expect(tryParse(`${host}/${namespace}x/${model}:${tag}`)).toBeUndefined()
    expect(tryParse(`${host}/${namespace}/${model}x:${tag}`)).toBeUndefined()
    expect(tryParse(`${host}/${namespace}/${model}:${tag}x`)).toBeUndefined()
  })
})

describe("parseName() — refuses", () => {
  test.each<[string, string[]]>([
    ["nothing", ["", "/", "//", "///", ":", "://"]],
    ["an empty part", ["m:", ":t", "/m", "n/", "n//m", "//m", "/n/m", "h//m", "h/n/", "m::t"]],
    ["a scheme without host", ["http://", "http://m", "http://n/m", "http:///n/m", "://h/n/m"]],
    ["another scheme", ["file://h/n/m", "ftp://h/n/m", "HTTPS://h/n/m", "javascript://h/n/m"]],
    ["too many parts", ["a/h/n/m", "http://a/h/n/m", "m:t:t"]],
    ["a bad first character", ["-m", ".m", "m:-t", "m:.t", "-n/m", "-h/n/m", ".h/n/m", ":h/n/m"]],
    [
      "a bad character",
      ["n.x/m", "na:me/m", "h/na:me/m", "m+x", "m~", "m,x", "m@sha256-ab", "m#t"],
    ],
    ["white space", [" ", " m", "m ", "m t", "m\n", "m:t\n", "m\t", "m\u00A0", "n /m"]],
    ["NUL", ["\0", "m\0", "n\0/m", "m:t\0", "m\0.gguf"]],
    ["dots", ["..", ".", "../m", "../../m", "h/../m", "h/n/..", "m:..", "../../../m", "h/n/m:.."]],
    ["percent-encoding", ["m%2e", "%2e%2e/m", "%2e%2e%2fm", "n%2fm", "m%00"]],
    ["absolute paths", ["/etc/passwd", "//etc/passwd", "~/m", "/n/m:t", "../../../../etc/passwd"]],
    ["drive letters", ["C:/m", "C:/n/m", "C:/n/m:t", "c:\\n\\m", "C:\\m", "\\\\?\\C:\\m"]],
    ["backslashes", ["n\\m", "..\\m", "m:..\\t", "h\\n\\m"]],
    ["UNC paths", ["\\\\host\\share\\m", "//host/share/m", "\\\\.\\pipe\\m"]],
    [
      "letters that look right",
      ["\uFF4D", "m\u043Edel", "\u212A", "\u017F", "\u00E9", "m\u{1F600}"],
    ],
    [
      "separators that look right",
      ["n\uFF0Fm", "n\u2215m", "m\uFF1At", "m\u2024x", "\uFF0E\uFF0E"],
    ],
  ])("%s", (_, texts) => {
    expect(texts.filter((text) => tryParse(text) !== undefined)).toEqual([])
  })

  test("with the text that clients know, and the start of the name in the hint", () => {
    expect(() => parseName("n//m\0")).toThrow(
      expect.objectContaining({
        code: "invalid-input",
        message: "invalid model name",
        hint: 'Write [host[:port]/][namespace/]model[:tag] instead of "n//m\\u0000"',
      }),
    )
    expect(() => parseName("/".repeat(1_000_000))).toThrow(
      expect.objectContaining({ hint: expect.stringMatching(/^.{1,200}$/) }),
    )
  })

  test("a megabyte of anything in bounded time", () => {
    const startMs = cpuMs()
    for (const piece of ["a", "/", ":", "a/", "a:", "../", "-cloud", ":local", " ", "\0", "😀"]) {
      const text = piece.repeat(1_000_000 / piece.length)
      expect(tryParse(text)).toBeUndefined()
      splitSource(`x${text}x`)
    }
    expect(cpuMs() - startMs).toBeLessThan(10_000)
  })
})

describe("shortName() and fullName()", () => {
  test.each([
    ["m", "m:latest", "registry.ollama.ai/library/m:latest"],
    ["REGISTRY.ollama.ai/Library/M:T", "M:T", "REGISTRY.ollama.ai/Library/M:T"],
    ["me/m", "me/m:latest", "registry.ollama.ai/me/m:latest"],
    ["hf.co/library/m:t", "hf.co/library/m:t", "hf.co/library/m:t"],
    ["http://h:80/n/m:t", "h:80/n/m:t", "h:80/n/m:t"],
  ])("%s — %s — %s", (text, short, full) => {
    expect(shortName(parseName(text))).toBe(short)
    expect(fullName(parseName(text))).toBe(full)
  })

  test(
    "parse back to the same name",
    () => {
      fc.assert(
        fc.property(validName, (name) => {
          expect(isValidName(name)).toBe(true)
          expect(parseName(fullName(name))).toEqual({ ...name, scheme: "https" })
          expect(parseName(`${name.scheme}://${fullName(name)}`)).toEqual(name)
          expect(sameName(parseName(shortName(name)), name)).toBe(true)
          expect(nameFromParts(nameParts(name))).toEqual({ ...name, scheme: "https" })
        }),
        FUZZ.parameters,
      )
    },
    FUZZ.timeoutMs,
  )
})

describe("sameName()", () => {
  test("ignores case in every part, and the scheme", () => {
    const name = parseName("http://Host/Space/Model:Tag")
    expect(sameName(name, parseName("hOST/sPACE/mODEL:tAG"))).toBe(true)
  })

  test.each(["h/n/m:t2", "h/n/m2:t", "h/n2/m:t", "h2/n/m:t"])("tells h/n/m:t from %s", (other) => {
    expect(sameName(parseName("h/n/m:t"), parseName(other))).toBe(false)
  })
})

describe("nameFromParts()", () => {
  test.each([
    [[]],
    [["h", "n", "m"]],
    [["h", "n", "m", "t", "x"]],
    [["h", "n", "m", ".."]],
    [["h", "n", "m", ".DS_Store"]],
    [["h", "n.x", "m", "t"]],
    [["C:", "n", "m", "t"]],
  ])("refuses %j", (parts) => {
    expect(nameFromParts(parts)).toBeUndefined()
  })
})

describe("manifestPath()", () => {
  test("has the four parts below manifests/", () => {
    expect(manifestPath("/store", parseName("h:1/n/m:t"))).toBe(
      ["", "store", "manifests", "h:1", "n", "m", "t"].join(sep),
    )
  })

  test(
    "never leaves the store, whatever the text, on any system",
    () => {
      fc.assert(
        fc.property(hostileText, (text) => {
          const name = tryParse(text)
          if (name === undefined) return
          for (const { join, relative, sep: separator } of [posix, win32]) {
            const root = join(separator, "store", "manifests")
            const path = relative(root, join(root, ...nameParts(name)))
            expect(path.split(separator)).toEqual([...nameParts(name)])
            expect(path.split(separator)).not.toContain("..")
          }
        }),
        FUZZ.parameters,
      )
    },
    FUZZ.timeoutMs,
  )

  test("differs for different names", () => {
    fc.assert(
      fc.property(validName, validName, (a, b) => {
        expect(manifestPath("/s", a) === manifestPath("/s", b)).toBe(fullName(a) === fullName(b))
        expect(nameKey(a) === nameKey(b)).toBe(sameName(a, b))
      }),
    )
  })

  test("breaks off for a name that nobody checked", () => {
    const forged = { ...parseName("m"), tag: "../../../../etc/passwd" }
    expect(() => manifestPath("/store", forged)).toThrow("Broken invariant")
    expect(manifestsFolder("/store")).toBe(["", "store", "manifests"].join(sep))
  })
})

describe("splitSource()", () => {
  test.each([
    ["m:cloud", "m", "cloud"],
    ["m:20b:cloud", "m:20b", "cloud"],
    ["m:20b-cloud", "m:20b", "cloud"],
    ["m:20b-CLOUD", "m:20b", "cloud"],
    ["M:Cloud", "M", "cloud"],
    ["m:local", "m", "local"],
    ["m:7b:LOCAL", "m:7b", "local"],
    ["  m:7b \n", "m:7b", "unspecified"],
    [" m:local ", "m", "local"],
    ["m", "m", "unspecified"],
    ["", "", "unspecified"],
    ["cloud", "cloud", "unspecified"],
    ["my-cloud", "my-cloud", "unspecified"],
    ["m:20b-local", "m:20b-local", "unspecified"],
    ["m:cloudy", "m:cloudy", "unspecified"],
    ["h:5000/n/my-cloud", "h:5000/n/my-cloud", "unspecified"],
    ["h:5000/n/m:cloud", "h:5000/n/m", "cloud"],
    ["m:-cloud", "m:", "cloud"],
  ])("%j is %j, %s", (text, base, source) => {
    expect(splitSource(text)).toEqual({ base, source: expect.stringMatching(source) })
  })

  test.each([
    "m:local:cloud",
    "m:cloud:local",
    "m:cloud:cloud",
    "m:x-cloud:local",
    "m:local-cloud",
  ])("refuses the two suffixes of %s", (text) => {
    expect(() => splitSource(` ${text}`)).toThrow(
      expect.objectContaining({
        code: "invalid-input",
        message: `use either :local or :cloud, not both: "${text}"`,
      }),
    )
  })
})
