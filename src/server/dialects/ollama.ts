/**
 * Ollama's native API: its requests as commands, our events as its replies. Pure.
 *
 * @module
 */

import type {
  ChatReply,
  ChatRequest,
  GenerateReply,
  GenerateRequest,
  Metrics,
  ModelDetails,
  ShowReply,
  TagsModel,
  WireLogprob,
  WireToolCall,
} from "../../api/ollama.ts"
import type {
  AnswerUsage,
  ChatEvent,
  Message,
  TokenLogprobs,
  ToolCall,
} from "../../chat/message.ts"
import type {
  DescribedModel,
  InstalledModel,
  ModelConfig,
  RemoteModel,
} from "../../services/catalog.ts"
import type { AnswerCommand } from "../../services/generate.ts"
import { parametersText } from "../../services/modelfile.ts"
import type { RunnableModel } from "../../services/resolve.ts"
import { NO_TEMPLATE } from "../../services/template.ts"
import { CriaError } from "../../util/errors.ts"
import { formatLocal, formatUtc } from "../../util/units.ts"

/** What an answer's replies need beside its events. */
export interface ReplyContext {
  /** As the client wrote it. */
  readonly model: string
  /** Milliseconds since 1970. */
  readonly now: () => number
  /** When the request arrived, on the same clock. */
  readonly startedAt: number
  readonly loadMs: number
}

/** @throws {CriaError} `invalid-input` for what cannot be asked for. */
export function generateCommand(request: GenerateRequest): AnswerCommand {
  const hasContext = (request.context?.length ?? 0) > 0
  if (request.raw && (request.template !== "" || request.system !== "" || hasContext)) {
    throw new CriaError("invalid-input", "raw mode does not support template, system, or context")
  }
  if (request.images.length > 0) throw noVision()
  return {
    ...sharedCommand(request),
    operation: "generate",
    input: generateInput(request),
    wantsContext: !request.raw,
  }
}

function generateInput(request: GenerateRequest): AnswerCommand["input"] {
  const { raw, prompt, suffix } = request
  if (raw) return { kind: "text", text: prompt }
  const before = request.context ?? []
  const template = request.template || undefined
  // As in Ollama neither system text nor turns of the model go with a suffix.
  if (suffix !== "") return { kind: "insert", prompt, suffix, before, template }
  return {
    kind: "chat",
    messages: [{ role: "user", content: prompt }],
    tools: [],
    truncate: false,
    before,
    system: request.system || undefined,
    withModelTurns: !request.context,
    template,
  }
}

/** @throws {CriaError} `invalid-input` for what cannot be asked for. */
export function chatCommand(request: ChatRequest): AnswerCommand {
  if (request.messages.some((message) => message.images.length > 0)) throw noVision()
  return {
    ...sharedCommand(request),
    operation: "chat",
    input: {
      kind: "chat",
      messages: request.messages.map(toMessage),
      tools: request.tools.map(({ function: { name, description, parameters } }) => ({
        name,
        ...(description === "" ? {} : { description }),
        ...(parameters === undefined ? {} : { parameters }),
      })),
      // Ollama leaves old messages out unless it is told not to; we leave nothing out that nobody asked to.
      truncate: request.truncate === true,
      before: [],
      withModelTurns: true,
    },
    wantsContext: false,
  }
}

/** Lines of a streamed reply to POST /api/generate; the last one is `done`. */
export async function* generateReplies(
  events: AsyncIterable<ChatEvent>,
  context: ReplyContext,
): AsyncGenerator<GenerateReply, undefined> {
  for await (const event of events) {
    const head = { model: context.model, created_at: formatUtc(context.now()) }
    if (event.kind === "delta") {
      yield {
        ...head,
        response: event.content,
        ...(event.thinking === "" ? {} : { thinking: event.thinking }),
        done: false,
        ...wireLogprobs(event.logprobs),
      }
    } else if (event.kind === "done") {
      yield {
        ...head,
        response: "",
        done: true,
        done_reason: event.reason,
        ...(event.context === undefined ? {} : { context: event.context }),
        ...metrics(event.usage, context),
      }
    }
  }
}

/** Lines of a streamed reply to POST /api/chat; tool calls are in the last one, which is `done`. */
export async function* chatReplies(
  events: AsyncIterable<ChatEvent>,
  context: ReplyContext,
): AsyncGenerator<ChatReply, undefined> {
  const calls: ToolCall[] = []
  for await (const event of events) {
    const head = { model: context.model, created_at: formatUtc(context.now()) }
    if (event.kind === "tool-call") {
      calls.push(event.call)
    } else if (event.kind === "delta") {
      const { content, thinking } = event
      const message = {
        role: "assistant",
        content,
        ...(thinking === "" ? {} : { thinking }),
      } as const
      yield { ...head, message, done: false, ...wireLogprobs(event.logprobs) }
    } else {
      const tools = calls.length === 0 ? {} : { tool_calls: calls.map(wireToolCall) }
      yield {
        ...head,
        message: { role: "assistant", content: "", ...tools },
        done: true,
        done_reason: event.reason,
        ...metrics(event.usage, context),
        ...(event.droppedMessages === 0 ? {} : { dropped_messages: event.droppedMessages }),
      }
    }
  }
}

/** The whole reply to POST /api/generate. */
export async function generateReply(replies: AsyncIterable<GenerateReply>): Promise<GenerateReply> {
  const whole = new Whole()
  for await (const reply of replies) {
    whole.add(reply.response, reply.thinking, reply.logprobs)
    if (reply.done) return { ...reply, response: whole.content, ...whole.rest() }
  }
  throw new Error("Broken invariant: an answer ends with done")
}

/** The whole reply to POST /api/chat. */
export async function chatReply(replies: AsyncIterable<ChatReply>): Promise<ChatReply> {
  const whole = new Whole()
  for await (const reply of replies) {
    const { message, logprobs } = reply
    whole.add(message.content, message.thinking, logprobs)
    if (!reply.done) continue
    const { thinking, ...rest } = whole.rest()
    return {
      ...reply,
      message: {
        ...message,
        content: whole.content,
        ...(thinking === undefined ? {} : { thinking }),
      },
      ...rest,
    }
  }
  throw new Error("Broken invariant: an answer ends with done")
}

/** An entry of GET /api/tags. */
export function tagsModel({ name, id, sizeBytes, modifiedAt, config }: InstalledModel): TagsModel {
  const { context_length, embedding_length, capabilities, remote_model, remote_host } = config
  return {
    name,
    model: name,
    ...(remote_model ? { remote_model } : {}),
    ...(remote_host ? { remote_host } : {}),
    modified_at: formatLocal(modifiedAt.getTime()),
    size: sizeBytes,
    digest: id,
    details: {
      ...configDetails(config),
      ...(context_length === undefined ? {} : { context_length }),
      ...(embedding_length === undefined ? {} : { embedding_length }),
    },
    ...(capabilities === undefined ? {} : { capabilities }),
  }
}

/** Keys of the metadata that `show` gives elsewhere. */
const HIDDEN_KEYS = ["general.name", "tokenizer.chat_template"]

/** Reply of POST /api/show. */
export function showReply(described: DescribedModel, system: string): ShowReply {
  const { model, modelfile, metadata, projector } = described
  const { stored, facts } = model
  const parameters = parametersText(stored.params ?? {})
  const own = model.template?.template.source
  const template = own ?? facts.chatTemplate ?? stored.template ?? NO_TEMPLATE
  const shown = system || stored.system
  const info = Object.entries(metadata).filter(([key]) => !HIDDEN_KEYS.includes(key))
  return {
    ...(stored.licenses.length === 0 ? {} : { license: stored.licenses.join("\n") }),
    modelfile,
    ...(parameters === "" ? {} : { parameters }),
    template,
    ...(shown ? { system: shown } : {}),
    details: { ...details(model), parent_model: stored.parentModel ?? "" },
    ...(stored.messages === undefined
      ? {}
      : { messages: stored.messages.map(({ role, content }) => ({ role, content })) }),
    model_info: {
      ...Object.fromEntries(info),
      "general.parameter_count": facts.parameterCount,
    },
    ...(projector === undefined ? {} : { projector_info: projector }),
    tensors: model.header.tensors.map(({ name, type, dims }) => ({
      name,
      type: type.name,
      shape: dims,
    })),
    capabilities: model.capabilities,
    modified_at: formatLocal(stored.modifiedAt.getTime()),
    ...(stored.config.requires === undefined ? {} : { requires: stored.config.requires }),
  }
}

/** Reply of POST /api/show for a model that answers on another machine. */
export function remoteReply(remote: RemoteModel): ShowReply {
  const { config, remoteHost, remoteModel, system, messages, licenses } = remote
  const { model_family: family, context_length: context, embedding_length: width } = config
  const parameters = parametersText(remote.params ?? {})
  return {
    ...(licenses.length === 0 ? {} : { license: licenses.join("\n") }),
    modelfile: "",
    ...(parameters === "" ? {} : { parameters }),
    ...(system ? { system } : {}),
    details: configDetails(config),
    ...(messages === undefined
      ? {}
      : { messages: messages.map(({ role, content }) => ({ role, content })) }),
    remote_model: remoteModel,
    remote_host: remoteHost,
    model_info:
      family === undefined
        ? {}
        : {
            "general.architecture": family,
            ...(context === undefined ? {} : { [`${family}.context_length`]: context }),
            ...(width === undefined ? {} : { [`${family}.embedding_length`]: width }),
          },
    tensors: [],
    capabilities: config.capabilities ?? [],
    modified_at: formatLocal(remote.modifiedAt.getTime()),
    ...(config.requires === undefined ? {} : { requires: config.requires }),
  }
}

/** What a config says, without a look at the weights. */
function configDetails(config: ModelConfig): ModelDetails {
  return {
    parent_model: "",
    format: config.model_format ?? "gguf",
    family: config.model_family ?? "",
    families: config.model_families ?? null,
    parameter_size: config.model_type ?? "",
    quantization_level: config.file_type ?? "",
  }
}

/** What is known of a model's weights. */
export function details({ stored, facts }: RunnableModel): ModelDetails {
  const { config } = stored
  const isKnown = config.file_type !== undefined && config.file_type !== "unknown"
  return {
    parent_model: "",
    format: config.model_format ?? "gguf",
    family: config.model_family ?? facts.architecture,
    families: config.model_families ?? [facts.architecture],
    parameter_size: config.model_type ?? facts.parameterLabel,
    quantization_level: isKnown ? (config.file_type ?? "") : facts.quantization,
  }
}

/** What generate and chat have in common. */
function sharedCommand(
  request: GenerateRequest | ChatRequest,
): Omit<AnswerCommand, "operation" | "input" | "wantsContext"> {
  return {
    model: request.model,
    options: request.options,
    keepAliveMs: request.keep_alive,
    think: request.think,
    format: formatSchema(request.format),
    logprobs: request.logprobs ? request.top_logprobs : undefined,
    shift: request.shift === true,
  }
}

/**
 * The JSON schema of `format`, as text.
 *
 * @throws {CriaError} `internal`: Ollama's status for it is 500.
 */
export function formatSchema(format: unknown): string | undefined {
  if (format === undefined || format === null || format === "") return undefined
  if (format === "json") return '{"type":"object"}'
  if (typeof format === "object" && !Array.isArray(format)) return JSON.stringify(format)
  throw new CriaError(
    "internal",
    `invalid format: ${JSON.stringify(format)}; expected "json" or a valid JSON Schema object`,
  )
}

function toMessage(message: ChatRequest["messages"][number]): Message {
  return {
    role: message.role,
    content: message.content,
    ...(message.thinking === "" ? {} : { thinking: message.thinking }),
    ...(message.tool_name === "" ? {} : { toolName: message.tool_name }),
    ...(message.tool_call_id === "" ? {} : { toolCallId: message.tool_call_id }),
    ...(message.tool_calls.length === 0
      ? {}
      : {
          toolCalls: message.tool_calls.map((call) => ({
            id: call.id,
            name: call.function.name,
            arguments: JSON.stringify(call.function.arguments),
          })),
        }),
  }
}

function wireToolCall(call: ToolCall, index: number): WireToolCall {
  return { id: call.id, function: { index, name: call.name, arguments: parseArguments(call) } }
}

/** @throws {CriaError} `internal` when the model wrote something else than JSON. */
function parseArguments(call: ToolCall): unknown {
  try {
    return JSON.parse(call.arguments === "" ? "{}" : call.arguments)
  } catch (cause) {
    const message = `Cannot read the arguments of the call of "${call.name}" as JSON`
    throw new CriaError("internal", message, { cause })
  }
}

function wireLogprobs(logprobs: readonly TokenLogprobs[]): { logprobs?: readonly WireLogprob[] } {
  if (logprobs.length === 0) return {}
  return {
    logprobs: logprobs.map(({ top, ...token }) => ({
      ...token,
      ...(top.length === 0 ? {} : { top_logprobs: top }),
    })),
  }
}

function metrics(usage: AnswerUsage, context: ReplyContext): Metrics {
  const all = {
    total_duration: nanos(context.now() - context.startedAt),
    load_duration: nanos(context.loadMs),
    prompt_eval_count: usage.promptTokens,
    prompt_eval_duration: nanos(usage.promptMs),
    eval_count: usage.completionTokens,
    eval_duration: nanos(usage.decodeMs),
    prompt_eval_cached_count: usage.cachedTokens,
    queue_duration: nanos(usage.queueMs),
    shifted_tokens: usage.shiftedTokens,
    preempted_count: usage.preemptions,
  }
  return Object.fromEntries(Object.entries(all).filter(([, value]) => value !== 0))
}

function nanos(ms: number): number {
  return Math.round(ms * 1e6)
}

function unsupported(field: string, reason: string): CriaError {
  return new CriaError("invalid-input", `Cannot use "${field}": ${reason}`)
}

function noVision(): CriaError {
  return unsupported("images", "this version of cria reads text only")
}

/** Collects a streamed reply. */
class Whole {
  content = ""
  #thinking = ""
  readonly #logprobs: WireLogprob[] = []

  add(content: string, thinking = "", logprobs: readonly WireLogprob[] = []): void {
    this.content += content
    this.#thinking += thinking
    this.#logprobs.push(...logprobs)
  }

  rest(): { thinking?: string; logprobs?: readonly WireLogprob[] } {
    return {
      ...(this.#thinking === "" ? {} : { thinking: this.#thinking }),
      ...(this.#logprobs.length === 0 ? {} : { logprobs: this.#logprobs }),
    }
  }
}
