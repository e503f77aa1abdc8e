/**
 * How fast the engine decodes one stream, beside llama.cpp's own bench tool.
 *
 * @module
 */

import { join } from "node:path"

import { createBackend } from "../ffi/backend.ts"
import { openLibrary } from "../ffi/library.ts"
import { loadModel } from "../ffi/model.ts"
import { Engine } from "../src/engine/engine.ts"
import { SAMPLING_DEFAULTS } from "../src/engine/sampling.ts"
import { Vocabulary } from "../src/engine/vocabulary.ts"
import { peerFolder } from "./contenders.ts"

/** Decodes through the engine; tokens per second of each call. Dispose it afterwards. */
export async function createDecoder(path: string, threads: number) {
  const library = openLibrary()
  const model = await loadModel(library, { paths: [path], loadMode: "none" })
  const backend = await createBackend(model, {
    cells: 512,
    batchTokens: 512,
    sequences: 1,
    threads,
  })
  const engine = new Engine(backend, endless(model.vocabulary), { now: () => performance.now() })
  return {
    async decode(tokens: number): Promise<number> {
      const events = engine.submit({
        prompt: [1],
        sampling: { ...SAMPLING_DEFAULTS, temperature: 0 },
        maxTokens: tokens + 1,
      })
      for await (const event of events) {
        if (event.kind === "done") return (tokens / event.usage.decodeMs) * 1000
      }
      throw new Error("the engine gave no answer")
    },
    async [Symbol.asyncDispose]() {
      await engine[Symbol.asyncDispose]()
      model[Symbol.dispose]()
    },
  }
}

/** The same by llama-bench, which decodes random tokens and samples none. */
export async function llamaBench(path: string, threads: number, tokens: number): Promise<number> {
  const flags = {
    "-m": path,
    "-t": String(threads),
    "-p": "0",
    "-n": String(tokens),
    "-r": "1",
    "-lm": "none",
    "-fa": "auto",
    "-o": "json",
  }
  const command = [join(peerFolder(), "llama-bench"), ...Object.entries(flags).flat()]
  const child = Bun.spawn(command, { stdout: "pipe", stderr: "ignore" })
  const [result] = (await new Response(child.stdout).json()) as { avg_ts: number }[]
  return result?.avg_ts ?? Number.NaN
}

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
