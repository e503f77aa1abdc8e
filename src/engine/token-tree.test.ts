import { describe, expect, test } from "bun:test"

import * as fc from "fast-check"

import { type Branch, TokenTree } from "./token-tree.ts"

const tokens = (...numbers: number[]) => Int32Array.from(numbers)

/** A branch over tokens that shares what is there, as a request does. */
function plantOver(tree: TokenTree, id: number, all: readonly number[], scope = "s"): Branch {
  const branch = tree.plant(id, scope)
  const match = tree.find(scope, { tokens: all, limit: all.length })
  tree.move(branch, match)
  tree.grow(branch, Int32Array.from(all.slice(match.end)))
  return branch
}

describe("TokenTree", () => {
  test("counts a cell for each token, and keeps tokens in their order", () => {
    const tree = new TokenTree()
    const branch = tree.plant(3, "s")
    tree.grow(branch, tokens(1, 2, 3))
    tree.grow(branch, tokens())
    tree.grow(branch, tokens(4, 5))
    expect([...tree.tokensOf(branch)]).toEqual([1, 2, 3, 4, 5])
    expect({ end: branch.end, cells: tree.cells, active: tree.activeCells }).toEqual({
      end: 5,
      cells: 5,
      active: 5,
    })
  })

  test("finds the longest beginning, also inside of a stretch", () => {
    const tree = new TokenTree()
    plantOver(tree, 0, [1, 2, 3, 4, 5])
    plantOver(tree, 1, [1, 2, 3, 9, 9, 9])
    const find = (wanted: number[], limit = wanted.length) =>
      tree.find("s", { tokens: wanted, limit }).end
    expect(find([1, 2, 3, 9, 9, 8])).toBe(5)
    expect(find([1, 2, 7])).toBe(2)
    expect(find([1, 2, 3, 4, 5, 6])).toBe(5)
    expect(find([1, 2, 3, 4, 5, 6], 4)).toBe(4)
    expect(find([7])).toBe(0)
    expect(find([])).toBe(0)
  })

  test("counts what branches share once, and frees it with the last of them", () => {
    const tree = new TokenTree()
    const first = plantOver(tree, 0, [1, 2, 3, 4, 5])
    const second = plantOver(tree, 1, [1, 2, 3, 8])
    expect(tree.cells).toBe(6)
    tree.remove(first)
    expect(tree.cells).toBe(4)
    expect([...tree.tokensOf(second)]).toEqual([1, 2, 3, 8])
    tree.remove(second)
    expect({ cells: tree.cells, active: tree.activeCells }).toEqual({ cells: 0, active: 0 })
    expect(tree.find("s", { tokens: [1, 2, 3], limit: 3 }).end).toBe(0)
  })

  test("counts cells as active as long as one running request holds them", () => {
    const tree = new TokenTree()
    const first = plantOver(tree, 0, [1, 2, 3, 4, 5])
    const second = plantOver(tree, 1, [1, 2, 3, 8])
    tree.setActive(first, false)
    tree.setActive(first, false)
    expect({ cells: tree.cells, active: tree.activeCells }).toEqual({ cells: 6, active: 4 })
    const match = tree.find("s", { tokens: [1, 2, 3, 4, 5], limit: 5 })
    expect(tree.activeCellsOf(match)).toBe(3)
    tree.setActive(second, false)
    expect(tree.activeCells).toBe(0)
    expect(tree.activeCellsOf(match)).toBe(0)
    tree.setActive(first, true)
    expect(tree.activeCells).toBe(5)
    expect(tree.activeCellsOf(tree.find("s", { tokens: [1, 2], limit: 2 }))).toBe(2)
  })

  test("names a branch that holds a match", () => {
    const tree = new TokenTree()
    const first = plantOver(tree, 0, [1, 2, 3, 4, 5])
    const second = plantOver(tree, 1, [1, 2, 3, 8])
    const holder = (...wanted: number[]) =>
      tree.holderOf(tree.find("s", { tokens: wanted, limit: wanted.length }))
    expect(holder(1, 2, 3, 8)).toBe(second)
    expect(holder(1, 2, 3, 4)).toBe(first)
    expect([first, second]).toContain(holder(1, 2))
  })

  test("finds below a branch what follows its own tokens", () => {
    const tree = new TokenTree()
    plantOver(tree, 0, [1, 2, 3, 4, 5])
    const behind = plantOver(tree, 1, [1, 2])
    expect(tree.findBelow(behind, tokens(3, 4, 7)).end).toBe(4)
    expect(tree.findBelow(behind, tokens(7)).end).toBe(2)
    expect(tree.findFrom(behind, { tokens: [1, 2, 3, 4, 5, 6], limit: 4 }).end).toBe(4)
  })

  test("takes the child that agrees longest where several begin alike", () => {
    const tree = new TokenTree()
    for (const [id, all] of [
      [1, 2, 9],
      [1, 2, 3, 4],
      [1, 8],
    ].entries())
      tree.grow(tree.plant(id, "s"), Int32Array.from(all))
    expect(tree.find("s", { tokens: [1, 2, 3, 4, 5], limit: 5 }).end).toBe(4)
  })

  test("finds the longest branch that a lookup begins with as a whole", () => {
    const tree = new TokenTree()
    const short = plantOver(tree, 0, [1, 2])
    const long = plantOver(tree, 1, [1, 2, 3, 4])
    const lookup = { tokens: [1, 2, 3, 4, 5], limit: 4 }
    expect(tree.findWhole("s", lookup)).toBe(long)
    expect(tree.findWhole("s", { ...lookup, limit: 3 })).toBe(short)
    expect(tree.findWhole("s", lookup, long)).toBe(short)
    expect(tree.findWhole("s", { tokens: [1, 9], limit: 2 })).toBeUndefined()
    expect(tree.findWhole("elsewhere", lookup)).toBeUndefined()
  })

  test("keeps scopes apart, and branches without one from everybody", () => {
    const tree = new TokenTree()
    plantOver(tree, 0, [1, 2, 3], "a")
    const alone = tree.plant(1, undefined)
    tree.grow(alone, tokens(1, 2, 3))
    const lookup = { tokens: [1, 2, 3], limit: 3 }
    expect(tree.find("a", lookup).end).toBe(3)
    expect(tree.find("b", lookup).end).toBe(0)
    expect(tree.find(undefined, lookup).end).toBe(0)
    expect(tree.cells).toBe(6)
  })

  test("takes tokens off the end of a branch, but none that others hold", () => {
    const tree = new TokenTree()
    plantOver(tree, 0, [1, 2, 3])
    const branch = plantOver(tree, 1, [1, 2, 3, 4, 5])
    expect(tree.ownTail(branch)).toBe(2)
    tree.cut(branch, 1)
    expect([...tree.tokensOf(branch)]).toEqual([1, 2, 3, 4])
    expect({ cells: tree.cells, active: tree.activeCells }).toEqual({ cells: 4, active: 4 })
    expect(tree.isRedundant(branch)).toBe(false)
    expect(() => tree.cut(branch, 2)).toThrow("2 tokens are not the branch's own")
    tree.cut(branch, 1)
    expect([...tree.tokensOf(branch)]).toEqual([1, 2, 3])
    expect(tree.ownTail(branch)).toBe(0)
    expect(tree.isRedundant(branch)).toBe(true)
    expect(tree.cells).toBe(3)
  })

  test("lets a branch begin anew in its scope", () => {
    const tree = new TokenTree()
    const branch = plantOver(tree, 0, [1, 2, 3])
    tree.reset(branch)
    expect({ end: branch.end, cells: tree.cells }).toEqual({ end: 0, cells: 0 })
    tree.grow(branch, tokens(4))
    expect(tree.find("s", { tokens: [4], limit: 1 }).end).toBe(1)
  })

  test("has no boundary left where a fork was, so that all of an end can be cut at once", () => {
    const tree = new TokenTree()
    const first = plantOver(tree, 0, [1, 2, 3, 4, 5])
    const others = [1, 2, 3, 4].map((end, i) =>
      plantOver(tree, 1 + i, [1, 2, 3, 4, 5].slice(0, end)),
    )
    expect(tree.ownTail(first)).toBe(1)
    for (const other of others) tree.remove(other)
    expect(tree.ownTail(first)).toBe(5)
    expect([...tree.tokensOf(first)]).toEqual([1, 2, 3, 4, 5])
    tree.cut(first, 4)
    expect([...tree.tokensOf(first)]).toEqual([1])
  })

  test("makes no node for each token of equal answers that grow side by side", () => {
    const tree = new TokenTree()
    const pair = [0, 1].map((id) => plantOver(tree, id, [7, 8]))
    for (let token = 0; token < 50; token++)
      for (const branch of pair) tree.grow(branch, tokens(token))
    expect(pair.map((branch) => tree.ownTail(branch))).toEqual([50, 50])
    expect(tree.cells).toBe(102)
  })

  test("says how far others have what only one branch holds", () => {
    const tree = new TokenTree()
    const pair = [0, 1].map((id) => plantOver(tree, id, [7, 8]))
    const [one, other] = pair
    if (one === undefined || other === undefined) throw new Error("there are two")
    tree.grow(one, tokens(1, 2, 3, 4))
    expect(tree.findBeside(one).end).toBe(2)
    tree.grow(other, tokens(1, 2, 9))
    expect(tree.findBeside(one).end).toBe(4)
    expect(tree.holderOf(tree.findBeside(one))).toBe(other)
    expect(tree.findBeside(plantOver(tree, 2, [7])).end).toBe(1)
  })

  test("names the branches that another one holds too", () => {
    const tree = new TokenTree()
    const short = plantOver(tree, 0, [1, 2])
    const long = plantOver(tree, 1, [1, 2, 3])
    expect(tree.endsBefore(long)).toEqual([short])
    expect(tree.endsBefore(short)).toEqual([])
    expect(tree.holderOf(short, short)).toBe(long)
  })

  test("counts cells that only one running request holds", () => {
    const tree = new TokenTree()
    const first = plantOver(tree, 0, [1, 2, 3, 4])
    const second = plantOver(tree, 1, [1, 2, 9])
    expect([first, second].map((branch) => tree.soleActiveCells(branch))).toEqual([2, 1])
    tree.setActive(second, false)
    expect(tree.soleActiveCells(first)).toBe(4)
  })

  test("agrees with a list of branches, whatever is done to it", () => {
    // 0 … 2: few tokens, so that much is shared.
    const token = fc.integer({ min: 0, max: 2 })
    const operation = fc.record({
      kind: fc.constantFrom("plant", "grow", "remove", "idle", "cut"),
      which: fc.nat(9),
      tokens: fc.array(token, { maxLength: 6 }),
    })
    fc.assert(
      fc.property(fc.array(operation, { maxLength: 40 }), (operations) => {
        const tree = new TokenTree()
        const model = new Map<Branch, number[]>()
        for (const [id, { kind, which, tokens: some }] of operations.entries()) {
          const branch = [...model.keys()][which]
          if (kind === "plant") model.set(plantOver(tree, id, some), some)
          else if (branch !== undefined) apply(tree, model, { branch, kind, some })
          compare(tree, model)
        }
      }),
    )
  })
})

function apply(
  tree: TokenTree,
  model: Map<Branch, number[]>,
  { branch, kind, some }: { branch: Branch; kind: string; some: number[] },
): void {
  const held = model.get(branch) ?? []
  if (kind === "remove") {
    tree.remove(branch)
    model.delete(branch)
  } else if (kind === "idle") tree.setActive(branch, !branch.isActive)
  else if (kind === "cut") {
    const count = Math.min(some.length, tree.ownTail(branch))
    if (count > 0) tree.cut(branch, count)
    model.set(branch, held.slice(0, held.length - count))
  } else {
    // As the memory does: what others have is shared, the rest is the branch's own.
    const match = tree.findBelow(branch, Int32Array.from(some))
    const shared = match.end - branch.end
    if (shared > 0) tree.move(branch, match)
    tree.grow(branch, Int32Array.from(some.slice(shared)))
    model.set(branch, [...held, ...some])
  }
}

/** The tree's numbers are those that follow from the list: distinct beginnings are cells. */
function compare(tree: TokenTree, model: ReadonlyMap<Branch, readonly number[]>): void {
  const cells = new Set<string>()
  const active = new Set<string>()
  for (const [branch, held] of model) {
    expect([...tree.tokensOf(branch)]).toEqual([...held])
    for (let end = 1; end <= held.length; end++) {
      const beginning = held.slice(0, end).join()
      cells.add(beginning)
      if (branch.isActive) active.add(beginning)
    }
  }
  expect({ cells: tree.cells, active: tree.activeCells }).toEqual({
    cells: cells.size,
    active: active.size,
  })
  for (const held of model.values())
    expect(tree.find("s", { tokens: held, limit: held.length }).end).toBe(held.length)
}
