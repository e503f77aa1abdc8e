/**
 * Structured logging: a constant message and its facts as fields.
 *
 * Library code takes a {@link Logger}; only entry points make one. Never log prompts, answers or credentials.
 *
 * @module
 */

/** Values a log field may have. */
export type LogValue = string | number | boolean | undefined

/** Facts beside a message, with units in their names. */
export type LogFields = Readonly<Record<string, LogValue>>

export type LogLevel = "debug" | "info" | "warn" | "error"

/** error: someone must act; warn: degraded; info: lifecycle; debug: per request; nothing per token. */
export interface Logger {
  debug(message: string, fields?: LogFields): void
  info(message: string, fields?: LogFields): void
  warn(message: string, fields?: LogFields): void
  error(message: string, fields?: LogFields): void
}

const RANKS: Readonly<Record<LogLevel, number>> = { debug: 0, info: 1, warn: 2, error: 3 }

/** A logger that says nothing, for tests and for library users who pass none. */
export const SILENT: Logger = { debug() {}, info() {}, warn() {}, error() {} }

/**
 * A logger that writes `time=… level=… msg=… key=value` lines.
 *
 * @param write Gets one line without a line end.
 * @param level Lines below it are dropped.
 */
export function createLogger(write: (line: string) => void, level: LogLevel): Logger {
  const log =
    (at: LogLevel) =>
    (message: string, fields: LogFields = {}) => {
      if (RANKS[at] < RANKS[level]) return
      const facts = Object.entries(fields)
        .filter(([, value]) => value !== undefined)
        .map(([key, value]) => ` ${key}=${quoted(String(value))}`)
      const time = new Date().toISOString()
      write(`time=${time} level=${at.toUpperCase()} msg=${quoted(message)}${facts.join("")}`)
    }
  return { debug: log("debug"), info: log("info"), warn: log("warn"), error: log("error") }
}

function quoted(text: string): string {
  return /^[\w.:/@+-]+$/.test(text) ? text : JSON.stringify(text)
}
