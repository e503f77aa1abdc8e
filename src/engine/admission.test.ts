import { describe, expect, test } from "bun:test"

import { type Applicant, FairShare, inOrder, nextOf, Pressure, victimOf } from "./admission.ts"

interface Named extends Applicant {
  readonly name: string
}

function applicant(name: string, overrides: Partial<Applicant> = {}): Named {
  return {
    name,
    priority: "normal",
    client: "c",
    submittedAt: 0,
    wasPreempted: false,
    isElder: false,
    ...overrides,
  }
}

const names = (applicants: readonly Named[]) => applicants.map(({ name }) => name)

/** Who comes next at each of the next turns, as if each started and was gone at once. */
function turns(
  waiting: readonly Named[],
  { fairShare = new FairShare(), now = 10, admitted = 0 } = {},
): string[] {
  const left = [...waiting]
  const order: string[] = []
  for (let turn = admitted; left.length > 0; turn++) {
    const next = nextOf(left, { fairShare, now, admitted: turn })
    if (next === undefined) throw new Error("somebody comes next")
    order.push(next.isElder ? `${next.applicant.name}, elder` : next.applicant.name)
    left.splice(left.indexOf(next.applicant), 1)
  }
  return order
}

describe("nextOf()", () => {
  test("admits classes in their order, and equals in the order of their arrival", () => {
    const waiting = [
      applicant("batch", { priority: "batch" }),
      applicant("late", { submittedAt: 2 }),
      applicant("early", { submittedAt: 1 }),
      applicant("interactive", { priority: "interactive", submittedAt: 3 }),
    ]
    expect(turns(waiting)).toEqual(["interactive", "early", "late", "batch"])
    expect(names(inOrder(waiting, new FairShare()))).toEqual(turns(waiting))
    expect(nextOf([], { fairShare: new FairShare(), now: 0, admitted: 0 })).toBeUndefined()
  })

  test("lets those go on first that had to give way, within their class", () => {
    const waiting = [
      applicant("old"),
      applicant("preempted", { submittedAt: 5, wasPreempted: true }),
      applicant("batch", { priority: "batch", wasPreempted: true }),
    ]
    expect(turns(waiting)).toEqual(["preempted", "old", "batch"])
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
    expect(turns(waiting, { fairShare })).toEqual(["second", "first"])
  })

  test("gives every eighth place to who waited longest, after half a minute", () => {
    const waiting = [
      applicant("batch", { priority: "batch" }),
      ...Array.from({ length: 9 }, (_, i) =>
        applicant(`i${i}`, { priority: "interactive", submittedAt: 29_000 + i }),
      ),
    ]
    const first = turns(waiting, { now: 30_000 })
    expect(first.indexOf("batch, elder")).toBe(7)
    expect(turns(waiting, { now: 30_000, admitted: 7 })[0]).toBe("batch, elder")
    expect(turns(waiting, { now: 29_999, admitted: 7 }).at(-1)).toBe("batch")
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

  test("spares who got its place by waiting", () => {
    const elder = applicant("elder", { priority: "batch", isElder: true })
    expect(victimOf([elder, applicant("normal")])?.name).toBe("normal")
  })
})

const victims = (asking: Applicant, running: readonly Named[], now = 0) =>
  names(new Pressure(running, now).victimsFor(asking))

describe("Pressure", () => {
  test("lets only a higher class push others out, the lowest first", () => {
    const running = [
      applicant("normal"),
      applicant("batch", { priority: "batch" }),
      applicant("young batch", { priority: "batch", submittedAt: 1 }),
      applicant("elder", { priority: "batch", isElder: true }),
    ]
    const urgent = applicant("", { priority: "interactive" })
    expect(victims(urgent, running)).toEqual(["young batch", "batch", "normal"])
    expect(victims(applicant(""), running)).toEqual(["young batch", "batch"])
    expect(victims(applicant("", { priority: "batch" }), running)).toEqual([])
  })

  test("does not count waiting, so that two requests cannot push each other out in turn", () => {
    const old = applicant("old", { priority: "batch", submittedAt: -1e9 })
    expect(victims(old, [applicant("new")])).toEqual([])
  })

  test("gives a client that has nothing a place of the one that has most, after a while", () => {
    const running = [
      applicant("a1", { client: "a" }),
      applicant("a2", { client: "a", submittedAt: 5 }),
      applicant("b", { client: "b", submittedAt: 9 }),
    ]
    const newcomer = applicant("new", { client: "new", submittedAt: 100 })
    expect(victims(newcomer, running, 2099)).toEqual([])
    expect(victims(newcomer, running, 2100)).toEqual(["a2"])
    expect(victims(applicant("", { client: "b" }), running, 9999)).toEqual([])
    expect(victims(newcomer, running.slice(1), 9999)).toEqual([])
    expect(victims({ ...newcomer, priority: "batch" }, running, 9999)).toEqual([])
  })

  test("owes a client no place whose group has some", () => {
    const running = [
      applicant("a1", { client: "a/1" }),
      applicant("a2", { client: "a/2", submittedAt: 5 }),
    ]
    expect(victims(applicant("", { client: "a/3" }), running, 9999)).toEqual([])
    expect(victims(applicant("", { client: "b" }), running, 9999)).toEqual(["a2"])
  })

  test("says for whom it is worth looking", () => {
    const running = [
      applicant("", { client: "a" }),
      applicant("", { client: "a", priority: "batch" }),
    ]
    const pressure = new Pressure(running, 5000)
    const can = (more: Partial<Applicant>) => pressure.canPush(applicant("", more))
    expect([
      can({ client: "a", submittedAt: 4000 }),
      can({ client: "a", priority: "batch" }),
      can({ client: "new", priority: "batch" }),
      can({ client: "new", priority: "batch", submittedAt: 4000 }),
    ]).toEqual([true, false, true, false])
    expect(new Pressure([], 0).canPush(applicant("", { priority: "interactive" }))).toBe(false)
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

  test("clients of one group share what the group gets", () => {
    const share = new FairShare()
    const clients = ["team/ann", "team/bob", "other"]
    for (const client of clients) share.arrive(client)
    share.charge("team/ann", 60)
    share.charge("team/bob", 20)
    share.charge("other", 50)
    expect(clients.map((client) => share.lead(client))).toEqual([30 + 40, 30, 0])
    expect(clients.toSorted((a, b) => share.compare(a, b))).toEqual([
      "other",
      "team/bob",
      "team/ann",
    ])
    share.charge("other", 40)
    // Ann got most, but her group least.
    expect(share.compare("team/ann", "other")).toBeLessThan(0)
    share.leave("team/ann")
    share.leave("team/bob")
    share.arrive("team/carl")
    expect(share.lead("team/carl")).toBe(0)
  })
})
