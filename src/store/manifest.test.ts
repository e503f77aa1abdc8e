import { describe, expect, test } from "bun:test"
import { hash } from "node:crypto"

import * as fc from "fast-check"

import { CriaError } from "../util/errors.ts"
import { cpuMs, fuzzBudget } from "../util/fuzz.ts"
import { parseDigest } from "./digest.ts"
import { MEDIA_TYPES, modelBytes, parseConfig, parseManifest } from "./manifest.ts"
import { manifestText } from "./test-store.ts"

const FUZZ = fuzzBudget(0.2)

const DIGEST = parseDigest(`sha256:${"ab".repeat(32)}`)
const CONFIG = { mediaType: MEDIA_TYPES.config, digest: DIGEST, size: 410 }
const LAYER = { mediaType: MEDIA_TYPES.model, digest: DIGEST, size: 1000 }

function parse(text: string): ReturnType<typeof parseManifest> {
  return parseManifest(new TextEncoder().encode(text))
}

function layersOf(count: number, size: number = LAYER.size): object[] {
  return Array.from({ length: count }, () => ({ ...LAYER, size }))
}

describe("parseManifest() — accepts", () => {
  test("a manifest as the server writes it, and names it by the sha256 of its bytes", () => {
    const text = manifestText({
      config: CONFIG,
      layers: [
        { ...LAYER, from: "tiny:latest" },
        { ...LAYER, mediaType: MEDIA_TYPES.tensor, name: "blk.0" },
      ],
    })
    expect(parse(text)).toEqual({
      id: hash("sha256", text, "hex"),
      manifest: {
        schemaVersion: 2,
        mediaType: MEDIA_TYPES.manifest,
        config: CONFIG,
        layers: [
          { ...LAYER, from: "tiny:latest" },
          { ...LAYER, mediaType: MEDIA_TYPES.tensor, name: "blk.0" },
        ],
      },
    })
    expect(parse(` ${text}`).id).not.toBe(parse(text).id)
  })

  test("unknown fields and media types; the layers stay", () => {
    const layer = { mediaType: "application/x-new", digest: DIGEST, size: 1, urls: ["x"], data: {} }
    const { manifest } = parse(
      manifestText({ config: CONFIG, layers: [layer], annotations: { a: 1 } }),
    )
    expect(manifest.layers).toEqual([{ mediaType: "application/x-new", digest: DIGEST, size: 1 }])
  })

  test("digests in every form, normalised", () => {
    const layers = [{ ...LAYER, digest: `sha256-${"AB".repeat(32)}` }]
    expect(parse(manifestText({ config: CONFIG, layers })).manifest.layers[0]?.digest).toBe(DIGEST)
  })

  test("the stub of a cloud model, whose layers Go writes as null", () => {
    for (const layers of [null, []]) {
      const { manifest } = parse(manifestText({ config: CONFIG, layers }))
      expect(manifest.layers).toEqual([])
      expect(modelBytes(manifest)).toBe(410)
    }
  })

  test("10 000 layers", () => {
    const { manifest } = parse(manifestText({ config: CONFIG, layers: layersOf(10_000) }))
    expect(modelBytes(manifest)).toBe(10_000_410)
  })
})

describe("parseManifest() — refuses", () => {
  test.each<[string, object]>([
    ["no config", { layers: [LAYER] }],
    ["no layers field", { config: CONFIG }],
    ["another schema version", { schemaVersion: 1, config: CONFIG, layers: [LAYER] }],
    ["a config of null", { config: null, layers: [LAYER] }],
    ["a layer of null", { config: CONFIG, layers: [LAYER, null] }],
    ["a layer that is a text", { config: CONFIG, layers: ["x"] }],
    ["layers in an object", { config: CONFIG, layers: { 0: LAYER } }],
    ["a layer without digest", { config: CONFIG, layers: [{ mediaType: "x", size: 1 }] }],
    ["a negative size", { config: CONFIG, layers: [{ ...LAYER, size: -1 }] }],
    ["a fractional size", { config: CONFIG, layers: [{ ...LAYER, size: 1.5 }] }],
    ["a size in a text", { config: CONFIG, layers: [{ ...LAYER, size: "1" }] }],
    ["a size of 2^53", { config: CONFIG, layers: [{ ...LAYER, size: 2 ** 53 }] }],
    ["sizes over 2^53", { config: CONFIG, layers: layersOf(2, 2 ** 53 - 1) }],
    [
      "a digest that is a path",
      { config: CONFIG, layers: [{ ...LAYER, digest: "sha256:../../x" }] },
    ],
    ["an empty digest", { config: { ...CONFIG, digest: "" }, layers: [LAYER] }],
    ["a media type of null", { config: CONFIG, layers: [{ ...LAYER, mediaType: null }] }],
    ["10 001 layers", { config: CONFIG, layers: layersOf(10_001) }],
  ])("%s", (_, fields) => {
    expect(() => parse(manifestText(fields))).toThrow(/^Cannot read manifest/)
  })

  test.each(["", "null", "[]", '"x"', "{", "\0", "not JSON", `${manifestText({})}{}`])(
    "the text %j",
    (text) => {
      expect(() => parse(text)).toThrow(/^Cannot read manifest/)
    },
  )

  test("one byte more than 4 MiB", () => {
    const text = manifestText({ config: CONFIG, layers: [LAYER] }).padEnd(4 * 1024 * 1024)
    expect(parse(text).manifest.layers).toEqual([LAYER])
    expect(() => parse(`${text} `)).toThrow("Cannot read manifest: 4194305 bytes, limit 4194304")
  })

  test("says where it is wrong", () => {
    const layers = [LAYER, { ...LAYER, digest: "sha256:../x" }]
    expect(() => parse(manifestText({ config: CONFIG, layers }))).toThrow(
      'Cannot read manifest at "layers.1.digest": invalid digest format',
    )
  })

  test("a megabyte of trouble in bounded time", () => {
    const head = `{"schemaVersion":2,"config":${JSON.stringify(CONFIG)},"layers":`
    const startMs = cpuMs()
    for (const text of [
      `${head}[${"null,".repeat(800_000)}null]}`,
      `${head}[${"{},".repeat(9_000)}{}]}`,
      `${head}${"[".repeat(1_000_000)}${"]".repeat(1_000_000)}}`,
      '{"layers":'.repeat(400_000),
    ]) {
      expect(() => parse(text)).toThrow(CriaError)
    }
    expect(cpuMs() - startMs).toBeLessThan(20_000)
  })

  test(
    "any JSON with a CriaError and nothing else",
    () => {
      const fields = fc.constantFrom(
        "schemaVersion",
        "config",
        "layers",
        "digest",
        "size",
        "mediaType",
      )
      fc.assert(
        fc.property(fc.object({ key: fields, maxDepth: 4 }), (value) => {
          try {
            parse(JSON.stringify(value))
          } catch (error) {
            expect(error).toBeInstanceOf(CriaError)
          }
        }),
        FUZZ.parameters,
      )
    },
    FUZZ.timeoutMs,
  )
})

describe("parseConfig()", () => {
  test("keeps the known fields and drops the rest", () => {
    const known = {
      model_format: "gguf",
      model_family: "llama",
      model_families: ["llama", "clip"],
      model_type: "7B",
      file_type: "Q4_K_M",
      context_length: 8192,
      draft: { architecture: "llama" },
    }
    expect(
      parseConfig(JSON.stringify({ ...known, os: "linux", rootfs: { type: "layers" } })),
    ).toEqual(known)
  })

  test("takes null for absent", () => {
    expect(parseConfig('{"model_families":null,"draft":null,"model_type":"7B"}')).toEqual({
      model_type: "7B",
    })
  })

  test.each([
    "null",
    "[]",
    "7",
    '{"model_type":7}',
    '{"model_families":"llama"}',
    '{"context_length":-1}',
  ])("refuses %s", (text) => {
    expect(() => parseConfig(text)).toThrow(/^Cannot read config/)
  })
})
