/**
 * One request on its way through the engine.
 *
 * `known` tokens are the prompt and what was accepted; `computed` tokens have their state in the KV cache. A step lets
 * computed catch up with known; when it does, the next token is sampled and known grows by one.
 *
 * @module
 */

import { Queue } from "../util/queue.ts"
import { GrammarWatch, type LazyGrammar } from "./lazy-grammar.ts"
import { Output, type OutputChunk } from "./output.ts"
import type { SamplingOptions } from "./sampling.ts"
import type { Vocabulary } from "./vocabulary.ts"

/** What to generate. */
export interface GenerateRequest {
  /** At least one token. */
  readonly prompt: ArrayLike<number>
  readonly sampling: SamplingOptions
  /** Most tokens to generate; `Infinity` for as many as the context holds. */
  readonly maxTokens: number
  /** Most tokens of prompt and answer together; at most the engine's own limit. */
  readonly contextTokens?: number
  readonly stop?: readonly string[]
  /** Report log-probabilities, with so many alternatives. */
  readonly logprobs?: number
  /** Control tokens to render as text; all others are left out. */
  readonly shownControl?: ReadonlySet<number>
  readonly lazyGrammar?: LazyGrammar
}

/** Why an answer ended. */
export type FinishReason =
  | { readonly kind: "stop"; readonly match: string | undefined }
  | { readonly kind: "length" }

/** What a request cost. Times in milliseconds. */
export interface Usage {
  readonly promptTokens: number
  /** Of those, taken from the KV cache of earlier requests. */
  readonly cachedTokens: number
  readonly completionTokens: number
  /** From submission to the first step that it took part in. */
  readonly queueMs: number
  /** From there to the first generated token. */
  readonly promptMs: number
  /** From the first generated token to the end. */
  readonly decodeMs: number
}

/** What a request yields: chunks of text, then `done`. */
export type EngineEvent =
  | ({ readonly kind: "text" } & OutputChunk)
  | {
      readonly kind: "done"
      readonly reason: FinishReason
      readonly usage: Usage
      /** Tokens of the answer, without one that ends generation. */
      readonly completion: Int32Array
    }

/** Moments in the life of a request, milliseconds on the engine's clock. */
interface Times {
  readonly submitted: number
  started?: number
  firstToken?: number
}

/** State of a request. The engine moves it; the scheduler only reads it. */
export class Sequence {
  readonly request: GenerateRequest
  readonly events: Queue<EngineEvent>
  readonly promptTokens: number
  /** Cells that it reserves: all it can ever need. */
  readonly reservation: number
  readonly #output: Output
  readonly #watch: GrammarWatch | undefined
  readonly #times: Times
  #known: Int32Array
  #knownTokens: number
  /** The last token says that the answer is over. */
  #hasEnded = false

  /** Tokens whose state is in the cache. */
  computedTokens = 0
  /** Sequence id in the backend, while admitted. */
  slot: number | undefined
  sampler: number | undefined
  /** Steps since it last took part, for aging. */
  waitedSteps = 0
  isAborted = false
  /** Stops listening to the caller's signal. */
  detachSignal: () => void = () => {}

  constructor(
    request: GenerateRequest,
    options: { vocabulary: Vocabulary; contextTokens: number; now: number; onReturn: () => void },
  ) {
    this.request = request
    this.promptTokens = request.prompt.length
    this.events = new Queue<EngineEvent>(options.onReturn)
    this.reservation = Math.min(this.promptTokens + request.maxTokens, options.contextTokens)
    this.#known = Int32Array.from(request.prompt)
    this.#knownTokens = this.promptTokens
    this.#output = new Output(options.vocabulary, {
      stop: request.stop ?? [],
      shownControl: request.shownControl ?? new Set(),
    })
    this.#watch =
      request.lazyGrammar === undefined ? undefined : new GrammarWatch(request.lazyGrammar)
    this.#times = { submitted: options.now }
  }

  get knownTokens(): number {
    return this.#knownTokens
  }

  get completionTokens(): number {
    return this.#knownTokens - this.promptTokens
  }

  /** Tokens that the next steps have to compute. */
  get remainingTokens(): number {
    return this.#knownTokens - this.computedTokens
  }

  /** The prompt is computed: each step gives a token. */
  get isDecoding(): boolean {
    return this.completionTokens > 0
  }

  /** Known tokens `from` … `to` − 1. */
  tokens(from: number, to: number): Int32Array {
    return this.#known.subarray(from, to)
  }

  /** It takes part in a step that starts now. */
  markStarted(now: number): void {
    this.#times.started ??= now
  }

  /**
   * Takes a generated token in and sends what became sendable.
   *
   * @returns Why the answer is over, if it is, and text that from now on has to follow the lazy grammar.
   */
  accept(
    token: number,
    facts: { endsGeneration: boolean; now: number; logprob: Parameters<Output["push"]>[1] },
  ): { finish: FinishReason | undefined; constrain: string | undefined } {
    this.#times.firstToken ??= facts.now
    this.#append(token)
    if (facts.endsGeneration) {
      this.#hasEnded = true
      return { finish: { kind: "stop", match: undefined }, constrain: undefined }
    }
    const { chunk, match } = this.#output.push(token, facts.logprob)
    this.#send(chunk)
    const constrain = this.#watch?.push(chunk.text)
    if (match !== undefined) return { finish: { kind: "stop", match }, constrain: undefined }
    const isFull =
      this.completionTokens >= this.request.maxTokens || this.#knownTokens >= this.reservation
    return { finish: isFull ? { kind: "length" } : undefined, constrain }
  }

  /** Ends the answer: sends what was held back, then `done`. */
  finish(reason: FinishReason, now: number): void {
    if (reason.kind === "length" || reason.match === undefined) this.#send(this.#output.flush())
    this.events.push({
      kind: "done",
      reason,
      usage: this.#usage(now),
      completion: this.tokens(this.promptTokens, this.#knownTokens - (this.#hasEnded ? 1 : 0)),
    })
    this.events.end()
  }

  #send(chunk: OutputChunk): void {
    if (chunk.text === "" && chunk.logprobs.length === 0) return
    this.events.push({ kind: "text", ...chunk })
  }

  #append(token: number): void {
    if (this.#knownTokens === this.#known.length) {
      const larger = new Int32Array(this.#known.length * 2 + 64)
      larger.set(this.#known)
      this.#known = larger
    }
    this.#known[this.#knownTokens] = token
    this.#knownTokens++
  }

  #usage(now: number): Usage {
    const { submitted, started = now, firstToken = now } = this.#times
    return {
      promptTokens: this.promptTokens,
      cachedTokens: 0,
      completionTokens: this.completionTokens,
      queueMs: started - submitted,
      promptMs: firstToken - started,
      decodeMs: now - firstToken,
    }
  }
}
