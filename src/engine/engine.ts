/**
 * Runs many requests at once through one backend: continuous batching.
 *
 * The loop: admit → schedule → fill the batch → submit → (consumers take the last step's events while native code
 * computes) → wait → accept tokens. Requests join and leave between any two steps. The engine knows no files, no
 * network and no native code; time comes from the clock it is given.
 *
 * @module
 */

import { assert, CriaError, toCriaError } from "../util/errors.ts"
import { type Backend, ROW_STATUS, STEP_CODE, type StepOutcome } from "./backend.ts"
import { type Batch, fillBatch } from "./batch.ts"
import type { TokenLogprob } from "./output.ts"
import { checkSampling } from "./sampling.ts"
import { type PlanEntry, schedule } from "./scheduler.ts"
import { type EngineEvent, type GenerateRequest, Sequence } from "./sequence.ts"
import { Slots } from "./slots.ts"
import type { Vocabulary } from "./vocabulary.ts"

/** Options of {@link Engine}. */
export interface EngineOptions {
  /** Most tokens of prompt and answer of one request; default and upper limit: all cells. */
  readonly contextTokens?: number
  /** Most prompt tokens in a step that also decodes. */
  readonly mixedPromptTokens?: number
  /** Milliseconds on any clock that does not jump. */
  readonly now: () => number
}

/** Counts at one moment, for `ps`, tests and metrics. */
export interface EngineStatus {
  readonly running: number
  readonly waiting: number
  readonly freeCells: number
  readonly reservedCells: number
  readonly totalCells: number
  readonly steps: number
}

/** A quarter of the usual batch: measured as the point where prefill keeps most of its speed on a CPU. */
const MIXED_PROMPT_TOKENS = 128

/** The scheduler's loop over one backend, which it owns and disposes. */
export class Engine implements AsyncDisposable {
  readonly contextTokens: number
  readonly #backend: Backend
  readonly #vocabulary: Vocabulary
  readonly #now: () => number
  readonly #slots: Slots
  readonly #mixedPromptTokens: number
  readonly #loop: Promise<void>
  #waiting: Sequence[] = []
  #running: Sequence[] = []
  #inFlight: readonly PlanEntry<Sequence>[] = []
  #wake: () => void = () => {}
  #closed: CriaError | undefined
  #steps = 0

  constructor(backend: Backend, vocabulary: Vocabulary, options: EngineOptions) {
    this.#backend = backend
    this.#vocabulary = vocabulary
    this.#now = options.now
    this.#slots = new Slots(backend.info.sequences, backend.info.cells)
    this.contextTokens = Math.min(options.contextTokens ?? Infinity, backend.info.cells)
    this.#mixedPromptTokens = options.mixedPromptTokens ?? MIXED_PROMPT_TOKENS
    this.#loop = this.#run()
  }

  get status(): EngineStatus {
    return {
      running: this.#running.length,
      waiting: this.#waiting.length,
      freeCells: this.#slots.freeCells,
      reservedCells: this.#slots.reservedCells,
      totalCells: this.#slots.totalCells,
      steps: this.#steps,
    }
  }

  /**
   * Queues a request. Iterating yields chunks of text and at last `done`; leaving the iteration early, or aborting
   * the signal, frees the request's cells within one step.
   *
   * @throws {CriaError} `invalid-input` for a request that can never run, `unavailable` after disposal.
   */
  submit(request: GenerateRequest, signal?: AbortSignal): AsyncIterableIterator<EngineEvent> {
    if (this.#closed !== undefined) throw this.#closed
    signal?.throwIfAborted()
    const contextTokens = Math.min(request.contextTokens ?? Infinity, this.contextTokens)
    this.#check(request, contextTokens)
    const now = this.#now()
    const sequence: Sequence = new Sequence(request, {
      vocabulary: this.#vocabulary,
      contextTokens,
      now,
      onReturn: () => this.#abort(sequence),
    })
    if (request.maxTokens === 0) {
      sequence.finish({ kind: "length" }, now)
      return sequence.events
    }
    sequence.sampler = this.#backend.createSampler(request.sampling)
    const onAbort = () => {
      sequence.events.fail(signal?.reason)
      this.#abort(sequence)
    }
    signal?.addEventListener("abort", onAbort)
    sequence.detachSignal = () => signal?.removeEventListener("abort", onAbort)
    this.#waiting.push(sequence)
    this.#wake()
    return sequence.events
  }

  /** Fails all requests and frees the backend. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed ??= new CriaError("unavailable", "The model was unloaded")
    if (this.#inFlight.length > 0) this.#backend.cancel()
    this.#wake()
    await this.#loop
    await this.#backend[Symbol.asyncDispose]()
  }

  /**
   * The loop. Between a step's end and the next one's start nothing is awaited: consumers of events get their turn
   * while native code computes.
   */
  async #run(): Promise<void> {
    while (this.#closed === undefined) {
      const plan = this.#plan()
      if (plan.length === 0) {
        await this.#sleep()
        continue
      }
      try {
        const batch = this.#start(plan)
        const outcome = await this.#backend.wait()
        this.#inFlight = []
        this.#settle(plan, batch, outcome)
      } catch (error) {
        this.#closed = toCriaError(error)
      }
    }
    for (const sequence of [...this.#running, ...this.#waiting]) this.#fail(sequence, this.#closed)
  }

  #plan(): PlanEntry<Sequence>[] {
    this.#dropAborted()
    this.#admit()
    return schedule(this.#running, {
      stepTokens: this.#backend.info.batchTokens,
      mixedPromptTokens: this.#mixedPromptTokens,
    })
  }

  #start(plan: readonly PlanEntry<Sequence>[]): Batch {
    const now = this.#now()
    for (const { sequence } of plan) sequence.markStarted(now)
    const batch = fillBatch(this.#backend.arrays, plan)
    this.#inFlight = plan
    this.#backend.submit(batch.tokens, batch.rows.length)
    this.#steps++
    return batch
  }

  #sleep(): Promise<void> {
    return new Promise((resolve) => {
      this.#wake = resolve
    })
  }

  #check(request: GenerateRequest, contextTokens: number): void {
    const { prompt, maxTokens, logprobs = 0 } = request
    if (prompt.length === 0) {
      throw new CriaError("invalid-input", "Cannot generate from an empty prompt")
    }
    if (prompt.length >= contextTokens) {
      throw new CriaError(
        "invalid-input",
        `Cannot read a prompt of ${prompt.length} tokens: the context holds ${contextTokens}, answer included`,
        { hint: "Shorten the prompt or load the model with a larger num_ctx" },
      )
    }
    if (!(maxTokens >= 0)) {
      throw new CriaError(
        "invalid-input",
        `Cannot generate ${maxTokens} tokens: expected 0 or more`,
      )
    }
    if (!(logprobs >= 0 && logprobs <= this.#backend.info.topLogprobs)) {
      const most = this.#backend.info.topLogprobs
      throw new CriaError(
        "invalid-input",
        `Cannot give ${logprobs} log-probabilities: at most ${most}`,
      )
    }
    for (let i = 0; i < prompt.length; i++) {
      const token = prompt[i] ?? -1
      if (token >= 0 && token < this.#backend.info.vocabularyTokens) continue
      throw new CriaError(
        "invalid-input",
        `Cannot read token ${token}: it is not in the vocabulary`,
      )
    }
    checkSampling(request.sampling)
  }

  /** First come, first served: a request that does not fit yet keeps later ones behind it. */
  #admit(): void {
    while (this.#waiting.length > 0) {
      const [sequence] = this.#waiting
      if (sequence === undefined) return
      const slot = this.#slots.acquire(sequence.reservation)
      if (slot === undefined) return
      this.#waiting.shift()
      sequence.slot = slot
      this.#running.push(sequence)
    }
  }

  #abort(sequence: Sequence): void {
    sequence.isAborted = true
    const isPointless = this.#inFlight.every((entry) => entry.sequence.isAborted)
    if (this.#inFlight.length > 0 && isPointless) this.#backend.cancel()
    this.#wake()
  }

  #dropAborted(): void {
    for (const sequence of [...this.#running, ...this.#waiting]) {
      if (sequence.isAborted) this.#release(sequence)
    }
  }

  #settle(plan: readonly PlanEntry<Sequence>[], batch: Batch, outcome: StepOutcome): void {
    switch (outcome.code) {
      case STEP_CODE.ok:
        this.#advance(plan)
        for (const [row, sequence] of batch.rows.entries()) this.#accept(sequence, row)
        return
      case STEP_CODE.aborted:
        // Whole parts of the batch may have been computed: go on from what the memory really holds.
        for (const { sequence } of plan) {
          assert(sequence.slot !== undefined, "a planned sequence is admitted")
          sequence.computedTokens = this.#backend.lastPosition(sequence.slot) + 1
        }
        return
      case STEP_CODE.noCells: {
        const youngest = plan.at(-1)?.sequence
        assert(youngest !== undefined, "a step has sequences")
        const message = "Cannot go on: the KV cache is full"
        this.#fail(youngest, new CriaError("insufficient-memory", message))
        return
      }
      default:
        for (const { sequence } of plan) {
          const message = `Cannot compute a step: llama.cpp returned ${outcome.code}`
          this.#fail(sequence, new CriaError("internal", message))
        }
    }
  }

  #advance(plan: readonly PlanEntry<Sequence>[]): void {
    for (const sequence of this.#running) sequence.waitedSteps++
    for (const { sequence, count } of plan) {
      sequence.computedTokens += count
      sequence.waitedSteps = 0
    }
  }

  #accept(sequence: Sequence, row: number): void {
    if (sequence.isAborted) return
    const { outStatus, outToken } = this.#backend.arrays
    const status = outStatus[row] ?? ROW_STATUS.noLogits
    const token = outToken[row] ?? -1
    if (status !== ROW_STATUS.ok) {
      this.#fail(sequence, rowError(status))
      return
    }
    const now = this.#now()
    const { finish, constrain } = sequence.accept(token, {
      endsGeneration: this.#vocabulary.endsGeneration(token),
      now,
      logprob: this.#logprob(sequence, row, token),
    })
    if (finish !== undefined) {
      sequence.finish(finish, now)
      this.#release(sequence)
    } else if (constrain !== undefined) {
      this.#constrain(sequence, constrain)
    }
  }

  #constrain(sequence: Sequence, text: string): void {
    const { sampler, request } = sequence
    assert(
      sampler !== undefined && request.lazyGrammar !== undefined,
      "only a watched grammar fires",
    )
    try {
      this.#backend.constrainSampler(sampler, request.lazyGrammar.gbnf, text)
    } catch (error) {
      this.#fail(sequence, toCriaError(error))
    }
  }

  #logprob(sequence: Sequence, row: number, token: number): TokenLogprob | undefined {
    const count = sequence.request.logprobs
    if (count === undefined) return undefined
    const { outLogprob, topToken, topLogprob } = this.#backend.arrays
    const first = row * this.#backend.info.topLogprobs
    const top: { token: number; logprob: number }[] = []
    for (let i = first; i < first + count; i++) {
      const alternative = topToken[i] ?? -1
      if (alternative >= 0) top.push({ token: alternative, logprob: topLogprob[i] ?? 0 })
    }
    return { token, logprob: outLogprob[row] ?? 0, top }
  }

  #fail(sequence: Sequence, error: CriaError): void {
    sequence.events.fail(error)
    this.#release(sequence)
  }

  #release(sequence: Sequence): void {
    this.#running = this.#running.filter((other) => other !== sequence)
    this.#waiting = this.#waiting.filter((other) => other !== sequence)
    sequence.detachSignal()
    if (sequence.slot !== undefined) {
      // A backend that broke, or is about to be freed, is not touched any more.
      if (this.#closed === undefined) this.#backend.removeSequence(sequence.slot, 0, -1)
      this.#slots.release(sequence.slot)
      sequence.slot = undefined
    }
    if (sequence.sampler !== undefined) {
      this.#backend.freeSampler(sequence.sampler)
      sequence.sampler = undefined
    }
  }
}

function rowError(status: number): CriaError {
  switch (status) {
    case ROW_STATUS.grammarStuck:
      return new CriaError("invalid-input", "Cannot go on: the grammar allows no further token")
    case ROW_STATUS.notFinite:
      return new CriaError(
        "internal",
        "Cannot go on: the model computed values that are not numbers",
        {
          hint: "The file may be damaged; pull it again",
        },
      )
    default:
      return new CriaError("internal", `Cannot sample a token: status ${status}`)
  }
}
