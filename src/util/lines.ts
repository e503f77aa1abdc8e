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
 * @throws {Error} When a line is longer than `charsMax`.
 */
export async function* linesOf(
  stream: AsyncIterable<Uint8Array>,
  charsMax: number = LINE_CHARS_MAX,
): AsyncGenerator<string> {
  const decoder = new TextDecoder()
  let pending: string[] = []
  let pendingChars = 0
  for await (const chunk of stream) {
    const parts = decoder.decode(chunk, { stream: true }).split("\n")
    for (const [i, part] of parts.entries()) {
      pending.push(part)
      pendingChars += part.length
      if (pendingChars > charsMax) {
        throw new Error(`Cannot read a line of more than ${charsMax} characters`)
      }
      if (i === parts.length - 1) break
      yield withoutReturn(pending.join(""))
      pending = []
      pendingChars = 0
    }
  }
  pending.push(decoder.decode())
  const last = pending.join("")
  if (last !== "") yield withoutReturn(last)
}

function withoutReturn(line: string): string {
  return line.endsWith("\r") ? line.slice(0, -1) : line
}
