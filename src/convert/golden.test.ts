import { describe, expect, test } from "bun:test"
import { createHash } from "node:crypto"
import { closeSync, openSync, readdirSync, readFileSync, readSync } from "node:fs"
import { join } from "node:path"

import type { GgufTensor } from "../gguf/format.ts"
import { TemporaryFolder } from "../gguf/raw-file.ts"
import { readArray, readGguf } from "../gguf/read.ts"
import { convertAdapter, readAdapterBase } from "./adapter.ts"
import { type ConvertType, convertFolder } from "./convert.ts"

const FIXTURES = join(import.meta.dirname, "../../tests/fixtures/convert")

/** What `tests/fixtures/convert/make.py` wrote down of llama.cpp's converter. */
interface Golden {
  readonly metadata: Readonly<Record<string, { type: string; value: unknown }>>
  readonly tensors: Readonly<Record<string, string>>
}

/**
 * Metadata that is not as llama.cpp's converter has it.
 *
 * - BERT's pre-tokenizer is not used by llama.cpp, whatever its name.
 * - Scores: llama.cpp's converter gives all tokens of a SentencePiece vocabulary in JSON the same, and its models merge
 *   from left to right; here they say which pair comes first. The token for unknown characters is marked as such.
 */
const DIFFERENT: Readonly<Record<string, readonly string[]>> = {
  "llama-json": ["tokenizer.ggml.scores", "tokenizer.ggml.token_type"],
}

/** Adapters, with the models they are for. */
const BASES: Readonly<Record<string, string>> = {
  "lora-llama": "llama-spm",
  "lora-embeddings": "qwen2",
}

const names = readdirSync(FIXTURES, { withFileTypes: true })
  .filter((entry) => entry.isDirectory())
  .map((entry) => entry.name)

describe("conversion gives what llama.cpp's converter gives", () => {
  for (const name of names) {
    const text = readFileSync(join(FIXTURES, name, "golden.json"), "utf8")
    const goldens = Object.entries(JSON.parse(text) as Record<string, Golden>)
    for (const [type, golden] of goldens) {
      test(`${name} — ${type}`, async () => {
        using folder = new TemporaryFolder()
        const target = join(folder.path, "out.gguf")
        const options = { type: type as ConvertType }
        const path = join(FIXTURES, name)
        const base = BASES[name]
        const events =
          base === undefined
            ? convertFolder(path, target, options)
            : convertAdapter(path, target, {
                ...options,
                base: readAdapterBase(join(FIXTURES, base)),
              })
        for await (const _ of events);
        const written = describeFile(target)
        expect(written.tensors).toEqual({ ...golden.tensors })
        expect(Object.keys(written.tensors)).toEqual(Object.keys(golden.tensors))
        // Later types of a model list only what differs from the first.
        const expected = { ...goldens[0]?.[1].metadata, ...golden.metadata }
        expect(without(written.metadata, name)).toEqual(without(expected, name))
      })
    }
  }
})

function without(metadata: Golden["metadata"], name: string): Record<string, unknown> {
  const keys = DIFFERENT[name] ?? []
  return Object.fromEntries(Object.entries(metadata).filter(([key]) => !keys.includes(key)))
}

function describeFile(path: string): Golden {
  const header = readGguf(path)
  const metadata: Record<string, { type: string; value: unknown }> = {}
  for (const [key, value] of header.metadata) {
    metadata[key] =
      value.type === "array"
        ? { type: `array/${value.elementType}`, value: readArray(path, value) }
        : { type: value.type, value: value.value }
  }
  const file = openSync(path, "r")
  try {
    const digest = (tensor: GgufTensor): string => {
      const bytes = Buffer.alloc(tensor.bytes)
      readSync(file, bytes, 0, bytes.length, header.dataOffset + tensor.offset)
      return createHash("sha256").update(bytes).digest("hex").slice(0, 32)
    }
    const tensors = header.tensors.map((tensor) => [
      tensor.name,
      `${tensor.type.name} ${tensor.dims.join("x")} ${digest(tensor)}`,
    ])
    return { metadata, tensors: Object.fromEntries(tensors) }
  } finally {
    closeSync(file)
  }
}
