/**
 * Sampling options: names, defaults, legal ranges.
 *
 * Every number is checked here, before it can reach native code.
 *
 * @module
 */

import { CriaError } from "../util/errors.ts"

/** How the next token is chosen. Names and defaults are Ollama's, in camel case. */
export interface SamplingOptions {
  /** 0 is greedy. */
  readonly temperature: number
  /** Keep the best k; 0 or less keeps all. */
  readonly topK: number
  readonly topP: number
  readonly minP: number
  readonly typicalP: number
  readonly repeatPenalty: number
  /** Tokens that the penalties look back at; 0 none, −1 the whole context. */
  readonly repeatLastN: number
  readonly presencePenalty: number
  readonly frequencyPenalty: number
  /** −1 is random. */
  readonly seed: number
  /** Added to the logit of a token. */
  readonly logitBias?: ReadonlyArray<readonly [token: number, bias: number]>
  /** What came before the answer, oldest first: the penalties look back at it too. */
  readonly history?: Int32Array
  /** GBNF that the whole answer has to follow. */
  readonly grammar?: string
  /** Text that the grammar has to swallow first: the part of the prompt that belongs to the answer. */
  readonly grammarPrefill?: string
}

/** Ollama's defaults. */
export const SAMPLING_DEFAULTS: SamplingOptions = {
  temperature: 0.8,
  topK: 40,
  topP: 0.9,
  minP: 0,
  typicalP: 1,
  repeatPenalty: 1,
  repeatLastN: 64,
  presencePenalty: 0,
  frequencyPenalty: 0,
  seed: -1,
}

type NumberKey = Exclude<
  keyof SamplingOptions,
  "logitBias" | "history" | "grammar" | "grammarPrefill"
>

/** Inclusive ranges. The upper ends are far above use and keep products of floats finite. */
const RANGES: Readonly<Record<NumberKey, readonly [min: number, max: number, whole: boolean]>> = {
  temperature: [0, 100, false],
  topK: [-1, 1_000_000, true],
  topP: [0, 1, false],
  minP: [0, 1, false],
  typicalP: [0, 1, false],
  repeatPenalty: [0.01, 100, false],
  repeatLastN: [-1, 1_000_000, true],
  presencePenalty: [-100, 100, false],
  frequencyPenalty: [-100, 100, false],
  seed: [-1, 0xffff_ffff, true],
}

/**
 * Checks every number of the options.
 *
 * @throws {CriaError} `invalid-input` that names the option, its value and its range.
 */
export function checkSampling(options: SamplingOptions): void {
  // Object.entries widens the keys; RANGES has exactly these.
  for (const key of Object.keys(RANGES) as NumberKey[]) {
    const [min, max, whole] = RANGES[key]
    const value = options[key]
    if (value >= min && value <= max && (!whole || Number.isInteger(value))) continue
    const kind = whole ? "a whole number" : "a number"
    throw new CriaError(
      "invalid-input",
      `Cannot sample with ${optionName(key)} ${value}: expected ${kind} from ${min} to ${max}`,
    )
  }
}

/** The name as users write it: `repeat_last_n`. */
function optionName(key: string): string {
  return key.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`)
}
