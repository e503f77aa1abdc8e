/**
 * Reads answers to prompts of Go templates: thoughts between the template's tags, then content, then calls of tools.
 *
 * Pure. Text that may still become a tag is held back until it is clear.
 *
 * @module
 */

import type { ThinkingTags } from "./go-chat.ts"

/** Text of one kind. */
export interface AnswerPart {
  readonly content: string
  readonly thinking: string
}

type State = "before" | "opened" | "thinking" | "closed" | "content"

/** Separates thoughts from content. Blank text around the tags belongs to neither. */
export class ThinkingReader {
  readonly #tags: ThinkingTags
  #state: State
  #held = ""

  /** @param isOpen The prompt ends with the opening tag. */
  constructor(tags: ThinkingTags, isOpen: boolean) {
    this.#tags = tags
    this.#state = isOpen ? "opened" : "before"
  }

  push(text: string): AnswerPart {
    this.#held += text
    const part = { content: "", thinking: "" }
    while (this.#advance(part));
    return part
  }

  /** The rest, when nothing more comes. */
  finish(): AnswerPart {
    const rest = this.#held
    this.#held = ""
    if (this.#state === "thinking") return { content: "", thinking: rest }
    const isBlank = this.#state === "opened" || this.#state === "closed"
    return { content: isBlank ? "" : rest, thinking: "" }
  }

  /** @returns Whether there may be more to do. */
  #advance(part: { content: string; thinking: string }): boolean {
    if (this.#state === "before") return this.#before()
    if (this.#state === "thinking") return this.#thinking(part)
    if (this.#state === "content") {
      part.content += this.#held
      this.#held = ""
      return false
    }
    this.#held = this.#held.trimStart()
    if (this.#held === "") return false
    return this.#enter(this.#state === "opened" ? "thinking" : "content", this.#held)
  }

  /** The opening tag comes first, or there are no thoughts. */
  #before(): boolean {
    const { opening } = this.#tags
    const trimmed = this.#held.trimStart()
    if (trimmed.startsWith(opening)) return this.#enter("opened", trimmed.slice(opening.length))
    return opening.startsWith(trimmed) ? false : this.#enter("content", this.#held)
  }

  #thinking(part: { thinking: string }): boolean {
    const { closing } = this.#tags
    const end = this.#held.indexOf(closing)
    if (end !== -1) {
      part.thinking += this.#held.slice(0, end).trimEnd()
      return this.#enter("closed", this.#held.slice(end + closing.length))
    }
    const certain = this.#held.length - uncertainEnd(this.#held, closing)
    part.thinking += this.#held.slice(0, certain)
    this.#held = this.#held.slice(certain)
    return false
  }

  #enter(state: State, rest: string): true {
    this.#state = state
    this.#held = rest
    return true
  }
}

/** Characters at the end that may be blank space before the tag, or its beginning. */
function uncertainEnd(text: string, tag: string): number {
  const start = tagStart(text, tag)
  return text.length - text.slice(0, text.length - start).trimEnd().length
}

/** Length of the longest end of a text that begins a tag. */
export function tagStart(text: string, tag: string): number {
  for (let length = Math.min(tag.length - 1, text.length); length > 0; length -= 1) {
    if (text.endsWith(tag.slice(0, length))) return length
  }
  return 0
}
