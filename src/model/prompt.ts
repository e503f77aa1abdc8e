/**
 * From a request to the tokens of its prompt.
 *
 * Text that people wrote must not be able to forge turns: when a user's or a tool's message spells a control token,
 * that spelling is replaced by a placeholder before rendering and tokenised as plain text afterwards.
 *
 * @module
 */

import { NativeChat, type RenderedPrompt, type TemplateRequest } from "../../ffi/chat.ts"
import type { NativeModel } from "../../ffi/model.ts"
import type { Message, Tool } from "../chat/message.ts"
import { TooLong } from "../engine/check-request.ts"
import { GoPrompts, type TagReading } from "./go-prompt.ts"
import type { AnswerInput, AnswerRequest } from "./request.ts"
import { leastEnough } from "./truncate.ts"

/** A prompt ready for the engine. */
export interface PreparedPrompt {
  readonly text: string
  readonly tokens: Int32Array
  /** How to read the answer; undefined for a Go template, and for a prompt that was given as text. */
  readonly rendered: RenderedPrompt | undefined
  /** How to read the answer to the prompt of a Go template. */
  readonly reading?: TagReading
  readonly droppedMessages: number
}

/** A prompt that may have placeholders in it. */
interface MarkedPrompt {
  readonly text: string
  readonly rendered: RenderedPrompt | undefined
  readonly reading?: TagReading
}

type ChatInput = Extract<AnswerInput, { kind: "chat" }>

/** What bounds a prompt. */
export interface PromptLimits {
  /** The prompt has to be shorter when messages may be left out. */
  readonly contextTokens: number
  /** Aborted when nobody wants it any more. */
  readonly signal?: AbortSignal | undefined
}

interface RenderOptions {
  readonly format: string | undefined
  /** Messages at the front to leave out, but for those of the system. */
  readonly dropped: number
  readonly limits: PromptLimits
}

/** What belongs to a marked prompt. */
interface PromptParts {
  readonly marks: readonly string[]
  /** Tokens of an earlier answer that it goes on from. */
  readonly before: readonly number[]
  readonly droppedMessages: number
  readonly limits: PromptLimits
}

/** Few texts have so many characters a token. */
const TOKEN_CHARS = 8

/** Shorter texts are counted exactly: that takes some hundredths of a second. */
const COUNTED_CHARS = 2 ** 17

/** Frames a placeholder: code points that Unicode leaves to private use. */
const MARK_START = "\uE0C7"
const MARK_END = "\uE0C8"

/** Prepares prompts for one model. A broken chat template fails chats, not the loading of the model. */
export class PromptBuilder implements Disposable {
  readonly #model: NativeModel
  readonly #control: RegExp | undefined
  readonly #goPrompts = new GoPrompts()
  #chat: NativeChat | undefined

  constructor(model: NativeModel) {
    this.#model = model
    this.#control = controlPattern(model)
  }

  /**
   * @throws {CriaError} `invalid-input` with the template's complaint, or for a prompt that is far too long; the
   * signal's reason.
   */
  async prepare(request: AnswerRequest, limits: PromptLimits): Promise<PreparedPrompt> {
    const { input, format } = request
    if (input.kind === "text") {
      await this.#checkLength(input.text, limits)
      const tokens = await this.#tokenize(input.text, [], limits)
      return { text: input.text, tokens, rendered: undefined, droppedMessages: 0 }
    }
    if (input.kind === "insert") return this.#insert(input, limits)
    const render = (dropped: number) => this.#render(input, { format, dropped, limits })
    const fit = input.truncate ? await fitting(input, render, limits.contextTokens) : undefined
    return fit ?? render(0)
  }

  [Symbol.dispose](): void {
    this.#chat?.[Symbol.dispose]()
  }

  #render(input: ChatInput, { format, dropped, limits }: RenderOptions): Promise<PreparedPrompt> {
    const kept = input.messages.filter((message, i) => i >= dropped || message.role === "system")
    const marks: string[] = []
    const messages = kept.map((message) => this.#mark(message, marks))
    const prompt =
      input.template === undefined
        ? this.#native(input, format, messages)
        : this.#go(input.template, input, messages)
    return this.#prepared(prompt, {
      marks,
      before: input.before,
      droppedMessages: input.messages.length - kept.length,
      limits,
    })
  }

  /** By the template in the model's file. */
  #native(
    input: ChatInput,
    format: string | undefined,
    messages: readonly Message[],
  ): MarkedPrompt {
    this.#chat ??= new NativeChat(this.#model.library, { model: this.#model })
    const rendered = this.#chat.render({
      messages: messages.map(templateMessage),
      ...templateOptions(input, format),
    })
    return { text: rendered.prompt, rendered }
  }

  #go(source: string, input: ChatInput, messages: readonly Message[]): MarkedPrompt {
    const { text, reading } = this.#goPrompts.chat(source, input, messages)
    return { text: this.#withoutBos(text), rendered: undefined, reading }
  }

  #insert(
    input: Extract<AnswerInput, { kind: "insert" }>,
    limits: PromptLimits,
  ): Promise<PreparedPrompt> {
    const marks: string[] = []
    const marked = (content: string) => this.#mark({ role: "user", content }, marks).content
    const prompt = marked(input.prompt)
    const text = this.#goPrompts.insert(input, { prompt, suffix: marked(input.suffix) })
    return this.#prepared(
      { text: this.#withoutBos(text), rendered: undefined },
      { marks, before: input.before, droppedMessages: 0, limits },
    )
  }

  async #prepared(
    prompt: MarkedPrompt,
    { marks, before, droppedMessages, limits }: PromptParts,
  ): Promise<PreparedPrompt> {
    const earlier = before.map((token) => this.#model.vocabulary.text(token)).join("")
    const text = earlier + prompt.text
    await this.#checkLength(text, limits)
    return {
      ...prompt,
      text: unmark(text, marks),
      tokens: await this.#tokenize(text, marks, limits),
      droppedMessages,
    }
  }

  /** Templates may spell the token that the tokenizer puts in front; twice would confuse the model. */
  #withoutBos(text: string): string {
    const { add_bos: isAdded, bos } = this.#model.info.vocab
    const spelled = isAdded && bos >= 0 ? this.#model.vocabulary.text(bos) : ""
    return spelled !== "" && text.startsWith(spelled) ? text.slice(spelled.length) : text
  }

  /** Replaces spelled control tokens of untrusted messages by placeholders. */
  #mark(message: Message, marks: string[]): Message {
    const control = this.#control
    const isTrusted = message.role !== "user" && message.role !== "tool"
    if (control === undefined || isTrusted || !control.test(message.content)) return message
    const content = message.content.replaceAll(new RegExp(control, "g"), (spelled) => {
      marks.push(spelled)
      return `${MARK_START}${marks.length - 1}${MARK_END}`
    })
    return { ...message, content }
  }

  /**
   * Refuses what cannot fit by its beginning.
   *
   * @throws {CriaError} `invalid-input`
   */
  async #checkLength(text: string, { contextTokens, signal }: PromptLimits): Promise<void> {
    const beginning = text.slice(0, Math.max(COUNTED_CHARS, contextTokens * TOKEN_CHARS))
    if (beginning.length === text.length) return
    const options = { addSpecial: false, parseSpecial: true, signal }
    const { length } = await this.#model.tokenizeAside(beginning, options)
    // Cut elsewhere, a text can have some tokens more or less.
    const least = Math.floor(contextTokens * 1.25)
    if (length > least) throw new TooLong(`more than ${least}`, contextTokens)
  }

  async #tokenize(
    text: string,
    marks: readonly string[],
    { signal }: PromptLimits,
  ): Promise<Int32Array> {
    if (marks.length === 0) {
      return this.#model.tokenizeAside(text, { addSpecial: true, parseSpecial: true, signal })
    }
    const parts = text.split(new RegExp(`${MARK_START}(\\d+)${MARK_END}`))
    const tokens = parts.map((part, i) => {
      const isMark = i % 2 === 1
      const plain = isMark ? (marks[Number(part)] ?? "") : part
      return this.#model.tokenizeAside(plain, {
        addSpecial: i === 0,
        parseSpecial: !isMark,
        signal,
      })
    })
    return Int32Array.from((await Promise.all(tokens)).flatMap((part) => [...part]))
  }
}

/** With as few messages left out at the front as possible; undefined when even the last one is too long. */
async function fitting(
  { messages }: ChatInput,
  render: (dropped: number) => Promise<PreparedPrompt>,
  contextTokens: number,
): Promise<PreparedPrompt | undefined> {
  const attempt = async (dropped: number) => {
    try {
      const prepared = await render(dropped)
      return prepared.tokens.length < contextTokens ? prepared : undefined
    } catch (error) {
      if (dropped === 0 && !(error instanceof TooLong)) throw error
      // Many templates want turns in a certain order, and where we cut there may be another: then more has to go.
      return undefined
    }
  }
  return (await attempt(0)) ?? leastEnough(messages.length - 1, attempt)
}

function unmark(text: string, marks: readonly string[]): string {
  if (marks.length === 0) return text
  return text.replaceAll(
    new RegExp(`${MARK_START}(\\d+)${MARK_END}`, "g"),
    (_, index: string) => marks[Number(index)] ?? "",
  )
}

/** Matches the spelling of any control token, longest first; undefined when the model has none. */
function controlPattern(model: NativeModel): RegExp | undefined {
  const texts = model.vocabulary.controlTexts().toSorted((a, b) => b.length - a.length)
  if (texts.length === 0) return undefined
  return new RegExp(
    texts.map((text) => text.replaceAll(/[.*+?^${}()|[\]\\]/g, String.raw`\$&`)).join("|"),
  )
}

function templateMessage(message: Message): Record<string, unknown> {
  return {
    role: message.role,
    content: message.content,
    ...(message.thinking === undefined ? {} : { reasoning_content: message.thinking }),
    ...(message.toolName === undefined ? {} : { name: message.toolName }),
    ...(message.toolCallId === undefined ? {} : { tool_call_id: message.toolCallId }),
    ...(message.toolCalls === undefined || message.toolCalls.length === 0
      ? {}
      : {
          tool_calls: message.toolCalls.map((call) => ({
            id: call.id,
            type: "function",
            function: { name: call.name, arguments: call.arguments },
          })),
        }),
  }
}

function templateOptions(
  input: ChatInput,
  format: string | undefined,
): Omit<TemplateRequest, "messages"> {
  return {
    ...(input.tools.length === 0 ? {} : { tools: input.tools.map(templateTool) }),
    ...(format === undefined ? {} : { json_schema: format }),
    ...(input.thinking === undefined ? {} : { thinking: input.thinking }),
    ...(input.effort === undefined ? {} : { kwargs: { reasoning_effort: input.effort } }),
  }
}

function templateTool({ name, description, parameters }: Tool): Record<string, unknown> {
  return {
    type: "function",
    function: {
      name,
      ...(description === undefined ? {} : { description }),
      ...(parameters === undefined ? {} : { parameters }),
    },
  }
}
