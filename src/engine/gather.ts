/**
 * Requests of a burst come one by one, some milliseconds apart, and are read faster together: when an engine was at
 * rest, it waits for the next one before it begins, if that costs nothing beside the time to read them.
 *
 * @module
 */

/** Nobody waits for others who is read in so many times the wait. */
const WORTH = 100

/** Waits in a row. */
const WAITS_MAX = 8

/**
 * Waits as long as one request follows another.
 *
 * @param waitMs How long for each; 0 for not at all.
 * @param readMs How long it takes to read what is there.
 * @param count How many requests there are at the moment.
 */
export async function gather(waitMs: number, readMs: number, count: () => number): Promise<void> {
  if (waitMs === 0 || readMs < waitMs * WORTH) return
  for (let seen = 0, waits = 0; seen < count() && waits < WAITS_MAX; waits++) {
    seen = count()
    // oxlint-disable-next-line no-await-in-loop
    await new Promise((resolve) => setTimeout(resolve, waitMs))
  }
}
