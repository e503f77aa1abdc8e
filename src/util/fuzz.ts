/**
 * How long the tests run that try whatever comes: a moment in `npm test`, hours with `npm run fuzz`.
 *
 * @module
 */

/** The time of one such test. */
export interface FuzzBudget {
  readonly seconds: number
  /** For the test runner, milliseconds: more than the test itself takes. */
  readonly timeoutMs: number
  /** For `fc.assert`. */
  readonly parameters: { readonly numRuns: number; readonly interruptAfterTimeLimit: number }
}

/** Seconds that a test may take for what it has begun when its time is over. */
const GRACE_SECONDS = 30

/**
 * The time of a test: what `CRIA_FUZZ_SECONDS` says for the whole of a fuzzer, else a moment.
 *
 * @param quickSeconds The moment.
 * @param tests How many tests share the time of the fuzzer.
 */
export function fuzzBudget(quickSeconds: number, tests = 1): FuzzBudget {
  const asked = Number(process.env["CRIA_FUZZ_SECONDS"] ?? 0)
  const seconds = asked > 0 ? asked / tests : quickSeconds
  return {
    seconds,
    timeoutMs: 1000 * (seconds + GRACE_SECONDS),
    parameters: { numRuns: Number.MAX_SAFE_INTEGER, interruptAfterTimeLimit: 1000 * seconds },
  }
}
