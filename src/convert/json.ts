/**
 * JSON of others, whose shape nobody has looked at yet.
 *
 * @module
 */

/** A JSON object whose values nobody has looked at yet. */
export type JsonObject = Readonly<Record<string, unknown>>

/** Whether a value is a JSON object. */
export function isObject(value: unknown): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value)
}

/** A value for a message; objects of others may have anything where JavaScript looks for a text. */
export function shown(value: unknown): string {
  return typeof value === "string" ? value : (JSON.stringify(value)?.slice(0, 80) ?? "missing")
}
