import assert from "node:assert/strict"

import type { NativeBackend } from "../../ffi/backend.ts"
import type { NativeModel } from "../../ffi/model.ts"
import type { SamplingOptions } from "../../src/engine/sampling.ts"
import { describe, test, decode, GREEDY, loadDemo, smallBackend } from "./support.ts"

const STORY = "Once upon a time"

/** How many of the words of a text are different ones. */
function distinct(text: string): number {
  return new Set(text.split(" ")).size / text.split(" ").length
}

/** Samples `count` tokens after a prompt, each in its turn. */
async function sample(
  model: NativeModel,
  backend: NativeBackend,
  options: SamplingOptions,
  count = 8,
): Promise<string> {
  const prompt = model.tokenize(STORY, { addSpecial: false, parseSpecial: false })
  const sampler = backend.createSampler(options)
  backend.removeSequence(0, 0, -1)
  let next = await decode(backend, { tokens: prompt, sampler })
  let text = ""
  for (let i = 0; i < count && next.status === 0; i++) {
    if (model.vocabulary.endsGeneration(next.token)) break
    text += model.vocabulary.text(next.token)
    // Each token depends on the one before.
    // oxlint-disable-next-line no-await-in-loop
    next = await decode(backend, { tokens: [next.token], from: prompt.length + i, sampler })
  }
  backend.freeSampler(sampler)
  return text
}

describe("a sampler", () => {
  test("repeats itself with the same seed and differs with another", async () => {
    using model = await loadDemo()
    await using backend = await smallBackend(model)
    const hot = { ...GREEDY, temperature: 2, topK: 0, topP: 1 }
    const first = await sample(model, backend, { ...hot, seed: 1 })
    assert.equal(await sample(model, backend, { ...hot, seed: 1 }), first)
    assert.notEqual(await sample(model, backend, { ...hot, seed: 2 }), first)
  })

  test("takes the best token when it may keep only one", async () => {
    using model = await loadDemo()
    await using backend = await smallBackend(model)
    const best = await sample(model, backend, GREEDY)
    for (const one of [{ topK: 1 }, { topK: 0, topP: 0 }, { minP: 1 }, { topK: 3000, topP: 0 }]) {
      assert.equal(
        await sample(model, backend, { ...GREEDY, temperature: 1.5, ...one }),
        best,
        JSON.stringify(one),
      )
    }
  })

  test("cuts by probability before the chain as the chain itself does", async () => {
    using model = await loadDemo()
    await using backend = await smallBackend(model)
    for (const [topP, seed] of [
      [0.2, 1],
      [0.5, 2],
      [0.9, 3],
      [0.99, 4],
    ] as const) {
      const options = { ...GREEDY, temperature: 1.7, topK: 0, topP, seed }
      // A bias of nothing sends the row through llama.cpp's own samplers.
      const slow = await sample(model, backend, { ...options, logitBias: [[0, 0]] }, 24)
      assert.equal(await sample(model, backend, options, 24), slow, `top_p ${topP}`)
    }
  })

  test("never takes a token that a bias forbids", async () => {
    using model = await loadDemo()
    await using backend = await smallBackend(model)
    const [banned = 0] = model.tokenize(",", { addSpecial: false, parseSpecial: false })
    assert.match(await sample(model, backend, GREEDY), /,/)
    const free = await sample(model, backend, { ...GREEDY, logitBias: [[banned, -1000]] })
    assert.doesNotMatch(free, /,/)
  })

  test("repeats less under a penalty", async () => {
    using model = await loadDemo()
    await using backend = await smallBackend(model)
    const plain = await sample(model, backend, GREEDY, 60)
    const penalised = await sample(
      model,
      backend,
      { ...GREEDY, repeatPenalty: 2, repeatLastN: -1 },
      60,
    )
    assert.ok(distinct(penalised) > distinct(plain), `${penalised} | ${plain}`)
  })

  test("reports log-probabilities that are a distribution", async () => {
    using model = await loadDemo()
    await using backend = await smallBackend(model)
    const sampler = backend.createSampler(GREEDY)
    const tokens = model.tokenize(STORY, { addSpecial: false, parseSpecial: false })
    const { token } = await decode(backend, { tokens, sampler, top: 20 })
    const { topToken, topLogprob, outLogprob } = backend.arrays
    const logprobs = Array.from(topLogprob.subarray(0, 20))
    assert.equal(topToken[0], token)
    assert.equal(outLogprob[0], topLogprob[0])
    assert.deepEqual(
      logprobs,
      logprobs.toSorted((a, b) => b - a),
    )
    const mass = logprobs.reduce((sum, logprob) => sum + Math.exp(logprob), 0)
    assert.ok(mass > 0.9 && mass <= 1.000_01, String(mass))
    assert.equal(new Set(topToken.subarray(0, 20)).size, 20)
  })

  for (const [name, change, message] of [
    [
      "a bias for a token outside the vocabulary",
      { logitBias: [[5000, 1]] },
      /logit_bias names token 5000, the vocabulary has 4096/,
    ],
    ["a grammar that does not parse", { grammar: "root ::= (" }, /the grammar could not be parsed/],
    ["a grammar without a root", { grammar: "start ::= [a]" }, /the grammar could not be parsed/],
    [
      "a grammar of a kind that is not built in",
      { grammar: "%llguidance {}" },
      /llguidance grammars are not supported/,
    ],
    [
      "a grammar that does not allow the text so far",
      { grammar: 'root ::= "yes"', grammarPrefill: "no" },
      /does not allow the text so far/,
    ],
  ] as const) {
    test(`refuses ${name}`, async () => {
      using model = await loadDemo()
      await using backend = await smallBackend(model)
      assert.throws(() => backend.createSampler({ ...GREEDY, ...change }), {
        code: "invalid-input",
        message,
      })
    })
  }
})

describe("a grammar", () => {
  test("makes the answer follow it, greedy or not", async () => {
    using model = await loadDemo()
    await using backend = await smallBackend(model)
    const grammar = 'root ::= "{\\"n\\": " [0-9] [0-9] "}"'
    for (const temperature of [0, 1.5]) {
      const text = await sample(model, backend, { ...GREEDY, temperature, seed: 3, grammar }, 20)
      assert.match(text, /^\{"n": \d\d\}$/)
    }
  })

  test("swallows the text that is there already", async () => {
    using model = await loadDemo()
    await using backend = await smallBackend(model)
    const options = { ...GREEDY, grammar: 'root ::= "abc" "xyz"', grammarPrefill: "abc" }
    assert.equal(await sample(model, backend, options), "xyz")
  })

  test("ends the answer when it is complete", async () => {
    using model = await loadDemo()
    await using backend = await smallBackend(model)
    assert.equal(await sample(model, backend, { ...GREEDY, grammar: 'root ::= "no"' }, 20), "no")
  })

  test("can be added in mid-answer", async () => {
    using model = await loadDemo()
    await using backend = await smallBackend(model)
    const sampler = backend.createSampler(GREEDY)
    const tokens = model.tokenize(STORY, { addSpecial: false, parseSpecial: false })
    const free = await decode(backend, { tokens, sampler })
    backend.constrainSampler(sampler, 'root ::= "777"', "7")
    const bound = await decode(backend, { tokens: [free.token], from: tokens.length, sampler })
    assert.equal(model.vocabulary.text(bound.token), "7")
  })
})
