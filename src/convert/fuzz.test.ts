import { describe, expect, test } from "bun:test"
import { readFileSync } from "node:fs"
import { join } from "node:path"

import * as fc from "fast-check"

import { CriaError } from "../util/errors.ts"
import { cpuMs, fuzzBudget } from "../util/fuzz.ts"
import { convertAdapter, readAdapterBase } from "./adapter.ts"
import { convertFolder } from "./convert.ts"
import { isObject } from "./json.ts"
import { TestModel } from "./test-model.ts"

/** Time on the processor that only a loop without an end takes. */
const MS_MAX = 20_000

const FILES: Readonly<Record<string, readonly string[]>> = {
  "llama-3": ["config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json"],
  "llama-spm": ["config.json", "tokenizer_config.json", "model.safetensors.index.json"],
  "llama-json": ["tokenizer.json"],
  phi3: ["config.json", "tokenizer_config.json"],
  "gemma3-vision": ["config.json"],
  "bert-classifier": ["config.json", "tokenizer.json"],
  "qwen3-moe": ["config.json"],
  "qwen3-embedding": ["modules.json", "1_Pooling/config.json"],
  "fp8-blocks": ["config.json"],
  "nomic-bert": ["config.json"],
}

/** Beside the files there are the adapter's and `tokenizer.model`. */
const FUZZ = fuzzBudget(0.25, Object.values(FILES).flat().length + 2)

/** What may stand where something else is expected. */
const STRANGE = fc.oneof(
  fc.constantFrom(
    null,
    0,
    -1,
    0.5,
    1e308,
    513,
    2 ** 30,
    2 ** 31 - 1,
    2 ** 31,
    2 ** 53,
    true,
    false,
    "",
    "x",
    "__proto__",
    [],
    {},
  ),
  fc.json({ maxDepth: 2 }).map((text): unknown => JSON.parse(text)),
)

/** Where to go in a document: at each level which key. */
const WAY = fc.array(fc.nat(), { minLength: 1, maxLength: 6 })

/** Puts a value somewhere. Objects and lists are copied on the way. */
function changed(document: unknown, way: readonly number[], value: unknown): unknown {
  const [step = 0, ...rest] = way
  if (Array.isArray(document) && document.length > 0 && way.length > 0) {
    const at = step % document.length
    return document.with(at, changed(document[at], rest, value))
  }
  if (isObject(document) && Object.keys(document).length > 0 && way.length > 0) {
    const keys = Object.keys(document)
    const key = keys[step % keys.length] ?? ""
    return { ...document, [key]: changed(document[key], rest, value) }
  }
  return value
}

/** Plans and writes the beginning; that is where files are looked at. */
async function begins(events: AsyncGenerator): Promise<void> {
  const startMs = cpuMs()
  try {
    await events.next()
    await events.return(undefined)
  } catch (error) {
    if (!(error instanceof CriaError)) throw error
  }
  expect(cpuMs() - startMs).toBeLessThan(MS_MAX)
}

describe("conversion takes or refuses", () => {
  for (const [name, files] of Object.entries(FILES)) {
    for (const file of files) {
      test(
        `whatever stands in ${file} of ${name}`,
        async () => {
          using model = new TestModel(name)
          const original: unknown = JSON.parse(readFileSync(join(model.path, file), "utf8"))
          await fc.assert(
            fc.asyncProperty(WAY, STRANGE, async (way, value) => {
              model.write(file, JSON.stringify(changed(original, way, value)))
              await begins(convertFolder(model.path, model.target))
            }),
            FUZZ.parameters,
          )
        },
        FUZZ.timeoutMs,
      )
    }
  }

  test(
    "whatever stands in adapter_config.json",
    async () => {
      using model = new TestModel("lora-llama")
      using base = new TestModel("llama-spm")
      const options = { base: readAdapterBase(base.path) }
      const file = "adapter_config.json"
      const original: unknown = JSON.parse(readFileSync(join(model.path, file), "utf8"))
      await fc.assert(
        fc.asyncProperty(WAY, STRANGE, async (way, value) => {
          model.write(file, JSON.stringify(changed(original, way, value)))
          await begins(convertAdapter(model.path, model.target, options))
        }),
        FUZZ.parameters,
      )
    },
    FUZZ.timeoutMs,
  )

  test(
    "whatever bytes are in tokenizer.model",
    async () => {
      using model = new TestModel("llama-spm")
      const original = readFileSync(join(model.path, "tokenizer.model"))
      const change = fc.tuple(fc.nat(original.length - 1), fc.nat(255))
      await fc.assert(
        fc.asyncProperty(fc.array(change, { minLength: 1, maxLength: 8 }), async (changes) => {
          const bytes = Uint8Array.from(original)
          for (const [at, byte] of changes) bytes[at] = byte
          model.write("tokenizer.model", bytes)
          await begins(convertFolder(model.path, model.target))
        }),
        FUZZ.parameters,
      )
    },
    FUZZ.timeoutMs,
  )
})
