/**
 * What an engine says about itself: counts at one moment, counts since it began, and each request.
 *
 * @module
 */

import type { MemoryCounters } from "./prefix-memory.ts"
import type { Roster } from "./roster.ts"
import type { Priority } from "./scheduler.ts"
import type { Sequence } from "./sequence.ts"

/** Counts since the engine began. Times in milliseconds. */
export interface EngineCounters extends MemoryCounters {
  /** Requests that were taken in. */
  accepted: number
  /** Of those, the ones that came to their end. */
  finished: number
  /** Whose client went away. */
  aborted: number
  failed: number
  /** Requests that were turned away because too many waited. */
  refused: number
  steps: number
  /** Steps that could use the compute graph of the one before. */
  reusedGraphs: number
  /** Tokens of prompts that were computed. */
  promptTokens: number
  /** Tokens of prompts that were taken from the cache, of requests that have begun to answer. */
  cachedTokens: number
  completionTokens: number
  preemptions: number
  /** Waiting for the first step, all requests together. */
  queueMs: number
  decodeMs: number
  sampleMs: number
  /** Between the end of a step and the start of the next, while there was work. */
  betweenMs: number
}

/** One step. */
export interface StepStatus {
  /** Tokens in all. */
  readonly tokens: number
  /** Of those, of prompts. */
  readonly promptTokens: number
  /** Requests that got a token. */
  readonly rows: number
  readonly decodeMs: number
  readonly sampleMs: number
  readonly betweenMs: number
}

/** One request on its way. */
export interface RequestStatus {
  readonly state: "waiting" | "reading" | "answering"
  /** From 1 on, while it waits. */
  readonly position?: number
  readonly priority: Priority
  readonly client: string
  readonly promptTokens: number
  /** Of the prompt, taken from the cache. */
  readonly cachedTokens: number
  /** Tokens whose state is in the KV cache. */
  readonly computedTokens: number
  readonly completionTokens: number
  readonly preemptions: number
  /** Milliseconds since it arrived. */
  readonly ageMs: number
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
  /** The last one; undefined before the first. */
  readonly step?: StepStatus | undefined
  /** Those that run, then those that wait in their order; at most {@link REQUESTS_MAX}. */
  readonly requests: readonly RequestStatus[]
}

/** Enough to see what goes on; all of a long queue would be a long text. */
export const REQUESTS_MAX = 128

/** Counters that the memory and the roster do not keep themselves. */
export type OwnCounters = Omit<EngineCounters, keyof MemoryCounters | "preemptions">

/** All at zero. */
export function newCounters(): OwnCounters {
  return {
    accepted: 0,
    finished: 0,
    aborted: 0,
    failed: 0,
    refused: 0,
    steps: 0,
    reusedGraphs: 0,
    promptTokens: 0,
    cachedTokens: 0,
    completionTokens: 0,
    queueMs: 0,
    decodeMs: 0,
    sampleMs: 0,
    betweenMs: 0,
  }
}

/** A client that is told to come back later than this thinks that nobody is there. */
const RETRY_SECONDS_MAX = 60

/** Seconds until those that wait are through, judged by how long requests took so far; 1 to 60. */
export function drainSeconds(
  waiting: number,
  { finished, decodeMs, sampleMs, betweenMs }: OwnCounters,
): number {
  const msPerRequest = (decodeMs + sampleMs + betweenMs) / Math.max(1, finished)
  const seconds = Math.ceil((Math.max(1, waiting) * msPerRequest) / 1000)
  return Math.min(RETRY_SECONDS_MAX, Math.max(1, seconds))
}

/** Puts a status together. */
export function statusOf(
  roster: Roster,
  { counters, step, now }: { counters: OwnCounters; step: StepStatus | undefined; now: number },
): EngineStatus {
  const { memory, running, waiting, queue, preemptions } = roster
  const { freeCells, activeCells, cachedCells, totalCells } = memory
  const requests = [
    ...running.map((sequence) => requestStatus(sequence, now)),
    ...queue.map((sequence, i) => requestStatus(sequence, now, i + 1)),
  ]
  return {
    running: running.length,
    waiting: waiting.length,
    freeCells,
    activeCells,
    cachedCells,
    totalCells,
    counters: { ...counters, ...memory.counters, preemptions },
    step,
    requests: requests.slice(0, REQUESTS_MAX),
  }
}

function requestStatus(sequence: Sequence, now: number, position?: number): RequestStatus {
  const { priority, client, promptTokens, cachedTokens, computedTokens } = sequence
  const running = sequence.isDecoding ? "answering" : "reading"
  return {
    state: position === undefined ? running : "waiting",
    ...(position === undefined ? {} : { position }),
    priority,
    client,
    promptTokens,
    cachedTokens,
    computedTokens,
    completionTokens: sequence.completionTokens,
    preemptions: sequence.preemptions,
    ageMs: now - sequence.submittedAt,
  }
}
