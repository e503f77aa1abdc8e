/**
 * What commands print: tables as Ollama prints them, a spinner, errors.
 *
 * @module
 */

import { toCriaError } from "../util/errors.ts"

/** Frames of a turning wheel. */
export const SPINNER: readonly string[] = ["⠋", "⠙", "⠹", "⠸", "⠼", "⠴", "⠦", "⠧", "⠇", "⠏"]
const SPINNER_MS = 100
const COLUMN_GAP = 4

/** Prints an error and its hint on stderr, in one form for all commands. */
export function printError(error: unknown): void {
  const { message, hint } = toCriaError(error)
  console.error(`Error: ${message}`)
  if (hint !== undefined) console.error(hint)
}

/** Where cells of several words are wrapped, as in Ollama's tables. */
const CELL_COLUMNS = 30

/** More words than this are wrapped without looking ahead. */
const BALANCED_WORDS_MAX = 500

/** Lines that are equally long as far as possible: what a line lacks counts squared, but for the last one. */
export function wrapWords(text: string, columns: number): string[] {
  if (text.length <= columns) return [text]
  const words = text.replaceAll(/\s/g, " ").split(" ")
  // A word is never cut.
  const width = words.reduce((widest, word) => Math.max(widest, word.length), columns)
  if (words.length > BALANCED_WORDS_MAX) return wrapGreedily(words, width)
  const ends: number[] = []
  const costs = words.map(() => Infinity)
  for (let start = words.length - 1; start >= 0; start--) {
    let length = -1
    for (let end = start; end < words.length; end++) {
      length += 1 + (words[end] ?? "").length
      if (length > width) break
      const isLast = end === words.length - 1
      const cost = isLast ? 0 : (width - length) ** 2 + (costs[end + 1] ?? 0)
      if (!isLast && cost >= (costs[start] ?? 0)) continue
      costs[start] = cost
      ends[start] = end + 1
    }
  }
  const lines: string[] = []
  for (let start = 0; start < words.length; start = ends[start] ?? words.length) {
    lines.push(words.slice(start, ends[start]).join(" "))
  }
  return lines
}

function wrapGreedily(words: readonly string[], width: number): string[] {
  const lines: string[] = []
  for (const word of words) {
    const longer = `${lines.at(-1) ?? ""} ${word}`
    if (lines.length > 0 && longer.length <= width) lines[lines.length - 1] = longer
    else lines.push(word)
  }
  return lines
}

/** Rows as they are printed: what does not fit in a cell goes on below it. */
export function wrapRows(
  rows: readonly (readonly string[])[],
  columns: number = CELL_COLUMNS,
): string[][] {
  return rows.flatMap((row) => {
    const cells = row.map((cell) => wrapWords(cell, columns))
    const height = Math.max(...cells.map((lines) => lines.length))
    return Array.from({ length: height }, (_, i) => cells.map((lines) => lines[i] ?? ""))
  })
}

/**
 * A table without lines. Columns are as wide as their widest cell and four blanks; the header's last column is
 * followed by one blank only, as in Ollama's tables, which scripts cut at fixed places.
 */
export function formatTable(
  header: readonly string[],
  unwrapped: readonly (readonly string[])[],
): string {
  const rows = wrapRows(unwrapped)
  const widths = header.map((title, i) =>
    Math.max(title.length, ...rows.map((row) => (row[i] ?? "").length)),
  )
  const last = header.length - 1
  const line = (cells: readonly string[], lastGap: number) =>
    cells
      .map((cell, i) => cell.padEnd((widths[i] ?? 0) + (i === last ? lastGap : COLUMN_GAP)))
      .join("")
  return [line(header, 1), ...rows.map((row) => line(row, COLUMN_GAP))].join("\n")
}

/** Turns on stderr while something is waited for. Draws nothing when stderr is no terminal. */
export class Spinner implements Disposable {
  #timer: ReturnType<typeof setInterval> | undefined
  #frame = 0

  constructor() {
    if (!process.stderr.isTTY) return
    this.#timer = setInterval(() => {
      process.stderr.write(`\r${SPINNER[this.#frame++ % SPINNER.length]} `)
    }, SPINNER_MS)
  }

  /** Erases it; further calls do nothing. */
  [Symbol.dispose](): void {
    if (this.#timer === undefined) return
    clearInterval(this.#timer)
    this.#timer = undefined
    process.stderr.write("\r\u001b[K")
  }
}
