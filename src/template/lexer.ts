/**
 * From the source of a template to its tokens.
 *
 * Spaces are tokens, because `$x .y` and `$x.y` differ. The last token is `eof` or `error`.
 *
 * @module
 */

/** Kinds of tokens. Keywords are their own kind. */
export type TokenKind =
  | "text"
  | "left"
  | "right"
  | "space"
  | "identifier"
  | "field"
  | "variable"
  | "dot"
  | "nil"
  | "bool"
  | "number"
  | "char-constant"
  | "string"
  | "raw-string"
  | "pipe"
  | "assign"
  | "declare"
  | "open"
  | "close"
  | "char"
  | "keyword"
  | "error"
  | "eof"

/** A token. */
export interface Token {
  readonly kind: TokenKind
  /** As it stands in the source; for `error` what is wrong. */
  readonly text: string
  readonly pos: number
  /** From 1. */
  readonly line: number
}

const KEYWORDS = new Set([
  "block",
  "break",
  "continue",
  "define",
  "else",
  "end",
  "if",
  "range",
  "template",
  "with",
])

/** Text up to the next action. */
const LEFT = "{{"
const COMMENT = /\/\*/y
const LEFT_TRIM = /-[ \t\r\n]/y
const RIGHT = /(?:[ \t\r\n]-)?\}\}/y
const SPACES = /[ \t\r\n]*/y
const WORD = /[\p{L}\p{Nd}_]+/uy
/** Fields and variables; the name may be empty. */
const NAME = /[.$][\p{L}\p{Nd}_]*/uy
const TERMINATOR = /[ \t\r\n.,|:()]|\}\}|$/y
const STRING = /"(?:[^"\\\n]|\\[^\n])*"/suy
const RAW_STRING = /`[^`]*`/suy
const CHAR = /'(?:[^'\\\n]|\\[^\n])*'/suy
const NUMBER =
  /[+-]?(?:0[xX][\da-fA-F_]*(?:\.[\da-fA-F_]*)?(?:[pP][+-]?[\d_]*)?|0[oO][0-7_]*(?:\.[0-7_]*)?|0[bB][01_]*(?:\.[01_]*)?|[\d_]*(?:\.[\d_]*)?(?:[eE][+-]?[\d_]*)?)i?/y

/** Splits the source. Never throws: what is wrong is the last token. */
export function tokenize(source: string): Token[] {
  return new Lexer(source).run()
}

class Lexer {
  readonly #source: string
  readonly #tokens: Token[] = []
  #at = 0
  #line = 1
  #lineAt = 0
  #depth = 0

  constructor(source: string) {
    this.#source = source
  }

  run(): Token[] {
    while (!this.#isDone()) {
      if (this.#text()) while (this.#action());
    }
    return this.#tokens
  }

  #isDone(): boolean {
    const kind = this.#tokens.at(-1)?.kind
    return kind === "eof" || kind === "error"
  }

  /** Text up to an action, or to the end. @returns Whether an action follows. */
  #text(): boolean {
    const source = this.#source
    const left = source.indexOf(LEFT, this.#at)
    const end = left === -1 ? source.length : left
    const isTrimmed = left !== -1 && matches(LEFT_TRIM, source, left + 2)
    const kept = isTrimmed ? this.#withoutSpace(end) : end
    if (kept > this.#at) this.#emit("text", kept)
    this.#at = end
    if (left === -1) {
      this.#emit("eof", end)
      return false
    }
    const inner = end + 2 + (isTrimmed ? 1 : 0)
    // A trim marker is followed by a space, which may come before a comment.
    const comment = isTrimmed ? inner + 1 : inner
    if (matches(COMMENT, source, comment)) return this.#comment(comment)
    this.#emit("left", end + 2)
    this.#at = inner
    this.#depth = 0
    return true
  }

  /** The end of the text without the space before it. */
  #withoutSpace(end: number): number {
    let kept = end
    while (kept > this.#at && isSpace(this.#source[kept - 1])) kept -= 1
    return kept
  }

  #comment(start: number): boolean {
    this.#at = start
    const end = this.#source.indexOf("*/", start + 2)
    if (end === -1) return this.#fail("unclosed comment")
    const length = matchLength(RIGHT, this.#source, end + 2)
    if (length === 0) return this.#fail("comment ends before closing delimiter")
    this.#at = end + 2 + length
    if (length > 2) this.#at += matchLength(SPACES, this.#source, this.#at)
    return false
  }

  /** One token inside of an action. @returns Whether the action goes on. */
  #action(): boolean {
    const source = this.#source
    const at = this.#at
    const right = matchLength(RIGHT, source, at)
    if (right > 0) return this.#right(right)
    const char = source[at]
    if (char === undefined) return this.#fail("unclosed action")
    if (isSpace(char)) return this.#spaces()
    if (char === '"') return this.#quoted(STRING, "string", "unterminated quoted string")
    if (char === "`")
      return this.#quoted(RAW_STRING, "raw-string", "unterminated raw quoted string")
    if (char === "'") return this.#quoted(CHAR, "char-constant", "unterminated character constant")
    if (char === "$" || (char === "." && !isDigit(source[at + 1]) && at + 1 < source.length)) {
      return this.#name()
    }
    if (/[.+\-\d]/.test(char)) return this.#number()
    if (matches(WORD, source, at)) return this.#word()
    return this.#symbol(char)
  }

  #right(length: number): boolean {
    if (this.#depth > 0) return this.#fail("unclosed left paren")
    if (length > 2) this.#at += 2
    this.#emit("right", this.#at + 2)
    if (length > 2) this.#at += matchLength(SPACES, this.#source, this.#at)
    return false
  }

  /** The last space belongs to a trim marker that may follow. */
  #spaces(): true {
    let end = this.#at + matchLength(SPACES, this.#source, this.#at)
    if (matchLength(RIGHT, this.#source, end - 1) > 2) end -= 1
    return this.#emit("space", end)
  }

  #quoted(pattern: RegExp, kind: TokenKind, complaint: string): boolean {
    const length = matchLength(pattern, this.#source, this.#at)
    return length === 0 ? this.#fail(complaint) : this.#emit(kind, this.#at + length)
  }

  #name(): boolean {
    const isField = this.#source[this.#at] === "."
    const end = this.#at + matchLength(NAME, this.#source, this.#at)
    if (!this.#endsWord(end)) return this.#badCharacter(end)
    const isBare = end === this.#at + 1
    return this.#emit(isField ? (isBare ? "dot" : "field") : "variable", end)
  }

  #word(): boolean {
    const end = this.#at + matchLength(WORD, this.#source, this.#at)
    if (!this.#endsWord(end)) return this.#badCharacter(end)
    const word = this.#source.slice(this.#at, end)
    return this.#emit(wordKind(word), end)
  }

  #number(): boolean {
    const source = this.#source
    let end = this.#at + matchLength(NUMBER, source, this.#at)
    const sign = source[end]
    const isComplex = sign === "+" || sign === "-"
    if (isComplex) end += matchLength(NUMBER, source, end)
    const isBroken = isComplex && source[end - 1] !== "i"
    const after = matches(WORD, source, end)
      ? String.fromCodePoint(source.codePointAt(end) ?? 0)
      : ""
    if (isBroken || after !== "") {
      const text = source.slice(this.#at, end + after.length)
      return this.#fail(`bad number syntax: ${JSON.stringify(text)}`)
    }
    return this.#emit("number", end)
  }

  #symbol(char: string): boolean {
    const next = this.#at + 1
    switch (char) {
      case "=":
        return this.#emit("assign", next)
      case ":":
        if (this.#source[next] !== "=") return this.#fail("expected :=")
        return this.#emit("declare", next + 1)
      case "|":
        return this.#emit("pipe", next)
      case "(":
        this.#depth += 1
        return this.#emit("open", next)
      case ")":
        this.#emit("close", next)
        this.#depth -= 1
        if (this.#depth < 0) return this.#fail("unexpected right paren U+0029 ')'")
        return true
      default:
        if (/[!-~]/.test(char)) return this.#emit("char", next)
        return this.#fail(`unrecognized character in action: ${this.#describe(this.#at)}`)
    }
  }

  #endsWord(end: number): boolean {
    return matches(TERMINATOR, this.#source, end)
  }

  #badCharacter(at: number): false {
    return this.#fail(`bad character ${this.#describe(at)}`)
  }

  /** A character as Go's `%#U` writes it. */
  #describe(at: number): string {
    const code = this.#source.codePointAt(at) ?? 0
    const number = `U+${code.toString(16).toUpperCase().padStart(4, "0")}`
    const char = String.fromCodePoint(code)
    return /[\p{L}\p{M}\p{N}\p{P}\p{S} ]/u.test(char) ? `${number} '${char}'` : number
  }

  #emit(kind: TokenKind, end: number): true {
    this.#push(kind, this.#source.slice(this.#at, end))
    this.#at = end
    return true
  }

  #fail(complaint: string): false {
    this.#push("error", complaint)
    return false
  }

  #push(kind: TokenKind, text: string): void {
    for (; this.#lineAt < this.#at; this.#lineAt += 1) {
      if (this.#source[this.#lineAt] === "\n") this.#line += 1
    }
    this.#tokens.push({ kind, text, pos: this.#at, line: this.#line })
  }
}

function wordKind(word: string): TokenKind {
  if (KEYWORDS.has(word)) return "keyword"
  if (word === "true" || word === "false") return "bool"
  return word === "nil" ? "nil" : "identifier"
}

function matches(pattern: RegExp, source: string, at: number): boolean {
  pattern.lastIndex = at
  return pattern.test(source)
}

function matchLength(pattern: RegExp, source: string, at: number): number {
  pattern.lastIndex = at
  return pattern.exec(source)?.[0].length ?? 0
}

function isSpace(char: string | undefined): boolean {
  return char === " " || char === "\t" || char === "\r" || char === "\n"
}

function isDigit(char: string | undefined): boolean {
  return char !== undefined && char >= "0" && char <= "9"
}
