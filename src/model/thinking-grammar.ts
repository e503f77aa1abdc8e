/**
 * A grammar for answers that may begin with thoughts: those are free, what follows has to be as asked.
 *
 * @module
 */

import type { TagReading } from "./go-prompt.ts"

/** Around the tags. Without a limit a model that cannot say what it wants goes on with blanks for ever. */
const BLANKS_MAX = 4

/**
 * Puts the thoughts in front of a grammar.
 *
 * @param gbnf Its start is `root`.
 */
export function afterThinking(gbnf: string, { thinking, isThinkingOpen }: TagReading): string {
  if (thinking === undefined) return gbnf
  const { opening, closing } = thinking
  const thoughts = isThinkingOpen ? "thought-0" : `( space-before ${literal(opening)} thought-0 )?`
  return [
    `root ::= ${thoughts} answer-root`,
    `space-before ::= [ \\t\\r\\n]{0,${BLANKS_MAX}}`,
    ...untilTag(closing),
    renameRoot(gbnf),
  ].join("\n")
}

/**
 * Rules that take any text up to the first tag, and blanks behind it. `thought-3` has seen three characters of the
 * tag; what comes next leads to the longest beginning of it that fits.
 */
function untilTag(tag: string): string[] {
  const chars = Array.from(tag)
  const alphabet = [...new Set(chars)]
  const rules = chars.map((next, seen) => {
    const ways = alphabet.flatMap((char) => {
      if (char === next) return [`${literal(char)} thought-${seen + 1}`]
      const back = overlap([...chars.slice(0, seen), char], chars)
      return back === 0 ? [] : [`${literal(char)} thought-${back}`]
    })
    const known = alphabet.filter(
      (char) => char === next || overlap([...chars.slice(0, seen), char], chars) > 0,
    )
    const others = `[^${known.map(charCode).join("")}] thought-0`
    return `thought-${seen} ::= ${[...ways, others].join(" | ")}`
  })
  return [...rules, `thought-${chars.length} ::= space-before`]
}

/** How many characters at the end of the text begin the tag. */
function overlap(text: readonly string[], tag: readonly string[]): number {
  for (let length = Math.min(text.length, tag.length); length > 0; length -= 1) {
    if (tag.slice(0, length).every((char, i) => char === text[text.length - length + i])) {
      return length
    }
  }
  return 0
}

function literal(text: string): string {
  return `"${Array.from(text).map(charCode).join("")}"`
}

/** Every character as an escape: none can mean something else. */
function charCode(char: string): string {
  return `\\U${(char.codePointAt(0) ?? 0).toString(16).padStart(8, "0")}`
}

/** Names in a grammar, and what may look like names: literals and sets of characters. */
const NAMES = /"(?:[^"\\]|\\.)*"|\[(?:[^\]\\]|\\.)*\]|#[^\n]*|[\w-]+/g

function renameRoot(gbnf: string): string {
  return gbnf.replaceAll(NAMES, (word) => (word === "root" ? "answer-root" : word))
}
