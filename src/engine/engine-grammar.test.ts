import { describe, expect, test } from "bun:test"

import { CriaError } from "../util/errors.ts"
import { Engine } from "./engine.ts"
import { FakeBackend, fakeVocabulary } from "./fake-backend.ts"
import type { LazyGrammar } from "./lazy-grammar.ts"
import { SAMPLING_DEFAULTS } from "./sampling.ts"
import { collect, expected, SEED, VOCABULARY } from "./test-machine.ts"

/** Notes with which text a grammar begins. */
class NotingBackend extends FakeBackend {
  readonly prefills: string[] = []

  override constrainSampler(sampler: number, gbnf: string, prefill: string): void {
    this.prefills.push(prefill)
    super.constrainSampler(sampler, gbnf, prefill)
  }
}

const PROMPT = [1, 2, 3]
const [FIRST] = expected(PROMPT)

/** With what the grammar of one answer began, each time. */
async function prefillsOf(
  triggers: LazyGrammar["triggers"],
  stop: readonly string[] = [],
): Promise<readonly string[]> {
  const backend = new NotingBackend({ vocabularyTokens: VOCABULARY })
  await using engine = new Engine(backend, fakeVocabulary(VOCABULARY), { now: () => 0 })
  const lazyGrammar = {
    gbnf: "root ::= .*",
    triggers,
    thinkingStart: "",
    thinkingEnds: [],
    before: "",
  }
  await collect(
    engine.submit({
      prompt: PROMPT,
      sampling: { ...SAMPLING_DEFAULTS, seed: SEED },
      maxTokens: 4,
      stop,
      lazyGrammar,
    }),
  )
  return backend.prefills
}

test("a request whose sampler cannot be made is none that was accepted", async () => {
  class Refusing extends FakeBackend {
    override createSampler(): number {
      throw new CriaError("invalid-input", "Cannot use the grammar")
    }
  }
  await using engine = new Engine(new Refusing(), fakeVocabulary(), { now: () => 0 })
  const request = { prompt: PROMPT, sampling: SAMPLING_DEFAULTS, maxTokens: 4 }
  expect(() => engine.submit(request)).toThrow("Cannot use the grammar")
  expect(engine.status.counters).toMatchObject({ accepted: 0, failed: 0 })
})

describe("Engine — a grammar that begins in mid-answer", () => {
  test("begins once, though its trigger is found again in all that follows", async () => {
    expect(await prefillsOf([{ kind: "pattern", value: `t${FIRST}` }])).toEqual([`t${FIRST} `])
    expect(await prefillsOf([{ kind: "word", value: " " }])).toEqual([" "])
  })

  test("begins with all that was generated, though some of it may be a stop string and waits", async () => {
    expect(await prefillsOf([{ kind: "word", value: `t${FIRST}` }], [" and so on"])).toEqual([
      `t${FIRST} `,
    ])
  })
})
