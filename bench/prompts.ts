/**
 * Texts to ask: words that are a token each, in an order that no cache has seen.
 *
 * @module
 */

const WORDS =
  "the of and to in a is that for it as was with be by on not he his but at are this have from or had an they which one you were all her she there would their we him been has when who will no more if out so up said what its about than into them can only other time new some could these two may first then do any like my now over such our man me even most made after also did many".split(
    " ",
  )

/** A text of so many words, about one token each. The same seed gives the same text. */
export function text(words: number, seed: number): string {
  let state = seed
  return Array.from({ length: words }, () => {
    // Mulberry32: neighbouring seeds share nothing but chance.
    state = (state + 0x6d2b79f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return WORDS[((mixed ^ (mixed >>> 14)) >>> 0) % WORDS.length]
  }).join(" ")
}

let newest = 1

/** A text that was not asked before. */
export function freshText(words: number): string {
  newest += 1
  return text(words, newest * 7919)
}
