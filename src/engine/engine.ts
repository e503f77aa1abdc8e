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
import { checkRequest } from "./check-request.ts"
import type { TokenLogprob } from "./output.ts"
import { CHUNK_TOKENS_CPU, CHUNK_TOKENS_MIN, Pace } from "./pace.ts"
import type { MemoryCounters } from "./prefix-memory.ts"
import type { PrefixTier } from "./prefix-tier.ts"
import { Roster } from "./roster.ts"
import type { PlanEntry } from "./scheduler.ts"
import { type EngineEvent, type GenerateRequest, Sequence } from "./sequence.ts"
import type { Vocabulary } from "./vocabulary.ts"

/** Options of {@link Engine}. */
export interface EngineOptions {
  /** Most tokens of prompt and answer of one request; default and upper limit: all cells. */
  readonly contextTokens?: number
  /** Most requests at once; default and upper limit: the backend's rows. */
  readonly parallelMax?: number
  /** Most requests that wait. */
  readonly queueMax?: number
  /** Most prompt tokens in a step that also decodes; default: learnt from measured steps. */
  readonly mixedPromptTokens?: number
  /** Where prefixes go that no longer fit into the cells. */
  readonly tier?: PrefixTier
  /** Milliseconds on any clock that does not jump. */
  readonly now: () => number
}

/** Counts since the engine began. Times in milliseconds. */
export interface EngineCounters extends MemoryCounters {
  steps: number
  /** Tokens of prompts that were computed. */
  promptTokens: number
  completionTokens: number
  preemptions: number
  decodeMs: number
  sampleMs: number
  /** Between the end of a step and the start of the next, while there was work. */
  betweenMs: number
}

/** Counts at one moment, for `ps`, tests and metrics. */
export interface EngineStatus {
  readonly running: number
  readonly waiting: number
  readonly freeCells: number
  /** Cells of running requests; what they share is counted once. */
  readonly activeCells: number
  /** Cells that are kept for later requests, and given up when they are needed. */
  readonly cachedCells: number
  readonly totalCells: number
  readonly counters: EngineCounters
}

/** Enough for bursts; beyond it an honest "busy" is better than an answer that comes too late. */
const QUEUE_MAX = 512

/** The scheduler's loop over one backend, which it owns and disposes. */
export class Engine implements AsyncDisposable {
  readonly contextTokens: number
  readonly #backend: Backend
  readonly #vocabulary: Vocabulary
  readonly #options: EngineOptions
  readonly #now: () => number
  readonly #roster: Roster
  readonly #pace: Pace
  readonly #loop: Promise<void>
  readonly #counts = {
    steps: 0,
    promptTokens: 0,
    completionTokens: 0,
    decodeMs: 0,
    sampleMs: 0,
    betweenMs: 0,
  }
  #turn: "answers" | "prompts" = "answers"
  #inFlight: readonly PlanEntry<Sequence>[] = []
  #wake: () => void = () => {}
  #closed: CriaError | undefined
  #isBroken = false
  /** When the last step ended; undefined when there was nothing to do since. */
  #stepEndedAt: number | undefined

  constructor(backend: Backend, vocabulary: Vocabulary, options: EngineOptions) {
    this.#backend = backend
    this.#vocabulary = vocabulary
    this.#options = options
    this.#now = options.now
    this.#roster = new Roster(backend, options)
    this.#pace = new Pace(backend.info.isSlowedByCells ? CHUNK_TOKENS_CPU : CHUNK_TOKENS_MIN)
    this.contextTokens = Math.min(options.contextTokens ?? Infinity, backend.info.cells)
    this.#loop = this.#run()
  }

  get status(): EngineStatus {
    const { memory, running, waiting, preemptions } = this.#roster
    return {
      running: running.length,
      waiting: waiting.length,
      freeCells: memory.freeCells,
      activeCells: memory.activeCells,
      cachedCells: memory.cachedCells,
      totalCells: memory.totalCells,
      counters: { ...this.#counts, ...memory.counters, preemptions },
    }
  }

  /**
   * Queues a request. Iterating yields chunks of text and at last `done`; leaving the iteration early, or aborting
   * the signal, frees the request's cells within one step.
   *
   * @throws {CriaError} `invalid-input` for a request that can never run, `busy` when too many wait, `unavailable`
   * after disposal.
   */
  submit(request: GenerateRequest, signal?: AbortSignal): AsyncIterableIterator<EngineEvent> {
    if (this.#closed !== undefined) throw this.#closed
    signal?.throwIfAborted()
    const contextTokens = Math.min(request.contextTokens ?? Infinity, this.contextTokens)
    checkRequest(request, this.#backend.info, contextTokens)
    this.#checkQueue()
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
    this.#roster.add(sequence)
    this.#wake()
    return sequence.events
  }

  /** Fails all requests and frees the backend. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed ??= new CriaError("unavailable", "The model was unloaded")
    if (this.#inFlight.length > 0) this.#backend.cancel()
    this.#wake()
    await this.#loop
    if (!this.#isBroken) this.#roster.memory.saveAll()
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
        this.#stepEndedAt = undefined
        await this.#sleep()
        continue
      }
      try {
        const batch = this.#start(plan)
        const outcome = await this.#backend.wait()
        this.#stepEndedAt = this.#now()
        this.#inFlight = []
        this.#settle(plan, batch, outcome)
      } catch (error) {
        this.#isBroken = true
        this.#closed = toCriaError(error)
      }
    }
    for (const sequence of [...this.#roster.running, ...this.#roster.waiting])
      this.#fail(sequence, this.#closed, "keep")
  }

  #plan(): PlanEntry<Sequence>[] {
    for (const sequence of [...this.#roster.running, ...this.#roster.waiting])
      if (sequence.isAborted) this.#release(sequence, "keep")
    const stepTokens = this.#backend.info.batchTokens
    const limits = (answers: number, prompts: number) => ({
      stepTokens,
      mixedPromptTokens:
        this.#options.mixedPromptTokens ?? this.#pace.promptTokens(answers, prompts),
      turn: this.#backend.info.isSlowedByCells ? this.#turn : undefined,
    })
    for (;;) {
      const plan = this.#roster.plan(limits, this.#now())
      const [alone] = this.#roster.running
      if (plan.length > 0 || alone === undefined) return plan
      this.#fail(alone, fullError(), "discard")
    }
  }

  #start(plan: readonly PlanEntry<Sequence>[]): Batch {
    const now = this.#now()
    for (const { sequence } of plan) sequence.markStarted(now)
    const batch = fillBatch(this.#backend.arrays, plan)
    this.#inFlight = plan
    this.#backend.submit(batch.tokens, batch.rows.length)
    this.#counts.steps++
    if (this.#stepEndedAt !== undefined) this.#counts.betweenMs += this.#now() - this.#stepEndedAt
    return batch
  }

  #sleep(): Promise<void> {
    return new Promise((resolve) => {
      this.#wake = resolve
    })
  }

  #checkQueue(): void {
    const most = this.#options.queueMax ?? QUEUE_MAX
    const { length } = this.#roster.waiting
    if (length < most + this.#roster.freePlaces) return
    throw new CriaError("busy", `Cannot queue the request: ${length} others wait already`, {
      hint: "Try again later, or raise the limit of waiting requests",
    })
  }

  #abort(sequence: Sequence): void {
    sequence.isAborted = true
    const isPointless = this.#inFlight.every((entry) => entry.sequence.isAborted)
    if (this.#inFlight.length > 0 && isPointless) this.#backend.cancel()
    this.#wake()
  }

  #settle(plan: readonly PlanEntry<Sequence>[], batch: Batch, outcome: StepOutcome): void {
    switch (outcome.code) {
      case STEP_CODE.ok:
        this.#measure(plan, outcome)
        this.#roster.advance(plan)
        for (const [row, sequence] of batch.rows.entries()) this.#accept(sequence, row)
        return
      case STEP_CODE.aborted:
        this.#roster.repair(plan)
        return
      case STEP_CODE.noCells: {
        const [alone] = this.#roster.running
        if (!this.#roster.relieve(plan) && alone !== undefined)
          this.#fail(alone, fullError(), "discard")
        return
      }
      default:
        for (const { sequence } of plan) {
          const message = `Cannot compute a step: llama.cpp returned ${outcome.code}`
          this.#fail(sequence, new CriaError("internal", message), "discard")
        }
    }
  }

  #measure(plan: readonly PlanEntry<Sequence>[], outcome: StepOutcome): void {
    const rows = plan.filter(({ sequence }) => sequence.isDecoding).length
    const tokens = plan.reduce((sum, { count }) => sum + count, 0)
    const decodeMs = outcome.decodeMicros / 1000
    const sampleMs = outcome.sampleMicros / 1000
    this.#pace.observe({ rows, promptTokens: tokens - rows, ms: decodeMs + sampleMs })
    this.#turn = tokens > rows ? "answers" : "prompts"
    this.#counts.promptTokens += tokens - rows
    this.#counts.decodeMs += decodeMs
    this.#counts.sampleMs += sampleMs
  }

  #accept(sequence: Sequence, row: number): void {
    if (sequence.isAborted) return
    const { outStatus, outToken } = this.#backend.arrays
    const status = outStatus[row] ?? ROW_STATUS.noLogits
    const token = outToken[row] ?? -1
    if (status !== ROW_STATUS.ok) {
      this.#fail(sequence, rowError(status), "discard")
      return
    }
    const now = this.#now()
    this.#counts.completionTokens++
    const { finish, constrain } = sequence.accept(token, {
      endsGeneration: this.#vocabulary.endsGeneration(token),
      now,
      logprob: this.#logprob(sequence, row, token),
    })
    if (finish !== undefined) {
      sequence.finish(finish, now)
      this.#release(sequence, "keep")
      return
    }
    if (constrain !== undefined) this.#constrain(sequence, constrain)
    if (!sequence.wantsShift || sequence.branch === undefined) return
    sequence.shift()
    this.#roster.requeue(sequence)
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
      this.#fail(sequence, toCriaError(error), "keep")
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

  #fail(sequence: Sequence, error: CriaError, cells: "keep" | "discard"): void {
    sequence.events.fail(error)
    this.#release(sequence, cells)
  }

  #release(sequence: Sequence, cells: "keep" | "discard"): void {
    // A backend that broke is not touched any more.
    this.#roster.remove(sequence, this.#isBroken ? "abandon" : cells)
    sequence.detachSignal()
    if (sequence.sampler === undefined) return
    this.#backend.freeSampler(sequence.sampler)
    sequence.sampler = undefined
  }
}

function fullError(): CriaError {
  return new CriaError("insufficient-memory", "Cannot go on: the KV cache is full", {
    hint: "Shorten the prompt or load the model with a smaller num_ctx",
  })
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
