/**
 * Watches an answer for the moment from which it has to follow a grammar, such as the `<tool_call>` of a tool call.
 *
 * llama.cpp can do this natively, but searches the whole text with std::regex on every token and can overflow its
 * stack on long answers; here a token costs a search of the newest text only.
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

/** A trigger is at most so long: what begins further back in the answer is not looked at again. */
const TRIGGER_CHARS_MAX = 4096

/** Finds the trigger in one answer. */
export class GrammarWatch {
  readonly #grammar: LazyGrammar
  readonly #searches: readonly Search[]
  #answer = ""
  #hasFired = false

  constructor(grammar: LazyGrammar) {
    this.#grammar = grammar
    this.#searches = grammar.triggers.map((trigger) =>
      trigger.kind === "word" ? new WordSearch(trigger.value) : new PatternSearch(trigger),
    )
  }

  /** Adds text; the text from the trigger on when it was found for the first time, else undefined. */
  push(text: string): string | undefined {
    if (this.#hasFired) return undefined
    const searchedTo = this.#answer.length
    this.#answer += text
    const starts = this.#searches.flatMap((search) => this.#startOf(search, searchedTo) ?? [])
    if (starts.length === 0) return undefined
    this.#hasFired = true
    return this.#answer.slice(Math.min(...starts))
  }

  /** Where the first trigger begins that is not a thought. */
  #startOf(search: Search, searchedTo: number): number | undefined {
    for (let from = Math.max(0, searchedTo - search.reach); ;) {
      const start = search.find(this.#answer, from)
      if (start === undefined || !this.#isThinkingAt(start)) return start
      if (search.isWhole) return undefined
      from = Math.max(from, start) + 1
    }
  }

  #isThinkingAt(start: number): boolean {
    const { before, thinkingStart, thinkingEnds } = this.#grammar
    if (thinkingStart === "") return false
    const text = before + this.#answer
    const index = before.length + start
    const opened = text.lastIndexOf(thinkingStart, index)
    if (opened === -1) return false
    const closed = Math.max(-1, ...thinkingEnds.map((end) => text.lastIndexOf(end, index)))
    return closed < opened
  }
}

/** Looks for one trigger. */
interface Search {
  /** Characters before new text at which a trigger may begin that ends in it. */
  readonly reach: number
  /** It is about the whole answer: there is nothing to look for behind. */
  readonly isWhole: boolean
  /** Where the grammar begins; undefined when no trigger begins at `from` or behind. */
  find(answer: string, from: number): number | undefined
}

class WordSearch implements Search {
  readonly isWhole = false
  readonly reach: number
  readonly #word: string

  constructor(word: string) {
    this.#word = word
    this.reach = word.length - 1
  }

  find(answer: string, from: number): number | undefined {
    const index = answer.indexOf(this.#word, from)
    return index === -1 ? undefined : index
  }
}

class PatternSearch implements Search {
  readonly isWhole: boolean
  readonly reach: number
  readonly #pattern: RegExp

  constructor({ kind, value }: GrammarTrigger) {
    this.isWhole = kind === "full"
    this.reach = this.isWhole ? Infinity : TRIGGER_CHARS_MAX
    const start = value.startsWith("^") ? "" : "^"
    const end = value.endsWith("$") ? "" : "$"
    this.#pattern = new RegExp(this.isWhole ? `${start}${value}${end}` : value, "dg")
  }

  find(answer: string, from: number): number | undefined {
    this.#pattern.lastIndex = from
    const { indices } = this.#pattern.exec(answer) ?? {}
    // The first group that took part, else the match.
    const span = indices?.slice(1).find((group) => group !== undefined) ?? indices?.[0]
    return span?.[0]
  }
}
