/**
 * The cells of the fake backend: what llama.cpp's memories do, as far as sequences can tell.
 *
 * Dense: a cell belongs to any number of sequences; any part can be shared or removed. Window: a cell that has left
 * the window is recycled unless several sequences hold it; what needs it then is broken. Recurrent: a sequence is one
 * state; there is no part of it, and a step of several that is cut short leaves none whole. Whatever would give wrong
 * answers in llama.cpp throws here.
 *
 * @module
 */

import { assert } from "../util/errors.ts"

/** Kinds of memory that the fake plays. */
export type FakeMemory = "dense" | "window" | "recurrent"

interface Cell {
  readonly token: number
  owners: number
  /** Its content was overwritten: in a window by a later one, among states by another state. */
  isLost: boolean
}

const WINDOW = 8

/** See the module. */
export class FakeCells {
  readonly #kind: FakeMemory
  readonly #total: number
  readonly #sequences: (Cell | undefined)[][]
  #used = 0

  constructor(kind: FakeMemory, sequences: number, total: number) {
    this.#kind = kind
    this.#total = total
    this.#sequences = Array.from({ length: sequences }, () => [])
  }

  /** Cells with an owner. */
  get used(): number {
    return this.#used
  }

  length(sequence: number): number {
    return this.#of(sequence).length
  }

  /** All tokens that a sequence sees. Throws when one of them is gone. */
  visible(sequence: number): number[] {
    return this.#of(sequence).map((cell, position) => {
      assert(cell !== undefined, `sequence ${sequence} has a hole at ${position}`)
      assert(this.#kind === "window" || !cell.isLost, `the state of sequence ${sequence} is lost`)
      return cell.token
    })
  }

  /** A step was cut short. llama.cpp moves states while it computes, those of sequences beside it too. */
  cutShort(stepSequences: number): void {
    if (this.#kind !== "recurrent" || stepSequences < 2) return
    for (const held of this.#sequences) for (const cell of held) if (cell) cell.isLost = true
  }

  /** Computes a token. */
  add(sequence: number, position: number, token: number): void {
    const held = this.#of(sequence)
    assert(position === held.length, `position ${position} after ${held.length} tokens`)
    assert(this.#used < this.#total, "there are no cells left")
    const reach = this.#kind === "window" ? held.slice(-WINDOW) : held.slice(-1)
    assert(
      reach.every((cell) => cell !== undefined && !cell.isLost),
      `sequence ${sequence} computes on cells that are gone`,
    )
    held.push({ token, owners: 1, isLost: false })
    this.#used++
    if (this.#kind !== "window") return
    const leaving = held.at(-1 - WINDOW)
    if (leaving !== undefined && leaving.owners === 1) leaving.isLost = true
  }

  /** Forgets positions `from` … `to` − 1 (−1: to the end). False when the kind cannot do that. */
  remove(sequence: number, from: number, to: number): boolean {
    const held = this.#of(sequence)
    const end = to === -1 ? held.length : Math.min(to, held.length)
    if (this.#kind !== "dense" && (from > 0 || end < held.length)) return false
    for (let i = from; i < end; i++) {
      const cell = held[i]
      if (cell !== undefined && --cell.owners === 0) this.#used--
      held[i] = undefined
    }
    if (end === held.length) held.length = Math.min(held.length, from)
    return true
  }

  copy(source: number, target: number, from: number, to: number): void {
    const shared = this.#of(source)
    const held = this.#of(target)
    const end = to === -1 ? shared.length : to
    assert(source !== target && end <= shared.length, "there is nothing to share")
    assert(
      this.#kind === "dense" || (from === 0 && end === shared.length && held.length === 0),
      "this kind of memory shares whole sequences only",
    )
    assert(from <= held.length, `positions ${held.length} to ${from} would be missing`)
    for (let i = from; i < end; i++) {
      const cell = shared[i]
      assert(cell !== undefined && held[i] === undefined, `position ${i} cannot be shared`)
      cell.owners++
      held[i] = cell
    }
  }

  #of(sequence: number): (Cell | undefined)[] {
    const held = this.#sequences[sequence]
    assert(held !== undefined, `sequence ${sequence} does not exist`)
    return held
  }
}
