/**
 * Runs a parsed template over data.
 *
 * A run is bounded: in steps, in characters made, and in how deep templates call each other.
 *
 * @module
 */

import { FUNCTIONS, NO_VALUE } from "./functions.ts"
import {
  type ActionNode,
  type AnyNode,
  type BranchNode,
  type ChainNode,
  type CommandNode,
  type FieldNode,
  type JumpNode,
  type ListNode,
  type Node,
  nodeText,
  type NumberNode,
  type Operand,
  type PipeNode,
  type TemplateNode,
} from "./nodes.ts"
import { printValue } from "./print.ts"
import { quote } from "./quote.ts"
import { type Meter, Sink, TemplateFailure } from "./sink.ts"
import {
  ANY_TYPE,
  byteLength,
  GoList,
  GoMap,
  GoStruct,
  isTrue,
  typeOf,
  type Value,
} from "./value.ts"

/** What a run may take. */
export interface Limits {
  /** Nodes visited, and what is done to texts and lists, by their size. */
  readonly steps: number
  /** Characters of output and of texts on the way. */
  readonly chars: number
  /** Templates and blocks within each other. */
  readonly depth: number
}

/** What runs that belong together have taken so far. */
export interface Spent {
  steps: number
  chars: number
}

/** What to run. */
export interface Program {
  readonly name: string
  readonly source: string
  readonly lists: ReadonlyMap<string, ListNode>
  readonly limits: Limits
  /** For `currentDate`. */
  readonly now: Date
  readonly spent: Spent
}

/** What went wrong in a run, in Go's words. */
export class TemplateExecutionError extends Error {}

/** Runs the template over a value. @throws {TemplateExecutionError} */
export function execute(program: Program, root: Value): string {
  return new Executor(program).run(root)
}

/** No value comes through the pipe. */
const NONE = Symbol("none")

type Piped = Value | typeof NONE

/** How a list ended. */
type Ending = "done" | "break" | "continue"

interface Variable {
  readonly name: string
  value: Value
}

/** Variables among which one is looked for in a step. */
const VARIABLES_A_STEP = 16

class Executor implements Meter {
  readonly #program: Program
  readonly #out: Sink
  #variables: Variable[] = []
  #template: string
  #node: AnyNode | undefined
  readonly #spent: Spent
  #depth = 0

  constructor(program: Program) {
    this.#program = program
    this.#template = program.name
    this.#spent = program.spent
    this.#out = new Sink(this)
  }

  run(data: Value): string {
    const root = data ?? undefined
    const list = this.#program.lists.get(this.#program.name)
    this.#variables = [{ name: "$", value: root }]
    try {
      if (list !== undefined) this.#list(root, list)
      return this.#out.text
    } catch (error) {
      if (error instanceof TemplateFailure) throw this.#error(error.message)
      throw error
    }
  }

  work(steps: number): void {
    const { limits } = this.#program
    this.#spent.steps += steps
    if (this.#spent.steps > limits.steps) {
      throw new TemplateFailure(`takes more than ${limits.steps} steps`)
    }
  }

  make(chars: number): void {
    const { limits } = this.#program
    this.#spent.chars += chars
    if (this.#spent.chars > limits.chars) {
      throw new TemplateFailure(`makes more than ${limits.chars} characters`)
    }
  }

  #list(dot: Value, { nodes }: ListNode): Ending {
    this.#enter()
    let ending: Ending = "done"
    for (const node of nodes) {
      ending = this.#walk(dot, node)
      if (ending !== "done") break
    }
    this.#depth -= 1
    return ending
  }

  #enter(): void {
    const { depth } = this.#program.limits
    if (this.#depth >= depth) throw this.#error(`exceeded maximum template depth (${depth})`)
    this.#depth += 1
  }

  /** Says which node errors are about, and counts. */
  #visit(node: AnyNode): void {
    this.#node = node
    this.work(1)
  }

  #walk(dot: Value, node: Node): Ending {
    this.#visit(node)
    if (isJump(node)) return node.kind
    if (isBranch(node)) {
      return node.kind === "range" ? this.#range(dot, node) : this.#branch(dot, node)
    }
    if (node.kind === "text") this.#out.add(node.text)
    else if (node.kind === "action") this.#action(dot, node)
    else this.#call(dot, node)
    return "done"
  }

  #action(dot: Value, node: ActionNode): void {
    const value = this.#pipeline(dot, node.pipe)
    if (node.pipe.declared.length > 0) return
    this.#visit(node)
    if (value === undefined || value === null) this.#out.add(NO_VALUE)
    else printValue(value, this.#out)
  }

  #branch(dot: Value, node: BranchNode): Ending {
    const mark = this.#variables.length
    const value = this.#pipeline(dot, node.pipe)
    let ending: Ending = "done"
    if (isTrue(value)) ending = this.#list(node.kind === "with" ? value : dot, node.list)
    else if (node.otherwise !== undefined) ending = this.#list(dot, node.otherwise)
    this.#variables.length = mark
    return ending
  }

  #range(dot: Value, node: BranchNode): Ending {
    const scope = this.#variables.length
    const value = this.#pipeline(dot, node.pipe)
    const mark = this.#variables.length
    let isEmpty = true
    let ending: Ending = "done"
    for (const [index, item] of this.#items(value, node.pipe)) {
      isEmpty = false
      this.#visit(node)
      this.#setRange(node.pipe, index, item)
      ending = this.#list(item, node.list)
      this.#variables.length = mark
      if (ending === "break") break
    }
    if (isEmpty && node.otherwise !== undefined) ending = this.#list(dot, node.otherwise)
    else ending = "done"
    this.#variables.length = scope
    return ending
  }

  /** What a range walks over, with the key of each item. */
  *#items(value: Value, pipe: PipeNode): Generator<[Value, Value]> {
    if (value instanceof GoList) {
      for (let i = 0; i < value.length; i += 1) yield [BigInt(i), value.at(i)]
    } else if (value instanceof GoMap) yield* value.sorted()
    else if (typeof value === "bigint") {
      if (pipe.declared.length > 1) {
        throw this.#error(`can't use ${value} to iterate over more than one variable`)
      }
      for (let i = 0n; i < value; i += 1n) yield [i, i]
    } else if (value !== undefined && value !== null) {
      const sink = new Sink(this)
      printValue(value, sink)
      throw this.#error(`range can't iterate over ${sink.text}`)
    }
  }

  #setRange({ declared, isAssign }: PipeNode, index: Value, item: Value): void {
    const [first, second] = declared
    if (first === undefined) return
    const values = second === undefined ? [item] : [index, item]
    for (const [i, value] of values.entries()) {
      if (isAssign) this.#assign(declared[i] ?? "", value)
      else {
        const variable = this.#variables.at(i - values.length)
        if (variable !== undefined) variable.value = value
      }
    }
  }

  #call(dot: Value, node: TemplateNode): void {
    const list = this.#program.lists.get(node.name)
    if (list === undefined) throw this.#error(`template ${quote(node.name)} not defined`)
    const argument = node.pipe === undefined ? undefined : this.#pipeline(dot, node.pipe)
    const [variables, template] = [this.#variables, this.#template]
    this.#variables = [{ name: "$", value: argument }]
    this.#template = node.name
    this.#list(argument, list)
    this.#variables = variables
    this.#template = template
  }

  #pipeline(dot: Value, pipe: PipeNode): Value {
    this.#visit(pipe)
    this.#enter()
    let value: Piped = NONE
    // A nil interface becomes no value at all.
    for (const command of pipe.commands) value = this.#command(dot, command, value) ?? undefined
    const result = value === NONE ? undefined : value
    for (const name of pipe.declared) {
      if (pipe.isAssign) this.#assign(name, result)
      else this.#variables.push({ name, value: result })
    }
    this.#depth -= 1
    return result
  }

  #assign(name: string, value: Value): void {
    this.#variable(name).value = value
  }

  #command(dot: Value, command: CommandNode, piped: Piped): Value {
    const [first, ...rest] = command.args
    const hasArguments = rest.length > 0 || piped !== NONE
    if (isPlace(first)) return this.#place(dot, first, hasArguments)
    if (first.kind === "identifier") return this.#function(dot, command, piped)
    if (first.kind !== "pipe") this.#visit(first)
    if (hasArguments) {
      throw this.#error(`can't give argument to non-function ${nodeText(first)}`)
    }
    if (first.kind === "nil") throw this.#error("nil is not a command")
    return this.#operand(dot, first)
  }

  /** The value of an argument. */
  #operand(dot: Value, node: Operand): Value {
    if (isPlace(node)) return this.#place(dot, node, false)
    if (node.kind === "pipe") return this.#pipeline(dot, node)
    if (node.kind === "identifier") {
      return this.#function(dot, { kind: "command", pos: node.pos, args: [node] }, NONE)
    }
    if (node.kind === "bool") return node.value
    if (node.kind === "string") return node.text
    if (node.kind === "number") return this.#number(node)
    return node.kind === "dot" ? dot : undefined
  }

  /** A number is a float when it is written like one. */
  #number(node: NumberNode): Value {
    this.#visit(node)
    const isHex = /^0[xX]/.test(node.text) && !/[pP]/.test(node.text)
    const isFloat = !isHex && !node.text.startsWith("'") && /[.eEpP]/.test(node.text)
    if (isFloat) return node.float
    if (node.int === undefined) throw this.#error(`${node.text} overflows int`)
    return node.int
  }

  /** Something with fields behind it. */
  #place(dot: Value, node: FieldNode | ChainNode, hasArguments: boolean): Value {
    this.#visit(node)
    let [value, names]: [Value, readonly string[]] = [dot, node.names]
    if (node.kind === "variable") {
      value = this.#variable(node.names[0] ?? "").value
      names = node.names.slice(1)
      if (names.length === 0 && hasArguments) {
        throw this.#error(`can't give argument to non-function ${nodeText(node)}`)
      }
    } else if (node.kind === "chain") {
      if (node.base.kind === "nil") {
        throw this.#error(`indirection through explicit nil in ${nodeText(node)}`)
      }
      this.#visit(node.base)
      value = this.#operand(dot, node.base)
    }
    let isAny = false
    for (const [i, name] of names.entries()) {
      const receiver = value
      value = this.#field(receiver, name, {
        hasArguments: hasArguments && i === names.length - 1,
        isAny,
      })
      isAny = receiver instanceof GoMap && receiver.type.endsWith(`]${ANY_TYPE}`)
    }
    return value
  }

  #variable(name: string): Variable {
    const at = this.#variables.findLastIndex((known) => known.name === name)
    this.work((this.#variables.length - at) / VARIABLES_A_STEP)
    const variable = this.#variables[at]
    if (variable === undefined) throw this.#error(`undefined variable: ${name}`)
    return variable
  }

  /** @param options.isAny The receiver comes from a map of anything: errors name that as its type. */
  #field(
    receiver: Value,
    name: string,
    { hasArguments, isAny }: { hasArguments: boolean; isAny: boolean },
  ): Value {
    if (receiver === undefined) return undefined
    if (receiver === null) {
      throw this.#error(`nil pointer evaluating ${ANY_TYPE}.${name}`)
    }
    if (receiver instanceof GoStruct) {
      const field = receiver.fields.get(name)
      if (field !== undefined) {
        if (hasArguments) {
          throw this.#error(`${name} has arguments but cannot be invoked as function`)
        }
        return field.value
      }
    } else if (receiver instanceof GoMap) {
      if (hasArguments) throw this.#error(`${name} is not a method but has arguments`)
      return receiver.entries.has(name) ? receiver.entries.get(name) : receiver.zero
    }
    throw this.#error(`can't evaluate field ${name} in type ${isAny ? ANY_TYPE : typeOf(receiver)}`)
  }

  #function(dot: Value, command: CommandNode, piped: Piped): Value {
    const [first, ...operands] = command.args
    if (first.kind !== "identifier") throw new Error("Broken invariant: a call has a name")
    this.#visit(first)
    const { name } = first
    const count = operands.length + (piped === NONE ? 0 : 1)
    if (name === "and" || name === "or") return this.#logic(dot, command, piped)
    const callee = FUNCTIONS[name]
    if (callee === undefined) throw this.#error(`${quote(name)} is not a defined function`)
    const isCountRight = callee.isVariadic === true ? count >= callee.fixed : count === callee.fixed
    if (!isCountRight) {
      const wanted =
        callee.isVariadic === true
          ? `want at least ${callee.fixed} got ${operands.length}`
          : `want ${callee.fixed} got ${count}`
      throw this.#error(`wrong number of args for ${name}: ${wanted}`)
    }
    const isText = (i: number) =>
      callee.strings === "all" || (callee.strings === "first" && i === 0)
    const args = operands.map((operand, i) =>
      isText(i) ? this.#textArgument(dot, operand) : this.#argument(dot, operand),
    )
    if (piped !== NONE) args.push(isText(args.length) ? this.#checkText(piped) : piped)
    try {
      return callee.call(args, { sink: new Sink(this), now: this.#program.now })
    } catch (error) {
      if (!(error instanceof TemplateFailure)) throw error
      this.#node = command
      throw this.#error(`error calling ${name}: ${error.message}`)
    }
  }

  /** The first argument that decides, or the last. */
  #logic(dot: Value, { args: [first, ...operands] }: CommandNode, piped: Piped): Value {
    const name = nodeText(first)
    if (operands.length === 0 && piped === NONE) {
      throw this.#error(`wrong number of args for ${name}: want at least 1 got 0`)
    }
    let value: Value
    for (const operand of operands) {
      value = this.#argument(dot, operand)
      if (isTrue(value) === (name === "or")) return value
    }
    return piped === NONE ? value : piped
  }

  #argument(dot: Value, node: Operand): Value {
    this.#visit(node)
    return this.#operand(dot, node)
  }

  /** An argument of a parameter of type `string`. */
  #textArgument(dot: Value, node: Operand): string {
    this.#visit(node)
    if (node.kind === "string") return node.text
    if (node.kind === "nil") throw this.#error("cannot assign nil to string")
    if (node.kind === "bool" || node.kind === "number") {
      throw this.#error(`expected string; found ${nodeText(node)}`)
    }
    return this.#checkText(this.#operand(dot, node))
  }

  #checkText(value: Value): string {
    if (typeof value === "string") return value
    if (value === undefined) throw this.#error("invalid value; expected string")
    const type = value === null ? ANY_TYPE : typeOf(value)
    throw this.#error(`wrong type for value; expected string; got ${type}`)
  }

  #error(text: string): TemplateExecutionError {
    const { name, source } = this.#program
    if (this.#node === undefined) return new TemplateExecutionError(`template: ${name}: ${text}`)
    const before = source.slice(0, this.#node.pos)
    const line = before.split("\n").length
    const column = byteLength(before.slice(before.lastIndexOf("\n") + 1))
    const place = `${name}:${line}:${column}: executing ${quote(this.#template)}`
    return new TemplateExecutionError(`template: ${place} at <${nodeText(this.#node)}>: ${text}`)
  }
}

function isJump(node: Node): node is JumpNode {
  return node.kind === "break" || node.kind === "continue"
}

function isBranch(node: Node): node is BranchNode {
  return node.kind === "if" || node.kind === "with" || node.kind === "range"
}

/** Whether a node is something with fields. */
function isPlace(node: Operand): node is FieldNode | ChainNode {
  return node.kind === "field" || node.kind === "variable" || node.kind === "chain"
}
