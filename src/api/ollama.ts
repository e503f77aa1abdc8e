/**
 * Wire schemas of Ollama's native API: what `/api/generate`, `/api/chat` and `/api/show` take.
 *
 * @module
 */

import { z } from "zod"

import { errorMessage } from "../util/errors.ts"
import { parseDurationMs } from "../util/units.ts"
import { flag, list, terms, text, topLogprobs } from "./parts.ts"

/** Levels of thinking; `true` and `false` are the others. */
const THINK_LEVELS = ["low", "medium", "high", "max"] as const

/** How much the model shall think. */
export type Think = boolean | (typeof THINK_LEVELS)[number]

const THINK_CHOICES = '"high", "medium", "low", "max", true, or false'

const think = z
  .unknown()
  .optional()
  .transform((value, context): Think | undefined => {
    if (value === undefined || value === null) return undefined
    if (typeof value === "boolean") return value
    const level = THINK_LEVELS.find((name) => name === value)
    if (level !== undefined) return level
    const message =
      typeof value === "string"
        ? `invalid think value: ${JSON.stringify(value)} (must be ${THINK_CHOICES})`
        : `think must be a boolean or string (${THINK_CHOICES})`
    context.addIssue({ code: "custom", message })
    return z.NEVER
  })

/** Milliseconds; Infinity for a negative value, undefined when not given. */
const keepAlive = z
  .unknown()
  .optional()
  .transform((value, context): number | undefined => {
    if (value === undefined || value === null) return undefined
    try {
      if (typeof value === "number") return value < 0 ? Infinity : value * 1000
      if (typeof value === "string") {
        const ms = parseDurationMs(value)
        return ms < 0 ? Infinity : ms
      }
      context.addIssue({ code: "custom", message: `Unsupported type: '${goType(value)}'` })
    } catch (error) {
      context.addIssue({ code: "custom", message: errorMessage(error) })
    }
    return z.NEVER
  })

/** Go's name for the type of a JSON value that is neither number nor text. */
function goType(value: unknown): string {
  if (typeof value === "boolean") return "bool"
  return Array.isArray(value) ? "[]interface {}" : "map[string]interface {}"
}

const options = z
  .record(z.string(), z.unknown())
  .nullish()
  .transform((value) => value ?? {})

const toolCall = z.object({
  id: text,
  function: z.object({
    name: text,
    arguments: z
      .record(z.string(), z.unknown())
      .nullish()
      .transform((value) => value ?? {}),
  }),
})

const message = z.object({
  role: text.transform((role) => role.toLowerCase()),
  content: text,
  thinking: text,
  images: list(z.string()),
  tool_calls: list(toolCall),
  tool_name: text,
  tool_call_id: text,
})

const tool = z.object({
  type: text,
  function: z.object({ name: text, description: text, parameters: z.unknown().optional() }),
})

const shared = {
  model: text,
  stream: flag(true),
  format: z.unknown().optional(),
  keep_alive: keepAlive,
  options,
  think,
  truncate: z.boolean().nullish(),
  shift: z.boolean().nullish(),
  logprobs: flag(false),
  top_logprobs: topLogprobs,
  _debug_render_only: flag(false),
  ...terms,
}

/** POST /api/generate */
export const generateRequest = z.object({
  ...shared,
  prompt: text,
  suffix: text,
  system: text,
  template: text,
  context: z.array(z.number()).nullish(),
  raw: flag(false),
  images: list(z.string()),
})

/** POST /api/generate */
export type GenerateRequest = z.infer<typeof generateRequest>

/** POST /api/chat */
export const chatRequest = z.object({ ...shared, messages: list(message), tools: list(tool) })

/** POST /api/chat */
export type ChatRequest = z.infer<typeof chatRequest>

/** POST /api/show */
export const showRequest = z.object({
  model: text,
  name: text,
  verbose: flag(false),
  system: text,
  options,
})

/** POST /api/show */
export type ShowRequest = z.infer<typeof showRequest>

const transfer = { model: text, name: text, insecure: flag(false), stream: flag(true) }

/** POST /api/pull */
export const pullRequest = z.object({
  ...transfer,
  /** Quantisation to take of those that the repository has; not in Ollama. */
  quant: text,
})

/** POST /api/pull */
export type PullRequest = z.infer<typeof pullRequest>

/** POST /api/push */
export const pushRequest = z.object(transfer)

/** POST /api/push */
export type PushRequest = z.infer<typeof pushRequest>

/** POST /api/fit; not in Ollama. */
export const fitRequest = z.object({ model: text, name: text, insecure: flag(false) })

/** POST /api/fit */
export type FitRequest = z.infer<typeof fitRequest>

/** Reply of POST /api/fit. Sizes in bytes. */
export interface FitReply {
  readonly memory: { readonly gpu: number; readonly host: number }
  readonly quants: readonly {
    readonly quant: string
    readonly tag: string
    readonly size: number
    /** More than one when the repository has it in parts. */
    readonly files: number
    /** Where it would be. */
    readonly place: "gpu" | "partly" | "cpu" | "none"
    /** Tokens of the longest context that fits. */
    readonly context: number
    /** What a pull without a tag takes. */
    readonly chosen: boolean
  }[]
}

/** A line of the reply of requests that take long. Sizes in bytes. */
export interface ProgressReply {
  readonly status: string
  readonly digest?: string
  readonly total?: number
  readonly completed?: number
}

/** Details of a model, in many replies. */
export interface ModelDetails {
  /** The model that the weights were taken from; empty in lists. */
  readonly parent_model: string
  readonly format: string
  readonly family: string
  readonly families: readonly string[] | null
  readonly parameter_size: string
  readonly quantization_level: string
  readonly context_length?: number
  readonly embedding_length?: number
}

/** An entry of GET /api/tags. */
export interface TagsModel {
  readonly name: string
  readonly model: string
  /** Of a model that answers on another machine: its name there, and the address. */
  readonly remote_model?: string
  readonly remote_host?: string
  readonly modified_at: string
  readonly size: number
  readonly digest: string
  readonly details: ModelDetails
  readonly capabilities?: readonly string[]
}

/** What an engine does: counts at this moment and since the model was loaded, the last step, each request. */
export interface PsEngine {
  readonly [count: string]: unknown
  readonly step?: Readonly<Record<string, number>>
  readonly requests: readonly Readonly<Record<string, string | number | undefined>>[]
}

/** An entry of GET /api/ps. */
export interface PsModel {
  readonly name: string
  readonly model: string
  readonly size: number
  readonly digest: string
  readonly details: ModelDetails
  readonly expires_at: string
  readonly size_vram: number
  readonly context_length: number
  /** Type of the KV cache, or `keys/values`. Not in Ollama, as the next two. */
  readonly kv_cache_type?: string
  /** `auto`, `on` or `off`, as it was loaded. */
  readonly flash_attention?: string
  /** What the engine does. */
  readonly engine?: PsEngine
}

/** Reply of POST /api/show. */
export interface ShowReply {
  readonly license?: string
  readonly modelfile: string
  readonly parameters?: string
  readonly template?: string
  readonly system?: string
  readonly details: ModelDetails
  readonly messages?: ReadonlyArray<{ readonly role: string; readonly content: string }>
  /** As in {@link TagsModel}. */
  readonly remote_model?: string
  readonly remote_host?: string
  readonly model_info: Readonly<Record<string, unknown>>
  /** Metadata of the first projector. */
  readonly projector_info?: Readonly<Record<string, unknown>>
  readonly tensors: ReadonlyArray<{
    readonly name: string
    readonly type: string
    readonly shape: readonly number[]
  }>
  readonly capabilities: readonly string[]
  readonly modified_at: string
  readonly requires?: string
}

/** Durations in nanoseconds; each is left out when it is 0. */
export interface Metrics {
  readonly total_duration?: number
  readonly load_duration?: number
  readonly prompt_eval_count?: number
  readonly prompt_eval_duration?: number
  readonly eval_count?: number
  readonly eval_duration?: number
  /** Tokens of the prompt that were in the cache. Not in Ollama, as the rest. */
  readonly prompt_eval_cached_count?: number
  readonly queue_duration?: number
  /** Tokens that left the context, because `shift` was asked for. */
  readonly shifted_tokens?: number
  /** How often the answer had to wait for others in its middle. */
  readonly preempted_count?: number
}

/** A call of a tool in Ollama's shape: arguments are an object. */
export interface WireToolCall {
  readonly id: string
  readonly function: { readonly index: number; readonly name: string; readonly arguments: unknown }
}

/** A token's log-probability on the wire. */
export interface WireLogprob {
  readonly token: string
  readonly logprob: number
  readonly bytes?: readonly number[]
  readonly top_logprobs?: readonly WireLogprob[]
}

/** A line of the reply of POST /api/generate. */
export interface GenerateReply extends Metrics {
  readonly model: string
  readonly created_at: string
  readonly response: string
  readonly thinking?: string
  readonly done: boolean
  readonly done_reason?: string
  readonly context?: readonly number[]
  readonly logprobs?: readonly WireLogprob[]
}

/** A line of the reply of POST /api/chat. */
export interface ChatReply extends Metrics {
  readonly model: string
  readonly created_at: string
  readonly message: {
    readonly role: "assistant"
    readonly content: string
    readonly thinking?: string
    readonly tool_calls?: readonly WireToolCall[]
  }
  readonly done: boolean
  readonly done_reason?: string
  readonly logprobs?: readonly WireLogprob[]
  /** Messages at the front that were left out because `truncate` was asked for. Not in Ollama. */
  readonly dropped_messages?: number
}
