/**
 * The OpenAI-compatible API: its requests as commands, our events as its replies. Pure.
 *
 * @module
 */

import type { ChatCompletionRequest, OpenaiMessage, OpenaiUsage } from "../../api/openai.ts"
import type {
  AnswerEnd,
  AnswerUsage,
  ChatEvent,
  Message,
  TokenLogprobs,
  ToolCall,
} from "../../chat/message.ts"
import type { AnswerCommand, ChoiceEvent } from "../../services/generate.ts"
import { assert, CriaError } from "../../util/errors.ts"

/** What an answer's replies need beside its events. */
export interface CompletionContext {
  /** As the client wrote it. */
  readonly model: string
  readonly id: string
  /** Seconds since 1970. */
  readonly created: number
  /** How many answers there are. */
  readonly choices: number
  /** Send a last chunk with the usage. */
  readonly includeUsage: boolean
}

const EFFORTS: Readonly<Record<string, AnswerCommand["think"]>> = {
  none: false,
  minimal: "low",
  low: "low",
  medium: "medium",
  high: "high",
  max: "max",
  xhigh: "max",
  ultra: "max",
}

/** @throws {CriaError} `invalid-input` with the texts that clients know. */
export function chatCompletionCommand(request: ChatCompletionRequest): AnswerCommand {
  if (request.messages.length === 0) {
    throw new CriaError("invalid-input", "[] is too short - 'messages'")
  }
  return {
    operation: "chat",
    model: request.model,
    options: { temperature: 1, top_p: 1, ...request.options, ...optionsOf(request) },
    input: {
      kind: "chat",
      messages: request.messages.flatMap((message) => toMessages(message, request.messages)),
      tools: request.tools.map(({ function: { name, description, parameters } }) => ({
        name,
        ...(description === "" ? {} : { description }),
        ...(parameters === undefined ? {} : { parameters }),
      })),
      truncate: false,
      before: [],
      withModelTurns: true,
    },
    think: thinkOf(request.reasoning?.effort ?? request.reasoning_effort ?? undefined),
    format: schemaOf(request),
    logprobs: request.logprobs ? request.top_logprobs : undefined,
    wantsContext: false,
  }
}

/** The data of each server-sent event of a streamed completion. */
export async function* completionChunks(
  events: AsyncIterable<ChoiceEvent>,
  context: CompletionContext,
): AsyncGenerator<object, undefined> {
  const head = {
    id: context.id,
    object: "chat.completion.chunk",
    created: context.created,
    model: context.model,
    system_fingerprint: "fp_ollama",
  }
  const choices = Array.from({ length: context.choices }, (_, i) => new ChunkedChoice(i))
  const usages: AnswerUsage[] = []
  for await (const { choice, event } of events) {
    for (const chunk of choices[choice]?.chunks(event) ?? []) yield { ...head, choices: [chunk] }
    if (event.kind === "done") usages.push(event.usage)
  }
  if (context.includeUsage) yield { ...head, choices: [], usage: usageOf(usages) }
}

/** What the chunks of one choice have to know of those before. */
class ChunkedChoice {
  readonly #index: number
  readonly #calls: ToolCall[] = []
  #role: { role?: "assistant" } = { role: "assistant" }

  constructor(index: number) {
    this.#index = index
  }

  *chunks(event: ChatEvent): Generator<object> {
    if (event.kind === "delta") {
      const deltas = deltasOf(event)
      for (const [i, delta] of deltas.entries())
        yield this.#chunk(delta, wireLogprobs(i === deltas.length - 1 ? event.logprobs : []))
    } else if (event.kind === "tool-call") {
      const call = wireToolCall(event.call, this.#calls.length)
      this.#calls.push(event.call)
      yield this.#chunk({ content: "", tool_calls: [call] })
    } else yield this.#chunk({}, { finish_reason: finishReason(event.reason, this.#calls) })
  }

  #chunk(delta: object, rest: object = {}): object {
    const role = this.#role
    this.#role = {}
    return { index: this.#index, delta: { ...role, ...delta }, finish_reason: null, ...rest }
  }
}

/** A whole completion. */
export async function completionReply(
  events: AsyncIterable<ChoiceEvent>,
  context: CompletionContext,
): Promise<object> {
  const choices = Array.from({ length: context.choices }, (_, i) => new WholeChoice(i))
  const usages: AnswerUsage[] = []
  for await (const { choice, event } of events) {
    choices[choice]?.add(event)
    if (event.kind === "done") usages.push(event.usage)
  }
  return {
    id: context.id,
    object: "chat.completion",
    created: context.created,
    model: context.model,
    system_fingerprint: "fp_ollama",
    choices: choices.map((choice) => choice.reply()),
    usage: usageOf(usages),
  }
}

/** Collects one choice. */
class WholeChoice {
  readonly #index: number
  readonly #calls: ToolCall[] = []
  readonly #logprobs: TokenLogprobs[] = []
  #content = ""
  #reasoning = ""
  #end: AnswerEnd | undefined

  constructor(index: number) {
    this.#index = index
  }

  add(event: ChatEvent): void {
    if (event.kind === "delta") {
      this.#content += event.content
      this.#reasoning += event.thinking
      this.#logprobs.push(...event.logprobs)
    } else if (event.kind === "tool-call") this.#calls.push(event.call)
    else this.#end = event.reason
  }

  reply(): object {
    assert(this.#end !== undefined, "an answer ends with done")
    return {
      index: this.#index,
      message: {
        role: "assistant",
        content: this.#content,
        ...(this.#reasoning === "" ? {} : { reasoning: this.#reasoning }),
        ...(this.#calls.length === 0 ? {} : { tool_calls: this.#calls.map(wireToolCall) }),
      },
      finish_reason: finishReason(this.#end, this.#calls),
      ...wireLogprobs(this.#logprobs),
    }
  }
}

/** The error envelope of all routes under `/v1`. */
export function openaiError(status: number, message: string): object {
  const type =
    status === 400 ? "invalid_request_error" : status === 404 ? "not_found_error" : "api_error"
  return { error: { message, type, param: null, code: null } }
}

/** Thinking and content never share a chunk. A delta of neither carries log-probabilities. */
function deltasOf({ content, thinking }: { content: string; thinking: string }): object[] {
  const reasoning = thinking === "" ? [] : [{ content: "", reasoning: thinking }]
  return content === "" && thinking !== "" ? reasoning : [...reasoning, { content }]
}

function optionsOf(request: ChatCompletionRequest): Record<string, unknown> {
  const options = {
    // Ollama ignores the second, which is what OpenAI's own clients send by now.
    num_predict: request.max_tokens ?? request.max_completion_tokens,
    seed: request.seed,
    temperature: request.temperature,
    top_p: request.top_p,
    frequency_penalty: request.frequency_penalty,
    presence_penalty: request.presence_penalty,
    stop: request.stop.length === 0 ? undefined : request.stop,
  }
  const given = Object.entries(options).filter(([, value]) => value !== undefined && value !== null)
  return Object.fromEntries(given)
}

function thinkOf(effort: string | undefined): AnswerCommand["think"] {
  if (effort === undefined) return undefined
  if (Object.hasOwn(EFFORTS, effort)) return EFFORTS[effort]
  throw new CriaError(
    "invalid-input",
    `invalid reasoning value: ${JSON.stringify(effort)} (must be "minimal", "low", "medium", "high", "xhigh", ` +
      `"ultra", "max", or "none")`,
  )
}

function schemaOf({ response_format: format }: ChatCompletionRequest): string | undefined {
  if (format?.type === "json_object") return '{"type":"object"}'
  const schema = format?.type === "json_schema" ? format.json_schema?.schema : undefined
  return schema === undefined ? undefined : JSON.stringify(schema)
}

/** Each part of a message's content becomes a message of its own; calls and reasoning go with the last. */
function toMessages(message: OpenaiMessage, all: readonly OpenaiMessage[]): Message[] {
  const texts = textsOf(message)
  const isTool = message.role === "tool"
  const toolName = isTool ? message.name || nameOfCall(message.tool_call_id, all) : ""
  const extras = {
    ...(message.reasoning === "" ? {} : { thinking: message.reasoning }),
    ...(toolName === "" ? {} : { toolName }),
    ...(message.tool_call_id === "" ? {} : { toolCallId: message.tool_call_id }),
    ...(message.tool_calls.length === 0 ? {} : { toolCalls: message.tool_calls.map(toToolCall) }),
  }
  return texts.map((content, i) => ({
    role: message.role,
    content,
    ...(i === texts.length - 1 ? extras : {}),
  }))
}

function textsOf({ content, tool_calls: calls }: OpenaiMessage): string[] {
  if (typeof content === "string") return [content]
  if (content === null || content === undefined) {
    if (calls.length > 0) return [""]
    throw new CriaError("invalid-input", "invalid message content type: <nil>")
  }
  if (content.length === 0) return [""]
  return content.map((part) => {
    if (part.type === "text" && part.text !== undefined) return part.text
    if (part.type === "image_url" || part.type === "input_audio") {
      const message = `Cannot use content of type "${part.type}": this version of cria reads text only`
      throw new CriaError("invalid-input", message)
    }
    throw new CriaError("invalid-input", "invalid message format")
  })
}

function nameOfCall(id: string, all: readonly OpenaiMessage[]): string {
  const calls = all.flatMap((message) => message.tool_calls)
  return calls.findLast((call) => call.id === id)?.function.name ?? ""
}

function toToolCall(call: OpenaiMessage["tool_calls"][number]): ToolCall {
  if (!isJsonObject(call.function.arguments)) {
    throw new CriaError("invalid-input", "invalid tool call arguments")
  }
  return { id: call.id, name: call.function.name, arguments: call.function.arguments }
}

function isJsonObject(text: string): boolean {
  try {
    const value: unknown = JSON.parse(text)
    return typeof value === "object" && value !== null && !Array.isArray(value)
  } catch {
    return false
  }
}

function wireToolCall(call: ToolCall, index: number): object {
  const { id, name, arguments: text } = call
  return { id, index, type: "function", function: { name, arguments: text } }
}

function finishReason(reason: "stop" | "length", calls: readonly ToolCall[]): string {
  return reason === "stop" && calls.length > 0 ? "tool_calls" : reason
}

/** Of all choices together. They have one prompt: what was in the cache is what the first of them found there. */
function usageOf(usages: readonly AnswerUsage[]): OpenaiUsage {
  const promptTokens = usages[0]?.promptTokens ?? 0
  const completionTokens = usages.reduce((sum, usage) => sum + usage.completionTokens, 0)
  return {
    prompt_tokens: promptTokens,
    completion_tokens: completionTokens,
    total_tokens: promptTokens + completionTokens,
    prompt_tokens_details: {
      cached_tokens: Math.min(...usages.map(({ cachedTokens }) => cachedTokens)),
    },
    queue_ms: toMicros(Math.max(...usages.map(({ queueMs }) => queueMs))),
    preempted_count: usages.reduce((sum, { preemptions }) => sum + preemptions, 0),
  }
}

/** Milliseconds to the microsecond. */
function toMicros(ms: number): number {
  return Math.round(ms * 1000) / 1000
}

function wireLogprobs(logprobs: readonly TokenLogprobs[]): { logprobs?: object } {
  if (logprobs.length === 0) return {}
  return {
    logprobs: { content: logprobs.map(({ top, ...token }) => ({ ...token, top_logprobs: top })) },
  }
}
