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
  let pending = ""
  for await (const chunk of stream) {
    const text = decoder.decode(chunk, { stream: true })
    let start = 0
    for (let end = text.indexOf("\n"); end >= 0; end = text.indexOf("\n", start)) {
      yield withoutReturn(checked(pending + text.slice(start, end), charsMax))
      pending = ""
      start = end + 1
    }
    pending = checked(pending + text.slice(start), charsMax)
  }
  pending += decoder.decode()
  if (pending !== "") yield withoutReturn(pending)
}

function checked(line: string, charsMax: number): string {
  if (line.length <= charsMax) return line
  throw new Error(`Cannot read a line of more than ${charsMax} characters`)
}

function withoutReturn(line: string): string {
  return line.endsWith("\r") ? line.slice(0, -1) : line
}
