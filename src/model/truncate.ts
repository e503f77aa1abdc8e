/**
 * How much of a conversation has to go so that the rest fits.
 *
 * @module
 */

/**
 * The result of the smallest number that gives one, where larger numbers give one too: found in as many attempts as
 * the number has bits.
 *
 * @param attempt Undefined when that number is not enough.
 * @returns Undefined when not even `most` is enough.
 */
export async function leastEnough<T extends object>(
  most: number,
  attempt: (count: number) => Promise<T | undefined>,
): Promise<T | undefined> {
  let best = most < 1 ? undefined : await attempt(most)
  if (best === undefined) return undefined
  for (let low = 1, high = most; low < high;) {
    const middle = Math.floor((low + high) / 2)
    // Each attempt depends on the one before.
    // oxlint-disable-next-line no-await-in-loop
    const result = await attempt(middle)
    if (result === undefined) low = middle + 1
    else {
      best = result
      high = middle
    }
  }
  return best
}
