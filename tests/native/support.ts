/**
 * What the native tests share. They are written against `node:test`, which Bun and Deno both run.
 *
 * @module
 */

import assert from "node:assert/strict"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import * as runner from "node:test"
import { fileURLToPath } from "node:url"

import { type NativeBackend, createBackend } from "../../ffi/backend.ts"
import { openLibrary } from "../../ffi/library.ts"
import { loadModel, type NativeModel } from "../../ffi/model.ts"
import type { NativeLibrary } from "../../ffi/native.ts"
import { STEP_CODE } from "../../src/engine/backend.ts"
import { SAMPLING_DEFAULTS, type SamplingOptions } from "../../src/engine/sampling.ts"

/** A group of tests. */
export function describe(name: string, body: () => void): void {
  void runner.describe(name, body)
}

/** A test. */
export function test(name: string, body: () => void | Promise<void>): void {
  void runner.test(name, body)
}

/** `test`; left out where there is an obstacle, which is printed. */
export function testUnless(obstacle: string | undefined): typeof test {
  if (obstacle === undefined) return test
  return (name, body) => {
    console.warn(`skipped: ${obstacle}`)
    void runner.test(name, { skip: obstacle }, body)
  }
}

/** The demo model. */
export const DEMO: string = fromRoot("models/demo/cria-demo-q8_0.gguf")

/** Vocabularies of real models, in llama.cpp's source. */
export const VOCABULARIES: string = fromRoot("vendor/llama.cpp/src/models")

/** Greedy: the same input gives the same output. */
export const GREEDY: SamplingOptions = { ...SAMPLING_DEFAULTS, temperature: 0 }

/** The library of this process. */
export const library: NativeLibrary = openLibrary()

/** The library with some of its functions replaced. */
export function withFunctions(replaced: Partial<NativeLibrary["functions"]>): NativeLibrary {
  const functions = { ...library.functions, ...replaced }
  return Object.create(library, { functions: { value: functions } }) as NativeLibrary
}

/** Loads the demo model. */
export function loadDemo(): Promise<NativeModel> {
  return loadModel(library, { paths: [DEMO] })
}

/** A small context on a model. */
export function smallBackend(model: NativeModel, cells = 512): Promise<NativeBackend> {
  return createBackend(model, { cells, batchTokens: 64, sequences: 4, threads: 2 })
}

/** A path of the project. */
function fromRoot(path: string): string {
  return fileURLToPath(new URL(`../../${path}`, import.meta.url))
}

/** A folder that goes when it is disposed. */
export class Folder implements Disposable {
  readonly path: string = mkdtempSync(join(tmpdir(), "cria-native-"))

  /** A path in the folder. */
  file(name: string): string {
    return join(this.path, name)
  }

  [Symbol.dispose](): void {
    rmSync(this.path, { recursive: true, force: true })
  }
}

/** Runs one step over tokens of one sequence and samples after the last. @returns Token, or the step's code. */
export async function decode(
  backend: NativeBackend,
  step: {
    tokens: ArrayLike<number>
    from?: number
    sequence?: number
    sampler?: number
    top?: number
  },
): Promise<{ code: number; token: number; status: number }> {
  const { tokens, from = 0, sequence = 0, sampler, top = -1 } = step
  const { arrays } = backend
  for (let i = 0; i < tokens.length; i++) {
    arrays.token[i] = tokens[i] ?? 0
    arrays.position[i] = from + i
    arrays.sequence[i] = sequence
  }
  arrays.rowIndex[0] = tokens.length - 1
  arrays.rowSampler[0] = sampler ?? 0
  arrays.rowTop[0] = top
  backend.submit(tokens.length, sampler === undefined ? 0 : 1)
  const { code } = await backend.wait()
  return { code, token: arrays.outToken[0] ?? -1, status: arrays.outStatus[0] ?? -1 }
}

/**
 * Begins the step and cancels it at once, until llama.cpp has stopped in the middle: a machine that is busy may compute
 * the whole step between the two calls, but not every time.
 */
export async function cutShort(
  backend: NativeBackend,
  step: { tokens: ArrayLike<number>; from?: number; sequence?: number },
): Promise<void> {
  const { from = 0, sequence = 0 } = step
  for (;;) {
    const outcome = decode(backend, step)
    backend.cancel()
    // Each try begins where the one before did.
    // oxlint-disable-next-line no-await-in-loop
    const { code } = await outcome
    if (code === STEP_CODE.aborted) return
    assert.equal(code, STEP_CODE.ok)
    backend.removeSequence(sequence, from, -1)
  }
}

/** Generates greedily after a prompt, token by token. */
export async function greedy(
  backend: NativeBackend,
  prompt: ArrayLike<number>,
  options: { count: number; sequence?: number; from?: number },
): Promise<number[]> {
  const { count, sequence = 0, from = 0 } = options
  const sampler = backend.createSampler(GREEDY)
  const answer: number[] = []
  let next = await decode(backend, { tokens: prompt, from, sequence, sampler })
  let position = from + prompt.length
  while (answer.length < count) {
    answer.push(next.token)
    // Each token depends on the one before.
    // oxlint-disable-next-line no-await-in-loop
    next = await decode(backend, { tokens: [next.token], from: position, sequence, sampler })
    position++
  }
  backend.freeSampler(sampler)
  return answer
}
