/**
 * Splits a stream of bytes into lines, for NDJSON over pipes and over HTTP.
 *
 * @module
 */

/** Longest line accepted, in characters: a prompt with images in base64 fits, a runaway peer does not fill memory. */
export const LINE_CHARS_MAX: number = 256 * 1024 * 1024

/**
 * Yields each line without its line end; the last one also when no line end follows.
 *
 * @throws {Error} When a line is longer than {@link LINE_CHARS_MAX}.
 */
export async function* linesOf(stream: AsyncIterable<Uint8Array>): AsyncGenerator<string> {
  const decoder = new TextDecoder()
  let pending: string[] = []
  let pendingChars = 0
  for await (const chunk of stream) {
    const parts = decoder.decode(chunk, { stream: true }).split("\n")
    for (const part of parts.slice(0, -1)) {
      pending.push(part)
      yield withoutReturn(pending.join(""))
      pending = []
      pendingChars = 0
    }
    const rest = parts.at(-1) ?? ""
    pending.push(rest)
    pendingChars += rest.length
    if (pendingChars > LINE_CHARS_MAX) {
      throw new Error(`Cannot read a line of more than ${LINE_CHARS_MAX} characters`)
    }
  }
  pending.push(decoder.decode())
  const last = pending.join("")
  if (last !== "") yield withoutReturn(last)
}

function withoutReturn(line: string): string {
  return line.endsWith("\r") ? line.slice(0, -1) : line
}
