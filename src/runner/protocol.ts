/**
 * What the server and a runner say to each other: one JSON object a line, over the runner's stdin and stdout.
 *
 * The runner is the same executable, so both sides know the same version; a runner of another version is refused.
 *
 * @module
 */

import { z } from "zod"

import type { ChatEvent, Message, Tool } from "../chat/message.ts"
import { type CacheSetting, parseCacheSetting } from "../engine/cache-type.ts"
import type { EngineStatus } from "../engine/engine-status.ts"
import type { SamplingOptions } from "../engine/sampling.ts"
import {
  type AnswerInput,
  type AnswerRequest,
  type LoadedFacts,
  type LoadOptions,
  MODEST_TOKENS,
} from "../model/request.ts"
import { CriaError, ERROR_CODES, type ErrorCode } from "../util/errors.ts"

export type { AnswerInput, AnswerRequest, EngineStatus, LoadedFacts, LoadOptions }
export { MODEST_TOKENS }

/** Raised whenever a frame changes. */
export const PROTOCOL_VERSION = 5

const message: z.ZodType<Message> = z.object({
  role: z.string(),
  content: z.string(),
  thinking: z.string().exactOptional(),
  toolCalls: z
    .array(z.object({ id: z.string(), name: z.string(), arguments: z.string() }))
    .exactOptional(),
  toolName: z.string().exactOptional(),
  toolCallId: z.string().exactOptional(),
})

const tool: z.ZodType<Tool> = z.object({
  name: z.string(),
  description: z.string().exactOptional(),
  parameters: z.unknown().optional(),
})

const sampling: z.ZodType<SamplingOptions> = z.object({
  temperature: z.number(),
  topK: z.number(),
  topP: z.number(),
  minP: z.number(),
  typicalP: z.number(),
  repeatPenalty: z.number(),
  repeatLastN: z.number(),
  presencePenalty: z.number(),
  frequencyPenalty: z.number(),
  seed: z.number(),
  logitBias: z.array(z.tuple([z.number(), z.number()])).exactOptional(),
})

const input: z.ZodType<AnswerInput> = z.discriminatedUnion("kind", [
  z.object({
    kind: z.literal("chat"),
    messages: z.array(message),
    tools: z.array(tool),
    thinking: z.boolean().exactOptional(),
    effort: z.string().exactOptional(),
    truncate: z.boolean(),
    before: z.array(z.number()),
    template: z.string().exactOptional(),
  }),
  z.object({
    kind: z.literal("insert"),
    prompt: z.string(),
    suffix: z.string(),
    template: z.string(),
    before: z.array(z.number()),
    thinking: z.boolean().exactOptional(),
    effort: z.string().exactOptional(),
  }),
  z.object({ kind: z.literal("text"), text: z.string() }),
])

const priority = z.enum(["interactive", "normal", "batch"])

const answerRequest: z.ZodType<AnswerRequest> = z.object({
  input,
  sampling,
  maxTokens: z.number().nullable(),
  contextTokens: z.number().exactOptional(),
  stop: z.array(z.string()),
  logprobs: z.number().exactOptional(),
  format: z.string().exactOptional(),
  wantsContext: z.boolean(),
  shift: z.object({ keepTokens: z.number() }).exactOptional(),
  terms: z
    .object({
      priority: priority.exactOptional(),
      client: z.string().exactOptional(),
      cacheScope: z.string().nullable().exactOptional(),
    })
    .exactOptional(),
})

const flashAttention = z.enum(["auto", "on", "off"])

const cacheType = z.custom<CacheSetting>(
  (value) => typeof value === "string" && parseCacheSetting(value) === value,
)

const loadOptions: z.ZodType<LoadOptions> = z.object({
  name: z.string(),
  path: z.string(),
  adapters: z.array(z.string()).exactOptional(),
  contextTokens: z.number().exactOptional(),
  parallel: z.number().exactOptional(),
  queueMax: z.number().exactOptional(),
  batchTokens: z.number().exactOptional(),
  threads: z.number().exactOptional(),
  gpuLayers: z.number().exactOptional(),
  mainGpu: z.number().exactOptional(),
  useMmap: z.boolean().exactOptional(),
  flashAttention: flashAttention.exactOptional(),
  cacheType: cacheType.exactOptional(),
  isWindowFull: z.boolean().exactOptional(),
  prefixRamBytes: z.number().exactOptional(),
  prefixDisk: z.object({ folder: z.string(), bytesMax: z.number() }).exactOptional(),
})

const command = z.discriminatedUnion("type", [
  z.object({ type: z.literal("load"), options: loadOptions }),
  z.object({ type: z.literal("answer"), id: z.number(), request: answerRequest }),
  /** Renders the prompt of a request without answering it. */
  z.object({ type: z.literal("render"), id: z.number(), request: answerRequest }),
  z.object({ type: z.literal("status"), id: z.number() }),
  /** A status after each change, at most so often, until it is aborted. */
  z.object({ type: z.literal("watch"), id: z.number(), intervalMs: z.number() }),
  z.object({ type: z.literal("abort"), id: z.number() }),
  z.object({ type: z.literal("stop") }),
])

/** From the server to the runner. */
export type RunnerCommand = z.infer<typeof command>

/** Schema of {@link Failure}. */
export const failure: z.ZodType<Failure> = z.object({
  code: z.enum(ERROR_CODES),
  message: z.string(),
  hint: z.string().exactOptional(),
  retryAfterSeconds: z.number().exactOptional(),
})

/** A {@link CriaError} as data. */
export interface Failure {
  readonly code: ErrorCode
  readonly message: string
  readonly hint?: string
  readonly retryAfterSeconds?: number
}

const loadedFacts: z.ZodType<LoadedFacts> = z.object({
  contextTokens: z.number(),
  parallel: z.number(),
  runningMax: z.number().exactOptional(),
  window: z.enum(["kept", "sliding"]).exactOptional(),
  totalBytes: z.number(),
  gpuBytes: z.number(),
  llamaVersion: z.string(),
  cacheType,
  flashAttention,
  notes: z.array(z.string()).exactOptional(),
})

const probability = z.object({ token: z.string(), logprob: z.number(), bytes: z.array(z.number()) })

const chatEvent: z.ZodType<ChatEvent> = z.discriminatedUnion("kind", [
  z.object({
    kind: z.literal("delta"),
    content: z.string(),
    thinking: z.string(),
    logprobs: z.array(probability.extend({ top: z.array(probability) })),
  }),
  z.object({
    kind: z.literal("tool-call"),
    call: z.object({ id: z.string(), name: z.string(), arguments: z.string() }),
  }),
  z.object({
    kind: z.literal("done"),
    reason: z.enum(["stop", "length"]),
    usage: z.object({
      promptTokens: z.number(),
      cachedTokens: z.number(),
      completionTokens: z.number(),
      shiftedTokens: z.number(),
      preemptions: z.number(),
      queueMs: z.number(),
      promptMs: z.number(),
      decodeMs: z.number(),
    }),
    context: z.array(z.number()).exactOptional(),
    droppedMessages: z.number(),
  }),
])

const engineStatus: z.ZodType<EngineStatus> = z.object({
  running: z.number(),
  waiting: z.number(),
  freeCells: z.number(),
  activeCells: z.number(),
  cachedCells: z.number(),
  totalCells: z.number(),
  counters: z.object({
    accepted: z.number(),
    finished: z.number(),
    aborted: z.number(),
    failed: z.number(),
    refused: z.number(),
    steps: z.number(),
    reusedGraphs: z.number(),
    promptTokens: z.number(),
    cachedTokens: z.number(),
    completionTokens: z.number(),
    preemptions: z.number(),
    evictedTokens: z.number(),
    savedTokens: z.number(),
    restoredTokens: z.number(),
    queueMs: z.number(),
    decodeMs: z.number(),
    sampleMs: z.number(),
    betweenMs: z.number(),
  }),
  step: z
    .object({
      tokens: z.number(),
      promptTokens: z.number(),
      rows: z.number(),
      decodeMs: z.number(),
      sampleMs: z.number(),
      betweenMs: z.number(),
    })
    .optional(),
  requests: z.array(
    z.object({
      state: z.enum(["waiting", "reading", "answering"]),
      position: z.number().exactOptional(),
      priority,
      client: z.string(),
      promptTokens: z.number(),
      cachedTokens: z.number(),
      computedTokens: z.number(),
      completionTokens: z.number(),
      preemptions: z.number(),
      ageMs: z.number(),
    }),
  ),
})

const frame = z.discriminatedUnion("type", [
  z.object({ type: z.literal("hello"), protocol: z.number() }),
  z.object({ type: z.literal("progress"), fraction: z.number() }),
  z.object({ type: z.literal("ready"), facts: loadedFacts }),
  z.object({ type: z.literal("load-failed"), failure }),
  z.object({ type: z.literal("event"), id: z.number(), event: chatEvent }),
  z.object({ type: z.literal("status"), id: z.number(), status: engineStatus }),
  z.object({ type: z.literal("rendered"), id: z.number(), prompt: z.string() }),
  z.object({ type: z.literal("request-failed"), id: z.number(), failure }),
  /** Something goes on without a part of it. */
  z.object({ type: z.literal("warning"), message: z.string() }),
  /** It was told to stop, and still writes what outlives it. */
  z.object({ type: z.literal("saving") }),
  /** Nothing can be computed any more: the process ends when its requests have failed. */
  z.object({ type: z.literal("broken"), failure }),
])

/** From the runner to the server. */
export type RunnerFrame = z.infer<typeof frame>

/** @throws {Error} When a line is not a command: a bug, both sides are ours. */
export function parseCommand(line: string): RunnerCommand {
  return command.parse(JSON.parse(line))
}

/**
 * The frame of a line; undefined when it is something else, such as a stray print of a native library.
 *
 * @throws {Error} When it is no frame: a bug, both sides are ours.
 */
export function parseFrame(line: string): RunnerFrame | undefined {
  if (!line.startsWith("{")) return undefined
  const value: unknown = JSON.parse(line)
  return isDelta(value) ? value : frame.parse(value)
}

type DeltaFrame = Extract<RunnerFrame, { type: "event" }>

/** There is one for every token: a full check would be a quarter of the server's work for it. */
function isDelta(value: unknown): value is DeltaFrame {
  const { type, id, event } = value as Partial<DeltaFrame>
  return type === "event" && typeof id === "number" && event?.kind === "delta"
}

/** An error as data. */
export function toFailure({ code, message: text, hint, retryAfterSeconds }: CriaError): Failure {
  return {
    code,
    message: text,
    ...(hint === undefined ? {} : { hint }),
    ...(retryAfterSeconds === undefined ? {} : { retryAfterSeconds }),
  }
}

/** Data as an error. */
export function fromFailure({ code, message: text, ...options }: Failure): CriaError {
  return new CriaError(code, text, options)
}
