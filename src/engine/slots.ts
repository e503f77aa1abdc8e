/**
 * Who holds which sequence id and how many KV cells.
 *
 * A sequence reserves at admission all the cells that it can ever need, so a running sequence never finds the cache
 * full. At any time `free + reserved = total`. Ids are handed out lowest first: dense ids keep compute graphs alike.
 *
 * @module
 */

import { assert } from "../util/errors.ts"

/** Sequence ids and cells of one backend. */
export class Slots {
  readonly totalCells: number
  readonly #cellsOf: (number | undefined)[]
  #freeCells: number

  constructor(sequences: number, cells: number) {
    this.totalCells = cells
    this.#freeCells = cells
    this.#cellsOf = Array.from({ length: sequences }, () => undefined)
  }

  get freeCells(): number {
    return this.#freeCells
  }

  /** Cells that sequences hold. */
  get reservedCells(): number {
    return this.#cellsOf.reduce<number>((sum, cells) => sum + (cells ?? 0), 0)
  }

  /** Takes a sequence id and reserves cells for it; undefined when either is short. */
  acquire(cells: number): number | undefined {
    assert(cells > 0 && cells <= this.totalCells, `a sequence asks for ${cells} cells`)
    const id = this.#cellsOf.indexOf(undefined)
    if (id === -1 || cells > this.#freeCells) return undefined
    this.#cellsOf[id] = cells
    this.#freeCells -= cells
    return id
  }

  /** Gives a sequence id and its cells back. */
  release(id: number): void {
    const cells = this.#cellsOf[id]
    assert(cells !== undefined, `sequence ${id} is released twice`)
    this.#cellsOf[id] = undefined
    this.#freeCells += cells
  }
}
