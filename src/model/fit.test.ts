import { describe, expect, test } from "bun:test"

import * as fc from "fast-check"

import { type Fit, fitContext, type FitFacts, type FitWishes } from "./fit.ts"

const MIB = 2 ** 20
const GIB = 2 ** 30

/** Tokens cost 1 MiB each, so that numbers can be read: 8192 tokens are 8 GiB. */
const FACTS: FitFacts = {
  name: "tiny:latest",
  weightsBytes: 2 * GIB,
  kvBytesPerToken: MIB,
  windowBytesPerToken: 0,
  windowTokens: 0,
  stateBytes: 0,
  trainedTokens: 131_072,
}

const NO_WISHES: FitWishes = {
  contextTokens: undefined,
  parallel: undefined,
  isWindowFull: undefined,
  batchTokens: 512,
}

/** Weights and overhead, with so many tokens of cache and their place in the attention mask. */
function bytesFor(cells: number, facts: FitFacts = FACTS): number {
  return facts.weightsBytes + 400 * MIB + cells * (facts.kvBytesPerToken + 2048)
}

function fit(
  availableBytes: number,
  wishes: Partial<FitWishes> = {},
  facts: Partial<FitFacts> = {},
): Fit {
  return fitContext({ ...FACTS, ...facts }, { ...NO_WISHES, ...wishes }, availableBytes)
}

/** Windows are whole, and everything is in cells. */
const DENSE = { isWindowFull: true, states: 0, runningMax: Infinity }

describe("fitContext() — without wishes", () => {
  test("takes the context that the model was trained for when a quarter of the memory holds it", () => {
    expect(fit(bytesFor(131_072 * 4))).toEqual({
      ...DENSE,
      contextTokens: 131_072,
      parallel: 1,
      cells: 131_072,
      cacheBytes: 131_072 * MIB,
    })
    expect(fit(bytesFor(131_072 * 2)).contextTokens).toBe(131_072 / 2)
  })

  test("takes all that there is for a modest context", () => {
    expect(fit(bytesFor(8192))).toMatchObject({ contextTokens: 8192, parallel: 1, cells: 8192 })
    expect(fit(bytesFor(5000)).contextTokens).toBe(5000)
    expect(fit(bytesFor(2048)).contextTokens).toBe(2048)
    expect(() => fit(bytesFor(2047))).toThrow("with 2048 tokens of context")
  })

  test("has room for four full contexts while they are short", () => {
    expect(fit(2 ** 50, {}, { trainedTokens: 4096 })).toMatchObject({
      contextTokens: 4096,
      parallel: 4,
      cells: 16_384,
    })
    expect(fit(2 ** 50, {}, { trainedTokens: 16_384 }).cells).toBe(32_768)
    expect(fit(2 ** 50, {}, { trainedTokens: 40_960 }).cells).toBe(40_960)
  })

  test("has fewer cells for others before it has a shorter context", () => {
    const facts = { trainedTokens: 4096 }
    expect(fit(bytesFor(10_000), {}, facts)).toMatchObject({
      contextTokens: 4096,
      parallel: 2,
      cells: 9984,
    })
  })

  test("a model that was trained for less gets that", () => {
    expect(fit(2 ** 50, {}, { trainedTokens: 512 }).contextTokens).toBe(512)
  })

  test("a model that does not say what it was trained for gets 4096", () => {
    expect(fit(2 ** 50, {}, { trainedTokens: undefined }).contextTokens).toBe(4096)
  })

  test("a model without a growing cache fits where its weights do", () => {
    const facts = { kvBytesPerToken: 0, trainedTokens: 2048 }
    expect(fit(bytesFor(2048, { ...FACTS, ...facts }), {}, facts).contextTokens).toBe(2048)
  })
})

describe("fitContext() — with wishes", () => {
  test("a context that was asked for is granted whole or not at all", () => {
    const wishes = { contextTokens: 16_384 }
    expect(fit(bytesFor(16_384), wishes)).toMatchObject({ contextTokens: 16_384, parallel: 1 })
    expect(() => fit(bytesFor(16_383), wishes)).toThrow("with 16384 tokens of context")
  })

  test("a number of requests at once decides how many cells there are, not how long a context is", () => {
    expect(fit(bytesFor(4096), { parallel: 8, contextTokens: 4096 }).cells).toBe(4096)
    expect(fit(2 ** 50, { parallel: 8, contextTokens: 1024 }).cells).toBe(8192)
    expect(fit(2 ** 50, { parallel: 1, contextTokens: 1024 }).cells).toBe(1024)
  })

  test("so many whole contexts as were asked for are granted, as far as memory goes", () => {
    const wishes = { parallel: 64, contextTokens: 8192 }
    expect(fit(2 ** 50, wishes)).toMatchObject({ cells: 64 * 8192, parallel: 64 })
    expect(fit(bytesFor(8192 * 10 + 255), wishes)).toMatchObject({ cells: 8192 * 10, parallel: 10 })
    // Nobody asked for contexts of that size.
    expect(fit(2 ** 50, { parallel: 8 }, { trainedTokens: 8192 }).cells).toBe(32_768)
  })

  test("a context longer than the model was trained for is cut to that, as Ollama does", () => {
    expect(fit(2 ** 50, { contextTokens: 10 ** 6 }).contextTokens).toBe(131_072)
  })

  test("a short context that was asked for is fine", () => {
    expect(fit(bytesFor(64 * 4), { contextTokens: 64 })).toMatchObject({ contextTokens: 64 })
  })
})

describe("fitContext() — sliding windows", () => {
  // Five layers of six look back 1024 tokens.
  const facts = { kvBytesPerToken: 6 * MIB, windowBytesPerToken: 5 * MIB, windowTokens: 1024 }
  const inFull = (cells: number) => bytesFor(cells, { ...FACTS, ...facts })

  test("are kept whole when the context fits that is asked for, or the trained one", () => {
    const asked = fit(inFull(16_384), { contextTokens: 16_384 }, facts)
    expect(asked).toMatchObject({ isWindowFull: true, contextTokens: 16_384, states: 0 })
    const trained = fit(inFull(4 * 16_384), {}, { ...facts, trainedTokens: 16_384 })
    expect(trained).toMatchObject({ isWindowFull: true, contextTokens: 16_384 })
  })

  test("slide when a longer context fits so", () => {
    const asked = fit(inFull(16_384) - MIB, { contextTokens: 16_384 }, facts)
    expect(asked).toMatchObject({ isWindowFull: false, contextTokens: 16_384 })
    const memory = inFull(8 * 16_384)
    const trained = fit(memory, {}, facts)
    expect(trained.isWindowFull).toBe(false)
    expect(trained.contextTokens).toBeGreaterThan(
      fit(memory, { isWindowFull: true }, facts).contextTokens,
    )
  })

  test("slide or not as was asked for", () => {
    for (const isWindowFull of [true, false]) {
      expect(fit(2 ** 50, { isWindowFull }, facts).isWindowFull).toBe(isWindowFull)
      expect(fit(inFull(20_000), { isWindowFull }, facts).isWindowFull).toBe(isWindowFull)
    }
  })

  test("slide in models with states, which share no beginnings", () => {
    expect(fit(2 ** 50, {}, { ...facts, stateBytes: 1 })).toMatchObject({ isWindowFull: false })
  })

  test("take the window of each sequence, and one step", () => {
    const { cells, states, cacheBytes } = fit(2 ** 50, { isWindowFull: false }, facts)
    expect(states).toBe(24)
    expect(cacheBytes).toBe((cells + (24 * 1024 + 512) * 5) * MIB)
  })

  test("are whole without the layers that have one", () => {
    expect(fit(2 ** 50, { isWindowFull: false }).isWindowFull).toBe(true)
  })
})

describe("fitContext() — states", () => {
  const facts = { kvBytesPerToken: 0, stateBytes: 128 * MIB }
  const statesIn = (spare: number, wishes: Partial<FitWishes> = {}) =>
    fit(bytesFor(2048, { ...FACTS, ...facts }) + spare, wishes, facts)

  test("are for sixteen requests and what they leave behind", () => {
    expect(statesIn(2 ** 50)).toMatchObject({
      states: 24,
      runningMax: 16,
      cacheBytes: 24 * 128 * MIB,
    })
  })

  test("are no more than an eighth of the memory holds, unless there is little", () => {
    expect(statesIn(16 * GIB)).toMatchObject({ states: 16, runningMax: 11 })
    expect(statesIn(2 * GIB)).toMatchObject({ states: 8, runningMax: 6 })
    expect(statesIn(GIB)).toMatchObject({ states: 4, runningMax: 3 })
    expect(statesIn(256 * MIB)).toMatchObject({ states: 2, runningMax: 1 })
    expect(() => statesIn(256 * MIB - 1)).toThrow("with 2048 tokens of context")
  })

  test("are for as many requests as were asked for, as far as half of the memory goes", () => {
    expect(statesIn(2 ** 50, { parallel: 1 })).toMatchObject({ states: 5, runningMax: 1 })
    expect(statesIn(2 ** 50, { parallel: 64 })).toMatchObject({ states: 96, runningMax: 64 })
    expect(statesIn(2 ** 50, { parallel: 1000 })).toMatchObject({ states: 256, runningMax: 171 })
    expect(statesIn(8 * GIB, { parallel: 64 })).toMatchObject({ states: 32, runningMax: 22 })
  })
})

describe("fitContext() — what does not fit", () => {
  test("says how much is needed at the least, how much there is, and what helps", () => {
    const facts = { ...FACTS, weightsBytes: 4 * GIB }
    expect(() => fitContext(facts, NO_WISHES, 4.1 * GIB)).toThrow(
      expect.objectContaining({
        code: "insufficient-memory",
        message:
          'Cannot load "tiny:latest": needs 6.4 GiB with 2048 tokens of context, 4.1 GiB available',
        hint: "Use a smaller model or quantisation, a smaller num_ctx, or stop other programs",
      }),
    )
  })

  test("never shows less than nothing", () => {
    expect(() => fit(-5 * GIB)).toThrow("0 MiB available")
  })
})

/** What is chosen, or nothing when it does not fit. */
function attempt(model: FitFacts, wanted: FitWishes, available: number): Fit | undefined {
  try {
    return fitContext(model, wanted, available)
  } catch {
    return undefined
  }
}

describe("fitContext() — properties", () => {
  const facts = fc.record({
    name: fc.constant("m"),
    weightsBytes: fc.integer({ min: 0, max: 64 * GIB }),
    kvBytesPerToken: fc.integer({ min: 0, max: MIB }),
    windowBytesPerToken: fc.constant(0),
    windowTokens: fc.constant(0),
    stateBytes: fc.oneof(fc.constant(0), fc.integer({ min: 1, max: 512 * MIB })),
    trainedTokens: fc.option(fc.integer({ min: 1, max: 10 ** 6 }), { nil: undefined }),
  })
  const wishes = fc.record({
    contextTokens: fc.option(fc.integer({ min: 4, max: 10 ** 6 }), { nil: undefined }),
    parallel: fc.option(fc.integer({ min: 1, max: 64 }), { nil: undefined }),
    isWindowFull: fc.constant(undefined),
    batchTokens: fc.constant(512),
  })

  test("what is chosen fits, keeps to the wishes, and more memory never gives less", () => {
    const memory = fc.integer({ min: 0, max: 128 * GIB })
    fc.assert(
      fc.property(facts, wishes, memory, memory, (model, wanted, a, b) => {
        const [less, more] = [Math.min(a, b), Math.max(a, b)]
        const [small, large] = [attempt(model, wanted, less), attempt(model, wanted, more)]
        if (small === undefined) return
        const bytes = bytesFor(small.cells, model) + small.states * model.stateBytes
        expect(bytes).toBeLessThanOrEqual(less)
        expect(small.states > 0).toBe(model.stateBytes > 0)
        const trained = model.trainedTokens ?? 4096
        if (wanted.contextTokens !== undefined) {
          expect(small.contextTokens).toBe(Math.min(wanted.contextTokens, trained))
        }
        expect(small.parallel).toBe(Math.floor(small.cells / small.contextTokens))
        expect(large?.contextTokens).toBeGreaterThanOrEqual(small.contextTokens)
        expect(large?.cells).toBeGreaterThanOrEqual(small.cells)
      }),
    )
  })

  test("a window that slides holds no shorter a context, and more memory never gives a shorter one", () => {
    const windows = fc.record({
      name: fc.constant("m"),
      weightsBytes: fc.constant(0),
      kvBytesPerToken: fc.constant(MIB),
      windowBytesPerToken: fc.integer({ min: 1, max: MIB }),
      windowTokens: fc.integer({ min: 1, max: 4096 }),
      stateBytes: fc.constant(0),
      trainedTokens: fc.option(fc.integer({ min: 1, max: 10 ** 6 }), { nil: undefined }),
    })
    const memory = fc.integer({ min: 0, max: 128 * GIB })
    fc.assert(
      fc.property(windows, wishes, memory, memory, (model, wanted, a, b) => {
        const [less, more] = [Math.min(a, b), Math.max(a, b)]
        const [small, large] = [attempt(model, wanted, less), attempt(model, wanted, more)]
        for (const isWindowFull of [true, false]) {
          const forced = attempt(model, { ...wanted, isWindowFull }, less)
          expect(small?.contextTokens ?? 0).toBeGreaterThanOrEqual(forced?.contextTokens ?? 0)
        }
        expect(large?.contextTokens ?? 0).toBeGreaterThanOrEqual(small?.contextTokens ?? 0)
      }),
    )
  })
})
