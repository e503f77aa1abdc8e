import { describe, expect, test } from "bun:test"

import { admissionOrder, type Applicant, FairShare, outranks, victimOf } from "./admission.ts"

interface Named extends Applicant {
  readonly name: string
}

function applicant(name: string, overrides: Partial<Named> = {}): Named {
  return {
    name,
    priority: "normal",
    client: "c",
    submittedAt: 0,
    wasPreempted: false,
    ...overrides,
  }
}

const names = (applicants: readonly Named[]) => applicants.map(({ name }) => name)

function order(
  waiting: readonly Named[],
  { fairShare = new FairShare(), now = 10 } = {},
): string[] {
  return names(admissionOrder(waiting, fairShare, now))
}

const of = (priority: Applicant["priority"]) => applicant(priority, { priority })

describe("admissionOrder()", () => {
  test("admits classes in their order, and equals in the order of their arrival", () => {
    const waiting = [
      applicant("batch", { priority: "batch" }),
      applicant("late", { submittedAt: 2 }),
      applicant("early", { submittedAt: 1 }),
      applicant("interactive", { priority: "interactive", submittedAt: 3 }),
    ]
    expect(order(waiting, { now: 3 })).toEqual(["interactive", "early", "late", "batch"])
    expect(names(waiting)).toEqual(["batch", "late", "early", "interactive"])
  })

  test("lets those go on first that had to give way, within their class", () => {
    const waiting = [
      applicant("old"),
      applicant("preempted", { submittedAt: 5, wasPreempted: true }),
      applicant("batch", { priority: "batch", wasPreempted: true }),
    ]
    expect(order(waiting)).toEqual(["preempted", "old", "batch"])
  })

  test("serves the client first that got least", () => {
    const fairShare = new FairShare()
    for (const client of ["much", "little"]) fairShare.arrive(client)
    fairShare.charge("much", 500)
    fairShare.charge("little", 100)
    const waiting = [
      applicant("first", { client: "much" }),
      applicant("second", { client: "little", submittedAt: 1 }),
    ]
    expect(order(waiting, { fairShare })).toEqual(["second", "first"])
  })

  test("counts half a minute of waiting like one class higher", () => {
    const waiting = [
      applicant("new", { priority: "interactive", submittedAt: 59_999 }),
      applicant("batch", { priority: "batch", submittedAt: 0 }),
    ]
    expect(order(waiting, { now: 59_999 })).toEqual(["new", "batch"])
    expect(order(waiting, { now: 60_000 })).toEqual(["batch", "new"])
    // It does not go on rising: what waits since ever is no more than interactive.
    expect(order(waiting, { now: 600_000 })).toEqual(["batch", "new"])
  })
})

describe("victimOf()", () => {
  test("takes the youngest of the lowest class", () => {
    const running = [
      applicant("old batch", { priority: "batch", submittedAt: 1 }),
      applicant("young batch", { priority: "batch", submittedAt: 2 }),
      applicant("youngest", { submittedAt: 3 }),
      applicant("interactive", { priority: "interactive", submittedAt: 4 }),
    ]
    expect(victimOf(running)?.name).toBe("young batch")
    expect(victimOf(running.toReversed())?.name).toBe("young batch")
    expect(victimOf(running.slice(2))?.name).toBe("youngest")
  })

  test("takes the last of those that arrived together", () => {
    expect(victimOf([applicant("a"), applicant("b")])?.name).toBe("b")
    expect(victimOf([])).toBeUndefined()
  })
})

describe("outranks()", () => {
  test("lets only a higher class push somebody out", () => {
    expect(outranks(of("interactive"), of("normal"))).toBe(true)
    expect(outranks(of("normal"), of("batch"))).toBe(true)
    expect(outranks(of("normal"), of("normal"))).toBe(false)
    expect(outranks(of("batch"), of("interactive"))).toBe(false)
  })

  test("does not count waiting, so that two requests cannot push each other out in turn", () => {
    const old = applicant("old", { priority: "batch", submittedAt: -1e9 })
    expect(outranks(old, applicant("new"))).toBe(false)
  })
})

describe("FairShare", () => {
  test("says what a client got beyond the least served one", () => {
    const share = new FairShare()
    for (const client of ["a", "b"]) share.arrive(client)
    share.charge("a", 30)
    share.charge("b", 10)
    expect([share.lead("a"), share.lead("b"), share.lead("unknown")]).toEqual([20, 0, -10])
  })

  test("saves nothing up for a client that was away", () => {
    const share = new FairShare()
    share.arrive("a")
    share.charge("a", 1000)
    share.arrive("b")
    expect([share.lead("a"), share.lead("b")]).toEqual([0, 0])
  })

  test("keeps a client's count as long as it has a request", () => {
    const share = new FairShare()
    for (const client of ["a", "a", "b"]) share.arrive(client)
    share.charge("a", 50)
    share.leave("a")
    expect(share.lead("a")).toBe(50)
    share.leave("a")
    share.arrive("a")
    expect(share.lead("a")).toBe(0)
  })

  test("forgets who has left, and charges nobody who is not there", () => {
    const share = new FairShare()
    share.arrive("a")
    share.leave("a")
    share.charge("a", 100)
    share.arrive("b")
    expect([share.lead("a"), share.lead("b")]).toEqual([0, 0])
    share.charge("b", 5)
    share.leave("b")
    share.leave("b")
    expect(share.lead("b")).toBe(0)
  })
})
