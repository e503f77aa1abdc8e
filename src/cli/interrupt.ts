/**
 * What Ctrl-C and `kill` do to a command that takes long: they end it in order.
 *
 * @module
 */

import { CriaError } from "../util/errors.ts"

/** Exit statuses of programs that a signal ended, by convention. */
const STATUSES = { SIGINT: 130, SIGTERM: 143 } as const

type Signal = keyof typeof STATUSES

/** Shows the cursor, which a display of progress hides. */
const SHOW_CURSOR = "\u001b[?25h"

/**
 * Runs a command whose signal is aborted by Ctrl-C or `kill`. When it has cleaned up the process ends, silently and with
 * the status that such a signal has; a second one ends it at once.
 */
export async function interruptible(body: (signal: AbortSignal) => Promise<void>): Promise<void> {
  const controller = new AbortController()
  let status: number | undefined
  const stop = (signal: Signal) => {
    if (status !== undefined) {
      if (process.stderr.isTTY) process.stderr.write(SHOW_CURSOR)
      process.exit(status)
    }
    status = STATUSES[signal]
    controller.abort(new CriaError("unavailable", "interrupted"))
  }
  for (const signal of signals()) process.on(signal, stop)
  try {
    await body(controller.signal)
  } catch (error) {
    if (!controller.signal.aborted) throw error
  } finally {
    for (const signal of signals()) process.off(signal, stop)
  }
  // Something may still wait for its input, as an import does.
  if (status !== undefined) process.exit(status)
}

function signals(): readonly Signal[] {
  return ["SIGINT", "SIGTERM"]
}
