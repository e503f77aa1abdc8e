import assert from "node:assert/strict"
import { writeFileSync } from "node:fs"

import { findFolder, openLibrary } from "../../ffi/library.ts"
import { loadModel } from "../../ffi/model.ts"
import type { NativeDevice, NativeLibrary } from "../../ffi/native.ts"
import { ABI_VERSION } from "../../ffi/symbols.ts"
import { type GgufInput, packStrings, text, u32, writeGguf } from "../../src/gguf/write.ts"
import { DEMO, describe, Folder, library, loadDemo, smallBackend, test } from "./support.ts"

/** The library on a machine with other devices, as far as it tells. */
function withDevices(...types: readonly NativeDevice["type"][]): NativeLibrary {
  const system = library.system()
  const [cpu] = system.devices
  assert.ok(cpu !== undefined)
  const devices = types.map((type) => ({ ...cpu, type }))
  return Object.create(library, {
    system: { value: () => ({ ...system, devices }) },
  }) as NativeLibrary
}

describe("attention", () => {
  for (const [types, gpuLayers, isSlowed] of [
    [["cpu"], -1, true],
    [["cpu", "accel"], -1, true],
    [["cpu", "gpu"], -1, false],
    [["cpu", "gpu"], 3, false],
    [["cpu", "gpu"], 0, true],
    [["cpu", "igpu"], -1, false],
    [["cpu", "igpu"], 0, true],
  ] as const) {
    test(`is ${isSlowed ? "" : "not "}slowed by cells on ${types.join(" + ")} with ${gpuLayers} layers on GPUs`, async () => {
      using model = await loadModel(withDevices(...types), { paths: [DEMO], gpuLayers })
      await using backend = await smallBackend(model)
      assert.equal(backend.info.isSlowedByCells, isSlowed)
    })
  }

  for (const [types, gpus] of [
    [
      ["cpu", "igpu", "gpu", "gpu"],
      ["gpu", "gpu"],
    ],
    [["cpu", "igpu"], ["igpu"]],
    [["cpu", "accel"], []],
  ] as const) {
    test(`computes on ${gpus.join(" + ") || "no GPU"} of ${types.join(" + ")}`, () => {
      const found = withDevices(...types).gpus()
      assert.deepEqual(
        found.map(({ type }) => type),
        gpus,
      )
    })
  }
})

describe("native library", () => {
  test("speaks the interface version of the table", () => {
    assert.equal(library.functions.cria_abi_version(), ABI_VERSION)
  })

  test("lists a CPU and says what it was built with", () => {
    const { devices, llama_version: version } = library.system()
    assert.equal(devices.filter(({ type }) => type === "cpu").length, 1)
    assert.match(version, /^\d+\.\d+\.\d+/)
  })

  test("can be opened again in the same process", () => {
    assert.equal(openLibrary().functions.cria_abi_version(), ABI_VERSION)
  })

  test("says where it looked when it is told a folder without libraries", () => {
    using folder = new Folder()
    assert.throws(() => findFolder({ folder: folder.path }), {
      code: "unavailable",
      message: `Cannot find the native libraries in "${folder.path}"`,
    })
  })

  test("turns a JSON schema into a grammar, and refuses what is none", () => {
    assert.match(
      library.schemaToGrammar('{"type":"object","properties":{"a":{"type":"integer"}}}'),
      /root ::=/,
    )
    assert.throws(() => library.schemaToGrammar('{"$ref":"#/nowhere"}'), { code: "invalid-input" })
    assert.throws(() => library.schemaToGrammar("not json"), { code: "invalid-input" })
  })
})

describe("loadModel()", () => {
  test("loads the demo model and knows what it is", async () => {
    using model = await loadDemo()
    const {
      architecture,
      vocab,
      trained_context: context,
      recurrent,
      chat_template: template,
    } = model.info
    assert.deepEqual(
      {
        architecture,
        tokens: vocab.tokens,
        context,
        recurrent,
        hasTemplate: template.includes("im_start"),
      },
      { architecture: "qwen3", tokens: 4096, context: 2048, recurrent: false, hasTemplate: true },
    )
  })

  test("loads two models side by side", async () => {
    using first = await loadDemo()
    using second = await loadDemo()
    assert.notEqual(first.handle, second.handle)
    assert.equal(second.tokenize("x", { addSpecial: false, parseSpecial: false }).length, 1)
  })

  test("gives llama.cpp's reason for a file that it cannot load", async () => {
    using folder = new Folder()
    const path = folder.file("odd.gguf")
    const metadata = new Map([["general.architecture", text("no-such-architecture")]])
    await writeGguf(path, { metadata, tensors: [] })
    await assert.rejects(loadModel(library, { paths: [path] }), {
      code: "invalid-input",
      message: /^Cannot load ".*odd\.gguf": .*unknown model architecture: 'no-such-architecture'/,
    })
  })

  test("fails for what is no GGUF, and the process lives on", async () => {
    using folder = new Folder()
    const path = folder.file("junk.gguf")
    writeFileSync(path, "this is not a model at all")
    await assert.rejects(loadModel(library, { paths: [path] }), { code: "invalid-input" })
    using model = await loadDemo()
    assert.equal(model.info.layers, 5)
  })

  test("ends with the signal's reason when it is aborted", async () => {
    // A machine that is busy may load the whole model before it sees the abort, but not every time.
    for (let outcome: unknown = "loaded"; outcome === "loaded";) {
      const controller = new AbortController()
      const load = loadModel(library, { paths: [DEMO], signal: controller.signal })
      controller.abort(new Error("changed my mind"))
      // oxlint-disable-next-line no-await-in-loop
      outcome = await load.then(
        (model) => {
          model[Symbol.dispose]()
          return "loaded"
        },
        (error: unknown) => String(error),
      )
      assert.match(String(outcome), /changed my mind|loaded/)
    }
  })

  test("loads only the vocabulary when that is asked for", async () => {
    using folder = new Folder()
    const path = folder.file("vocab.gguf")
    const tokens = ["<unk>", "<s>", "</s>", "▁a", "b"]
    const metadata = new Map<string, GgufInput>([
      ["general.architecture", text("llama")],
      ["llama.block_count", u32(1)],
      ["tokenizer.ggml.model", text("llama")],
      ["tokenizer.ggml.tokens", packStrings(tokens)],
    ])
    await writeGguf(path, { metadata, tensors: [] })
    using model = await loadModel(library, { paths: [path], vocabularyOnly: true })
    assert.equal(model.info.vocab.tokens, tokens.length)
  })

  test("refuses to be used after disposal", async () => {
    const model = await loadDemo()
    model[Symbol.dispose]()
    model[Symbol.dispose]()
    assert.throws(
      () => model.tokenize("x", { addSpecial: false, parseSpecial: false }),
      /after disposal/,
    )
    assert.ok(library.functions.cria_model_info(model.handle) < 0)
  })
})

describe("NativeModel", () => {
  test("gives back any text that it tokenised, byte for byte", async () => {
    using model = await loadDemo()
    const texts = [
      "",
      "Hello, world!",
      "🦙 läma\n\tzwei  drei",
      "\u0000\uFEFFa",
      "x".repeat(5000),
      "<|im_end|>",
    ]
    for (const original of texts) {
      const tokens = model.tokenize(original, { addSpecial: false, parseSpecial: false })
      const bytes = [...tokens].flatMap((token) => [...model.vocabulary.piece(token)])
      assert.equal(
        new TextDecoder("utf-8", { ignoreBOM: true }).decode(Uint8Array.from(bytes)),
        original,
      )
    }
  })

  test("reads control tokens only where it may", async () => {
    using model = await loadDemo()
    const asToken = model.tokenize("<|im_end|>", { addSpecial: false, parseSpecial: true })
    const asText = model.tokenize("<|im_end|>", { addSpecial: false, parseSpecial: false })
    assert.deepEqual([...asToken], [model.info.vocab.eos])
    assert.ok(asText.length > 1 && !asText.includes(model.info.vocab.eos))
  })

  test("knows which tokens control and which end an answer", async () => {
    using model = await loadDemo()
    const { vocabulary, info } = model
    assert.ok(info.vocab.eog.every((token) => vocabulary.endsGeneration(token)))
    assert.ok(vocabulary.isControl(info.vocab.eos))
    assert.ok(vocabulary.controlTexts().includes("<|im_end|>"))
    const [letter = -1] = model.tokenize("a", { addSpecial: false, parseSpecial: false })
    assert.equal(vocabulary.isControl(letter), false)
  })

  test("reads long texts beside the event loop, as it would be read there", async () => {
    using model = await loadDemo()
    const options = { addSpecial: true, parseSpecial: true }
    const long = "The quick brown fox <|im_end|> jumps over 12345 lazy dogs. ".repeat(5000)
    let turns = 0
    const counter = setInterval(() => turns++, 1)
    const [first, short, second] = await Promise.all([
      model.tokenizeAside(long, options),
      model.tokenizeAside("a", options),
      model.tokenizeAside(`${long}!`, options),
    ])
    clearInterval(counter)
    assert.deepEqual(first, model.tokenize(long, options))
    assert.deepEqual(short, model.tokenize("a", options))
    assert.deepEqual(second, model.tokenize(`${long}!`, options))
    assert.ok(turns > 0)
  })

  test("reads no long text that nobody wants any more when its turn comes", async () => {
    using model = await loadDemo()
    const options = { addSpecial: false, parseSpecial: false }
    const long = "word ".repeat(20_000)
    const controller = new AbortController()
    const first = model.tokenizeAside(long, options)
    const second = model.tokenizeAside(long, { ...options, signal: controller.signal })
    controller.abort(new Error("gone"))
    await assert.rejects(second, { message: "gone" })
    assert.deepEqual(await first, model.tokenize(long, options))
    assert.ok((await model.tokenizeAside(long, options)).length > 0)
  })
})
