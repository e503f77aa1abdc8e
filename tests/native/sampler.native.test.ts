import assert from "node:assert/strict"

import { type NativeBackend, samplerJson } from "../../ffi/backend.ts"
import type { NativeModel } from "../../ffi/model.ts"
import { encode } from "../../ffi/native.ts"
import type { SamplingOptions } from "../../src/engine/sampling.ts"
import { random } from "../simulation/random.ts"
import { decode, describe, GREEDY, library, loadDemo, smallBackend, test } from "./support.ts"

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
  const sampler = backend.createSampler(options)
  const text = await sampleWith(model, backend, sampler, count)
  backend.freeSampler(sampler)
  return text
}

async function sampleWith(
  model: NativeModel,
  backend: NativeBackend,
  sampler: number,
  count: number,
): Promise<string> {
  const prompt = model.tokenize(STORY, { addSpecial: false, parseSpecial: false })
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
  return text
}

/**
 * The same sampler out of llama.cpp's own parts, over the whole vocabulary: the shim leaves everything to the chain
 * when DRY is in it. This one never finds a repetition long enough.
 */
function chainOfSamplers(
  model: NativeModel,
  backend: NativeBackend,
  options: SamplingOptions,
): number {
  const json = {
    ...samplerJson(options, backend.info.cells),
    dry_multiplier: 1,
    dry_allowed_length: 1_000_000,
  }
  const handle = library.functions.cria_sampler_new(model.handle, ...encode(JSON.stringify(json)))
  return library.check(handle, "Cannot make the sampler")
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

  test("changes logits as llama.cpp's own samplers do", async () => {
    using model = await loadDemo()
    await using backend = await smallBackend(model)
    const pick = random(7)
    const among = <T>(...choices: readonly T[]): T => choices[pick(choices.length)] as T
    for (let run = 0; run < 60; run++) {
      const options: SamplingOptions = {
        ...GREEDY,
        temperature: among(0, 0.7, 1.5),
        topK: among(0, 5, 40, 1000),
        topP: among(1, 0.9, 0.5),
        minP: among(0, 0.05),
        typicalP: among(1, 1, 0.9),
        repeatPenalty: among(1, 1.1, 2),
        repeatLastN: among(1, 8, 64, -1),
        presencePenalty: among(0, 1.5, -2),
        frequencyPenalty: among(0, 0.5),
        seed: run,
        logitBias: Array.from(
          { length: pick(4) },
          () => [pick(4096), among(-1000, -2, 3)] as const,
        ),
      }
      const found = await sample(model, backend, options, 20)
      const sampler = chainOfSamplers(model, backend, options)
      assert.equal(found, await sampleWith(model, backend, sampler, 20), JSON.stringify(options))
      backend.freeSampler(sampler)
    }
  })

  test("reports the model's own log-probabilities, whatever changes them", async () => {
    using model = await loadDemo()
    await using backend = await smallBackend(model)
    const tokens = model.tokenize(STORY, { addSpecial: false, parseSpecial: false })
    const tops: number[][] = []
    const [best = 0] = model.tokenize(",", { addSpecial: false, parseSpecial: false })
    for (const change of [{}, { logitBias: [[best, -50]] as const, repeatPenalty: 2 }]) {
      const sampler = backend.createSampler({ ...GREEDY, ...change })
      backend.removeSequence(0, 0, -1)
      await decode(backend, { tokens, sampler, top: 20 })
      tops.push([...backend.arrays.topToken.subarray(0, 20), ...backend.arrays.topLogprob])
      backend.freeSampler(sampler)
    }
    assert.deepEqual(tops[0], tops[1])
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
      const sampler = chainOfSamplers(model, backend, options)
      const slow = await sampleWith(model, backend, sampler, 24)
      backend.freeSampler(sampler)
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

  test("shares the rows of a step with other threads when there are some", async () => {
    using model = await loadDemo()
    await using backend = await smallBackend(model)
    const samplers = Array.from({ length: 4 }, () => backend.createSampler(GREEDY))
    const threads: number[] = []
    // One sampler for all rows cannot be in two threads at once.
    const [first = 0] = samplers
    for (const used of [samplers, samplers.slice(0, 3), samplers.map(() => first)]) {
      for (const [i, sampler] of used.entries()) {
        backend.arrays.token[i] = 1
        backend.arrays.position[i] = backend.lastPosition(i) + 1
        backend.arrays.sequence[i] = i
        backend.arrays.rowIndex[i] = i
        backend.arrays.rowSampler[i] = sampler
        backend.arrays.rowTop[i] = -1
      }
      backend.submit(used.length, used.length)
      threads.push((await backend.wait()).sampleThreads)
    }
    assert.deepEqual(threads, [2, 1, 1])
  })

  test("penalises what came before the answer, as far as it looks back", async () => {
    using model = await loadDemo()
    await using backend = await smallBackend(model)
    const free = await sample(model, backend, GREEDY, 1)
    const history = model.tokenize(`${free} one two`, { addSpecial: false, parseSpecial: false })
    const penalised = { ...GREEDY, repeatPenalty: 100, history }
    assert.notEqual(await sample(model, backend, { ...penalised, repeatLastN: 64 }, 1), free)
    assert.notEqual(await sample(model, backend, { ...penalised, repeatLastN: -1 }, 1), free)
    assert.equal(await sample(model, backend, { ...penalised, repeatLastN: 1 }, 1), free)
    assert.equal(await sample(model, backend, { ...penalised, repeatLastN: 0 }, 1), free)
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
