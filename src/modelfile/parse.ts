/**
 * Reads a Modelfile: text to commands, in the order of the file.
 *
 * Owns the grammar and Ollama's words for what breaks it. What a command means, which parameters there are and where
 * a path points is not known here. Takes time linear in the length of the text.
 *
 * @module
 */

import { CriaError } from "../util/errors.ts"

/** Commands that have nothing but a value. */
const PLAIN_COMMANDS = [
  "from",
  "license",
  "template",
  "system",
  "adapter",
  "draft",
  "renderer",
  "parser",
  "requires",
] as const

/** Who can say a message. */
const MESSAGE_ROLES = ["system", "user", "assistant"] as const

/** A command that has nothing but a value. */
export type PlainCommandName = (typeof PLAIN_COMMANDS)[number]

/** Who says a message. */
export type MessageRole = (typeof MESSAGE_ROLES)[number]

/** One command; values are without their quotes. */
export type ModelfileCommand =
  | { readonly command: PlainCommandName; readonly value: string }
  | { readonly command: "parameter"; readonly name: string; readonly value: string }
  | { readonly command: "message"; readonly role: MessageRole; readonly value: string }

/** Longest Modelfile. As long as the longest text that a model can have; real ones have some kilobytes. */
export const MODELFILE_BYTES_MAX: number = 16 * 1024 * 1024

const COMMAND_ERROR =
  'command must be one of "from", "license", "template", "system", "adapter", "draft", "renderer", "parser", "parameter", "message", or "requires"'

const ROLE_ERROR = 'message role must be one of "system", "user", or "assistant"'

/** What values are made of, besides tabs and newlines. Everything else is dropped, as Ollama does. */
const UNPRINTABLE = /[^\p{L}\p{M}\p{N}\p{P}\p{S} \t\r\n]/gu

/** Characters of a text that an error repeats. */
const QUOTED_CHARS_MAX = 100

/**
 * Decodes the bytes of a Modelfile: UTF-8, or UTF-16 when a byte order mark says so.
 *
 * @throws {CriaError} `invalid-input` when there are more than 16 MiB.
 */
export function decodeModelfile(bytes: Uint8Array): string {
  if (bytes.length > MODELFILE_BYTES_MAX) {
    const text = `Cannot read the Modelfile: ${bytes.length} bytes, limit ${MODELFILE_BYTES_MAX}`
    throw new CriaError("invalid-input", text, { hint: "Is it a model instead? Write FROM <path>" })
  }
  const [first, second] = bytes
  if (first === 0xff && second === 0xfe) return new TextDecoder("utf-16le").decode(bytes)
  if (first === 0xfe && second === 0xff) return new TextDecoder("utf-16be").decode(bytes)
  return new TextDecoder().decode(bytes)
}

/**
 * Parses a Modelfile.
 *
 * @throws {CriaError} `invalid-input` in Ollama's words; the hint says where.
 */
export function parseModelfile(text: string): ModelfileCommand[] {
  const reader = new Reader(text)
  const commands: ModelfileCommand[] = []
  while (reader.skipToCommand()) commands.push(readCommand(reader))
  if (commands.every(({ command }) => command !== "from")) {
    const hint = "Begin the Modelfile with FROM and the name of a model or the path of a file"
    throw new CriaError("invalid-input", "no FROM line", { hint })
  }
  return commands
}

function readCommand(reader: Reader): ModelfileCommand {
  const word = reader.word().toLowerCase()
  if (reader.isAtEnd()) throw reader.unexpectedEnd()
  const isFollowed = reader.skipBlank()
  const plain = PLAIN_COMMANDS.find((name) => name === word)
  if (isFollowed && plain !== undefined) return { command: plain, value: reader.value() }
  if (isFollowed && word === "parameter") {
    const name = reader.argument(/\w*/y)
    return { command: "parameter", name, value: reader.value() }
  }
  if (isFollowed && word === "message") {
    const written = reader.argument(/[A-Za-z]*/y)
    const role = MESSAGE_ROLES.find((name) => name === written)
    if (role === undefined) throw reader.lineError(ROLE_ERROR)
    return { command: "message", role, value: reader.value() }
  }
  reader.skipOne()
  throw reader.lineError(COMMAND_ERROR)
}

/** A text and how far it has been read. */
class Reader {
  readonly #text: string
  #at = 0

  constructor(text: string) {
    this.#text = text
  }

  isAtEnd(): boolean {
    return this.#at >= this.#text.length
  }

  /** Skips blanks, empty lines and comments; false at the end. */
  skipToCommand(): boolean {
    this.#match(/(?:[ \t\r\n]+|#[^\r\n]*)*/y)
    return !this.isAtEnd()
  }

  word(): string {
    return this.#match(/[A-Za-z]*/y)
  }

  /** One blank, which has to come between a command and what it says. */
  skipBlank(): boolean {
    return this.#match(/[ \t]/y) !== ""
  }

  /** Past a character that should not be there: a newline counts for the number of the line. */
  skipOne(): void {
    this.#at++
  }

  /** The word between a command and its value. */
  argument(pattern: RegExp): string {
    this.#match(/[ \t]*/y)
    const word = this.#match(pattern)
    if (this.isAtEnd()) throw this.unexpectedEnd()
    if (word === "" || !this.skipBlank()) throw this.unexpectedEnd(word)
    return word
  }

  /**
   * Up to the first newline at which quotes are closed. An opening quote can only be the first character of the value
   * and a closing one only the last of a line, so each line is looked at once.
   */
  value(): string {
    const start = this.#at
    const lines = [this.#line()]
    const quote = /^(?:"""|")?/.exec((lines[0] ?? "").trim())?.[0] ?? ""
    const isClosed = (): boolean => {
      const last = (lines.at(-1) ?? "").trim()
      const isLong = lines.length > 1 || last.length >= 2 * quote.length
      return isLong && last.endsWith(quote)
    }
    while (!isClosed()) {
      if (this.isAtEnd()) {
        this.#at = start
        throw this.unexpectedEnd()
      }
      lines.push(this.#text.charAt(this.#at++), this.#line())
    }
    if (!this.isAtEnd()) this.#at++
    const trimmed = lines.join("").trim()
    return trimmed.slice(quote.length, trimmed.length - quote.length)
  }

  unexpectedEnd(buffer?: string): CriaError {
    const message = buffer === undefined ? "unexpected EOF" : `unexpected EOF: ${buffer}`
    const hint =
      buffer === undefined
        ? `The value that begins in line ${this.#lineNumber()} has no end: a line must end with its quote`
        : `Line ${this.#lineNumber()}: expected a name, a blank and a value`
    return new CriaError("invalid-input", message.slice(0, QUOTED_CHARS_MAX), { hint })
  }

  lineError(message: string): CriaError {
    return new CriaError("invalid-input", `(line ${this.#lineNumber()}): ${message}`)
  }

  #lineNumber(): number {
    return (this.#text.slice(0, this.#at).match(/[\r\n]/g)?.length ?? 0) + 1
  }

  /** The rest of a line, without what cannot be printed. */
  #line(): string {
    return this.#match(/[^\r\n]*/y).replaceAll(UNPRINTABLE, "")
  }

  #match(pattern: RegExp): string {
    pattern.lastIndex = this.#at
    const [found = ""] = pattern.exec(this.#text) ?? []
    this.#at += found.length
    return found
  }
}
