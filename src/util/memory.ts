/**
 * How much memory this machine, or the container that we run in, can still give.
 *
 * @module
 */

import { readFileSync } from "node:fs"
import { freemem, totalmem } from "node:os"

/** Bytes in total and bytes that can be had without swapping. */
export interface MemoryState {
  readonly totalBytes: number
  readonly availableBytes: number
}

/**
 * Reads the state of memory: on Linux what the kernel calls available (page cache counts, it is given back), bounded
 * by the limit of the control group; elsewhere what the runtime calls free.
 */
export function memoryState(): MemoryState {
  const host = readMeminfo() ?? { totalBytes: totalmem(), availableBytes: freemem() }
  const limit = readNumber("/sys/fs/cgroup/memory.max")
  const used = readNumber("/sys/fs/cgroup/memory.current")
  if (limit === undefined || used === undefined || limit > host.totalBytes) return host
  const cached = readField("/sys/fs/cgroup/memory.stat", /^inactive_file (\d+)/m) ?? 0
  return {
    totalBytes: limit,
    availableBytes: Math.min(host.availableBytes, limit - used + cached),
  }
}

function readMeminfo(): MemoryState | undefined {
  const total = readField("/proc/meminfo", /^MemTotal:\s+(\d+) kB/m)
  const available = readField("/proc/meminfo", /^MemAvailable:\s+(\d+) kB/m)
  if (total === undefined || available === undefined) return undefined
  return { totalBytes: total * 1024, availableBytes: available * 1024 }
}

function readNumber(path: string): number | undefined {
  return readField(path, /^(\d+)$/m)
}

/** The number that a pattern finds in a file of the kernel; undefined where there is no such file or number. */
function readField(path: string, pattern: RegExp): number | undefined {
  try {
    const digits = pattern.exec(readFileSync(path, "utf8"))?.[1]
    return digits === undefined ? undefined : Number(digits)
  } catch {
    // Not Linux, or no control group: the caller knows another way.
    return undefined
  }
}
