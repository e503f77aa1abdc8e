/**
 * Facts about this machine's processor.
 *
 * @module
 */

import { readdirSync, readFileSync } from "node:fs"
import { availableParallelism } from "node:os"

/**
 * Physical cores that this process may use. Two threads on one core compute no faster than one, and wait for each
 * other at every barrier.
 */
export function physicalCores(): number {
  const allowed = availableParallelism()
  const cores = linuxCores()
  return Math.max(1, cores === undefined ? allowed : Math.min(allowed, cores))
}

/** Distinct sets of sibling threads; undefined where the kernel does not tell. */
function linuxCores(): number | undefined {
  const root = "/sys/devices/system/cpu"
  try {
    const siblings = readdirSync(root)
      .filter((name) => /^cpu\d+$/.test(name))
      .map((name) => readFileSync(`${root}/${name}/topology/thread_siblings_list`, "utf8"))
    return siblings.length === 0 ? undefined : new Set(siblings).size
  } catch {
    // Not Linux, or a kernel without topology.
    return undefined
  }
}
