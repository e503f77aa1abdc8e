/**
 * How much of this machine's processor, or of that of the container that we run in, this process may use.
 *
 * @module
 */

import { readdirSync, readFileSync } from "node:fs"
import { availableParallelism } from "node:os"

/** What the kernel says, in its own words. */
export interface ProcessorFacts {
  /** Hardware threads that the runtime would use. */
  readonly parallelism: number
  /** Hardware threads that this process may run on, such as "0-3,8"; undefined where the kernel does not tell. */
  readonly allowed: string | undefined
  /** For each hardware thread those that share its core, such as "0,4". */
  readonly siblings: ReadonlyMap<number, string>
  /** Microseconds that a control group gets of each period, such as "150000 100000"; "max" without a limit. */
  readonly quotas: readonly string[]
}

/** Control groups can be nested deeper; nobody does. */
const GROUPS_MAX = 16

/**
 * Threads that compute without getting into each other's way: one per physical core that this process may run on, and
 * no more than its control groups get time for. Two on one core compute no faster than one, and wait for each other at
 * every barrier; what a control group has used up, all of its threads wait for.
 */
export function usableCores({ parallelism, allowed, siblings, quotas }: ProcessorFacts): number {
  const cpus = allowed === undefined ? [...siblings.keys()] : cpuList(allowed)
  const known = cpus.filter((cpu) => siblings.has(cpu))
  const cores = new Set(known.map((cpu) => siblings.get(cpu))).size
  const limits = [parallelism, ...(cores === 0 ? [] : [cores]), ...quotas.map(coresOfQuota)]
  return Math.max(1, Math.floor(Math.min(...limits)))
}

/** {@link usableCores} of this process. */
export function physicalCores(): number {
  return usableCores({
    parallelism: availableParallelism(),
    allowed: /^Cpus_allowed_list:\s*(\S+)/m.exec(read("/proc/self/status") ?? "")?.[1],
    siblings: readSiblings(),
    quotas: readQuotas(),
  })
}

/** "0-2,5" → 0, 1, 2, 5. */
function cpuList(text: string): number[] {
  return [...text.matchAll(/(\d+)(?:-(\d+))?/g)].flatMap(([, first, last = first]) =>
    Array.from({ length: Number(last) - Number(first) + 1 }, (_, i) => Number(first) + i),
  )
}

function coresOfQuota(text: string): number {
  const [quota = Number.NaN, period = Number.NaN] = text.trim().split(/\s+/).map(Number)
  return quota > 0 && period > 0 ? quota / period : Infinity
}

function readSiblings(): Map<number, string> {
  const root = "/sys/devices/system/cpu"
  const siblings = new Map<number, string>()
  for (const name of list(root)) {
    const cpu = /^cpu(\d+)$/.exec(name)?.[1]
    const shared = cpu && read(`${root}/${name}/topology/thread_siblings_list`)
    if (cpu !== undefined && shared) siblings.set(Number(cpu), shared.trim())
  }
  return siblings
}

/** Of the group of this process and of those around it, in both versions of control groups. */
function readQuotas(): string[] {
  const groups = read("/proc/self/cgroup") ?? ""
  const unified = /^0::(\/.*)$/m.exec(groups)?.[1]
  const legacy = /^\d+:(?:[^:]*,)?cpu(?:,[^:]*)?:(\/.*)$/m.exec(groups)?.[1]
  const quotas = ancestors("/sys/fs/cgroup", unified).map((folder) => read(`${folder}/cpu.max`))
  for (const folder of ancestors("/sys/fs/cgroup/cpu", legacy)) {
    const quota = read(`${folder}/cpu.cfs_quota_us`)
    const period = read(`${folder}/cpu.cfs_period_us`)
    if (quota !== undefined && period !== undefined) quotas.push(`${quota.trim()} ${period.trim()}`)
  }
  return quotas.filter((quota) => quota !== undefined)
}

/** A folder of a control group and all above it. In a container the outermost is its own, whatever it is called. */
function ancestors(root: string, path = "/"): string[] {
  const parts = path.split("/").filter((part) => part !== "")
  return Array.from({ length: Math.min(parts.length, GROUPS_MAX) + 1 }, (_, depth) =>
    [root, ...parts.slice(0, depth)].join("/"),
  )
}

function read(path: string): string | undefined {
  try {
    return readFileSync(path, "utf8")
  } catch {
    // Not Linux, or a kernel without it: the caller knows another way.
    return undefined
  }
}

function list(path: string): string[] {
  try {
    return readdirSync(path)
  } catch {
    return []
  }
}
