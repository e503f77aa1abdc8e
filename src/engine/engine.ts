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
import { type Backend, movesStates, ROW_STATUS, STEP_CODE, type StepOutcome } from "./backend.ts"
import { type Batch, fillBatch } from "./batch.ts"
import { checkRequest } from "./check-request.ts"
import {
  drainSeconds,
  type EngineStatus,
  newCounters,
  statusOf,
  type StepStatus,
} from "./engine-status.ts"
import { gather } from "./gather.ts"
import type { TokenLogprob } from "./output.ts"
import { CPU_CHUNKS, GPU_CHUNKS, isBurst, Pace } from "./pace.ts"
import type { PrefixTier } from "./prefix-tier.ts"
import { Roster } from "./roster.ts"
import type { Mix, PlanEntry, StepLimits } from "./scheduler.ts"
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
  /**
   * After a rest, most milliseconds to wait for another request before prompts are read: those of a burst come one by
   * one, and are read faster together. Default: 0.
   */
  readonly gatherMs?: number
  /** Where prefixes go that no longer fit into the cells. */
  readonly tier?: PrefixTier
  /** Milliseconds on any clock that does not jump. */
  readonly now: () => number
}

/** Enough for bursts; beyond it an honest "busy" is better than an answer that comes too late. */
const QUEUE_MAX = 512

/** The scheduler's loop over one backend, which it owns and disposes. */
export class Engine implements AsyncDisposable {
  readonly contextTokens: number
  /** Resolves with the reason when the backend broke: from then on all requests fail. */
  readonly broken: Promise<CriaError>
  readonly #backend: Backend
  readonly #vocabulary: Vocabulary
  readonly #options: EngineOptions
  readonly #now: () => number
  readonly #roster: Roster
  readonly #pace: Pace
  readonly #loop: Promise<void>
  readonly #counts = newCounters()
  readonly #breakage = Promise.withResolvers<CriaError>()
  #step: StepStatus | undefined
  #changed = Promise.withResolvers<void>()
  #changes = 0
  #turn: "answers" | "prompts" = "answers"
  #inFlight: readonly PlanEntry<Sequence>[] = []
  /** Requests that were left; their cells are free before the next step. */
  readonly #aborted = new Set<Sequence>()
  /** Requests of a step that could not be computed: alone each, the one shows whose fault it is. */
  #suspects: readonly Sequence[] = []
  #wake: () => void = () => {}
  #closed: CriaError | undefined
  #isBroken = false
  /** When the last step ended; undefined when there was nothing to do since. */
  #stepEndedAt: number | undefined
  /** From there to the start of the step in flight. */
  #betweenMs = 0

  constructor(backend: Backend, vocabulary: Vocabulary, options: EngineOptions) {
    this.#backend = backend
    this.#vocabulary = vocabulary
    this.#options = options
    this.#now = options.now
    this.broken = this.#breakage.promise
    this.#roster = new Roster(backend, { ...options, onReady: () => this.#wake() })
    this.#pace = new Pace(backend.info.isSlowedByCells ? CPU_CHUNKS : GPU_CHUNKS)
    this.contextTokens = Math.min(options.contextTokens ?? Infinity, backend.info.cells)
    this.#loop = this.#run()
  }

  get status(): EngineStatus {
    return statusOf(this.#roster, { counters: this.#counts, step: this.#step, now: this.#now() })
  }

  /**
   * The status after each step, or after several when it is asked for less often; the last one is never left out. Ends
   * when the engine is disposed.
   */
  async *statuses(signal?: AbortSignal): AsyncGenerator<EngineStatus> {
    const onAbort = () => this.#tell()
    signal?.addEventListener("abort", onAbort)
    try {
      for (;;) {
        if (signal?.aborted === true) return
        const seen = this.#changes
        yield this.status
        if (this.#closed !== undefined) return
        // oxlint-disable-next-line no-await-in-loop
        if (this.#changes === seen) await this.#changed.promise
      }
    } finally {
      signal?.removeEventListener("abort", onAbort)
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
    this.checkQueue()
    const now = this.#now()
    const sequence: Sequence = new Sequence(request, {
      vocabulary: this.#vocabulary,
      contextTokens,
      now,
      onReturn: () => this.#abort(sequence),
    })
    if (request.maxTokens === 0) {
      this.#counts.accepted++
      this.#counts.finished++
      sequence.finish({ kind: "length" }, now)
      return sequence.events
    }
    sequence.sampler = this.#backend.createSampler(request.sampling)
    this.#counts.accepted++
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

  /** @throws {CriaError} `busy` when too many wait for another one. */
  checkQueue(): void {
    const most = this.#options.queueMax ?? QUEUE_MAX
    const { length } = this.#roster.waiting
    if (length < most + this.#roster.freePlaces) return
    this.#counts.refused++
    throw new CriaError(
      "busy",
      `Cannot queue the request: ${length} ${length === 1 ? "waits" : "wait"} already`,
      {
        hint: "Try again later, or raise the limit of waiting requests",
        retryAfterSeconds: drainSeconds(length, this.#counts),
      },
    )
  }

  /** Fails all requests and frees the backend. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed ??= new CriaError("unavailable", "The model was unloaded")
    this.#cutShort()
    this.#wake()
    await this.#loop
    if (!this.#isBroken) await this.#saveAll()
    await this.#backend[Symbol.asyncDispose]()
  }

  /**
   * The loop. Between a step's end and the next one's start nothing is awaited: consumers of events get their turn
   * while native code computes.
   */
  async #run(): Promise<void> {
    while (this.#closed === undefined) {
      try {
        const plan = this.#plan()
        if (plan.length === 0) {
          this.#tell()
          await this.#rest()
          await this.#gather()
          continue
        }
        const batch = this.#start(plan)
        const outcome = await this.#backend.wait()
        this.#stepEndedAt = this.#now()
        this.#inFlight = []
        this.#settle(plan, batch, outcome)
      } catch (error) {
        this.#isBroken = true
        this.#closed = toCriaError(error)
        this.#breakage.resolve(this.#closed)
      }
      this.#tell()
    }
    for (const sequence of [...this.#roster.running, ...this.#roster.waiting])
      this.#fail(sequence, this.#closed, "keep")
    this.#tell()
  }

  /** Something changed that a status says. */
  #tell(): void {
    this.#changes++
    this.#changed.resolve()
    this.#changed = Promise.withResolvers()
  }

  #plan(): PlanEntry<Sequence>[] {
    for (const sequence of this.#aborted) {
      // It may have failed meanwhile.
      if (sequence.sampler === undefined) continue
      this.#counts.aborted++
      this.#release(sequence, "keep")
    }
    this.#aborted.clear()
    this.#suspects = this.#suspects.filter(({ branch }) => branch !== undefined)
    for (;;) {
      const plan = this.#roster.plan({
        limits: (sequences) => this.#limits(sequences),
        now: this.#now(),
        only: this.#suspects[0],
      })
      const [alone] = this.#roster.running
      if (plan.length > 0 || alone === undefined) return plan
      this.#fail(alone, fullError(), "discard")
    }
  }

  #limits(running: readonly Sequence[]): StepLimits<Sequence> {
    const { batchTokens: stepTokens } = this.#backend.info
    return {
      stepTokens,
      mix: (prompts) => {
        const answers = running.filter(({ isDecoding }) => isDecoding)
        return isBurst(answers, prompts, stepTokens)
          ? this.#mixOf(answers.length, stepTokens, "prompts")
          : this.#mixOf(answers.length, this.#promptTokens(answers.length, prompts), this.#turn)
      },
    }
  }

  #promptTokens(answers: number, [first]: readonly Sequence[]): number {
    const learnt = this.#pace.promptTokens(answers, first?.computedTokens ?? 0)
    return this.#options.mixedPromptTokens ?? learnt
  }

  /** Tokens of several sequences in one tile of attention make it dense: where there are tiles, they take turns. */
  #mixOf(answers: number, promptTokens: number, turn: "answers" | "prompts"): Mix {
    const hasTurns = this.#backend.info.isSlowedByCells && answers + promptTokens >= CPU_CHUNKS.tile
    return { kind: hasTurns ? turn : "both", promptTokens }
  }

  #start(plan: readonly PlanEntry<Sequence>[]): Batch {
    const now = this.#now()
    for (const { sequence } of plan) sequence.markStarted(now)
    const batch = fillBatch(this.#backend.arrays, plan)
    this.#inFlight = plan
    this.#backend.submit(batch.tokens, batch.rows.length)
    this.#betweenMs = this.#stepEndedAt === undefined ? 0 : this.#now() - this.#stepEndedAt
    this.#counts.betweenMs += this.#betweenMs
    return batch
  }

  /** There is nothing to compute: time to copy what is cached to where it outlives us, until somebody comes. */
  async #rest(): Promise<void> {
    this.#stepEndedAt = undefined
    const woken = Promise.withResolvers<"woken">()
    this.#wake = () => woken.resolve("woken")
    // What waits to be written is in memory: one stretch at a time.
    const isWritten = this.#written().then(() => "written" as const)
    if ((await Promise.race([woken.promise, isWritten])) === "woken") return
    if (this.#roster.memory.saveNext()) setTimeout(this.#wake, 0)
    await woken.promise
  }

  /** See {@link gather}. */
  async #gather(): Promise<void> {
    const tokens = this.#roster.waiting.reduce((sum, { knownTokens }) => sum + knownTokens, 0)
    const readMs = this.#pace.readMs(tokens)
    await gather(this.#options.gatherMs ?? 0, readMs, () => this.#roster.waiting.length)
  }

  /** What is cached goes to where it outlives us, stretch by stretch, as fast as it is written there. */
  async #saveAll(): Promise<void> {
    await this.#written()
    // oxlint-disable-next-line no-await-in-loop
    while (this.#roster.memory.saveNext()) await this.#written()
  }

  async #written(): Promise<void> {
    await this.#options.tier?.flush?.()
  }

  #abort(sequence: Sequence): void {
    if (sequence.isAborted || sequence.sampler === undefined) return
    sequence.isAborted = true
    this.#aborted.add(sequence)
    if (this.#inFlight.every((entry) => entry.sequence.isAborted)) this.#cutShort()
    this.#wake()
  }

  /** Ends the step in flight early, unless that would cost states of others. */
  #cutShort(): void {
    const { length } = this.#inFlight
    if (length === 1 || (length > 1 && !movesStates(this.#backend.info))) this.#backend.cancel()
  }

  #settle(plan: readonly PlanEntry<Sequence>[], batch: Batch, outcome: StepOutcome): void {
    switch (outcome.code) {
      case STEP_CODE.ok:
        this.#measure(plan, batch, outcome)
        this.#roster.advance(plan)
        for (const [row, sequence] of batch.rows.entries()) this.#accept(sequence, row)
        this.#suspects = this.#suspects.slice(1)
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
        this.#isolate(plan, outcome.code)
    }
  }

  /** A step could not be computed: its requests go on one by one, and the one that cannot go on alone fails. */
  #isolate(plan: readonly PlanEntry<Sequence>[], code: number): void {
    this.#roster.repair(plan)
    const [first, second] = plan
    if (first !== undefined && second === undefined) {
      const message = `Cannot compute a step: llama.cpp returned ${code}`
      this.#fail(first.sequence, new CriaError("internal", message), "discard")
    } else this.#suspects = plan.map(({ sequence }) => sequence)
  }

  #measure(plan: readonly PlanEntry<Sequence>[], batch: Batch, outcome: StepOutcome): void {
    let rows = 0
    let promptTokens = 0
    let depths = 0
    for (const { sequence, count } of plan) {
      if (sequence.isDecoding) rows++
      else {
        promptTokens += count
        depths += count * (sequence.computedTokens + count / 2)
      }
    }
    const decodeMs = outcome.decodeMicros / 1000
    const sampleMs = outcome.sampleMicros / 1000
    const depth = promptTokens === 0 ? 0 : depths / promptTokens
    this.#pace.observe({ rows, promptTokens, depth, ms: decodeMs + sampleMs })
    this.#turn = promptTokens > 0 ? "answers" : "prompts"
    this.#counts.steps++
    this.#counts.promptTokens += promptTokens
    this.#counts.decodeMs += decodeMs
    this.#counts.sampleMs += sampleMs
    this.#counts.reusedGraphs += outcome.reusedGraphs
    this.#step = {
      tokens: batch.tokens,
      promptTokens,
      rows: batch.rows.length,
      decodeMs,
      sampleMs,
      betweenMs: this.#betweenMs,
    }
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
    if (sequence.completionTokens === 0) {
      this.#counts.cachedTokens += sequence.cachedTokens
      this.#counts.queueMs += sequence.queueMs ?? 0
    }
    const { finish, constrain } = sequence.accept(token, {
      endsGeneration: this.#vocabulary.endsGeneration(token),
      now,
      logprob: this.#logprob(sequence, row, token),
    })
    if (finish !== undefined) {
      sequence.finish(finish, now)
      this.#counts.finished++
      this.#release(sequence, "keep")
      return
    }
    if (constrain !== undefined) this.#constrain(sequence, constrain)
    if (!sequence.wantsShift || sequence.branch === undefined) return
    sequence.shift()
    this.#roster.restart(sequence)
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
    this.#counts.failed++
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
