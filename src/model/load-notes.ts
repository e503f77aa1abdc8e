/**
 * Says in words where a model was loaded with less than was asked for. Pure.
 *
 * @module
 */

import type { LoadedFacts, LoadOptions } from "./request.ts"

/** One sentence for each wish that was not granted whole. */
export function loadNotes(
  { name, contextTokens, parallel }: Pick<LoadOptions, "name" | "contextTokens" | "parallel">,
  loaded: Pick<LoadedFacts, "contextTokens" | "parallel"> & { readonly runningMax: number },
): string[] {
  const notes: string[] = []
  if (contextTokens !== undefined && contextTokens > loaded.contextTokens) {
    notes.push(
      `"${name}" has a context of ${loaded.contextTokens} tokens instead of ${contextTokens}: it was trained for no more`,
    )
  }
  if (parallel === undefined) return notes
  if (parallel > loaded.runningMax) {
    notes.push(
      `"${name}" runs ${loaded.runningMax} requests at once instead of ${parallel}: there are no sequence ids, or no memory for their states, for more`,
    )
  }
  const wanted = Math.min(parallel, loaded.runningMax)
  if (contextTokens !== undefined && wanted > loaded.parallel) {
    notes.push(
      `"${name}" has memory for ${loaded.parallel} full contexts at once instead of ${wanted}: more requests run only while they are shorter`,
    )
  }
  return notes
}
