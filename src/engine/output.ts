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

/** What a token led to. */
export interface Pushed {
  /** What became safe to send, which may be nothing. */
  readonly chunk: OutputChunk
  /** The token's text, also what is held back; characters that are not complete come with a later token. */
  readonly text: string
  /** The stop string that ended the answer. */
  readonly match: string | undefined
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

  /** Adds a token. */
  push(token: number, logprob?: TokenLogprob): Pushed {
    if (logprob !== undefined) this.#logprobs.push(logprob)
    const isShown = !this.#vocabulary.isControl(token) || this.#shownControl.has(token)
    const bytes = isShown ? this.#vocabulary.piece(token) : new Uint8Array(0)
    const text = this.#decoder.decode(bytes, { stream: true })
    const { text: safe, match } = this.#stops.push(text)
    return { chunk: this.#chunk(safe, match !== undefined), text, match }
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
