import { describe, expect, test } from "bun:test"

import { CriaError } from "../util/errors.ts"
import { checkRequest } from "./check-request.ts"
import { FakeBackend } from "./fake-backend.ts"
import { SAMPLING_DEFAULTS } from "./sampling.ts"
import type { GenerateRequest } from "./sequence.ts"

const { info } = new FakeBackend()

function check(overrides: Partial<GenerateRequest>, contextTokens = 16): void {
  const request = { prompt: [1, 2, 3], sampling: SAMPLING_DEFAULTS, maxTokens: 5, ...overrides }
  checkRequest(request, info, contextTokens)
}

describe("checkRequest()", () => {
  test.each([
    ["0 tokens to keep", { shift: { keepTokens: 0 } }],
    ["all but two tokens to keep", { shift: { keepTokens: 14 } }],
    ["as many tokens as fit", { maxTokens: Infinity }],
    ["no tokens", { maxTokens: 0 }],
    ["a prompt that leaves room for one token", { prompt: Array.from({ length: 15 }, () => 1) }],
    ["the last token of the vocabulary", { prompt: [255] }],
  ] satisfies [string, Partial<GenerateRequest>][])("takes %s", (_, overrides) => {
    expect(() => check(overrides)).not.toThrow()
  })

  test.each([-1, 15, 1.5, Number.NaN, Infinity])(
    "refuses to keep %p tokens when the context shifts",
    (keepTokens) => {
      expect(() => check({ shift: { keepTokens } })).toThrow(
        new CriaError(
          "invalid-input",
          `Cannot keep ${keepTokens} tokens when the context shifts: expected 0 to 14`,
        ),
      )
    },
  )

  test("refuses a prompt that fills the context even when it may shift", () => {
    const prompt = Array.from({ length: 16 }, () => 1)
    expect(() => check({ prompt, shift: { keepTokens: 0 } })).toThrow(
      "Cannot read a prompt of 16 tokens: the context holds 16, answer included",
    )
  })
})
