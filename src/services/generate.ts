/**
 * The use case behind every chat and completion route: find the model, check what it can do, have it loaded, answer.
 *
 * @module
 */

import type { ChatEvent, Message, Tool } from "../chat/message.ts"
import type { RequestTerms } from "../chat/terms.ts"
import type { Config } from "../config.ts"
import { type Options, parseOptions } from "../modelfile/parameters.ts"
import type { Lease, ModelSpec, Pool, PooledRunner } from "../pool/pool.ts"
import type { AnswerInput, AnswerRequest, EngineStatus } from "../runner/protocol.ts"
import { CriaError, toCriaError } from "../util/errors.ts"
import { Merged, withCleanup } from "../util/iterate.ts"
import type { Logger } from "../util/log.ts"
import { limitsOf, loadOptionsOf, samplingOf } from "./options.ts"
import { type Resolver, type RunnableModel, runnerKey } from "./resolve.ts"
import { isGptOss, NO_TEMPLATE, readTemplate } from "./template.ts"

/** What every request says about itself. */
export interface ModelRequest {
  /** As the client wrote it. */
  readonly model: string
  /** Unchecked, under Ollama's names. */
  readonly options: Readonly<Record<string, unknown>>
  /** Undefined keeps what the model has. */
  readonly keepAliveMs?: number | undefined
}

/** A request for an answer. */
export interface AnswerCommand extends ModelRequest {
  /** What the client calls it, for errors. */
  readonly operation: "chat" | "generate"
  readonly input:
    | {
        readonly kind: "chat"
        readonly messages: readonly Message[]
        readonly tools: readonly Tool[]
        readonly truncate: boolean
        readonly before: readonly number[]
        /** In place of the model's SYSTEM text. */
        readonly system?: string | undefined
        /** Put the model's own MESSAGE turns in front. */
        readonly withModelTurns: boolean
        /** Go template in place of the model's. */
        readonly template?: string | undefined
      }
    | {
        /** Text that is missing between two others. */
        readonly kind: "insert"
        readonly prompt: string
        readonly suffix: string
        readonly before: readonly number[]
        /** Go template in place of the model's. */
        readonly template?: string | undefined
      }
    | { readonly kind: "text"; readonly text: string }
  /** Undefined: on when the model can. A text is a level. */
  readonly think?: boolean | string | undefined
  /** JSON schema as text. */
  readonly format?: string | undefined
  readonly logprobs?: number | undefined
  readonly wantsContext: boolean
  /** Go on when the context is full, without the older half of it. */
  readonly shift?: boolean
  readonly terms?: RequestTerms
}

type ChatInput = Extract<AnswerCommand["input"], { kind: "chat" }>
type InsertInput = Extract<AnswerCommand["input"], { kind: "insert" }>

/** An answer on its way. */
export interface Answer {
  /** Milliseconds from the request to the moment the model was ready for it. */
  readonly loadMs: number
  /** They hold the model: iterate them to the end, or return them. */
  readonly events: AsyncIterableIterator<ChatEvent, undefined>
}

/** An event of one of several answers to the same request. */
export interface ChoiceEvent {
  /** From 0 on. */
  readonly choice: number
  readonly event: ChatEvent
}

/** Several answers on their way. */
export interface Answers extends Omit<Answer, "events"> {
  /** In the order in which they come. They hold the model, as those of one answer do. */
  readonly events: AsyncIterableIterator<ChoiceEvent, undefined>
}

/** What answers need of a runner; `runner/handle.ts` is one. */
export interface ModelRunner extends PooledRunner {
  answer(request: AnswerRequest, signal?: AbortSignal): AsyncIterable<ChatEvent>
  render(request: AnswerRequest): Promise<string>
  status(): Promise<EngineStatus>
  /** After each change, at most so often; ends when the runner does. */
  statuses(intervalMs: number, signal?: AbortSignal): AsyncIterable<EngineStatus>
}

/** Use cases over one store and one pool. */
export class Generator {
  readonly #resolver: Resolver
  readonly #pool: Pool<ModelRunner>
  readonly #config: Config
  readonly #log: Logger
  /** Models whose owner was told what is not used of them. */
  readonly #told = new Set<string>()

  constructor(parts: { resolver: Resolver; pool: Pool<ModelRunner>; config: Config; log: Logger }) {
    this.#resolver = parts.resolver
    this.#pool = parts.pool
    this.#config = parts.config
    this.#log = parts.log
  }

  /**
   * Loads the model if need be and starts to answer.
   *
   * @throws {CriaError} Whatever stands in the way, before the first event.
   */
  async answer(command: AnswerCommand, signal?: AbortSignal): Promise<Answer> {
    const { request, lease, loadMs } = await this.#start(command, signal)
    const events = lease.runner.answer(request, signal)
    return { loadMs, events: withCleanup(events, () => lease[Symbol.dispose]()) }
  }

  /**
   * Several answers to one request, side by side: the prompt is computed once. Where the request has a seed, each answer
   * has the next one.
   *
   * @throws {CriaError} As {@link answer}.
   */
  async answers(command: AnswerCommand, count: number, signal?: AbortSignal): Promise<Answers> {
    const { request, lease, loadMs } = await this.#start(command, signal)
    const { runner } = lease
    const merged = new Merged<ChoiceEvent>(signal)
    for (let choice = 0; choice < count; choice++) {
      const one = withSeed(request, choice)
      merged.add((ended) => numbered(runner.answer(one, ended), choice))
    }
    return { loadMs, events: withCleanup(merged, () => lease[Symbol.dispose]()) }
  }

  /** The prompt that a request would give the model. */
  async render(command: AnswerCommand, signal?: AbortSignal): Promise<string> {
    const model = this.#resolver.resolve(command.model)
    checkAbilities(command, model)
    const options = this.#options(model, command.options)
    using lease = await this.#lease(model, options, command.keepAliveMs, signal)
    return await lease.runner.render(toRequest(command, model, options))
  }

  /** Loads a model without asking it anything. */
  async load(request: ModelRequest, signal?: AbortSignal): Promise<void> {
    const model = this.#resolver.resolve(request.model)
    const options = this.#options(model, request.options)
    using _ = await this.#lease(model, options, request.keepAliveMs, signal)
  }

  /** Unloads a model as soon as nobody uses it; fine when it is not loaded. */
  unload(name: string): void {
    this.#pool.unload(runnerKey(this.#resolver.resolve(name)))
  }

  /** Finds the model and has it loaded. */
  async #start(command: AnswerCommand, signal: AbortSignal | undefined) {
    const started = performance.now()
    const model = this.#resolver.resolve(command.model)
    checkAbilities(command, model)
    const options = this.#options(model, command.options)
    const request = toRequest(command, model, options)
    const lease = await this.#lease(model, options, command.keepAliveMs, signal)
    return { request, lease, loadMs: performance.now() - started }
  }

  /** The model's parameters overlaid with the request's. */
  #options(model: RunnableModel, requested: Readonly<Record<string, unknown>>): Options {
    const onUnknown = (name: string) =>
      this.#log.warn("invalid option provided", { option: name, model: model.name })
    const own = parseOptions(model.stored.params ?? {}, onUnknown)
    return { ...own, ...parseOptions(requested, onUnknown) }
  }

  async #lease(
    model: RunnableModel,
    options: Options,
    keepAliveMs: number | undefined,
    signal: AbortSignal | undefined,
  ): Promise<Lease<ModelRunner>> {
    this.#tellUnused(model, options)
    const spec: ModelSpec = {
      key: runnerKey(model),
      load: loadOptionsOf(model, options, this.#config),
    }
    try {
      return await this.#pool.acquire(spec, { keepAliveMs, signal })
    } catch (error) {
      signal?.throwIfAborted()
      throw asLoadFailure(error)
    }
  }

  /** Nothing guesses further tokens yet. Answers are the same; who made the model expects them sooner. */
  #tellUnused({ name, stored }: RunnableModel, options: Options): void {
    const unused = [
      ...(stored.draftPath === undefined ? [] : ["DRAFT"]),
      ...((options.draft_num_predict ?? 0) > 0 ? ["draft_num_predict"] : []),
    ].join(", ")
    const key = `${stored.id} ${unused}`
    if (unused === "" || this.#told.has(key)) return
    this.#told.add(key)
    this.#log.warn("speculative decoding is not available", { model: name, unused })
  }
}

async function* numbered(
  events: AsyncIterable<ChatEvent>,
  choice: number,
): AsyncGenerator<ChoiceEvent> {
  for await (const event of events) yield { choice, event }
}

/** Ollama's default of num_keep. */
const KEPT_TOKENS = 4

/** Each choice is drawn for itself; what is to come out the same each time still does. */
function withSeed(request: AnswerRequest, choice: number): AnswerRequest {
  const { sampling } = request
  if (sampling.seed < 0) return request
  return { ...request, sampling: { ...sampling, seed: (sampling.seed + choice) % 2 ** 32 } }
}

/** What is wrong with a model's file is not the fault of the request: clients see status 500. */
function asLoadFailure(error: unknown): CriaError {
  const known = toCriaError(error)
  if (known.code !== "invalid-input") return known
  const options = known.hint === undefined ? {} : { hint: known.hint }
  return new CriaError("internal", known.message, { ...options, cause: error })
}

function checkAbilities(command: AnswerCommand, model: RunnableModel): void {
  const { capabilities, fullName } = model
  const isThinking = command.think !== undefined && command.think !== false
  if (isThinking && !capabilities.includes("thinking")) throw cannotThink(command, model)
  if (!capabilities.includes("completion")) {
    const message = `"${command.model}" does not support ${command.operation}`
    throw new CriaError("invalid-input", message)
  }
  const hasTools = command.input.kind === "chat" && command.input.tools.length > 0
  const needs = [
    ...(hasTools ? ["tools"] : []),
    ...(command.input.kind === "insert" ? ["insert"] : []),
  ]
  const missing = needs.filter((need) => capabilities.every((name) => name !== need))
  if (missing.length > 0) {
    const lines = missing.map((capability) => `${fullName} does not support ${capability}`)
    throw new CriaError("invalid-input", lines.join("\n"))
  }
}

/** Older files of some models that think have templates that do not. */
function cannotThink({ model: requested }: AnswerCommand, model: RunnableModel): CriaError {
  const isOutdated = isReasoner(model)
  const advice = ". Pull the model again to get the latest version with full thinking support"
  const message = `"${requested}" does not support thinking${isOutdated ? advice : ""}`
  return new CriaError("invalid-input", message)
}

function toRequest(command: AnswerCommand, model: RunnableModel, options: Options): AnswerRequest {
  const { format, logprobs, wantsContext } = command
  return {
    input: toInput(command, model),
    sampling: samplingOf(options),
    ...limitsOf(options),
    ...(logprobs === undefined ? {} : { logprobs }),
    ...(format === undefined ? {} : { format }),
    ...(command.shift === true ? { shift: { keepTokens: options.num_keep ?? KEPT_TOKENS } } : {}),
    ...(command.terms === undefined ? {} : { terms: command.terms }),
    wantsContext,
  }
}

function toInput(command: AnswerCommand, model: RunnableModel): AnswerInput {
  const { input } = command
  if (input.kind === "text") return input
  const template = templateFor(command, input, model)
  const wish = thinkingWish(command, model, template !== undefined)
  if (input.kind === "insert") {
    const { kind, prompt, suffix, before } = input
    return { kind, prompt, suffix, before, template: template ?? NO_TEMPLATE, ...wish }
  }
  const messages = withModelTurns(input, model)
  return {
    kind: "chat",
    messages: template !== undefined && isReasoner(model) ? withoutThoughts(messages) : messages,
    tools: input.tools,
    truncate: input.truncate,
    before: input.before,
    ...(template === undefined ? {} : { template }),
    ...wish,
  }
}

/**
 * The Go template of the request, or of the model. A model without any template continues a prompt as it is; as a
 * chat it is asked in ChatML.
 */
function templateFor(
  { operation }: AnswerCommand,
  input: ChatInput | InsertInput,
  model: RunnableModel,
): string | undefined {
  if (input.template !== undefined) return readTemplate(input.template).template.source
  if (model.template !== undefined) return model.template.template.source
  return operation === "generate" && model.facts.chatTemplate === undefined
    ? NO_TEMPLATE
    : undefined
}

/** Go templates are told to think when the model can and nobody says no; those in files decide for themselves. */
function thinkingWish(
  { think }: AnswerCommand,
  model: RunnableModel,
  hasGoTemplate: boolean,
): { thinking?: boolean; effort?: string } {
  const byDefault = hasGoTemplate && model.capabilities.includes("thinking") ? true : undefined
  const wish = think ?? byDefault
  if (wish === undefined) return {}
  const thinking = wish !== false
  return typeof wish === "string" ? { thinking, effort: effortOf(wish, model) } : { thinking }
}

/** gpt-oss knows no level above high. */
function effortOf(level: string, { facts }: RunnableModel): string {
  return level === "max" && isGptOss(facts) ? "high" : level
}

/** Models that were trained without the thoughts of earlier turns, and whose Go templates leave them in. */
function isReasoner({ facts, stored }: RunnableModel): boolean {
  return facts.architecture === "qwen3" || stored.name.model === "deepseek-r1"
}

/** Clients may send answers back as they got them, thoughts in front; only those behind the last question stay. */
function withoutThoughts(messages: readonly Message[]): Message[] {
  const last = messages.findLastIndex(({ role }) => role === "user")
  return messages.map((message, i) =>
    message.role === "assistant" && i < last
      ? { ...message, content: message.content.replace(/^\s*<think>[\s\S]*?<\/think>\s*/, "") }
      : message,
  )
}

/** The system text unless the request begins with its own, then the model's MESSAGE turns, then the request. */
function withModelTurns(input: ChatInput, { stored }: RunnableModel): Message[] {
  const { messages } = input
  const turns = input.withModelTurns ? (stored.messages ?? []) : []
  const hasSystem = messages[0]?.role === "system"
  const system = input.system ?? (hasSystem ? "" : (stored.system ?? ""))
  return [
    ...(system === "" ? [] : [{ role: "system", content: system }]),
    ...turns.map(({ role, content }) => ({ role, content })),
    ...messages,
  ]
}
