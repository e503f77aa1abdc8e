/**
 * From tokens to nodes. Recursive descent; nesting is limited, so that no source can exhaust the stack.
 *
 * @module
 */

import { type Token, type TokenKind, tokenize } from "./lexer.ts"
import {
  type BranchNode,
  type CommandNode,
  type ListNode,
  type Node,
  nodeText,
  type Operand,
  type PipeNode,
} from "./nodes.ts"
import { parseChar, parseNumber } from "./number.ts"
import { quote, unquote } from "./quote.ts"

/** A parsed template and those that it defines. */
export interface Tree {
  /** By name; the template itself under its own. */
  readonly lists: ReadonlyMap<string, ListNode>
}

/** What is wrong with a source, in Go's words. */
export class TemplateSyntaxError extends Error {}

/** Blocks and parentheses within each other. Real templates have fewer than ten. */
const NESTING_MAX = 200

/** What ends a list. */
type Ending = "end" | "else" | "eof"

/** An operand starts with one of these. */
const OPERANDS: ReadonlySet<TokenKind> = new Set([
  "bool",
  "char-constant",
  "dot",
  "field",
  "identifier",
  "number",
  "nil",
  "raw-string",
  "string",
  "variable",
  "open",
])

/**
 * Parses a source.
 *
 * @param functions Names of the functions that may be called.
 * @throws {TemplateSyntaxError}
 */
export function parseTree(name: string, source: string, functions: ReadonlySet<string>): Tree {
  return new Parser(name, source, functions).run()
}

class Parser {
  readonly #name: string
  readonly #functions: ReadonlySet<string>
  readonly #tokens: readonly Token[]
  readonly #lists = new Map<string, ListNode>()
  #at = 0
  #furthest = 0
  #nesting = 0
  #actionLine = 0
  #rangeDepth = 0
  /** Names of variables, the innermost block last. */
  #scopes: Set<string>[] = [new Set("$")]

  constructor(name: string, source: string, functions: ReadonlySet<string>) {
    this.#name = name
    this.#functions = functions
    this.#tokens = tokenize(source)
  }

  run(): Tree {
    const nodes: Node[] = []
    while (this.#peek().kind !== "eof") {
      if (this.#definition()) continue
      const node = this.#textOrAction()
      if (node === "end" || node === "else") throw this.#error(`unexpected {{${node}}}`)
      nodes.push(node)
    }
    this.#add(this.#name, { kind: "list", pos: 0, nodes })
    return { lists: this.#lists }
  }

  /** `{{define "name"}} … {{end}}`, only outside of everything else. */
  #definition(): boolean {
    if (this.#peek().kind !== "left") return false
    const start = this.#at
    this.#next()
    if (!isKeyword(this.#nextNonSpace(), "define")) {
      this.#at = start
      return false
    }
    const context = "define clause"
    const name = this.#templateName(this.#nextNonSpace(), context)
    this.#expect("right", context)
    this.#add(name, this.#body(context))
    return true
  }

  /** The list of a template inside of this one, which has variables of its own. */
  #body(context: string): ListNode {
    const scopes = this.#scopes
    const rangeDepth = this.#rangeDepth
    this.#scopes = [new Set("$")]
    this.#rangeDepth = 0
    const [list, ending] = this.#list()
    if (ending !== "end") throw this.#error(`unexpected {{${ending}}} in ${context}`)
    this.#scopes = scopes
    this.#rangeDepth = rangeDepth
    return list
  }

  /** A later definition replaces one that is empty of everything but space. */
  #add(name: string, list: ListNode): void {
    const known = this.#lists.get(name)
    if (known === undefined || isEmpty(known)) this.#lists.set(name, list)
    else if (!isEmpty(list)) {
      throw this.#error(`template: multiple definition of template ${quote(name)}`)
    }
  }

  #list(): [ListNode, Ending] {
    const nodes: Node[] = []
    const pos = this.#peekNonSpace().pos
    this.#enter()
    while (this.#peekNonSpace().kind !== "eof") {
      const node = this.#textOrAction()
      if (node === "end" || node === "else") {
        this.#nesting -= 1
        return [{ kind: "list", pos, nodes }, node]
      }
      nodes.push(node)
    }
    throw this.#error("unexpected EOF")
  }

  #textOrAction(): Node | "end" | "else" {
    const token = this.#nextNonSpace()
    if (token.kind === "text") return { kind: "text", pos: token.pos, text: token.text }
    if (token.kind !== "left") throw this.#unexpected(token, "input")
    this.#actionLine = token.line
    const node = this.#action()
    this.#actionLine = 0
    return node
  }

  #action(): Node | "end" | "else" {
    const token = this.#nextNonSpace()
    if (token.kind === "keyword" && token.text !== "define") return this.#control(token)
    this.#at -= 1
    const { pos } = this.#peek()
    return { kind: "action", pos, pipe: this.#pipeline("command", "right") }
  }

  #control(token: Token): Node | "end" | "else" {
    switch (token.text) {
      case "end":
        this.#expect("right", "end")
        return "end"
      case "else":
        if (!isKeyword(this.#peekNonSpace(), "if", "with")) this.#expect("right", "else")
        return "else"
      case "if":
      case "with":
      case "range":
        return this.#branch(token.text)
      case "break":
      case "continue":
        return this.#jump(token, token.text)
      case "block":
        return this.#block()
      default:
        return this.#template()
    }
  }

  #jump(token: Token, kind: "break" | "continue"): Node {
    const next = this.#nextNonSpace()
    if (next.kind !== "right") throw this.#unexpected(next, `{{${kind}}}`)
    if (this.#rangeDepth === 0) throw this.#error(`{{${kind}}} outside {{range}}`)
    return { kind, pos: token.pos }
  }

  #branch(kind: BranchNode["kind"]): BranchNode {
    this.#scopes.push(new Set())
    this.#enter()
    const pipe = this.#pipeline(kind, "right")
    if (kind === "range") this.#rangeDepth += 1
    const [list, ending] = this.#list()
    if (kind === "range") this.#rangeDepth -= 1
    const otherwise = ending === "else" ? this.#otherwise(kind) : undefined
    this.#nesting -= 1
    this.#scopes.pop()
    return { kind, pos: pipe.pos, pipe, list, otherwise }
  }

  /** `{{else if x}}` is `{{else}}{{if x}}` with one `{{end}}` for both; so is `{{else with x}}` in a `with`. */
  #otherwise(kind: BranchNode["kind"]): ListNode {
    const token = this.#peekNonSpace()
    if (kind !== "range" && isKeyword(token, kind)) {
      this.#nextNonSpace()
      const line = this.#actionLine
      const node = this.#branch(kind)
      this.#actionLine = line
      return { kind: "list", pos: token.pos, nodes: [node] }
    }
    const [list, ending] = this.#list()
    if (ending !== "end") throw this.#error(`expected end; found {{${ending}}}`)
    return list
  }

  #block(): Node {
    const context = "block clause"
    const token = this.#nextNonSpace()
    const name = this.#templateName(token, context)
    const pipe = this.#pipeline(context, "right")
    this.#add(name, this.#body(context))
    return { kind: "template", pos: token.pos, name, pipe }
  }

  #template(): Node {
    const context = "template clause"
    const token = this.#nextNonSpace()
    const name = this.#templateName(token, context)
    if (this.#nextNonSpace().kind === "right") {
      return { kind: "template", pos: token.pos, name, pipe: undefined }
    }
    this.#at -= 1
    return { kind: "template", pos: token.pos, name, pipe: this.#pipeline(context, "right") }
  }

  #templateName(token: Token, context: string): string {
    if (token.kind !== "string" && token.kind !== "raw-string") {
      throw this.#unexpected(token, context)
    }
    return this.#unquoted(token)
  }

  #pipeline(context: string, end: TokenKind): PipeNode {
    const { pos } = this.#peekNonSpace()
    this.#enter()
    const { declared, isAssign } = this.#declarations(context)
    const commands: CommandNode[] = []
    for (;;) {
      const token = this.#nextNonSpace()
      if (token.kind === end) break
      if (!OPERANDS.has(token.kind)) throw this.#unexpected(token, context)
      this.#at -= 1
      commands.push(this.#command())
    }
    if (commands.length === 0) throw this.#error(`missing value for ${context}`)
    const stage = commands.findIndex(({ args: [first] }, i) => i > 0 && isConstant(first))
    if (stage > 0) throw this.#error(`non executable command in pipeline stage ${stage + 1}`)
    this.#nesting -= 1
    return { kind: "pipe", pos, declared, isAssign, commands }
  }

  /** `$x :=`, `$x =`, and in a range `$i, $x :=`. */
  #declarations(context: string): { declared: string[]; isAssign: boolean } {
    const declared: string[] = []
    for (;;) {
      const start = this.#at
      const variable = this.#nextNonSpace()
      const next = variable.kind === "variable" ? this.#peekNonSpace() : undefined
      const isComma = next?.kind === "char" && next.text === ","
      if (next?.kind !== "assign" && next?.kind !== "declare" && !isComma) {
        this.#at = start
        return { declared, isAssign: false }
      }
      this.#nextNonSpace()
      declared.push(variable.text)
      this.#scopes.at(-1)?.add(variable.text)
      if (!isComma) return { declared, isAssign: next.kind === "assign" }
      if (context !== "range" || declared.length > 1) {
        throw this.#error(`too many declarations in ${context}`)
      }
      const { kind } = this.#peekNonSpace()
      if (kind !== "variable" && kind !== "right" && kind !== "close") {
        throw this.#error("range can only initialize variables")
      }
    }
  }

  #command(): CommandNode {
    const { pos } = this.#peekNonSpace()
    const args: Operand[] = []
    for (;;) {
      this.#peekNonSpace()
      const operand = this.#operand()
      if (operand !== undefined) args.push(operand)
      const token = this.#next()
      if (token.kind === "space") continue
      if (token.kind === "right" || token.kind === "close") this.#at -= 1
      else if (token.kind !== "pipe") throw this.#unexpected(token, "operand")
      break
    }
    const [first, ...rest] = args
    if (first === undefined) throw this.#error("empty command")
    return { kind: "command", pos, args: [first, ...rest] }
  }

  #operand(): Operand | undefined {
    const term = this.#term()
    if (term === undefined || this.#peek().kind !== "field") return term
    const { pos } = this.#peek()
    const names: string[] = []
    while (this.#peek().kind === "field") names.push(this.#next().text.slice(1))
    if (term.kind === "field" || term.kind === "variable") {
      return { kind: term.kind, pos, names: [...term.names, ...names] }
    }
    if (isConstant(term)) throw this.#error(`unexpected . after term ${quote(nodeText(term))}`)
    return { kind: "chain", pos, base: term, names }
  }

  #term(): Operand | undefined {
    const token = this.#nextNonSpace()
    const { kind, pos, text } = token
    if (kind === "identifier") {
      if (!this.#functions.has(text)) throw this.#error(`function ${quote(text)} not defined`)
      return { kind, pos, name: text }
    }
    if (kind === "variable") {
      if (!this.#scopes.some((names) => names.has(text))) {
        throw this.#error(`undefined variable ${quote(text)}`)
      }
      return { kind, pos, names: [text] }
    }
    if (kind === "dot" || kind === "nil") return { kind, pos }
    if (kind === "field") return { kind, pos, names: [text.slice(1)] }
    if (kind === "bool") return { kind, pos, value: text === "true" }
    if (kind === "char-constant" || kind === "number") return this.#number(token)
    if (kind === "open") return this.#pipeline("parenthesized pipeline", "close")
    if (kind === "string" || kind === "raw-string") {
      return { kind: "string", pos, quoted: text, text: this.#unquoted(token) }
    }
    this.#at -= 1
    return undefined
  }

  #number({ kind, pos, text }: Token): Operand {
    if (text.endsWith("i")) throw this.#error(`complex numbers are not supported: ${text}`)
    const number = kind === "char-constant" ? parseChar(text) : parseNumber(text)
    if (typeof number === "string") throw this.#error(number)
    return { kind: "number", pos, text, ...number }
  }

  #unquoted({ text }: Token): string {
    const unquoted = unquote(text)
    if (unquoted === undefined) throw this.#error("invalid syntax")
    return unquoted
  }

  #enter(): void {
    this.#nesting += 1
    if (this.#nesting > NESTING_MAX) {
      throw this.#error(`nested more than ${NESTING_MAX} deep`)
    }
  }

  #expect(kind: TokenKind, context: string): void {
    const token = this.#nextNonSpace()
    if (token.kind !== kind) throw this.#unexpected(token, context)
  }

  #peek(): Token {
    this.#furthest = Math.max(this.#furthest, this.#at)
    const token = this.#tokens[Math.min(this.#at, this.#tokens.length - 1)]
    if (token === undefined) throw new Error("Broken invariant: there is a last token")
    return token
  }

  #next(): Token {
    const token = this.#peek()
    this.#at += 1
    return token
  }

  #nextNonSpace(): Token {
    let token = this.#next()
    while (token.kind === "space") token = this.#next()
    return token
  }

  #peekNonSpace(): Token {
    const token = this.#nextNonSpace()
    this.#at -= 1
    return token
  }

  #unexpected(token: Token, context: string): TemplateSyntaxError {
    if (token.kind !== "error") return this.#error(`unexpected ${shown(token)} in ${context}`)
    if (this.#actionLine === 0 || this.#actionLine === token.line) return this.#error(token.text)
    const started = `started at ${this.#name}:${this.#actionLine}`
    const where = token.text.endsWith(" action") ? started : `in action ${started}`
    return this.#error(`${token.text} ${where}`)
  }

  #error(text: string): TemplateSyntaxError {
    const last = this.#tokens[Math.min(this.#furthest, this.#tokens.length - 1)]
    return new TemplateSyntaxError(`template: ${this.#name}:${last?.line ?? 1}: ${text}`)
  }
}

function isKeyword(token: Token, ...words: readonly string[]): boolean {
  return token.kind === "keyword" && words.includes(token.text)
}

function isConstant(operand: Operand): boolean {
  return ["bool", "dot", "nil", "number", "string"].includes(operand.kind)
}

function isEmpty(list: ListNode): boolean {
  return list.nodes.every((node) => node.kind === "text" && node.text.trim() === "")
}

/** A token in an error. */
function shown({ kind, text }: Token): string {
  if (kind === "eof") return "EOF"
  if (kind === "keyword" || kind === "dot" || kind === "nil") return `<${text}>`
  const chars = Array.from(text)
  return chars.length > 10 ? `${quote(chars.slice(0, 10).join(""))}...` : quote(text)
}
