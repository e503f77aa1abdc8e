/**
 * Requests of a burst come one by one, some milliseconds apart, and are read faster together: when an engine was at
 * rest, it waits for the next one before it begins, if that costs nothing beside the time to read them.
 *
 * @module
 */

/** A wait is this part of the time that it takes to read what is there: nobody notices it. */
const WAIT_PART = 0.02

/** Timers know no less. */
const WAIT_MS_MIN = 1

/** Waits in a row. */
const WAITS_MAX = 8

/**
 * Waits as long as one request follows another.
 *
 * @param waitMsMax How long for each at the most; 0 for not at all.
 * @param readMs How long it takes to read what is there.
 * @param count How many requests there are at the moment.
 */
export async function gather(
  waitMsMax: number,
  readMs: number,
  count: () => number,
): Promise<void> {
  const waitMs = Math.min(waitMsMax, readMs * WAIT_PART)
  if (waitMs < WAIT_MS_MIN) return
  for (let seen = 0, waits = 0; waits < WAITS_MAX; waits++) {
    const there = count()
    if (there === seen) return
    seen = there
    // oxlint-disable-next-line no-await-in-loop
    await new Promise((resolve) => setTimeout(resolve, waitMs))
  }
}
