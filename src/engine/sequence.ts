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
import type { Priority } from "./scheduler.ts"
import type { Branch } from "./token-tree.ts"
import type { Vocabulary } from "./vocabulary.ts"

/** What to generate. */
export interface GenerateRequest {
  /** At least one token. */
  readonly prompt: ArrayLike<number>
  readonly sampling: SamplingOptions
  /** Most tokens to generate; `Infinity` for as many as the context holds, or ten times so many where it shifts. */
  readonly maxTokens: number
  /** Most tokens of prompt and answer together; at most the engine's own limit. */
  readonly contextTokens?: number
  readonly stop?: readonly string[]
  /** Report log-probabilities, with so many alternatives. */
  readonly logprobs?: number
  /** Control tokens to render as text; all others are left out. */
  readonly shownControl?: ReadonlySet<number>
  readonly lazyGrammar?: LazyGrammar
  /** Requests of one scope share what they have in common; null shares with nobody. Default: one for all. */
  readonly cacheScope?: string | null
  /** Default: normal. */
  readonly priority?: Priority
  /** Whose request it is: clients get equal shares when they compete; those of one group, `group/name`, have one. */
  readonly client?: string
  /**
   * When the context is full, drop the older half of what follows the first `keepTokens` tokens and go on, instead of
   * ending. What is kept is computed again, so this works with every kind of memory.
   */
  readonly shift?: { readonly keepTokens: number }
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
  /** Tokens that left the context while the answer was written; see `shift`. */
  readonly shiftedTokens: number
  /** How often it had to give way to others. */
  readonly preemptions: number
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

/** Ollama's: a model that repeats itself would hold its place for ever. */
const SHIFTED_CONTEXTS_MAX = 10

/** Moments in the life of a request, milliseconds on the engine's clock. */
interface Times {
  started?: number
  firstToken?: number
}

/** State of a request. The engine moves it; the scheduler only reads it. */
export class Sequence {
  readonly request: GenerateRequest
  readonly events: Queue<EngineEvent>
  readonly promptTokens: number
  readonly contextTokens: number
  readonly priority: Priority
  readonly client: string
  readonly submittedAt: number
  /** What it shares; undefined for nothing. */
  readonly scope: string | undefined
  readonly #vocabulary: Vocabulary
  readonly #output: Output
  readonly #watch: GrammarWatch | undefined
  readonly #completion: number[] = []
  readonly #times: Times = {}
  #known: Int32Array
  #knownTokens: number
  #cachedTokens = 0
  #shiftedTokens = 0
  #shifts = 0
  #preemptions = 0
  /** The last token says that the answer is over. */
  #hasEnded = false

  /** The cells that it holds, while admitted. */
  branch: Branch | undefined
  sampler: number | undefined
  /** Steps since it last got on, for aging. */
  waitedSteps = 0
  /** Tokens at its beginning that another running request has, or is about to compute. */
  sharedTokens = 0
  /** Steps since it was admitted. */
  ageSteps = 0
  /** See the scheduler. */
  clientLead = 0
  /** Numbers of computed tokens at which it leaves a state for others, rising; see the roster. */
  stops: readonly number[] = []
  /** It got its place by waiting longest; see admission. */
  isElder = false
  /** What it gave up when it had to give way, and will go on with if it is still there. */
  wanted: Branch | undefined
  isAborted = false
  /** Stops listening to the caller's signal. */
  detachSignal: () => void = () => {}

  constructor(
    request: GenerateRequest,
    options: { vocabulary: Vocabulary; contextTokens: number; now: number; onReturn: () => void },
  ) {
    this.request = request
    this.promptTokens = request.prompt.length
    this.contextTokens = options.contextTokens
    this.priority = request.priority ?? "normal"
    this.client = request.client ?? ""
    this.submittedAt = options.now
    this.scope = request.cacheScope === null ? undefined : (request.cacheScope ?? "")
    this.events = new Queue<EngineEvent>(options.onReturn)
    this.#known = Int32Array.from(request.prompt)
    this.#knownTokens = this.promptTokens
    this.#output = new Output(options.vocabulary, {
      stop: request.stop ?? [],
      shownControl: request.shownControl ?? new Set(),
    })
    this.#watch =
      request.lazyGrammar === undefined ? undefined : new GrammarWatch(request.lazyGrammar)
    this.#vocabulary = options.vocabulary
  }

  get knownTokens(): number {
    return this.#knownTokens
  }

  /** Tokens whose state is in the cache. */
  get computedTokens(): number {
    return this.branch?.end ?? 0
  }

  get completionTokens(): number {
    return this.#completion.length
  }

  /** Tokens that the next steps have to compute. */
  get remainingTokens(): number {
    return this.#knownTokens - this.computedTokens
  }

  /** See the scheduler. */
  get stopAt(): number | undefined {
    return this.stops.find((stop) => stop > this.computedTokens)
  }

  /** Nothing but the last token is left to compute: each step gives a token. */
  get isDecoding(): boolean {
    return this.#completion.length > 0 && this.remainingTokens === 1
  }

  /** Raised when the context shifts. */
  get revision(): number {
    return this.#shifts
  }

  get wasPreempted(): boolean {
    return this.#preemptions > 0
  }

  /** How often it had to give way. */
  get preemptions(): number {
    return this.#preemptions
  }

  /** Tokens of its prompt that came from the cache. */
  get cachedTokens(): number {
    return this.#cachedTokens
  }

  /** Milliseconds until it took part in a step; undefined as long as it has not. */
  get queueMs(): number | undefined {
    return this.#times.started === undefined ? undefined : this.#times.started - this.submittedAt
  }

  /** All known tokens; valid until the next is accepted. */
  get known(): Int32Array {
    return this.#known.subarray(0, this.#knownTokens)
  }

  /**
   * Where later prompts are likely to part from this one: after its first turn, which is mostly the system prompt, and
   * after its last one, where the answer begins. Turns end with a token that ends generation.
   */
  turnEnds(): number[] {
    const ends = (token: number) => this.#vocabulary.endsGeneration(token)
    const prompt = this.#known.subarray(0, this.promptTokens)
    const [first, last] = [prompt.findIndex(ends), prompt.findLastIndex(ends)]
    return first === -1 ? [] : [first + 1, last + 1]
  }

  /** Known tokens `from` … `to` − 1. */
  tokens(from: number, to: number): Int32Array {
    return this.#known.subarray(from, to)
  }

  /** Tokens of its prompt came from the cache; negative: they are gone again. */
  markCached(tokens: number): void {
    if (this.#times.firstToken === undefined && this.#preemptions === 0)
      this.#cachedTokens += tokens
  }

  /** Its cells are gone, with what came from the cache. */
  markLost(): void {
    if (this.#times.firstToken === undefined) this.#cachedTokens = 0
  }

  /** It had to give way. */
  markPreempted(): void {
    this.#preemptions++
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
    const { chunk, text, match } = this.#output.push(token, facts.logprob)
    this.#send(chunk)
    const constrain = this.#watch?.push(text)
    if (match !== undefined) return { finish: { kind: "stop", match }, constrain: undefined }
    return { finish: this.#isFull() ? { kind: "length" } : undefined, constrain }
  }

  /** The context is full, and the request wants to go on without its older half. */
  get wantsShift(): boolean {
    return this.#knownTokens >= this.contextTokens && this.#discardable() > 0
  }

  /** Drops the older half of what follows the tokens to keep. Its cells belong to other tokens afterwards. */
  shift(): void {
    const count = this.#discardable()
    const keep = this.request.shift?.keepTokens ?? 0
    this.#known.copyWithin(keep, keep + count, this.#knownTokens)
    this.#knownTokens -= count
    this.#shiftedTokens += count
    this.#shifts++
    this.stops = []
    this.sharedTokens = 0
  }

  /** Ends the answer: sends what was held back, then `done`. */
  finish(reason: FinishReason, now: number): void {
    if (reason.kind === "length" || reason.match === undefined) this.#send(this.#output.flush())
    this.events.push({
      kind: "done",
      reason,
      usage: this.#usage(now),
      completion: Int32Array.from(
        this.#hasEnded ? this.#completion.slice(0, -1) : this.#completion,
      ),
    })
    this.events.end()
  }

  #send(chunk: OutputChunk): void {
    if (chunk.text === "" && chunk.logprobs.length === 0) return
    this.events.push({ kind: "text", ...chunk })
  }

  #isFull(): boolean {
    const { maxTokens, shift } = this.request
    const isEndless = maxTokens === Infinity && shift !== undefined
    const most = isEndless ? SHIFTED_CONTEXTS_MAX * this.contextTokens : maxTokens
    if (this.completionTokens >= most) return true
    return this.#knownTokens >= this.contextTokens && this.#discardable() <= 0
  }

  #discardable(): number {
    const { shift } = this.request
    return shift === undefined ? 0 : Math.floor((this.#knownTokens - shift.keepTokens) / 2)
  }

  #append(token: number): void {
    this.#completion.push(token)
    if (this.#knownTokens === this.#known.length) {
      const larger = new Int32Array(this.#known.length * 2 + 64)
      larger.set(this.#known)
      this.#known = larger
    }
    this.#known[this.#knownTokens] = token
    this.#knownTokens++
  }

  #usage(now: number): Usage {
    const { started = now, firstToken = now } = this.#times
    return {
      promptTokens: this.promptTokens,
      cachedTokens: this.#cachedTokens,
      completionTokens: this.completionTokens,
      shiftedTokens: this.#shiftedTokens,
      preemptions: this.#preemptions,
      queueMs: started - this.submittedAt,
      promptMs: firstToken - started,
      decodeMs: now - firstToken,
    }
  }
}
