import { describe, expect, test } from "bun:test"

import { CriaError } from "../util/errors.ts"
import { FakeEffects, type FakeRunner, fakeSpec, settle } from "./fake-effects.ts"
import { Pool, type PoolOptions } from "./pool.ts"

function world(change: Partial<PoolOptions> = {}): {
  effects: FakeEffects
  pool: Pool<FakeRunner>
} {
  const effects = new FakeEffects()
  return {
    effects,
    pool: new Pool(effects, { loadedModelsMax: 2, queueMax: 8, keepAliveMs: 1000, ...change }),
  }
}

const states = (pool: Pool<FakeRunner>) => pool.list().map(({ name, state }) => `${name} ${state}`)

/** Leases a model that is not loaded yet. */
async function loadNow(
  { effects, pool }: ReturnType<typeof world>,
  name: string,
  keepAliveMs?: number,
) {
  const lease = pool.acquire(fakeSpec(name), { keepAliveMs })
  effects.load(name).finish()
  return await lease
}

const outOfMemory = new CriaError("insufficient-memory", "too large")

describe("Pool", () => {
  test("loads a model once for all that ask for it", async () => {
    const { effects, pool } = world()
    const leases = [pool.acquire(fakeSpec("a")), pool.acquire(fakeSpec("a"))]
    expect(effects.loads).toHaveLength(1)
    const runner = effects.load("a").finish()
    expect((await Promise.all(leases)).map((lease) => lease.runner)).toEqual([runner, runner])
  })

  test("leases a loaded model at once", async () => {
    const w = world()
    await loadNow(w, "a")
    expect((await w.pool.acquire(fakeSpec("a"))).runner.name).toBe("a")
    expect(w.effects.runners).toHaveLength(1)
  })

  test("reports the progress of a load to all that wait for it", () => {
    const { effects, pool } = world()
    const seen: string[] = []
    void pool.acquire(fakeSpec("a"), { onProgress: (x) => seen.push(`first ${x}`) })
    void pool.acquire(fakeSpec("a"), { onProgress: (x) => seen.push(`second ${x}`) })
    effects.load("a").report(0.5)
    expect(seen).toEqual(["first 0.5", "second 0.5"])
  })

  test("unloads a model when it was idle for its keep-alive", async () => {
    const w = world()
    const lease = await loadNow(w, "a")
    w.effects.advance(5000)
    expect(states(w.pool)).toEqual(["a ready"])
    lease[Symbol.dispose]()
    w.effects.advance(999)
    expect(states(w.pool)).toEqual(["a ready"])
    w.effects.advance(1)
    await settle()
    expect(states(w.pool)).toEqual([])
    expect(w.effects.runners[0]?.isStopped).toBe(true)
  })

  test("starts the keep-alive anew with every request", async () => {
    const w = world()
    ;(await loadNow(w, "a"))[Symbol.dispose]()
    w.effects.advance(900)
    ;(await w.pool.acquire(fakeSpec("a")))[Symbol.dispose]()
    w.effects.advance(900)
    expect(states(w.pool)).toEqual(["a ready"])
  })

  test.each([
    [0, "unloads at once with a keep-alive of 0", 0, 0],
    [Infinity, "keeps a model for ever when it is told so", 10 ** 12, 1],
  ])("keep-alive %p — %s", async (keepAliveMs, _, passes, left) => {
    const w = world()
    ;(await loadNow(w, "a", keepAliveMs))[Symbol.dispose]()
    w.effects.advance(passes)
    await settle()
    expect(w.pool.list()).toHaveLength(left)
  })

  test("keeps the keep-alive of a model when a request says nothing", async () => {
    const w = world()
    ;(await loadNow(w, "a", 50_000))[Symbol.dispose]()
    ;(await w.pool.acquire(fakeSpec("a")))[Symbol.dispose]()
    expect(w.pool.list()[0]?.expiresAtMs).toBe(50_000)
  })

  test("releases a lease once, however often it is disposed", async () => {
    const w = world()
    const first = await loadNow(w, "a", 0)
    const second = await w.pool.acquire(fakeSpec("a"))
    first[Symbol.dispose]()
    first[Symbol.dispose]()
    await settle()
    expect(states(w.pool)).toEqual(["a ready"])
    second[Symbol.dispose]()
    await settle()
    expect(states(w.pool)).toEqual([])
  })

  test("makes room by unloading the least recently used", async () => {
    const w = world()
    ;(await loadNow(w, "a"))[Symbol.dispose]()
    w.effects.advance(1)
    ;(await loadNow(w, "b"))[Symbol.dispose]()
    const lease = w.pool.acquire(fakeSpec("c"))
    await settle()
    w.effects.load("c").finish()
    await lease
    expect(states(w.pool).toSorted()).toEqual(["b ready", "c ready"])
  })

  test("waits when all models are in use, until one is not", async () => {
    const w = world({ loadedModelsMax: 1 })
    const a = await loadNow(w, "a")
    const b = w.pool.acquire(fakeSpec("b"))
    await settle()
    expect(w.effects.loads).toHaveLength(0)
    a[Symbol.dispose]()
    await settle()
    w.effects.load("b").finish()
    expect((await b).runner.name).toBe("b")
  })

  test("serves those who ask for a loaded model while another loads", async () => {
    const w = world()
    await loadNow(w, "a")
    void w.pool.acquire(fakeSpec("b"))
    expect((await w.pool.acquire(fakeSpec("a"))).runner.name).toBe("a")
  })

  test("loads one model at a time", async () => {
    const { effects, pool } = world({ loadedModelsMax: 5 })
    const leases = ["a", "b"].map((name) => pool.acquire(fakeSpec(name)))
    expect(effects.loads.map(({ name }) => name)).toEqual(["a"])
    effects.load("a").finish()
    await settle()
    expect(effects.loads.map(({ name }) => name)).toEqual(["b"])
    effects.load("b").finish()
    expect(await Promise.all(leases)).toHaveLength(2)
  })

  test("unloads others and tries again when memory is short", async () => {
    const w = world({ loadedModelsMax: 3 })
    ;(await loadNow(w, "a"))[Symbol.dispose]()
    const b = w.pool.acquire(fakeSpec("b"))
    w.effects.load("b").fail(outOfMemory)
    await settle()
    expect(states(w.pool)).toEqual(["b loading"])
    w.effects.load("b").finish()
    expect((await b).runner.name).toBe("b")
  })

  test("waits for memory when others are in use", async () => {
    const w = world({ loadedModelsMax: 3 })
    const a = await loadNow(w, "a")
    const b = w.pool.acquire(fakeSpec("b"))
    w.effects.load("b").fail(outOfMemory)
    await settle()
    expect(states(w.pool)).toEqual(["a ready"])
    a[Symbol.dispose]()
    await settle()
    w.effects.load("b").finish()
    expect((await b).runner.name).toBe("b")
  })

  test("fails when memory is short and there is nothing to unload", async () => {
    const { effects, pool } = world()
    const lease = pool.acquire(fakeSpec("a"))
    effects.load("a").fail(outOfMemory)
    expect(await lease.catch((error: unknown) => error)).toBe(outOfMemory)
    expect(states(pool)).toEqual([])
  })

  test("fails all that wait for a load that failed, and tries anew for the next", async () => {
    const { effects, pool } = world()
    const leases = [pool.acquire(fakeSpec("a")), pool.acquire(fakeSpec("a"))]
    effects.load("a").fail(new CriaError("invalid-input", "not a GGUF"))
    expect((await Promise.allSettled(leases)).map(({ status }) => status)).toEqual([
      "rejected",
      "rejected",
    ])
    const next = pool.acquire(fakeSpec("a"))
    effects.load("a").finish()
    expect((await next).runner.name).toBe("a")
  })

  test("gives a load up when nobody waits for it any more", async () => {
    const { effects, pool } = world()
    const [first, second] = [new AbortController(), new AbortController()]
    const leases = [first, second].map(({ signal }) => pool.acquire(fakeSpec("a"), { signal }))
    first.abort(new Error("gone"))
    expect(effects.load("a").signal.aborted).toBe(false)
    second.abort(new Error("gone"))
    expect(effects.loads).toHaveLength(0)
    expect(
      (await Promise.allSettled(leases)).map(
        (outcome) => outcome.status === "rejected" && String(outcome.reason),
      ),
    ).toEqual(["Error: gone", "Error: gone"])
    await settle()
    expect(states(pool)).toEqual([])
  })

  test("loads again for a request that came while the load was being given up", async () => {
    const { effects, pool } = world()
    const controller = new AbortController()
    const gone = pool.acquire(fakeSpec("a"), { signal: controller.signal })
    controller.abort(new Error("gone"))
    const late = pool.acquire(fakeSpec("a"))
    await settle()
    effects.load("a").finish()
    expect((await late).runner.name).toBe("a")
    expect(await gone.catch(String)).toBe("Error: gone")
  })

  test("loads a model again that crashed, and only that", async () => {
    const w = world()
    await loadNow(w, "a")
    await loadNow(w, "b")
    w.effects.runners[0]?.crash()
    await settle()
    expect(states(w.pool)).toEqual(["b ready"])
    const again = w.pool.acquire(fakeSpec("a"))
    w.effects.load("a").finish()
    expect((await again).runner).not.toBe(w.effects.runners[0] as FakeRunner)
  })

  test("gives no model out that broke, and loads it again once its process has ended", async () => {
    const w = world()
    const lease = await loadNow(w, "a")
    w.effects.runners[0]?.break()
    const again = w.pool.acquire(fakeSpec("a"))
    expect(states(w.pool)).toEqual(["a stopping"])
    await settle()
    w.effects.load("a").finish()
    expect((await again).runner).not.toBe(lease.runner)
  })

  test("keeps no timer for a model that crashed while it was in use", async () => {
    const w = world()
    const lease = await loadNow(w, "a")
    w.effects.runners[0]?.crash()
    await settle()
    lease[Symbol.dispose]()
    expect(w.effects.timers).toBe(0)
  })

  test("loads a model anew for options that it cannot serve, once its requests are over", async () => {
    const w = world()
    const small = await loadNow(w, "a")
    const large = w.pool.acquire(fakeSpec("a", { contextTokens: 9000 }))
    const later = w.pool.acquire(fakeSpec("a"))
    await settle()
    expect(w.effects.loads).toHaveLength(0)
    small[Symbol.dispose]()
    await settle()
    w.effects.load("a").finish()
    expect((await large).runner.facts.contextTokens).toBe(9000)
    expect((await later).runner.facts.contextTokens).toBe(9000)
  })

  test("unloads on demand, after the requests in progress", async () => {
    const w = world()
    const lease = await loadNow(w, "a")
    expect(w.pool.unload("/a")).toBe(true)
    await settle()
    expect(states(w.pool)).toEqual(["a ready"])
    lease[Symbol.dispose]()
    await settle()
    expect(states(w.pool)).toEqual([])
    expect(w.pool.unload("/a")).toBe(false)
  })

  test("refuses what is more than the queue holds, in Ollama's words", async () => {
    const { pool } = world({ queueMax: 1 })
    void pool.acquire(fakeSpec("a"))
    void pool.acquire(fakeSpec("b"))
    expect(await pool.acquire(fakeSpec("c")).catch((error: unknown) => error)).toEqual(
      new CriaError("busy", "server busy, please try again.  maximum pending requests exceeded"),
    )
  })

  test("a loaded model serves however long the queue for others is", async () => {
    const w = world({ queueMax: 0 })
    await loadNow(w, "a")
    const waiting = w.pool.acquire(fakeSpec("b"))
    await settle()
    expect(w.effects.loads).toHaveLength(1)
    using lease = await w.pool.acquire(fakeSpec("a"))
    expect(lease.runner.facts).toBeDefined()
    expect(await w.pool.acquire(fakeSpec("c")).catch((error: unknown) => error)).toMatchObject({
      code: "busy",
    })
    await w.pool[Symbol.asyncDispose]()
    expect(await waiting.catch((error: unknown) => error)).toMatchObject({ code: "unavailable" })
  })

  test("fails what waits, gives up what loads and stops what runs when it is disposed", async () => {
    const w = world()
    await loadNow(w, "a")
    const waiting = w.pool.acquire(fakeSpec("b"))
    await w.pool[Symbol.asyncDispose]()
    expect(await waiting.catch((error: unknown) => error)).toMatchObject({ code: "unavailable" })
    expect(w.effects.loads).toHaveLength(0)
    expect(w.effects.runners[0]?.isStopped).toBe(true)
    expect(await w.pool.acquire(fakeSpec("a")).catch((error: unknown) => error)).toMatchObject({
      code: "unavailable",
    })
  })
})
