/**
 * Which tokens have their state in the KV cache, and which sequence ids hold it: a radix tree over token ids.
 *
 * A node is a stretch of tokens, one cell each; a branch is a sequence id that holds every cell from the root to the
 * node where it ends. Branches with a common beginning share its nodes, so the cells in use are the lengths of all
 * nodes. A node lives as long as a branch holds it, and where no branch ends and nothing forks there is no boundary
 * between nodes: the tree is never deeper than there are branches. Each scope has a root of its own: nothing is shared
 * across. Two branches may hold equal tokens in cells of their own; then several children begin alike.
 *
 * The tree only keeps the books. Whoever moves a branch makes the backend agree (`prefix-memory.ts`).
 *
 * @module
 */

import { assert } from "../util/errors.ts"

/** A stretch of tokens. Its cells belong to every branch that ends here or below. */
interface Node {
  parent: Node | undefined
  /** Tokens from the root to the end of this node. */
  end: number
  /** The stretch; the buffer may be longer than {@link length}. */
  tokens: Int32Array
  length: number
  readonly children: Node[]
  /** Branches that end here. */
  readonly ends: Set<Branch>
  /** Branches that end here or below. */
  holders: number
  /** Of those, the ones of running requests. */
  active: number
}

/** A sequence id and the tokens whose state it holds. */
export class Branch {
  readonly id: number
  readonly scope: string | undefined
  /** A running request needs it: never evicted. */
  isActive = true
  /** Where it ends; only the tree moves it. */
  node: Node

  constructor(id: number, scope: string | undefined, root: Node) {
    this.id = id
    this.scope = scope
    this.node = root
  }

  /** Tokens that it holds. */
  get end(): number {
    return this.node.end
  }
}

/** What is looked up: tokens `from` (0 unless given) … `limit` − 1 of a sequence. */
export interface Lookup {
  readonly tokens: ArrayLike<number>
  readonly limit: number
  readonly from?: number
}

/** How far a lookup got, and where. */
export interface Match {
  readonly node: Node
  /** Tokens that agree from the root on. Inside of `node`, or at its end. */
  readonly end: number
}

/** The books of all branches. */
export class TokenTree {
  readonly #roots = new Map<string, Node>()
  #cells = 0
  #activeCells = 0

  /** Cells in use. */
  get cells(): number {
    return this.#cells
  }

  /** Cells that running requests hold. */
  get activeCells(): number {
    return this.#activeCells
  }

  /** Begins an empty, active branch. Without a scope it shares with nobody. */
  plant(id: number, scope: string | undefined): Branch {
    const root = this.#root(scope)
    const branch = new Branch(id, scope, root)
    root.ends.add(branch)
    this.#count(root, 1, 1)
    return branch
  }

  /** The longest path that agrees with the tokens, from the root of a scope on. */
  find(scope: string | undefined, lookup: Lookup): Match {
    const root = scope === undefined ? undefined : this.#roots.get(scope)
    return root === undefined ? { node: newNode(undefined), end: 0 } : deepest(root, lookup)
  }

  /** As {@link find}, from the end of a branch on, whose own tokens agree. */
  findFrom(branch: Branch, lookup: Lookup): Match {
    return deepest(branch.node, lookup)
  }

  /** The longest path below the end of a branch that agrees with tokens which follow it. */
  findBelow(branch: Branch, tokens: Int32Array): Match {
    return deepest(branch.node, { tokens, limit: branch.end + tokens.length, from: branch.end })
  }

  /** As {@link findBelow} for the tokens that only this branch holds: how far others have them in their own cells. */
  findBeside(branch: Branch): Match {
    const { node } = branch
    const { parent } = node
    if (parent === undefined || node.holders > 1) return { node, end: node.end }
    const own = { tokens: node.tokens, limit: node.end, from: parent.end }
    return deepest(parent, own, node)
  }

  /** The longest branch all of whose tokens begin the lookup, and that is not `except`. */
  findWhole(scope: string, lookup: Lookup, except?: Branch): Branch | undefined {
    const root = this.#roots.get(scope)
    let best: Branch | undefined
    const visit = (node: Node) => {
      for (const branch of node.ends) {
        if (branch !== except && branch.end > (best?.end ?? 0)) best = branch
      }
      for (const child of node.children) {
        if (child.end <= lookup.limit && agreement(child, lookup) === child.length) visit(child)
      }
    }
    if (root !== undefined) visit(root)
    return best
  }

  /** A branch that holds all cells of a match, and is not `except`. */
  holderOf({ node }: Pick<Match, "node">, except?: Branch): Branch {
    for (let at: Node | undefined = node; at !== undefined; at = at.children[0]) {
      for (const branch of at.ends) if (branch !== except) return branch
    }
    throw new Error("Broken invariant: a node has a holder")
  }

  /** Cells of a match that running requests hold. */
  activeCellsOf({ node, end }: Match): number {
    for (let at: Node | undefined = node; at !== undefined; at = at.parent) {
      if (at.active > 0) return Math.min(end, at.end)
    }
    return 0
  }

  /** Branches that end on the way to where a branch ends: it holds all that they do. */
  endsBefore({ node }: Branch): Branch[] {
    const found: Branch[] = []
    for (let at = node.parent; at !== undefined; at = at.parent) found.push(...at.ends)
    return found
  }

  /** Cells of a branch that no other running request holds. */
  soleActiveCells(branch: Branch): number {
    let cells = 0
    for (let at: Node | undefined = branch.node; at?.active === 1; at = at.parent)
      cells += at.length
    return cells
  }

  /** Moves a branch to the end of a match, whose cells it now shares; what only it held is free. */
  move(branch: Branch, match: Match): void {
    const target = this.#splitAt(match)
    if (target === branch.node) return
    const old = branch.node
    const active = branch.isActive ? 1 : 0
    old.ends.delete(branch)
    target.ends.add(branch)
    branch.node = target
    this.#count(target, 1, active)
    this.#count(old, -1, -active)
  }

  /** Adds tokens to the end of a branch, in cells of its own. */
  grow(branch: Branch, tokens: Int32Array): void {
    if (tokens.length === 0) return
    const { node } = branch
    const isOwn = node.parent !== undefined && node.holders === 1 && node.children.length === 0
    if (isOwn) {
      append(node, tokens)
      this.#cells += tokens.length
      if (branch.isActive) this.#activeCells += tokens.length
      return
    }
    const child = newNode(node)
    node.children.push(child)
    append(child, tokens)
    this.#cells += tokens.length
    node.ends.delete(branch)
    child.ends.add(branch)
    branch.node = child
    child.holders = 1
    child.active = branch.isActive ? 1 : 0
    if (branch.isActive) this.#activeCells += tokens.length
  }

  /** Tokens at the end of a branch that nobody else holds. */
  ownTail({ node }: Branch): number {
    return node.parent !== undefined && node.holders === 1 ? node.length : 0
  }

  /** Takes `count` tokens off the end of a branch; at most {@link ownTail}. */
  cut(branch: Branch, count: number): void {
    const { node } = branch
    assert(count > 0 && count <= this.ownTail(branch), `${count} tokens are not the branch's own`)
    if (count === node.length) {
      assert(node.parent !== undefined, "a root has no tokens")
      this.move(branch, { node: node.parent, end: node.parent.end })
      return
    }
    node.length -= count
    node.end -= count
    this.#cells -= count
    if (node.active > 0) this.#activeCells -= count
  }

  /** Whether somebody else holds all that a branch holds. */
  isRedundant({ node }: Branch): boolean {
    return node.holders > 1
  }

  /** Says whether a running request needs the branch. */
  setActive(branch: Branch, isActive: boolean): void {
    if (branch.isActive === isActive) return
    branch.isActive = isActive
    this.#count(branch.node, 0, isActive ? 1 : -1)
  }

  /** Lets a branch begin anew. */
  reset(branch: Branch): void {
    let root = branch.node
    while (root.parent !== undefined) root = root.parent
    this.move(branch, { node: root, end: 0 })
  }

  /** Ends a branch; cells that only it held are free. */
  remove(branch: Branch): void {
    branch.node.ends.delete(branch)
    this.#count(branch.node, -1, branch.isActive ? -1 : 0)
  }

  /** All tokens of a branch. */
  tokensOf(branch: Branch): Int32Array {
    const tokens = new Int32Array(branch.end)
    for (let at: Node | undefined = branch.node; at?.parent !== undefined; at = at.parent) {
      tokens.set(at.tokens.subarray(0, at.length), at.end - at.length)
    }
    return tokens
  }

  #root(scope: string | undefined): Node {
    const known = scope === undefined ? undefined : this.#roots.get(scope)
    if (known !== undefined) return known
    const root = newNode(undefined)
    if (scope !== undefined) this.#roots.set(scope, root)
    return root
  }

  /** The node that ends exactly where a match does. */
  #splitAt({ node, end }: Match): Node {
    const kept = end - (node.end - node.length)
    if (kept === node.length) return node
    assert(kept > 0 && kept < node.length, "a match ends inside of its node")
    const upper = newNode(node.parent)
    upper.tokens = node.tokens.subarray(0, kept)
    upper.length = kept
    upper.end = end
    upper.holders = node.holders
    upper.active = node.active
    upper.children.push(node)
    const siblings = node.parent?.children ?? []
    siblings[siblings.indexOf(node)] = upper
    node.parent = upper
    node.tokens = node.tokens.subarray(kept)
    node.length -= kept
    return upper
  }

  /** Counts a branch in or out on the way up from a node; drops nodes without holders, joins those without a fork. */
  #count(from: Node, holders: number, active: number): void {
    for (let node: Node | undefined = from; node !== undefined; node = node.parent) {
      const wasActive = node.active > 0
      node.holders += holders
      node.active += active
      if (wasActive !== node.active > 0) this.#activeCells += wasActive ? -node.length : node.length
      if (node.holders > 0) {
        if (holders < 0) joinWithChild(node)
        continue
      }
      this.#cells -= node.length
      this.#unlink(node)
    }
  }

  #unlink(node: Node): void {
    if (node.parent !== undefined) {
      node.parent.children.splice(node.parent.children.indexOf(node), 1)
      return
    }
    for (const [scope, root] of this.#roots) if (root === node) this.#roots.delete(scope)
  }
}

function newNode(parent: Node | undefined): Node {
  return {
    parent,
    end: parent?.end ?? 0,
    tokens: new Int32Array(0),
    length: 0,
    children: [],
    ends: new Set(),
    holders: 0,
    active: 0,
  }
}

/** Where no branch ends and nothing forks, a node and its only child are one stretch: the child takes all of it. */
function joinWithChild(node: Node): void {
  const { parent, children, ends } = node
  const [child] = children
  if (parent === undefined || child === undefined || children.length > 1 || ends.size > 0) return
  const tokens = new Int32Array(node.length + child.length)
  tokens.set(node.tokens.subarray(0, node.length))
  tokens.set(child.tokens.subarray(0, child.length), node.length)
  child.tokens = tokens
  child.length = tokens.length
  child.parent = parent
  parent.children[parent.children.indexOf(node)] = child
}

function append(node: Node, tokens: Int32Array): void {
  const length = node.length + tokens.length
  if (length > node.tokens.length) {
    const larger = new Int32Array(length + (length >> 1) + 16)
    larger.set(node.tokens.subarray(0, node.length))
    node.tokens = larger
  }
  node.tokens.set(tokens, node.length)
  node.length = length
  node.end += tokens.length
}

/** Descends as long as tokens agree. Where several children do, the one that agrees longest is taken. */
function deepest(root: Node, lookup: Lookup, except?: Node): Match {
  let best: Match = { node: root, end: root.end }
  for (const child of root.children) {
    const count = child === except ? 0 : agreement(child, lookup)
    if (count === 0) continue
    const match =
      count === child.length ? deepest(child, lookup) : { node: child, end: root.end + count }
    if (match.end > best.end) best = match
  }
  return best
}

/** Tokens of a node that agree with the lookup at its place. */
function agreement(node: Node, { tokens, limit, from = 0 }: Lookup): number {
  const start = node.end - node.length
  const most = Math.min(node.length, limit - start)
  let count = 0
  while (count < most && node.tokens[count] === tokens[start - from + count]) count++
  return count
}
