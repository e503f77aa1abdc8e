/**
 * Finds calls of tools in answers to prompts of Go templates, whose way to write them is known only by the text that
 * comes first.
 *
 * Pure. From the tag on all text is held until it is a call; each character is looked at once.
 *
 * @module
 */

import { tagStart } from "./tagged-answer.ts"

/** A call as the model wrote it. */
export interface FoundCall {
  readonly name: string
  /** JSON of an object. */
  readonly arguments: string
}

/** What a piece of text gave. */
export interface ToolPart {
  readonly content: string
  readonly calls: readonly FoundCall[]
}

/** Text that is held while it may become a call; beyond it is content. A call with a whole file in it is shorter. */
const HELD_CHARS_MAX = 4 * 2 ** 20

/** Reads one answer. */
export class ToolReader {
  readonly #tag: string
  readonly #names: readonly string[]
  /** A bracket as a tag counts only at the very beginning. */
  readonly #isBracket: boolean
  #state: "content" | "calls" | "done" = "content"
  #held = ""
  #hasContent = false
  #calls = 0
  #scan = new JsonScan()

  /** @param names Of the tools that may be called. */
  constructor(tag: string, names: readonly string[]) {
    this.#tag = tag
    this.#names = names.toSorted((a, b) => b.length - a.length)
    this.#isBracket = tag === "{" || tag === "["
  }

  push(text: string): ToolPart {
    this.#held += text
    const content = this.#state === "calls" ? "" : this.#untilTag()
    if (this.#state !== "calls") return { content, calls: [] }
    const calls = this.#takeCalls()
    return { content: content + this.#giveUp(), calls }
  }

  /** The rest, when nothing more comes: content, unless it was a broken call behind a tag. */
  finish(): string {
    const rest = this.#held
    this.#held = ""
    if (this.#state !== "calls") return rest
    return this.#isBracket && this.#calls === 0 ? rest : ""
  }

  /** Text before the tag. */
  #untilTag(): string {
    const held = this.#held
    if (this.#state === "done") return this.#release(held.length)
    if (!this.#isBracket) {
      const at = held.indexOf(this.#tag)
      if (at === -1) return this.#release(held.length - tagStart(held, this.#tag))
      this.#state = "calls"
      return this.#release(at)
    }
    const trimmed = held.trimStart()
    if (trimmed === "" && !this.#hasContent) return ""
    if (!this.#hasContent && trimmed.startsWith(this.#tag)) {
      this.#state = "calls"
      return ""
    }
    this.#state = "done"
    return this.#release(held.length)
  }

  #release(length: number): string {
    const released = this.#held.slice(0, length)
    this.#held = this.#held.slice(length)
    if (released.trim() !== "") this.#hasContent = true
    return released
  }

  #takeCalls(): FoundCall[] {
    const calls: FoundCall[] = []
    for (;;) {
      const call = this.#takeCall()
      if (call === undefined) return calls
      calls.push(call)
      this.#calls += 1
    }
  }

  /** A declared name, and the first object of JSON around or behind it. */
  #takeCall(): FoundCall | undefined {
    for (;;) {
      const part = this.#scan.next(this.#held)
      if (part === undefined) return undefined
      const call = part.isObject ? this.#callOf(part.start, part.end) : undefined
      if (call !== undefined) {
        this.#held = this.#held.slice(part.end)
        this.#scan = new JsonScan()
        return call
      }
      if (this.#isHopeless()) return undefined
    }
  }

  /** What began with a bracket was closed and was no call. */
  #isHopeless(): boolean {
    return this.#isBracket && this.#calls === 0 && this.#scan.isBalanced
  }

  #callOf(start: number, end: number): FoundCall | undefined {
    const value = parseObject(this.#held.slice(start, end))
    if (value === undefined) return undefined
    const inside = findCall(value, this.#names, 0)
    if (inside !== undefined) return inside
    const name = this.#lastName(this.#held.slice(0, start)) ?? this.#mentionedName(value)
    if (name === undefined) return undefined
    return { name, arguments: JSON.stringify(argumentsIn(value) ?? value) }
  }

  /** Some models write it under another key than `name`. */
  #mentionedName(value: Json): string | undefined {
    return this.#names.find((name) => Object.values(value).includes(name))
  }

  /** The declared name nearest to the end of a text. */
  #lastName(text: string): string | undefined {
    let found: { name: string; end: number } | undefined
    for (const name of this.#names) {
      const at = text.lastIndexOf(name)
      // Of names that end together the longest counts; it comes first.
      if (at !== -1 && at + name.length > (found?.end ?? 0)) found = { name, end: at + name.length }
    }
    return found?.name
  }

  /** Behind a bracket that was no call, or after too much text, all is content. */
  #giveUp(): string {
    if (!this.#isHopeless() && this.#held.length <= HELD_CHARS_MAX) return ""
    this.#state = "done"
    return this.#release(this.#held.length)
  }
}

/** Goes over text that grows, once, and finds objects of JSON that are not inside of others. */
class JsonScan {
  #at = 0
  #depth = 0
  #brackets = 0
  #start = 0
  #isInString = false
  #hasOpened = false

  /** Every bracket that was opened is closed. */
  get isBalanced(): boolean {
    return this.#hasOpened && this.#depth === 0 && this.#brackets <= 0
  }

  /** Up to the end of the next object, or to where the last bracket is closed. */
  next(text: string): { start: number; end: number; isObject: boolean } | undefined {
    while (this.#at < text.length) {
      const char = text[this.#at]
      // An escape needs the character behind it.
      if (char === "\\" && this.#isInString && this.#at + 1 >= text.length) return undefined
      this.#at += 1
      if (this.#isInString) {
        if (char === "\\") this.#at += 1
        else if (char === '"') this.#isInString = false
      } else if (this.#step(char)) {
        return { start: this.#start, end: this.#at, isObject: char === "}" }
      }
    }
    return undefined
  }

  /** @returns Whether an object ends here, or all brackets are closed. */
  #step(char: string | undefined): boolean {
    if (char === "{") {
      if (this.#depth === 0) this.#start = this.#at - 1
      this.#depth += 1
      this.#hasOpened = true
    } else if (char === "}" && this.#depth > 0) {
      this.#depth -= 1
      return this.#depth === 0
    } else if (char === "[") {
      this.#brackets += 1
      this.#hasOpened = true
    } else if (char === "]") {
      this.#brackets -= 1
      return this.isBalanced
    }
    // Quotes outside of objects are just text.
    else if (char === '"' && this.#depth > 0) this.#isInString = true
    return false
  }
}

type Json = Readonly<Record<string, unknown>>

/** Objects within each other that are searched for a call. */
const SEARCH_DEPTH_MAX = 8

/** An object with `name`, or one under a tool's own name; it may be inside of others. */
function findCall(value: Json, names: readonly string[], depth: number): FoundCall | undefined {
  const { name } = value
  if (typeof name === "string" && names.includes(name)) {
    return { name, arguments: JSON.stringify(argumentsIn(value) ?? {}) }
  }
  for (const own of names) {
    const under = asObject(value[own])
    if (under !== undefined) {
      return { name: own, arguments: JSON.stringify(argumentsIn(under) ?? under) }
    }
  }
  if (depth >= SEARCH_DEPTH_MAX) return undefined
  for (const inner of Object.values(value).flat()) {
    const object = asObject(inner)
    const found = object === undefined ? undefined : findCall(object, names, depth + 1)
    if (found !== undefined) return found
  }
  return undefined
}

/** `arguments` or `parameters`: an object, or the text of one. */
function argumentsIn(value: Json): Json | undefined {
  for (const given of [value["arguments"], value["parameters"]]) {
    const object = typeof given === "string" ? parseObject(given) : asObject(given)
    if (object !== undefined) return object
  }
  return undefined
}

function parseObject(text: string): Json | undefined {
  try {
    return asObject(JSON.parse(text))
  } catch {
    return undefined
  }
}

function asObject(value: unknown): Json | undefined {
  const isObject = typeof value === "object" && value !== null && !Array.isArray(value)
  // An object of a JSON document.
  return isObject ? (value as Json) : undefined
}
