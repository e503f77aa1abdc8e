/**
 * Refuses requests that can never run, before they take anything.
 *
 * @module
 */

import { CriaError } from "../util/errors.ts"
import type { BackendInfo } from "./backend.ts"
import { checkSampling } from "./sampling.ts"
import type { GenerateRequest } from "./sequence.ts"

/** A prompt does not fit into the context. */
export class TooLong extends CriaError {
  /** @param count Its tokens, or what is known of them. */
  constructor(count: number | string, contextTokens: number) {
    super(
      "invalid-input",
      `Cannot read a prompt of ${count} tokens: the context holds ${contextTokens}, answer included`,
      { hint: "Shorten the prompt or load the model with a larger num_ctx" },
    )
  }
}

/**
 * Checks a request.
 *
 * @param contextTokens Most tokens of its prompt and answer.
 * @throws {CriaError} `invalid-input` that says which number is wrong and what it may be.
 */
export function checkRequest(
  request: GenerateRequest,
  info: BackendInfo,
  contextTokens: number,
): void {
  const { prompt, maxTokens, logprobs = 0, shift } = request
  if (prompt.length === 0) {
    throw new CriaError("invalid-input", "Cannot generate from an empty prompt")
  }
  if (prompt.length >= contextTokens) throw new TooLong(prompt.length, contextTokens)
  if (!(maxTokens >= 0)) {
    throw new CriaError("invalid-input", `Cannot generate ${maxTokens} tokens: expected 0 or more`)
  }
  if (!(logprobs >= 0 && logprobs <= info.topLogprobs)) {
    throw new CriaError(
      "invalid-input",
      `Cannot give ${logprobs} log-probabilities: at most ${info.topLogprobs}`,
    )
  }
  const keepMax = contextTokens - 2
  if (
    shift !== undefined &&
    !(Number.isInteger(shift.keepTokens) && shift.keepTokens >= 0 && shift.keepTokens <= keepMax)
  ) {
    throw new CriaError(
      "invalid-input",
      `Cannot keep ${shift.keepTokens} tokens when the context shifts: expected 0 to ${keepMax}`,
    )
  }
  for (let i = 0; i < prompt.length; i++) {
    const token = prompt[i] ?? -1
    if (token >= 0 && token < info.vocabularyTokens) continue
    throw new CriaError("invalid-input", `Cannot read token ${token}: it is not in the vocabulary`)
  }
  checkSampling(request.sampling)
}
