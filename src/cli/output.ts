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

/**
 * A table without lines. Columns are as wide as their widest cell and four blanks; the header's last column is
 * followed by one blank only, as in Ollama's tables, which scripts cut at fixed places.
 */
export function formatTable(
  header: readonly string[],
  rows: readonly (readonly string[])[],
): string {
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
