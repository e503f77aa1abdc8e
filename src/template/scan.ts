/**
 * What a template mentions, without running it, and templates made from others.
 *
 * @module
 */

import type { AnyNode, BranchNode, ListNode, Node, PipeNode } from "./nodes.ts"
import type { Template } from "./template.ts"

/** A node and the place that it is in. */
export interface Visit {
  readonly node: AnyNode
  /** The node around it. */
  readonly parent: Visit | undefined
}

/** All nodes of a template and of those that it defines, in the order of the source. */
export function* nodesOf({ lists }: Template): Generator<Visit> {
  for (const list of lists.values()) yield* nodesIn(list)
}

/** A node and all that are in it. */
function* nodesIn(root: AnyNode): Generator<Visit> {
  const waiting: Visit[] = [{ node: root, parent: undefined }]
  for (let visit = waiting.pop(); visit !== undefined; visit = waiting.pop()) {
    yield visit
    for (const node of childrenOf(visit.node).toReversed()) waiting.push({ node, parent: visit })
  }
}

/** The list that a node is in. */
export function listAround({ parent }: Visit): ListNode | undefined {
  for (let outer = parent; outer !== undefined; outer = outer.parent) {
    if (outer.node.kind === "list") return outer.node
  }
  return undefined
}

/** The innermost range that a node is in. */
export function rangeAround({ parent }: Visit): BranchNode | undefined {
  for (let outer = parent; outer !== undefined; outer = outer.parent) {
    if (outer.node.kind === "range") return outer.node
  }
  return undefined
}

function childrenOf(node: AnyNode): readonly AnyNode[] {
  if (node.kind === "list") return node.nodes
  if (node.kind === "action") return [node.pipe]
  if (node.kind === "if" || node.kind === "with" || node.kind === "range") {
    return [node.pipe, node.list, ...(node.otherwise === undefined ? [] : [node.otherwise])]
  }
  if (node.kind === "template") return node.pipe === undefined ? [] : [node.pipe]
  if (node.kind === "pipe") return node.commands
  if (node.kind === "command") return node.args
  return node.kind === "chain" ? [node.base] : []
}

/** Names of fields and variables that a template mentions, without `.` and `$`, in lower case. */
export function mentionedNames(template: Template): ReadonlySet<string> {
  const names = new Set<string>()
  for (const { node } of nodesOf(template)) {
    for (const name of namesIn(node)) names.add(name.replace("$", "").toLowerCase())
  }
  return names
}

function namesIn(node: AnyNode): readonly string[] {
  if (node.kind === "pipe") return node.declared
  const hasNames = node.kind === "field" || node.kind === "variable" || node.kind === "chain"
  return hasNames ? node.names : []
}

/** Whether a field of this name, such as `ToolCalls`, is asked for below a node. */
export function asksFor(node: AnyNode, name: string): boolean {
  for (const { node: inner } of nodesIn(node)) {
    if (inner.kind !== "pipe" && namesIn(inner).includes(name)) return true
  }
  return false
}

/** All text outside of actions and in literals. */
export function textsOf(template: Template): string {
  const texts: string[] = []
  for (const { node } of nodesOf(template)) {
    if (node.kind === "text" || node.kind === "string") texts.push(node.text)
  }
  return texts.join("\n")
}

/** The text of the first thing in a list, and of the last, without blanks; empty when they are no texts. */
export function endTexts({ nodes }: ListNode): [string, string] {
  return [ownText(nodes[0]), ownText(nodes.at(-1))]
}

function ownText(node: Node | undefined): string {
  return node?.kind === "text" ? node.text.trim() : ""
}

/** The first text in a node that is not blank. */
export function firstText(node: AnyNode): string | undefined {
  for (const { node: inner } of nodesIn(node)) {
    if (inner.kind === "text" && inner.text.trim() !== "") return inner.text
  }
  return undefined
}

/** The template with `{{ .Response }}` behind it. */
export function withResponse(template: Template): Template {
  const { pos, nodes } = mainList(template)
  const end = template.source.length
  const pipe: PipeNode = {
    kind: "pipe",
    pos: end,
    declared: [],
    isAssign: false,
    commands: [
      { kind: "command", pos: end, args: [{ kind: "field", pos: end, names: ["Response"] }] },
    ],
  }
  return withMain(template, {
    kind: "list",
    pos,
    nodes: [...nodes, { kind: "action", pos: end, pipe }],
  })
}

/** The template up to its first `{{ .Response }}`, with that: everything behind is left out. */
export function untilResponse(template: Template): Template {
  const [list] = cutList(mainList(template))
  return withMain(template, list)
}

function mainList({ lists, name }: Template): ListNode {
  return lists.get(name) ?? { kind: "list", pos: 0, nodes: [] }
}

function withMain(template: Template, list: ListNode): Template {
  return { ...template, lists: new Map([...template.lists, [template.name, list]]) }
}

/** @returns The list, and whether the cut was in it. */
function cutList(list: ListNode): [ListNode, boolean] {
  const kept: Node[] = []
  for (const node of list.nodes) {
    if (node.kind === "if" || node.kind === "with" || node.kind === "range") {
      const [branch, isCut] = cutBranch(node)
      kept.push(branch)
      if (isCut) return [{ ...list, nodes: kept }, true]
      continue
    }
    kept.push(node)
    // Only what is printed counts: a condition on the answer is no place for it.
    const isPrinted = node.kind === "action" && node.pipe.declared.length === 0
    if (isPrinted && asksFor(node, "Response")) return [{ ...list, nodes: kept }, true]
  }
  return [list, false]
}

function cutBranch(branch: BranchNode): [BranchNode, boolean] {
  const [list, isCut] = cutList(branch.list)
  if (isCut) return [{ ...branch, list, otherwise: undefined }, true]
  if (branch.otherwise === undefined) return [branch, false]
  const [otherwise, isCutThere] = cutList(branch.otherwise)
  return [{ ...branch, otherwise }, isCutThere]
}
