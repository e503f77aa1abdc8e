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

/** Weights and overhead, with so many tokens of cache. */
function bytesFor(cells: number, facts: FitFacts = FACTS): number {
  return facts.weightsBytes + 400 * MIB + cells * facts.kvBytesPerToken
}

function fit(
  availableBytes: number,
  wishes: Partial<FitWishes> = {},
  facts: Partial<FitFacts> = {},
): Fit {
  return fitContext({ ...FACTS, ...facts }, { ...NO_WISHES, ...wishes }, availableBytes)
}

describe("fitContext() — without wishes", () => {
  // What goes first: full contexts at once, then the length of one.
  test.each<[number, number, number]>([
    [8192 * 4, 8192, 4],
    [8192 * 4 - 1, 8192, 2],
    [8192 * 2, 8192, 2],
    [8192 * 2 - 1, 8192, 1],
    [8192, 8192, 1],
    [8191, 4096, 1],
    [4095, 2048, 1],
    [2048, 2048, 1],
  ])("memory for %d cells gives %d tokens, %d at once", (cells, contextTokens, parallel) => {
    expect(fit(bytesFor(cells))).toEqual({
      contextTokens,
      parallel,
      cells: contextTokens * parallel,
    })
  })

  test("with all the memory there is, no more than the default", () => {
    expect(fit(2 ** 50)).toEqual({ contextTokens: 8192, parallel: 4, cells: 32_768 })
  })

  test("a model that was trained for less gets that", () => {
    expect(fit(2 ** 50, {}, { trainedTokens: 2048 }).contextTokens).toBe(2048)
    expect(fit(2 ** 50, {}, { trainedTokens: 512 }).contextTokens).toBe(512)
  })

  test("a model that does not say what it was trained for gets 4096", () => {
    expect(fit(2 ** 50, {}, { trainedTokens: undefined }).contextTokens).toBe(4096)
  })

  test("does not go below 2048 on its own, whatever it was trained for", () => {
    const facts = { trainedTokens: 3000 }
    expect(fit(bytesFor(3000), {}, facts).contextTokens).toBe(3000)
    expect(fit(bytesFor(2999), {}, facts).contextTokens).toBe(2048)
    expect(() => fit(bytesFor(2047), {}, facts)).toThrow("with 2048 tokens of context")
  })

  test("a model without a growing cache fits where its weights do", () => {
    expect(fit(bytesFor(0), {}, { kvBytesPerToken: 0 })).toMatchObject({
      contextTokens: 8192,
      parallel: 4,
    })
  })
})

describe("fitContext() — wishes are granted whole or not at all", () => {
  test("a context that was asked for is not shortened; fewer run at once instead", () => {
    expect(fit(bytesFor(16_384), { contextTokens: 16_384 })).toMatchObject({
      contextTokens: 16_384,
      parallel: 1,
    })
    expect(() => fit(bytesFor(16_383), { contextTokens: 16_384 })).toThrow(
      "with 16384 tokens of context",
    )
  })

  test("requests at once that were asked for stay; the context gets shorter instead", () => {
    expect(fit(bytesFor(4096 * 4), { parallel: 4 })).toMatchObject({
      contextTokens: 4096,
      parallel: 4,
    })
    expect(() => fit(bytesFor(2048 * 4 - 1), { parallel: 4 })).toThrow(
      "with 2048 tokens of context",
    )
  })

  test("both together either fit or do not", () => {
    const wishes = { contextTokens: 4096, parallel: 3 }
    expect(fit(bytesFor(4096 * 3), wishes)).toEqual({ ...wishes, cells: 4096 * 3 })
    expect(() => fit(bytesFor(4096 * 3 - 1), wishes)).toThrow("with 4096 tokens of context")
  })

  test("a context longer than the model was trained for is cut to that, as Ollama does", () => {
    expect(fit(2 ** 50, { contextTokens: 10 ** 6 }).contextTokens).toBe(131_072)
  })

  test("a short context that was asked for is fine", () => {
    expect(fit(bytesFor(64 * 4), { contextTokens: 64 })).toMatchObject({
      contextTokens: 64,
      parallel: 4,
    })
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
        if (wanted.parallel !== undefined) expect(small.parallel).toBe(wanted.parallel)
        expect(large?.contextTokens).toBeGreaterThanOrEqual(small.contextTokens)
        expect(large?.cells).toBeGreaterThanOrEqual(small.cells)
      }),
    )
  })
})
