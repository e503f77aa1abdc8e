/**
 * The parts of a parsed template, and their text as errors quote it.
 *
 * @module
 */

import { quote } from "./quote.ts"

interface At {
  /** UTF-16 offset in the source. */
  readonly pos: number
}

/** Things in a row. */
export interface ListNode extends At {
  readonly kind: "list"
  readonly nodes: readonly Node[]
}

/** Text outside of actions. */
export interface TextNode extends At {
  readonly kind: "text"
  readonly text: string
}

/** `{{ pipeline }}` */
export interface ActionNode extends At {
  readonly kind: "action"
  readonly pipe: PipeNode
}

/** `if`, `with` and `range`. */
export interface BranchNode extends At {
  readonly kind: "if" | "with" | "range"
  readonly pipe: PipeNode
  readonly list: ListNode
  readonly otherwise: ListNode | undefined
}

/** `{{ template "name" pipeline }}` */
export interface TemplateNode extends At {
  readonly kind: "template"
  readonly name: string
  readonly pipe: PipeNode | undefined
}

/** `break` and `continue`. */
export interface JumpNode extends At {
  readonly kind: "break" | "continue"
}

/** What stands in a list. */
export type Node = TextNode | ActionNode | BranchNode | TemplateNode | JumpNode

/** Commands, each of which gets the value of the one before; its value may be given to variables. */
export interface PipeNode extends At {
  readonly kind: "pipe"
  /** Names of variables, with `$`. */
  readonly declared: readonly string[]
  /** `=` instead of `:=` */
  readonly isAssign: boolean
  readonly commands: readonly CommandNode[]
}

/** An operand, or a function with its operands. */
export interface CommandNode extends At {
  readonly kind: "command"
  readonly args: readonly [Operand, ...Operand[]]
}

/** `.A.B` and, with the `$` in the first name, `$x.A.B` */
export interface FieldNode extends At {
  readonly kind: "field" | "variable"
  readonly names: readonly string[]
}

/** `(pipeline).A.B` */
export interface ChainNode extends At {
  readonly kind: "chain"
  readonly base: Operand
  readonly names: readonly string[]
}

/** A number, as what it can be used. */
export interface NumberNode extends At {
  readonly kind: "number"
  readonly text: string
  readonly int: bigint | undefined
  readonly float: number
}

/** An argument. */
export type Operand =
  | FieldNode
  | ChainNode
  | PipeNode
  | NumberNode
  | (At & { readonly kind: "identifier"; readonly name: string })
  | (At & { readonly kind: "bool"; readonly value: boolean })
  | (At & { readonly kind: "string"; readonly quoted: string; readonly text: string })
  | (At & { readonly kind: "dot" | "nil" })

/** Anything that an error can be about. */
export type AnyNode = Node | ListNode | CommandNode | Operand

/** Longest text of a node in an error. */
const TEXT_MAX = 1000

/** The node as source, in the spelling of Go's errors. Long ones are cut. */
export function nodeText(node: AnyNode): string {
  const text = textOf(node, { left: TEXT_MAX })
  return text.length > TEXT_MAX ? `${text.slice(0, TEXT_MAX)}...` : text
}

interface Room {
  left: number
}

function textOf(node: AnyNode, room: Room): string {
  if (room.left < 0) return ""
  const isLeaf = !["list", "action", "if", "with", "range", "pipe", "command"].includes(node.kind)
  if (!isLeaf) return innerText(node, (part) => textOf(part, room))
  const text = leafText(node, (part) => textOf(part, room))
  room.left -= text.length
  return text
}

type Print = (part: AnyNode) => string

function innerText(node: AnyNode, print: Print): string {
  if (node.kind === "list") return node.nodes.map(print).join("")
  if (node.kind === "action") return `{{${print(node.pipe)}}}`
  if (node.kind === "if" || node.kind === "with" || node.kind === "range") {
    const otherwise = node.otherwise === undefined ? "" : `{{else}}${print(node.otherwise)}`
    return `{{${node.kind} ${print(node.pipe)}}}${print(node.list)}${otherwise}{{end}}`
  }
  if (node.kind === "command") {
    return node.args.map((arg) => (arg.kind === "pipe" ? `(${print(arg)})` : print(arg))).join(" ")
  }
  if (node.kind !== "pipe") return ""
  const sign = node.isAssign ? "=" : ":="
  const declared = node.declared.length === 0 ? "" : `${node.declared.join(", ")} ${sign} `
  return declared + node.commands.map(print).join(" | ")
}

function leafText(node: AnyNode, print: Print): string {
  if (node.kind === "text" || node.kind === "number") return node.text
  if (node.kind === "field") return dotted(node.names)
  if (node.kind === "variable") return node.names.join(".")
  if (node.kind === "chain") {
    const base = print(node.base)
    return (node.base.kind === "pipe" ? `(${base})` : base) + dotted(node.names)
  }
  if (node.kind === "identifier") return node.name
  if (node.kind === "bool") return String(node.value)
  if (node.kind === "string") return node.quoted
  if (node.kind === "template") {
    const argument = node.pipe === undefined ? "" : ` ${print(node.pipe)}`
    return `{{template ${quote(node.name)}${argument}}}`
  }
  if (node.kind === "dot") return "."
  return node.kind === "nil" ? "nil" : `{{${node.kind}}}`
}

function dotted(names: readonly string[]): string {
  return names.map((name) => `.${name}`).join("")
}
