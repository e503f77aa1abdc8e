/**
 * Wire schemas of the OpenAI-compatible API: what `/v1/chat/completions` takes and gives.
 *
 * @module
 */

import { z } from "zod"

import { flag, list, terms, text, topLogprobs } from "./parts.ts"

const part = z.object({ type: z.string(), text: z.string().optional() }).loose()

/** Most answers to one request: each is a request of its own to the engine. */
const CHOICES_MAX = 16

const choices = z
  .number()
  .nullish()
  .transform((value) => value ?? 1)
  .refine(
    (count) => Number.isInteger(count) && count >= 1 && count <= CHOICES_MAX,
    `n must be a whole number from 1 to ${CHOICES_MAX}`,
  )

const message = z.object({
  role: z.string(),
  content: z.union([z.string(), z.array(part)]).nullish(),
  reasoning: text,
  name: text,
  tool_call_id: text,
  tool_calls: list(z.object({ id: text, function: z.object({ name: text, arguments: text }) })),
})

/** One message of a request. */
export type OpenaiMessage = z.infer<typeof message>

/** POST /v1/chat/completions */
export const chatCompletionRequest = z.object({
  model: text,
  messages: list(message),
  n: choices,
  stream: flag(false),
  stream_options: z.object({ include_usage: flag(false) }).nullish(),
  max_tokens: z.number().nullish(),
  max_completion_tokens: z.number().nullish(),
  seed: z.number().nullish(),
  stop: z
    .union([z.string(), z.array(z.unknown())])
    .nullish()
    .transform((value) => {
      const stops = typeof value === "string" ? [value] : (value ?? [])
      return stops.filter((stop) => typeof stop === "string")
    }),
  temperature: z.number().nullish(),
  top_p: z.number().nullish(),
  frequency_penalty: z.number().nullish(),
  presence_penalty: z.number().nullish(),
  response_format: z
    .object({
      type: z.string(),
      json_schema: z.object({ schema: z.unknown().optional() }).nullish(),
    })
    .nullish(),
  tools: list(
    z.object({
      type: text,
      function: z.object({ name: text, description: text, parameters: z.unknown().optional() }),
    }),
  ),
  reasoning: z.object({ effort: z.string().nullish() }).nullish(),
  reasoning_effort: z.string().nullish(),
  logprobs: flag(false),
  top_logprobs: topLogprobs,
  user: z.string().nullish(),
  service_tier: z.string().nullish(),
  ...terms,
  /** As in Ollama's own API: beyond OpenAI's. */
  options: z
    .record(z.string(), z.unknown())
    .nullish()
    .transform((value) => value ?? {}),
})

/** POST /v1/chat/completions */
export type ChatCompletionRequest = z.infer<typeof chatCompletionRequest>

/** What a request cost. */
export interface OpenaiUsage {
  readonly prompt_tokens: number
  readonly completion_tokens: number
  readonly total_tokens: number
  readonly prompt_tokens_details: { readonly cached_tokens: number }
  /** Milliseconds from arrival to the first step. Not in OpenAI's, as the next. */
  readonly queue_ms: number
  /** How often it had to give way to others. */
  readonly preempted_count: number
}
