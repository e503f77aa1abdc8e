/**
 * Turns the tokens of one answer into text that is safe to send.
 *
 * Joins characters that are spread over tokens, holds back what may become a stop string, leaves control tokens out
 * unless they are wanted, and keeps the log-probabilities beside the text they belong to.
 *
 * @module
 */

import { StopMatcher } from "./stop.ts"
import type { Vocabulary } from "./vocabulary.ts"

/** A token with its natural logarithm of probability, before any sampler. */
export interface TokenLogprob {
  readonly token: number
  readonly logprob: number
  /** The most likely tokens, best first. */
  readonly top: ReadonlyArray<{ readonly token: number; readonly logprob: number }>
}

/** Text to send now, and the tokens that it came from when log-probabilities were asked for. */
export interface OutputChunk {
  readonly text: string
  readonly logprobs: readonly TokenLogprob[]
}

/** Options of {@link Output}. */
export interface OutputOptions {
  readonly stop: readonly string[]
  /** Control tokens to render as text, because a parser looks for them. */
  readonly shownControl: ReadonlySet<number>
}

/** The text side of one answer. */
export class Output {
  readonly #vocabulary: Vocabulary
  readonly #decoder = new TextDecoder("utf-8", { ignoreBOM: true })
  readonly #stops: StopMatcher
  readonly #shownControl: ReadonlySet<number>
  #logprobs: TokenLogprob[] = []

  constructor(vocabulary: Vocabulary, options: OutputOptions) {
    this.#vocabulary = vocabulary
    this.#stops = new StopMatcher(options.stop)
    this.#shownControl = options.shownControl
  }

  /**
   * Adds a token.
   *
   * @returns The chunk that became safe to send, which may be empty, and the stop string that ended the answer.
   */
  push(token: number, logprob?: TokenLogprob): { chunk: OutputChunk; match: string | undefined } {
    if (logprob !== undefined) this.#logprobs.push(logprob)
    const isShown = !this.#vocabulary.isControl(token) || this.#shownControl.has(token)
    const bytes = isShown ? this.#vocabulary.piece(token) : new Uint8Array(0)
    const { text, match } = this.#stops.push(this.#decoder.decode(bytes, { stream: true }))
    return { chunk: this.#chunk(text, match !== undefined), match }
  }

  /** The answer is over: everything that was held back. */
  flush(): OutputChunk {
    const { text, match } = this.#stops.push(this.#decoder.decode())
    return this.#chunk(match === undefined ? text + this.#stops.flush() : text, true)
  }

  #chunk(text: string, isLast: boolean): OutputChunk {
    if (text === "" && !isLast) return { text, logprobs: [] }
    const logprobs = this.#logprobs
    this.#logprobs = []
    return { text, logprobs }
  }
}
