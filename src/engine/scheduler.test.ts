import { describe, expect, test } from "bun:test"

import {
  AGING_TOKENS,
  type Mix,
  type PlanEntry,
  schedule,
  type Schedulable,
  type StepLimits,
} from "./scheduler.ts"

interface Named extends Schedulable {
  readonly name: string
}

const NEUTRAL = {
  computedTokens: 0,
  stopAt: undefined,
  ageSteps: 0,
  priority: "normal",
  clientLead: 0,
} as const

function prompt(name: string, remainingTokens: number, more: Partial<Named> | number = 0): Named {
  const extra = typeof more === "number" ? { ageSteps: more } : more
  return { ...NEUTRAL, name, remainingTokens, isDecoding: false, waitedSteps: 0, ...extra }
}

function decoding(name: string, waitedSteps = 0): Named {
  return { ...NEUTRAL, name, remainingTokens: 1, isDecoding: true, waitedSteps }
}

const limitsOf = (stepTokens: number, promptTokens: number, kind: Mix["kind"] = "both") => ({
  stepTokens,
  mix: () => ({ kind, promptTokens }),
})

const LIMITS = limitsOf(512, 128)

function counts(plan: readonly PlanEntry<Named>[]): Record<string, number> {
  return Object.fromEntries(plan.map(({ sequence, count }) => [sequence.name, count]))
}

describe("schedule()", () => {
  test("plans nothing when there is nothing", () => {
    expect(schedule([], LIMITS)).toEqual([])
  })

  test("gives a prompt that is alone the whole step", () => {
    expect(counts(schedule([prompt("a", 900)], LIMITS))).toEqual({ a: 512 })
  })

  test("bounds the prompt's part of a step that also decodes", () => {
    const plan = schedule([prompt("long", 900), decoding("x"), decoding("y")], LIMITS)
    expect(counts(plan)).toEqual({ x: 1, y: 1, long: 128 })
    expect(plan.map(({ sequence }) => sequence.name)).toEqual(["x", "y", "long"])
  })

  test("samples only where the last remaining token is computed", () => {
    const plan = schedule([prompt("done", 100), prompt("cut", 600)], LIMITS)
    expect(plan.map(({ isSampled }) => isSampled)).toEqual([true, false])
  })

  test("serves the prompt that needs least first", () => {
    expect(counts(schedule([prompt("long", 600), prompt("short", 20)], LIMITS))).toEqual({
      short: 20,
      long: 492,
    })
  })

  test("serves equal prompts in the order of their arrival", () => {
    expect(counts(schedule([prompt("first", 400), prompt("second", 400)], LIMITS))).toEqual({
      first: 400,
      second: 112,
    })
  })

  test("lets waiting count, so that a long prompt gets its turn", () => {
    const waited = Math.ceil(8000 / AGING_TOKENS)
    const plan = schedule([prompt("long", 8000, waited), prompt("new", 20)], LIMITS)
    expect(plan[0]?.sequence.name).toBe("long")
  })

  test("serves those first that waited when more decode than a step holds", () => {
    const many = Array.from({ length: 4 }, (_, i) => decoding(`d${i}`, i === 3 ? 2 : 0))
    expect(counts(schedule(many, limitsOf(2, 1)))).toEqual({
      d3: 1,
      d0: 1,
    })
  })

  test("never plans more tokens than a step holds", () => {
    const plan = schedule(
      [...Array.from({ length: 8 }, (_, i) => prompt(`p${i}`, 100 + i)), decoding("d")],
      limitsOf(64, 200),
    )
    expect(plan.reduce((sum, { count }) => sum + count, 0)).toBe(64)
  })

  test("serves classes in their order, and the client that got least", () => {
    const prompts = [
      prompt("batch", 10, { priority: "batch" }),
      prompt("served", 10, { clientLead: 5000 }),
      prompt("normal", 500),
      prompt("interactive", 600, { priority: "interactive" }),
    ]
    expect(Object.keys(counts(schedule(prompts, { ...LIMITS, stepTokens: 2000 })))).toEqual([
      "interactive",
      "normal",
      "served",
      "batch",
    ])
  })

  test("lets waiting count across classes, so that no class starves another", () => {
    const old = prompt("batch", 10, { priority: "batch", ageSteps: 65_536 / AGING_TOKENS })
    const plan = schedule([prompt("new", 100, { priority: "interactive" }), old], LIMITS)
    expect(plan[0]?.sequence.name).toBe("batch")
  })

  test("lets one prompt compute what others can take over from it", () => {
    const sharing = { common: () => 100, isWholeOnly: false }
    const plan = schedule([prompt("a", 200), prompt("b", 210), prompt("c", 220)], LIMITS, sharing)
    expect(counts(plan)).toEqual({ a: 200 })
  })

  test("waits for no less than is worth waiting for", () => {
    const sharing = { common: () => 20, isWholeOnly: false }
    const plan = schedule([prompt("a", 200), prompt("b", 210)], LIMITS, sharing)
    expect(counts(plan)).toEqual({ a: 200, b: 210 })
  })

  test("stops a leader where others leave it when only whole states can be taken over", () => {
    const sharing = { common: () => 100, isWholeOnly: true }
    const plan = schedule([prompt("a", 200), prompt("b", 210)], LIMITS, sharing)
    expect(counts(plan)).toEqual({ a: 100 })
    const after = prompt("a", 100, { computedTokens: 100 })
    expect(counts(schedule([after, prompt("b", 210)], LIMITS, sharing))).toEqual({ a: 100, b: 210 })
  })

  test("stops once where a snapshot is wanted", () => {
    expect(counts(schedule([prompt("a", 200, { stopAt: 64 })], LIMITS))).toEqual({ a: 64 })
    const after = prompt("a", 136, { stopAt: 64, computedTokens: 64 })
    expect(counts(schedule([after], LIMITS))).toEqual({ a: 136 })
  })

  test("keeps a part of the prompts' share for the oldest", () => {
    const old = prompt("old", 8000, { ageSteps: 40 })
    const plan = schedule([old, prompt("new", 100), prompt("newer", 300), decoding("d")], LIMITS)
    expect(counts(plan)).toEqual({ d: 1, new: 96, old: 32 })
    expect(counts(schedule([old, prompt("new", 10), decoding("d")], LIMITS))).toEqual({
      d: 1,
      new: 10,
      old: 118,
    })
  })

  test("lets answers and prompts take turns where that is told", () => {
    const both = [prompt("p", 900), decoding("d")]
    const [answers, prompts] = [limitsOf(512, 128, "answers"), limitsOf(512, 128, "prompts")]
    expect(counts(schedule(both, answers))).toEqual({ d: 1 })
    expect(counts(schedule(both, prompts))).toEqual({ p: 128 })
    expect(counts(schedule([prompt("p", 900)], answers))).toEqual({ p: 512 })
    expect(counts(schedule([decoding("d")], prompts))).toEqual({ d: 1 })
  })

  test("asks how to mix with the prompts that would be computed, the most urgent first", () => {
    const asked: string[][] = []
    const limits: StepLimits<Named> = {
      stepTokens: 512,
      mix: (prompts) => {
        asked.push(prompts.map(({ name }) => name))
        return { kind: "both", promptTokens: 64 }
      },
    }
    const sharing = {
      common: (sequence: Named) => (sequence.name === "follower" ? 100 : 0),
      isWholeOnly: false,
    }
    const sequences = [prompt("b", 300), prompt("a", 200), prompt("follower", 400)]
    schedule(sequences, limits, sharing)
    expect(asked).toEqual([])
    schedule([...sequences, decoding("d")], limits, sharing)
    expect(asked).toEqual([["a", "b"]])
  })
})
