/**
 * Chat templates and the parsing of answers, both by llama.cpp's common library.
 *
 * @module
 */

import type { GrammarTrigger } from "../src/engine/lazy-grammar.ts"
import type { NativeModel } from "./model.ts"
import { encode, type NativeLibrary } from "./native.ts"

/** Messages in OpenAI's shape, as llama.cpp reads them. */
export interface TemplateRequest {
  readonly messages: readonly unknown[]
  readonly tools?: readonly unknown[]
  readonly tool_choice?: "auto" | "none" | "required"
  /** JSON schema, as text, that the answer has to follow. */
  readonly json_schema?: string
  readonly thinking?: boolean
  /** Further variables of the template. */
  readonly kwargs?: Readonly<Record<string, unknown>>
  readonly add_generation_prompt?: boolean
}

/** A rendered prompt and how to read the answer to it. */
export interface RenderedPrompt {
  readonly prompt: string
  /** GBNF, empty for none. */
  readonly grammar: string
  /** The grammar begins only when a trigger is met. */
  readonly grammar_lazy: boolean
  /** End of the prompt that belongs to the answer. */
  readonly generation_prompt: string
  readonly triggers: readonly GrammarTrigger[]
  readonly stops: readonly string[]
  readonly preserved: readonly string[]
  readonly parser: string
  readonly format: number
  readonly thinking_start: string
  readonly thinking_ends: readonly string[]
}

/** What new text added to the parsed answer. */
export interface ParsedDelta {
  readonly thinking?: string
  readonly content?: string
  readonly tool?: {
    readonly index: number
    readonly id: string
    readonly name: string
    readonly arguments: string
  }
}

/** What a template can do. */
export interface ChatInfo {
  readonly source: string
  readonly caps: Readonly<Record<string, boolean>>
  /** It can be told not to think. */
  readonly thinking: boolean
}

/** A compiled chat template. */
export class NativeChat implements Disposable {
  readonly info: ChatInfo
  readonly #library: NativeLibrary
  readonly #handle: number

  /** @throws {CriaError} `invalid-input` when the template does not parse. */
  constructor(library: NativeLibrary, source: { model: NativeModel } | { template: string }) {
    const config = "model" in source ? { model: source.model.handle } : source
    const handle = library.functions.cria_chat_new(...encode(JSON.stringify(config)))
    this.#library = library
    this.#handle = library.check(handle, "Cannot read the chat template", "invalid-input")
    this.info = library.json(
      library.functions.cria_chat_info(handle),
      "Cannot read the chat template",
    )
  }

  /** Renders a conversation. @throws {CriaError} `invalid-input` with the template's own complaint. */
  render(request: TemplateRequest): RenderedPrompt {
    const action = "Cannot render the chat template"
    const length = this.#library.functions.cria_chat_apply(
      this.#handle,
      ...encode(JSON.stringify(request)),
    )
    return this.#library.json(this.#library.check(length, action, "invalid-input"), action)
  }

  [Symbol.dispose](): void {
    this.#library.functions.cria_chat_free(this.#handle)
  }
}

/** Reads one answer as it grows. */
export class NativeParser implements Disposable {
  readonly #library: NativeLibrary
  readonly #handle: number

  constructor(library: NativeLibrary, rendered: RenderedPrompt, options: { tools: boolean }) {
    const config = {
      parser: rendered.parser,
      format: rendered.format,
      generation_prompt: rendered.generation_prompt,
      thinking: true,
      tools: options.tools,
    }
    const handle = library.functions.cria_parse_new(...encode(JSON.stringify(config)))
    this.#library = library
    this.#handle = library.check(handle, "Cannot make a parser")
  }

  /** Adds text; with `isFinal` what is incomplete is settled. */
  feed(text: string, isFinal: boolean): ParsedDelta[] {
    const action = "Cannot parse the answer"
    const [bytes, length] = encode(text)
    const result = this.#library.functions.cria_parse_feed(
      this.#handle,
      bytes,
      length,
      isFinal ? 1 : 0,
    )
    return this.#library.json(result, action)
  }

  [Symbol.dispose](): void {
    this.#library.functions.cria_parse_free(this.#handle)
  }
}
