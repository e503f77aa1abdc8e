/**
 * Runs other programs: output captured, failures with the end of what they said.
 *
 * @module
 */

import { spawn } from "node:child_process"

/** Lines of output that a failure quotes: a compiler error with its context. */
const TAIL_LINES = 40

/** Options of {@link run}. */
export interface RunOptions {
  readonly cwd?: string
  readonly env?: Readonly<Record<string, string>>
  /** Gets every line of stdout and stderr. */
  readonly onLine?: (line: string) => void
}

/**
 * Runs a program to its end.
 *
 * @returns What it wrote to stdout.
 * @throws {Error} With the end of its output when it fails.
 */
export async function run(
  command: string,
  args: readonly string[],
  options: RunOptions = {},
): Promise<string> {
  const { cwd, env, onLine } = options
  const child = spawn(command, args, {
    cwd,
    env: { ...process.env, ...env },
    stdio: ["ignore", "pipe", "pipe"],
  })
  const tail: string[] = []
  let stdout = ""
  const read = async (stream: NodeJS.ReadableStream, isStdout: boolean): Promise<void> => {
    let pending = ""
    for await (const chunk of stream) {
      const text = String(chunk)
      if (isStdout) stdout += text
      const lines = (pending + text).split("\n")
      pending = lines.pop() ?? ""
      for (const line of lines) {
        tail.push(line)
        if (tail.length > TAIL_LINES) tail.shift()
        onLine?.(line)
      }
    }
    if (pending !== "") tail.push(pending)
  }
  const exit = new Promise<number | string>((resolve, reject) => {
    child.once("error", reject)
    child.once("close", (code, signal) => resolve(code ?? signal ?? "unknown"))
  })
  const [code] = await Promise.all([exit, read(child.stdout, true), read(child.stderr, false)])
  if (code !== 0) throw new Error(`${command} ended with ${code}:\n${tail.join("\n")}`)
  return stdout
}
