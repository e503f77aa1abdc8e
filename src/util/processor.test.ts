import { describe, expect, test } from "bun:test"

import { physicalCores, type ProcessorFacts, usableCores } from "./processor.ts"

/** Eight hardware threads on four cores: 0 and 4 share one. */
const MACHINE: ProcessorFacts = {
  parallelism: 8,
  allowed: "0-7",
  siblings: new Map(Array.from({ length: 8 }, (_, cpu) => [cpu, `${cpu % 4},${(cpu % 4) + 4}`])),
  quotas: ["max 100000"],
}

describe("usableCores()", () => {
  test.each<[string, Partial<ProcessorFacts>, number]>([
    ["counts cores, not hardware threads", {}, 4],
    ["counts those that the process may run on", { allowed: "0-1,4-5", parallelism: 4 }, 2],
    ["counts one core once, of which both threads are allowed", { allowed: "3,7" }, 1],
    ["takes the runtime's word for less", { parallelism: 3 }, 3],
    ["has time for two", { quotas: ["200000 100000"] }, 2],
    ["rounds down, as what is used up stops all threads", { quotas: ["290000 100000"] }, 2],
    ["is at least one", { quotas: ["50000 100000"] }, 1],
    [
      "takes the smallest quota of all groups",
      { quotas: ["max 100000", "300000 100000", "100000 50000"] },
      2,
    ],
    ["ignores a quota of -1, which is none", { quotas: ["-1 100000"] }, 4],
    ["ignores what it cannot read", { quotas: ["", "max"], allowed: "" }, 8],
    [
      "goes by the runtime where the kernel tells nothing",
      { allowed: undefined, siblings: new Map(), quotas: [] },
      8,
    ],
    ["counts all cores where the kernel does not tell the allowed ones", { allowed: undefined }, 4],
  ])("%s", (_, change, cores) => {
    expect(usableCores({ ...MACHINE, ...change })).toBe(cores)
  })
})

test("physicalCores() finds some on this machine", () => {
  expect(physicalCores()).toBeGreaterThanOrEqual(1)
  expect(physicalCores()).toBeLessThanOrEqual(navigator.hardwareConcurrency)
})
