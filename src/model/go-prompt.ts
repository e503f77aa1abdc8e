/**
 * Prompts of models whose Modelfile has a Go template, and how the answers to them are read.
 *
 * @module
 */

import {
  type ChatTemplate,
  readChatTemplate,
  renderChat,
  renderInsert,
  type ThinkingTags,
} from "../chat/go-chat.ts"
import type { Message } from "../chat/message.ts"
import type { AnswerInput } from "./request.ts"

/** How to read the answer to a prompt of a Go template. */
export interface TagReading {
  /** Undefined: there are no thoughts, all is content. */
  readonly thinking: ThinkingTags | undefined
  /** The prompt ends inside of the thoughts. */
  readonly isThinkingOpen: boolean
  /** What calls of tools begin with. */
  readonly toolTag: string
  /** Of the tools that may be called; without any, all text is content. */
  readonly toolNames: readonly string[]
}

/** A rendered prompt. */
export interface GoPrompt {
  readonly text: string
  readonly reading: TagReading
}

type ChatInput = Extract<AnswerInput, { kind: "chat" }>
type InsertInput = Extract<AnswerInput, { kind: "insert" }>

/** Models share runners, so one runner may see the templates of several. Reading one takes a millisecond. */
const TEMPLATES_MAX = 8

/** Renders with templates that come with the requests, and keeps the latest. */
export class GoPrompts {
  readonly #known = new Map<string, ChatTemplate>()

  /**
   * @param messages What to render in place of the input's own.
   * @throws {CriaError} What {@link readChatTemplate} and {@link renderChat} throw.
   */
  chat(source: string, input: ChatInput, messages: readonly Message[]): GoPrompt {
    const template = this.#read(source)
    const text = renderChat(template, { ...input, messages })
    const thinking = input.thinking === true ? template.thinking : undefined
    return {
      text,
      reading: {
        thinking,
        isThinkingOpen: thinking !== undefined && text.trimEnd().endsWith(thinking.opening),
        toolTag: template.toolTag,
        toolNames: input.tools.map(({ name }) => name),
      },
    }
  }

  /** @throws {CriaError} What {@link readChatTemplate} and {@link renderInsert} throw. */
  insert(input: InsertInput, gap: { readonly prompt: string; readonly suffix: string }): string {
    return renderInsert(this.#read(input.template), { ...input, ...gap })
  }

  #read(source: string): ChatTemplate {
    const template = this.#known.get(source) ?? readChatTemplate(source)
    this.#known.delete(source)
    this.#known.set(source, template)
    const [oldest] = this.#known.keys()
    if (this.#known.size > TEMPLATES_MAX && oldest !== undefined) this.#known.delete(oldest)
    return template
  }
}
