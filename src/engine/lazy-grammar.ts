/**
 * Watches an answer for the moment from which it has to follow a grammar, such as the `<tool_call>` of a tool call.
 *
 * llama.cpp can do this natively, but searches the whole text with std::regex on every token and can overflow its
 * stack on long answers; here a word costs a search of the newest text only.
 *
 * @module
 */

/** What starts the grammar: a word, a pattern anywhere, or a pattern for the whole answer. */
export interface GrammarTrigger {
  readonly kind: "word" | "pattern" | "full"
  readonly value: string
}

/** A grammar that begins in mid-answer. */
export interface LazyGrammar {
  readonly gbnf: string
  readonly triggers: readonly GrammarTrigger[]
  /** Nothing triggers between these. */
  readonly thinkingStart: string
  readonly thinkingEnds: readonly string[]
  /** Text of the prompt that belongs to the answer; it may leave a thinking block open. */
  readonly before: string
}

/** Finds the trigger in one answer. */
export class GrammarWatch {
  readonly #grammar: LazyGrammar
  readonly #patterns: readonly RegExp[]
  readonly #overlap: number
  #text: string
  #searchedTo: number

  constructor(grammar: LazyGrammar) {
    this.#grammar = grammar
    this.#patterns = grammar.triggers.filter((trigger) => trigger.kind !== "word").map(patternOf)
    const words = grammar.triggers.filter((trigger) => trigger.kind === "word")
    this.#overlap = Math.max(0, ...words.map((word) => word.value.length - 1))
    this.#text = grammar.before
    this.#searchedTo = grammar.before.length
  }

  /** Adds text; the text from the trigger on when it was found, else undefined. */
  push(text: string): string | undefined {
    this.#text += text
    const from = Math.max(this.#grammar.before.length, this.#searchedTo - this.#overlap)
    this.#searchedTo = this.#text.length
    const start = this.#find(from)
    if (start === undefined || this.#isThinkingAt(start)) return undefined
    return this.#text.slice(start)
  }

  #find(from: number): number | undefined {
    const starts: number[] = []
    for (const trigger of this.#grammar.triggers) {
      if (trigger.kind !== "word") continue
      const index = this.#text.indexOf(trigger.value, from)
      if (index !== -1) starts.push(index)
    }
    const answer = this.#text.slice(this.#grammar.before.length)
    for (const pattern of this.#patterns) {
      const match = pattern.exec(answer)
      // The grammar begins at the first group that took part, else at the match.
      const span =
        match?.indices?.slice(1).find((group) => group !== undefined) ?? match?.indices?.[0]
      if (span !== undefined) starts.push(this.#grammar.before.length + span[0])
    }
    return starts.length === 0 ? undefined : Math.min(...starts)
  }

  #isThinkingAt(index: number): boolean {
    const { thinkingStart, thinkingEnds } = this.#grammar
    if (thinkingStart === "") return false
    const opened = this.#text.lastIndexOf(thinkingStart, index)
    if (opened === -1) return false
    const closed = Math.max(-1, ...thinkingEnds.map((end) => this.#text.lastIndexOf(end, index)))
    return closed < opened
  }
}

function patternOf(trigger: GrammarTrigger): RegExp {
  const { kind, value } = trigger
  if (kind === "pattern") return new RegExp(value, "d")
  const start = value.startsWith("^") ? "" : "^"
  const end = value.endsWith("$") ? "" : "$"
  return new RegExp(`${start}${value}${end}`, "d")
}
