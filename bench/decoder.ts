/**
 * A process that decodes through the engine: reads numbers of tokens, writes tokens per second, a line each.
 *
 * @module
 */

import { createBackend } from "../ffi/backend.ts"
import { openLibrary } from "../ffi/library.ts"
import { loadModel } from "../ffi/model.ts"
import { Engine } from "../src/engine/engine.ts"
import { SAMPLING_DEFAULTS } from "../src/engine/sampling.ts"
import { Vocabulary } from "../src/engine/vocabulary.ts"
import { WAIT_SLICE_MS } from "../src/runner/main.ts"
import { linesOf } from "../src/util/lines.ts"

/** As many as a runner has for a dense model: see src/model/local-model.ts. */
const SEQUENCES = 64
const PINS = 191

/** A vocabulary in which no token ends an answer: random weights must not cut a measurement short. */
function endless(vocabulary: Vocabulary): Vocabulary {
  const offsets = new Int32Array(vocabulary.size + 1)
  for (let token = 0; token < vocabulary.size; token++) {
    offsets[token + 1] = (offsets[token] ?? 0) + vocabulary.piece(token).length
  }
  const bytes = new Uint8Array(offsets.at(-1) ?? 0)
  for (let token = 0; token < vocabulary.size; token++)
    bytes.set(vocabulary.piece(token), offsets[token])
  return new Vocabulary(bytes, offsets, new Uint8Array(vocabulary.size))
}

async function decode(engine: Engine, tokens: number): Promise<number> {
  const events = engine.submit({
    prompt: [1],
    sampling: { ...SAMPLING_DEFAULTS, temperature: 0 },
    maxTokens: tokens + 1,
  })
  for await (const event of events) {
    if (event.kind === "done") return (tokens / event.usage.decodeMs) * 1000
  }
  throw new Error("the engine gave no answer")
}

async function main([path = "", threads = "1"]: string[]): Promise<void> {
  const library = openLibrary({ waitSliceMs: WAIT_SLICE_MS })
  using model = await loadModel(library, { paths: [path], loadMode: "none" })
  const backend = await createBackend(model, {
    cells: 512,
    batchTokens: 512,
    sequences: SEQUENCES,
    pins: PINS,
    threads: Number(threads),
  })
  await using engine = new Engine(backend, endless(model.vocabulary), {
    now: () => performance.now(),
  })
  for await (const line of linesOf(Bun.stdin.stream()))
    console.log(await decode(engine, Number(line)))
}

await main(process.argv.slice(2))
