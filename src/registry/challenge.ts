/**
 * What a registry asks for when it answers 401: the `WWW-Authenticate` header.
 *
 * @module
 */

/** One way to be let in. Names of parameters are lower case. */
export interface Challenge {
  /** Lower case: `bearer`, `basic`. */
  readonly scheme: string
  readonly parameters: ReadonlyMap<string, string>
}

/** Longest header that is looked at. */
const HEADER_CHARS_MAX = 8192

/** A scheme that begins a challenge, or a parameter with its value as a token or in quotes. */
const PIECE = /\s*,?\s*(?:([\w-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]*))|([\w-]+)(?=\s|,|$))/y

/** Reads all challenges of a header, in its order. What is malformed ends the reading. */
export function parseChallenges(header: string): Challenge[] {
  const text = header.slice(0, HEADER_CHARS_MAX).trim()
  const found: { scheme: string; parameters: Map<string, string> }[] = []
  PIECE.lastIndex = 0
  while (PIECE.lastIndex < text.length) {
    const match = PIECE.exec(text)
    if (match === null || match[0] === "") break
    const [, name, quoted, token, scheme] = match
    if (scheme !== undefined) found.push({ scheme: scheme.toLowerCase(), parameters: new Map() })
    else if (name !== undefined) {
      const value = quoted === undefined ? (token ?? "") : quoted.replaceAll(/\\(.)/g, "$1")
      found.at(-1)?.parameters.set(name.toLowerCase(), value)
    }
  }
  return found
}
