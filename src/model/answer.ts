/**
 * From the engine's chunks of text to events of a conversation: thinking, content, tool calls.
 *
 * @module
 */

import { NativeParser, type ParsedDelta } from "../../ffi/chat.ts"
import type { NativeLibrary } from "../../ffi/native.ts"
import type { ChatEvent, TokenLogprobs, ToolCall } from "../chat/message.ts"
import type { TokenLogprob } from "../engine/output.ts"
import type { EngineEvent } from "../engine/sequence.ts"
import type { Vocabulary } from "../engine/vocabulary.ts"
import type { TagReading } from "./go-prompt.ts"
import type { ParseShare, ParseTurns } from "./parse-share.ts"
import type { PreparedPrompt } from "./prompt.ts"
import { TagReader } from "./tag-reader.ts"

/** What turning an answer into events needs. */
export interface AnswerContext {
  readonly library: NativeLibrary
  readonly vocabulary: Vocabulary
  readonly prompt: PreparedPrompt
  readonly parsing: ParseShare
  readonly hasTools: boolean
  readonly wantsContext: boolean
}

/** Turns one answer into events. */
export async function* answerEvents(
  events: AsyncIterable<EngineEvent>,
  context: AnswerContext,
): AsyncGenerator<ChatEvent> {
  using reader = readerFor(context)
  const logprobs = new LogprobTexts(context.vocabulary)
  for await (const event of events) {
    if (event.kind === "text") {
      logprobs.add(event.logprobs)
      yield* asDeltas(reader.push(event.text), logprobs)
      continue
    }
    yield* asDeltas(reader.finish(), logprobs)
    // Tokens of a tool call, and those that gave no text.
    if (!logprobs.isEmpty) yield* asDeltas([{ content: "", thinking: "" }], logprobs)
    for (const call of reader.toolCalls(event.reason.kind === "length"))
      yield { kind: "tool-call", call }
    yield {
      kind: "done",
      reason: event.reason.kind,
      usage: event.usage,
      droppedMessages: context.prompt.droppedMessages,
      ...(context.wantsContext ? { context: [...context.prompt.tokens, ...event.completion] } : {}),
    }
  }
}

function readerFor(context: AnswerContext): AnswerReader {
  const { rendered, reading } = context.prompt
  if (rendered !== undefined) return new ParsedReader(context)
  return reading === undefined ? new PlainReader() : new TaggedReader(reading)
}

function* asDeltas(
  parts: readonly { content: string; thinking: string }[],
  logprobs: LogprobTexts,
): Generator<ChatEvent> {
  for (const { content, thinking } of parts) {
    yield { kind: "delta", content, thinking, logprobs: logprobs.take() }
  }
}

interface AnswerReader extends Disposable {
  push(text: string): { content: string; thinking: string }[]
  finish(): { content: string; thinking: string }[]
  toolCalls(isCut: boolean): ToolCall[]
}

/** All text is content. */
class PlainReader implements AnswerReader {
  push(text: string): { content: string; thinking: string }[] {
    return text === "" ? [] : [{ content: text, thinking: "" }]
  }

  finish(): { content: string; thinking: string }[] {
    return []
  }

  toolCalls(): ToolCall[] {
    return []
  }

  [Symbol.dispose](): void {}
}

/** Thoughts and calls are found by the tags of a Go template. */
class TaggedReader implements AnswerReader {
  readonly #reader: TagReader

  constructor(reading: TagReading) {
    this.#reader = new TagReader(reading)
  }

  push(text: string): { content: string; thinking: string }[] {
    return this.#reader.push(text)
  }

  finish(): { content: string; thinking: string }[] {
    return this.#reader.finish()
  }

  toolCalls(): ToolCall[] {
    return this.#reader.calls.map((call) => ({ id: `call_${randomId()}`, ...call }))
  }

  [Symbol.dispose](): void {}
}

/** Text goes through the parser that belongs to the chat template. */
class ParsedReader implements AnswerReader {
  readonly #parser: NativeParser
  readonly #calls = new Map<number, ToolCall>()
  readonly #turns: ParseTurns
  #unread = ""

  constructor({ library, prompt, parsing, hasTools }: AnswerContext) {
    if (prompt.rendered === undefined)
      throw new Error("Broken invariant: a parser needs a template")
    this.#parser = new NativeParser(library, prompt.rendered, { tools: hasTools })
    this.#turns = parsing.join()
  }

  push(text: string): { content: string; thinking: string }[] {
    this.#unread += text
    return this.#turns.isDue(performance.now()) ? this.#parse(false) : []
  }

  finish(): { content: string; thinking: string }[] {
    return this.#parse(true)
  }

  /** @param isCut The answer ended at the token limit: a call without complete arguments is no call. */
  toolCalls(isCut: boolean): ToolCall[] {
    const calls = [...this.#calls.values()]
    return isCut ? calls.filter((call) => isJson(call.arguments)) : calls
  }

  [Symbol.dispose](): void {
    this.#turns[Symbol.dispose]()
    this.#parser[Symbol.dispose]()
  }

  #parse(isFinal: boolean): { content: string; thinking: string }[] {
    const started = performance.now()
    const deltas = this.#parser.feed(this.#unread, isFinal)
    this.#turns.took(started, performance.now())
    this.#unread = ""
    for (const { tool } of deltas) if (tool !== undefined) this.#addTool(tool)
    return deltas
      .map(({ content = "", thinking = "" }) => ({ content, thinking }))
      .filter(({ content, thinking }) => content !== "" || thinking !== "")
  }

  #addTool(delta: NonNullable<ParsedDelta["tool"]>): void {
    const call = this.#calls.get(delta.index) ?? { id: "", name: "", arguments: "" }
    this.#calls.set(delta.index, {
      id: call.id || delta.id || `call_${randomId()}`,
      name: call.name + delta.name,
      arguments: call.arguments + delta.arguments,
    })
  }
}

/** Collects log-probabilities until a delta takes them along. */
class LogprobTexts {
  readonly #vocabulary: Vocabulary
  #waiting: TokenLogprobs[] = []

  constructor(vocabulary: Vocabulary) {
    this.#vocabulary = vocabulary
  }

  get isEmpty(): boolean {
    return this.#waiting.length === 0
  }

  add(logprobs: readonly TokenLogprob[]): void {
    for (const { token, logprob, top } of logprobs) {
      this.#waiting.push({
        ...this.#textOf(token, logprob),
        top: top.map((alternative) => this.#textOf(alternative.token, alternative.logprob)),
      })
    }
  }

  take(): TokenLogprobs[] {
    const taken = this.#waiting
    this.#waiting = []
    return taken
  }

  #textOf(token: number, logprob: number): { token: string; logprob: number; bytes: number[] } {
    return {
      token: this.#vocabulary.text(token),
      logprob,
      bytes: [...this.#vocabulary.piece(token)],
    }
  }
}

function isJson(text: string): boolean {
  try {
    JSON.parse(text)
    return true
  } catch {
    return false
  }
}

/** Eight characters, as in Ollama's tool-call ids. */
function randomId(): string {
  const letters = "abcdefghijklmnopqrstuvwxyz0123456789"
  const bytes = crypto.getRandomValues(new Uint8Array(8))
  return Array.from(bytes, (byte) => letters[byte % letters.length]).join("")
}
