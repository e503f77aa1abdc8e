/**
 * What the differential tests share: models of every kind of memory, and questions with the answer that a cold run
 * gives them.
 *
 * The models have random weights, whose logits lie close together, and llama.cpp's results depend on how many tokens a
 * step has: in 16-bit weights and caches, and in flash attention (which rounds to 16 bits even then), by some 0.007 in
 * a log-probability, enough to change one token in ten. With 32-bit weights and caches and without flash attention the
 * same computation gives the same bits, whatever the step, but for Gemma, whose GELU ggml looks up in a table of 16-bit
 * numbers. So that is what is compared here, with a tolerance for each kind; and questions whose answer hangs on less
 * than twice that are not asked.
 *
 * @module
 */

import assert from "node:assert/strict"
import { setImmediate as nextTurn } from "node:timers/promises"

import { createBackend, type NativeBackend } from "../../ffi/backend.ts"
import { loadModel, type NativeModel } from "../../ffi/model.ts"
import { makeModel } from "../../scripts/make-model.ts"
import type { ShapeName } from "../../scripts/model-shapes.ts"
import type { MemoryKind, Sharing } from "../../src/engine/backend.ts"
import { Engine, type EngineOptions } from "../../src/engine/engine.ts"
import type { TokenLogprob } from "../../src/engine/output.ts"
import type { EngineEvent, GenerateRequest, Usage } from "../../src/engine/sequence.ts"
import { random } from "../simulation/random.ts"
import { Folder, GREEDY, library, VOCABULARIES } from "./support.ts"

/** A kind of memory, and how to get it. */
export interface Kind {
  readonly name: string
  readonly shape: ShapeName
  readonly memory: MemoryKind
  /** Tokens; 0 without. */
  readonly window: number
  readonly isWindowFull: boolean
  /** What the context has to report. */
  readonly sharing: Sharing
  /** In log-probability. A mix-up of cells moves it by 0.01 to 1. */
  readonly tolerance: number
}

/** The same bits were measured; other machines may add in another order. */
const EXACT = 5e-4

/** 0.0004 was measured. */
const ROUNDED = 1.5e-3

/** Every kind that answers. */
export const KINDS: readonly Kind[] = [
  {
    ...kindOf("tiny-llama", "dense"),
    sharing: "prefix",
    tolerance: EXACT,
  },
  {
    ...kindOf("tiny-gemma3", "window", 64),
    name: "window kept whole (tiny-gemma3)",
    sharing: "prefix",
    tolerance: ROUNDED,
  },
  {
    ...kindOf("tiny-gemma3", "window", 64),
    isWindowFull: false,
    sharing: "whole",
    tolerance: ROUNDED,
  },
  {
    ...kindOf("tiny-cohere2", "window", 128),
    name: "window kept whole (tiny-cohere2)",
    sharing: "prefix",
    tolerance: EXACT,
  },
  {
    ...kindOf("tiny-cohere2", "window", 128),
    isWindowFull: false,
    sharing: "whole",
    tolerance: EXACT,
  },
  { ...kindOf("tiny-lfm2", "hybrid"), sharing: "whole", tolerance: EXACT },
  { ...kindOf("tiny-granitehybrid", "hybrid"), sharing: "whole", tolerance: EXACT },
  { ...kindOf("tiny-mamba2", "recurrent"), sharing: "whole", tolerance: EXACT },
]

function kindOf(shape: ShapeName, memory: MemoryKind, window = 0) {
  return { name: `${memory} (${shape})`, shape, memory, window, isWindowFull: true }
}

/** Ids below are saved and restored directly, those above through the staging id. */
const SEQUENCES = 6

/** An answer, and how sure the model was. */
export interface Answer {
  readonly tokens: readonly number[]
  readonly logprobs: readonly TokenLogprob[]
  readonly usage: Usage
}

/** A prompt and what a run without any sharing says to it. */
export interface Question {
  readonly prompt: readonly number[]
  readonly maxTokens: number
  readonly cold: Pick<Answer, "tokens" | "logprobs">
  /** How far log-probabilities may be off. */
  readonly tolerance: number
}

/** Sizes of a context, and options of its engine. */
export type MachineOptions = Partial<EngineOptions> & {
  readonly cells?: number
  readonly batchTokens?: number
}

/** A model of a kind, beside it a context that never shares, for comparison. */
export class Laboratory implements AsyncDisposable {
  readonly kind: Kind
  readonly #model: NativeModel
  readonly #cold: Engine
  readonly #pick: (max: number) => number

  /** See {@link Laboratory.open}. */
  constructor(kind: Kind, model: NativeModel, cold: Engine) {
    this.kind = kind
    this.#model = model
    this.#cold = cold
    this.#pick = random(1)
  }

  /** Makes the model and loads it. */
  static async open(kind: Kind): Promise<Laboratory> {
    using folder = new Folder()
    const { shape } = kind
    const out = folder.file(`${shape}.gguf`)
    await makeModel({ shape, type: "F32", out, seed: 1, vocabDir: VOCABULARIES })
    const model = await loadModel(library, { paths: [out], loadMode: "none" })
    return new Laboratory(kind, model, engineOf(model, await backendOf(model, kind)))
  }

  /** A backend of the kind. */
  async backend(options: MachineOptions = {}): Promise<NativeBackend> {
    const backend = await backendOf(this.#model, this.kind, options)
    assert.equal(backend.info.sharing, this.kind.sharing)
    return backend
  }

  /** An engine that shares. */
  async engine(options: MachineOptions = {}): Promise<Engine> {
    return this.run(await this.backend(options), options)
  }

  /** An engine on a backend, which it owns. */
  run(backend: NativeBackend, options: MachineOptions = {}): Engine {
    return engineOf(this.#model, backend, options)
  }

  /** Random tokens. */
  tokens(count: number): number[] {
    return Array.from({ length: count }, () => 10 + this.#pick(30_000))
  }

  /** A question that begins with `beginning` and goes on with `count` tokens of its own, with a clear answer. */
  async question(
    beginning: readonly number[],
    count: number,
    maxTokens: number = 8,
  ): Promise<Question> {
    for (let tries = 0; tries < 50; tries++) {
      const prompt = [...beginning, ...this.tokens(count)]
      // Each depends on whether the one before will do.
      // oxlint-disable-next-line no-await-in-loop
      const cold = await this.cold(prompt, maxTokens)
      if (this.isClear(cold, maxTokens))
        return { prompt, maxTokens, cold, tolerance: this.kind.tolerance }
    }
    throw new Error("no prompt has a clear answer")
  }

  /** It has all its tokens, and each was the best by far enough. */
  isClear({ tokens, logprobs }: Pick<Answer, "tokens" | "logprobs">, maxTokens: number): boolean {
    const margins = logprobs.map(({ top: [a, b] }) => (a?.logprob ?? 0) - (b?.logprob ?? 0))
    return tokens.length === maxTokens && Math.min(...margins) >= 2 * this.kind.tolerance
  }

  /** The answer of a run without any sharing. */
  cold(prompt: readonly number[], maxTokens: number): Promise<Answer> {
    return ask(this.#cold, { prompt, maxTokens }, { cacheScope: null })
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#cold[Symbol.asyncDispose]()
    this.#model[Symbol.dispose]()
  }
}

/** Asks greedily. */
export async function ask(
  engine: Engine,
  { prompt, maxTokens }: Pick<Question, "prompt" | "maxTokens">,
  more: Partial<GenerateRequest> = {},
): Promise<Answer> {
  const request = { prompt, maxTokens, sampling: GREEDY, logprobs: 2, ...more }
  return collect(engine.submit(request))
}

/** Reads an answer to its end. */
export async function collect(events: AsyncIterable<EngineEvent>): Promise<Answer> {
  const logprobs: TokenLogprob[] = []
  for await (const event of events) {
    if (event.kind === "done")
      return { tokens: [...event.completion], logprobs, usage: event.usage }
    logprobs.push(...event.logprobs)
  }
  throw new Error("no done event")
}

/** The answer is the cold one, token by token, and the model as sure of each. */
export function assertSame(
  answer: Pick<Answer, "tokens" | "logprobs">,
  { cold, tolerance }: Pick<Question, "cold" | "tolerance">,
): void {
  assert.deepEqual(answer.tokens, cold.tokens)
  assert.equal(answer.logprobs.length, cold.logprobs.length)
  for (const [i, { logprob }] of answer.logprobs.entries()) {
    const distance = Math.abs(logprob - (cold.logprobs[i]?.logprob ?? Number.NaN))
    assert.ok(distance <= tolerance, `token ${i} is ${distance} off in log-probability`)
  }
}

/** Asks and compares. */
export async function check(
  engine: Engine,
  question: Question,
  more: Partial<GenerateRequest> = {},
): Promise<Usage> {
  const answer = await ask(engine, question, more)
  assertSame(answer, question)
  return answer.usage
}

/** Resolves when the engine has begun so many steps. */
export async function begun(engine: Engine, steps: number): Promise<void> {
  // oxlint-disable-next-line no-await-in-loop
  while (engine.status.counters.steps < steps) await nextTurn()
}

function backendOf(
  model: NativeModel,
  kind: Kind,
  { cells = 1024, batchTokens = 64 }: MachineOptions = {},
): Promise<NativeBackend> {
  return createBackend(model, {
    cells,
    batchTokens,
    sequences: SEQUENCES,
    pins: 2 * SEQUENCES,
    isWindowFull: kind.isWindowFull,
    threads: 2,
    flashAttention: "off",
    cacheTypeK: "f32",
    cacheTypeV: "f32",
  })
}

function engineOf(
  model: NativeModel,
  backend: NativeBackend,
  options: MachineOptions = {},
): Engine {
  return new Engine(backend, model.vocabulary, { now: () => performance.now(), ...options })
}
