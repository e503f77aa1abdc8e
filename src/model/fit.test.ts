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
  trainedTokens: 131_072,
}

const NO_WISHES: FitWishes = { contextTokens: undefined, parallel: undefined }

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

describe("fitContext() — without wishes", () => {
  test("takes the context that the model was trained for when a quarter of the memory holds it", () => {
    expect(fit(bytesFor(131_072 * 4))).toEqual({
      contextTokens: 131_072,
      parallel: 1,
      cells: 131_072,
    })
    expect(fit(bytesFor(131_072 * 2)).contextTokens).toBe(131_072 / 2)
  })

  test("takes all that there is for a modest context", () => {
    expect(fit(bytesFor(8192))).toEqual({ contextTokens: 8192, parallel: 1, cells: 8192 })
    expect(fit(bytesFor(5000)).contextTokens).toBe(5000)
    expect(fit(bytesFor(2048)).contextTokens).toBe(2048)
    expect(() => fit(bytesFor(2047))).toThrow("with 2048 tokens of context")
  })

  test("has room for four full contexts while they are short", () => {
    expect(fit(2 ** 50, {}, { trainedTokens: 4096 })).toEqual({
      contextTokens: 4096,
      parallel: 4,
      cells: 16_384,
    })
    expect(fit(2 ** 50, {}, { trainedTokens: 16_384 }).cells).toBe(32_768)
    expect(fit(2 ** 50, {}, { trainedTokens: 40_960 }).cells).toBe(40_960)
  })

  test("has fewer cells for others before it has a shorter context", () => {
    const facts = { trainedTokens: 4096 }
    expect(fit(bytesFor(10_000), {}, facts)).toEqual({
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
    expect(fit(2 ** 50, { parallel: 64, contextTokens: 8192 }).cells).toBe(32_768)
  })

  test("a context longer than the model was trained for is cut to that, as Ollama does", () => {
    expect(fit(2 ** 50, { contextTokens: 10 ** 6 }).contextTokens).toBe(131_072)
  })

  test("a short context that was asked for is fine", () => {
    expect(fit(bytesFor(64 * 4), { contextTokens: 64 })).toMatchObject({ contextTokens: 64 })
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
    trainedTokens: fc.option(fc.integer({ min: 1, max: 10 ** 6 }), { nil: undefined }),
  })
  const wishes = fc.record({
    contextTokens: fc.option(fc.integer({ min: 4, max: 10 ** 6 }), { nil: undefined }),
    parallel: fc.option(fc.integer({ min: 1, max: 64 }), { nil: undefined }),
  })

  test("what is chosen fits, keeps to the wishes, and more memory never gives less", () => {
    const memory = fc.integer({ min: 0, max: 128 * GIB })
    fc.assert(
      fc.property(facts, wishes, memory, memory, (model, wanted, a, b) => {
        const [less, more] = [Math.min(a, b), Math.max(a, b)]
        const [small, large] = [attempt(model, wanted, less), attempt(model, wanted, more)]
        if (small === undefined) return
        expect(bytesFor(small.cells, model)).toBeLessThanOrEqual(less)
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
})
