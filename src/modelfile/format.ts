/**
 * Writes commands as a Modelfile that reads back as the same commands.
 *
 * @module
 */

import type { ModelfileCommand } from "./parse.ts"

/** One line, or several when the value has several, without a newline at the end. */
export function formatCommand(command: ModelfileCommand): string {
  const value = formatValue(command.value)
  if (command.command === "parameter") return `PARAMETER ${command.name} ${value}`
  if (command.command === "message") return `MESSAGE ${command.role} ${value}`
  return `${command.command.toUpperCase()} ${value}`
}

/** A whole Modelfile. */
export function formatModelfile(commands: readonly ModelfileCommand[]): string {
  return commands.map((command) => `${formatCommand(command)}\n`).join("")
}

/**
 * A value, quoted only when it could not be read back otherwise.
 *
 * The grammar has no escapes: what cannot be written is a value of several lines one of which ends with `"""`, and one
 * with characters that cannot be printed.
 */
export function formatValue(value: string): string {
  if (!/^[ \t"]|[\r\n]|[ \t]$/.test(value)) return value
  return value.includes('"') ? `"""${value}"""` : `"${value}"`
}
