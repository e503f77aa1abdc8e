/**
 * Reads an answer by the tags that a Go template shows.
 *
 * @module
 */

import { type AnswerPart, ThinkingReader } from "../chat/tagged-answer.ts"
import { type FoundCall, ToolReader } from "../chat/tool-reader.ts"
import type { TagReading } from "./go-prompt.ts"

/** First thoughts, then content, and calls of tools out of that. */
export class TagReader {
  readonly #thinking: ThinkingReader | undefined
  readonly #tools: ToolReader | undefined
  readonly #calls: FoundCall[] = []

  constructor({ thinking, isThinkingOpen, toolTag, toolNames }: TagReading) {
    if (thinking !== undefined) this.#thinking = new ThinkingReader(thinking, isThinkingOpen)
    if (toolNames.length > 0) this.#tools = new ToolReader(toolTag, toolNames)
  }

  push(text: string): AnswerPart[] {
    return this.#read(this.#thinking?.push(text) ?? { content: text, thinking: "" })
  }

  finish(): AnswerPart[] {
    const last = this.#thinking === undefined ? [] : this.#read(this.#thinking.finish())
    const rest = this.#tools?.finish() ?? ""
    return rest === "" ? last : [...last, { content: rest, thinking: "" }]
  }

  /** Calls found so far. */
  get calls(): readonly FoundCall[] {
    return this.#calls
  }

  #read({ content, thinking }: AnswerPart): AnswerPart[] {
    const found = this.#tools?.push(content) ?? { content, calls: [] }
    this.#calls.push(...found.calls)
    const part = { content: found.content, thinking }
    return part.content === "" && part.thinking === "" ? [] : [part]
  }
}
