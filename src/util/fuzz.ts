/**
 * How long the tests run that try whatever comes: a moment in `npm test`, hours with `npm run fuzz`; and what may be
 * said about how long things take.
 *
 * @module
 */

/** How long one such test runs. */
export interface FuzzBudget {
  readonly seconds: number
  /** For the test runner, milliseconds: more than the test itself takes. */
  readonly timeoutMs: number
  /** For `fc.assert`. */
  readonly parameters: { readonly numRuns: number; readonly interruptAfterTimeLimit?: number }
}

/** Runs in `npm test` are counted: on a busy machine a moment may be over before the first one. */
const RUNS_PER_SECOND = 500

/** Seconds that a test may take for what it has begun when its time is over. */
const GRACE_SECONDS = 120

/**
 * How long a test runs: what `CRIA_FUZZ_SECONDS` says for the whole of a fuzzer, else a moment.
 *
 * @param quickSeconds The moment, on a machine that has nothing else to do.
 * @param tests How many tests share the time of the fuzzer.
 */
export function fuzzBudget(quickSeconds: number, tests = 1): FuzzBudget {
  const asked = Number(process.env["CRIA_FUZZ_SECONDS"] ?? 0)
  const seconds = asked > 0 ? asked / tests : quickSeconds
  return {
    seconds,
    timeoutMs: 1000 * (seconds + GRACE_SECONDS),
    parameters:
      asked > 0
        ? { numRuns: Number.MAX_SAFE_INTEGER, interruptAfterTimeLimit: 1000 * seconds }
        : { numRuns: Math.ceil(RUNS_PER_SECOND * quickSeconds) },
  }
}

/**
 * Milliseconds that this process has computed so far, on all its threads. What may be said about how long something
 * takes: the time on the clock is that of everything else on the machine, too.
 */
export function cpuMs(): number {
  const { user, system } = process.cpuUsage()
  return (user + system) / 1000
}
