/**
 * What commands print, kept instead of shown: for tests.
 *
 * @module
 */

import { spyOn } from "bun:test"

/** Keeps everything that is printed until it is disposed. */
export class TestTerminal implements Disposable {
  stdout = ""
  stderr = ""
  readonly #restore: (() => void)[] = []

  /** @param isTerminal What programs are told that stdout is. */
  constructor(isTerminal = false) {
    const wasTerminal = process.stdout.isTTY
    process.stdout.isTTY = isTerminal
    this.#restore.push(() => {
      process.stdout.isTTY = wasTerminal
    })
    const toStdout = (text: string) => {
      this.stdout += text
      return true
    }
    const toStderr = (text: string) => {
      this.stderr += text
      return true
    }
    const spies = [
      spyOn(process.stdout, "write").mockImplementation(toStdout),
      spyOn(process.stderr, "write").mockImplementation(toStderr),
      spyOn(console, "log").mockImplementation((text = "") => void toStdout(`${text}\n`)),
      spyOn(console, "error").mockImplementation((text = "") => void toStderr(`${text}\n`)),
    ]
    // A command listens for readers that stop reading, for as long as its process lives.
    this.#restore.push(() => process.stdout.removeAllListeners("error"))
    this.#restore.push(...spies.map((spy) => () => spy.mockRestore()))
  }

  /** Programs take stderr for a terminal until the result is disposed. */
  pretend(): Disposable {
    const was = process.stderr.isTTY
    process.stderr.isTTY = true
    return {
      [Symbol.dispose]() {
        process.stderr.isTTY = was
      },
    }
  }

  [Symbol.dispose](): void {
    for (const restore of this.#restore) restore()
  }
}
