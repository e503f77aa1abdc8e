import assert from "node:assert/strict"
import { spawn } from "node:child_process"
import { existsSync } from "node:fs"
import { availableParallelism } from "node:os"
import { join } from "node:path"

import { NativeBackend } from "../../ffi/backend.ts"
import { createContext } from "../../ffi/context.ts"
import { findFolder } from "../../ffi/library.ts"
import { loadModel, type NativeModel } from "../../ffi/model.ts"
import {
  cutShort,
  decode,
  DEMO,
  describe,
  greedy,
  GREEDY,
  library,
  loadDemo,
  smallBackend,
  test,
  testUnless,
  withFunctions,
} from "./support.ts"

function tokensOf(model: NativeModel, text: string): Int32Array {
  return model.tokenize(text, { addSpecial: false, parseSpecial: true })
}

const PROMPT =
  "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"

describe("a step", () => {
  test("gives the model's own answer", async () => {
    using model = await loadDemo()
    await using backend = await smallBackend(model)
    const answer = await greedy(backend, tokensOf(model, PROMPT), { count: 7 })
    assert.equal(
      answer.map((token) => model.vocabulary.text(token)).join(""),
      "The capital of France is Paris.",
    )
  })

  test("gives the same answer when the prompt comes in chunks", async () => {
    using model = await loadDemo()
    await using backend = await smallBackend(model)
    const prompt = tokensOf(model, PROMPT)
    const whole = await greedy(backend, prompt, { count: 6 })
    assert.equal((await decode(backend, { tokens: prompt.subarray(0, 9), sequence: 1 })).code, 0)
    assert.deepEqual(
      await greedy(backend, prompt.subarray(9), { count: 6, sequence: 1, from: 9 }),
      whole,
    )
  })

  test("keeps sequences apart", async () => {
    using model = await loadDemo()
    await using backend = await smallBackend(model)
    const prompt = tokensOf(model, PROMPT)
    await decode(backend, {
      tokens: tokensOf(model, "Once upon a time there was a wolf"),
      sequence: 2,
    })
    const beside = await greedy(backend, prompt, { count: 5, sequence: 1 })
    await using alone = await smallBackend(model)
    assert.deepEqual(beside, await greedy(alone, prompt, { count: 5 }))
  })

  test("says whether it had to build its graph", async () => {
    using model = await loadDemo()
    await using backend = await smallBackend(model)
    await decode(backend, { tokens: tokensOf(model, PROMPT) })
    const reused: number[] = []
    for (const count of [1, 1, 1, 2, 2]) {
      for (let i = 0; i < count; i++) {
        backend.arrays.token[i] = 1
        backend.arrays.position[i] = backend.lastPosition(0) + 1 + i
        backend.arrays.sequence[i] = 0
      }
      backend.submit(count, 0)
      reused.push((await backend.wait()).reusedGraphs)
    }
    assert.deepEqual(reused, [0, 1, 1, 0, 1])
  })

  test("can be cut short and computed again", async () => {
    using model = await loadDemo()
    await using backend = await smallBackend(model)
    const prompt = tokensOf(model, PROMPT)
    await cutShort(backend, { tokens: prompt })
    assert.equal(backend.lastPosition(0), -1)
    const answer = await greedy(backend, prompt, { count: 3 })
    assert.equal(answer.map((token) => model.vocabulary.text(token)).join(""), "The capital of")
  })

  test("says that the cells are full instead of failing", async () => {
    using model = await loadDemo()
    await using backend = await smallBackend(model, 256)
    for (let from = 0; from < 256; from += 64) {
      const tokens = Array.from({ length: 64 }, (_, i) => (from + i) % 100)
      assert.equal((await decode(backend, { tokens, from })).code, 0)
    }
    assert.equal((await decode(backend, { tokens: [1], sequence: 1 })).code, 1)
    assert.ok(backend.removeSequence(0, 0, -1))
    assert.equal((await decode(backend, { tokens: [1], sequence: 1 })).code, 0)
  })

  test("reports a gap in the positions instead of computing it", async () => {
    using model = await loadDemo()
    await using backend = await smallBackend(model)
    await decode(backend, { tokens: [1, 2, 3] })
    assert.equal((await decode(backend, { tokens: [4], from: 7 })).code, -1)
    assert.equal(backend.lastPosition(0), 2)
  })
})

describe("what would end the process in llama.cpp", () => {
  type Arrays = Awaited<ReturnType<typeof smallBackend>>["arrays"]
  const cases: [
    string,
    (arrays: Arrays, sampler: number) => [tokens: number, rows: number],
    RegExp,
  ][] = [
    ["more tokens than a batch", () => [65, 0], /a step has 65 tokens, expected 1 to 64/],
    ["no tokens", () => [0, 0], /a step has 0 tokens/],
    ["a negative number of tokens", () => [-1, 0], /a step has -1 tokens/],
    ["more rows than outputs", () => [64, 5], /a step has 5 rows/],
    [
      "a token above the vocabulary",
      (arrays) => (arrays.token.set([4096]), [1, 0]),
      /token 4096 is not in the vocabulary/,
    ],
    ["a negative token", (arrays) => (arrays.token.set([-5]), [1, 0]), /token -5 is not/],
    [
      "a sequence that does not exist",
      (arrays) => (arrays.sequence.set([4]), [1, 0]),
      /sequence is 4, expected 0 to 3/,
    ],
    ["a negative sequence", (arrays) => (arrays.sequence.set([-1]), [1, 0]), /sequence is -1/],
    [
      "a negative position",
      (arrays) => (arrays.position.set([-1]), [1, 0]),
      /position -1 is negative/,
    ],
    [
      "a row outside the batch",
      (arrays, sampler) => (arrays.rowIndex.set([1]), arrays.rowSampler.set([sampler]), [1, 1]),
      /row indexes/,
    ],
    [
      "two rows at one index",
      (arrays, sampler) => (
        arrays.rowIndex.set([0, 0]),
        arrays.rowSampler.set([sampler, sampler]),
        [2, 2]
      ),
      /row indexes must rise/,
    ],
    [
      "a sampler that does not exist",
      (arrays) => (arrays.rowSampler.set([999_999]), [1, 1]),
      /this sampler was freed or never existed/,
    ],
    [
      "more alternatives than there is room for",
      (arrays, sampler) => (arrays.rowSampler.set([sampler]), arrays.rowTop.set([21]), [1, 1]),
      /row_top is out of range/,
    ],
  ]

  test("is refused with a reason, and the context goes on", async () => {
    using model = await loadDemo()
    await using backend = await smallBackend(model)
    const sampler = backend.createSampler(GREEDY)
    for (const [name, prepare, message] of cases) {
      for (const array of Object.values(backend.arrays)) array.fill(0)
      backend.arrays.rowTop.fill(-1)
      for (let i = 0; i < 64; i++) backend.arrays.position[i] = i
      const [tokens, rows] = prepare(backend.arrays, sampler)
      assert.throws(() => backend.submit(tokens, rows), { message }, name)
    }
    assert.equal((await decode(backend, { tokens: [1], sampler })).code, 0)
  })

  test("is refused when a sampler is of another model", async () => {
    using model = await loadDemo()
    using other = await loadDemo()
    await using backend = await smallBackend(model)
    await using foreign = await smallBackend(other)
    const sampler = foreign.createSampler(GREEDY)
    await assert.rejects(decode(backend, { tokens: [1], sampler }), /belongs to another model/)
  })

  test("is refused while a step runs", async () => {
    using model = await loadDemo()
    await using backend = await smallBackend(model)
    for (let i = 0; i < 64; i++) backend.arrays.position[i] = i
    backend.submit(64, 0)
    assert.throws(() => backend.submit(1, 0), /busy with a step/)
    assert.throws(() => backend.removeSequence(0, 0, -1), /busy with a step/)
    assert.throws(() => backend.lastPosition(0), /busy with a step/)
    assert.equal((await backend.wait()).code, 0)
    await assert.rejects(backend.wait(), /no step was submitted/)
  })

  test("is refused for sizes, types and pools that make no sense", async () => {
    using model = await loadDemo()
    const sizes = { cells: 256, batchTokens: 32, sequences: 2, threads: 1 }
    for (const [change, message] of [
      [{ cells: 0 }, /cells is 0, expected 1 to/],
      [{ cells: -8 }, /cells is -8/],
      [{ sequences: 257 }, /sequences is 257, expected 1 to 256/],
      [{ threads: 0 }, /threads is 0/],
      [{ batchTokens: 1_000_000 }, /batch is 1000000/],
      [{ batchTokens: 7, sequences: 8 }, /batch is 7, expected at least one token a sequence, 8/],
      [{ batchTokens: 1, sequences: 1 }, /batch is 1, expected at least 2/],
    ] as const) {
      await assert.rejects(createContext(model, { ...sizes, ...change }), {
        code: "invalid-input",
        message,
      })
    }
  })

  test("is refused for types that do not go together, and not for want of memory", async () => {
    using model = await loadDemo()
    const options = { cells: 256, batchTokens: 32, sequences: 2, threads: 1 }
    await assert.rejects(
      createContext(model, { ...options, flashAttention: "off", cacheTypeV: "q8_0" }),
      { code: "invalid-input", message: /quantized V cache requires flash_attn/ },
    )
  })

  test("is refused for memory operations out of range", async () => {
    using model = await loadDemo()
    using context = await createContext(model, {
      cells: 256,
      batchTokens: 32,
      sequences: 2,
      threads: 1,
    })
    assert.throws(() => context.removeSequence(2, 0, -1), /sequence is 2, expected 0 to 1/)
    assert.throws(() => context.copySequence(0, -1, { from: 0, to: -1 }), /sequence is -1/)
    assert.throws(() => context.range(99), /sequence is 99/)
    const all = { from: 0, to: 3 }
    assert.throws(() => context.restore(1, Uint8Array.of(1, 2, 3), all), { code: "invalid-input" })
    assert.throws(() => context.restore(0, Uint8Array.of(1, 2, 3), all), /save and restore others/)
    assert.throws(() => context.stateBytes(1, 3, 3), /positions are 3 to 3/)
    assert.throws(() => context.embedding(0), /the last step computed no such embedding/)
    const remove = library.functions.cria_sequence_remove
    assert.ok(remove(1_000_000, 0, 0, -1) < 0)
  })

  test("is refused for handles that were freed", async () => {
    using model = await loadDemo()
    const backend = await smallBackend(model)
    const sampler = backend.createSampler(GREEDY)
    backend.freeSampler(sampler)
    assert.throws(() => backend.freeSampler(sampler), /this sampler was freed/)
    await backend[Symbol.asyncDispose]()
    assert.throws(() => backend.lastPosition(0), /after disposal/)
  })

  test("is refused when a model is freed under a context", async () => {
    const model = await loadDemo()
    const backend = await smallBackend(model)
    assert.throws(() => model[Symbol.dispose](), /still has a context/)
    await backend[Symbol.asyncDispose]()
    model[Symbol.dispose]()
  })
})

describe("memory", () => {
  test("is shared by sequences without computing it again", async () => {
    using model = await loadDemo()
    using context = await createContext(model, {
      cells: 512,
      batchTokens: 64,
      sequences: 4,
      threads: 2,
    })
    const backend = new NativeBackend(model, context)
    const prompt = tokensOf(model, PROMPT)
    const shared = prompt.length - 1
    await decode(backend, { tokens: prompt.subarray(0, shared) })
    context.copySequence(0, 1, { from: 0, to: shared })
    const [first, last] = context.range(1)
    assert.deepEqual([first, last], [0, shared - 1])
    const copy = await greedy(backend, prompt.subarray(shared), {
      count: 5,
      sequence: 1,
      from: shared,
    })
    assert.deepEqual(
      copy,
      await greedy(backend, prompt.subarray(shared), { count: 5, sequence: 0, from: shared }),
    )
  })

  test("forgets the end of a sequence and computes it again", async () => {
    using model = await loadDemo()
    await using backend = await smallBackend(model)
    const prompt = tokensOf(model, PROMPT)
    const first = await greedy(backend, prompt, { count: 5 })
    assert.ok(backend.removeSequence(0, prompt.length, -1))
    assert.equal(backend.lastPosition(0), prompt.length - 1)
    assert.ok(backend.removeSequence(0, prompt.length - 1, -1))
    assert.deepEqual(
      await greedy(backend, prompt.subarray(-1), {
        count: 5,
        sequence: 0,
        from: prompt.length - 1,
      }),
      first,
    )
  })

  test("goes into bytes and comes back in another sequence", async () => {
    using model = await loadDemo()
    using context = await createContext(model, {
      cells: 512,
      batchTokens: 64,
      sequences: 4,
      threads: 2,
    })
    const backend = new NativeBackend(model, context)
    const prompt = tokensOf(model, PROMPT)
    const last = prompt.length - 1
    await decode(backend, { tokens: prompt.subarray(0, -1), sequence: 1 })
    // In two parts, as a tier keeps them.
    const [beginning, end] = [context.save(1, 0, 10), context.save(1, 5, last)]
    assert.ok(beginning !== undefined && end !== undefined)
    assert.equal(end.length, context.stateBytes(1, 5, last))
    context.restore(3, beginning, { from: 0, to: 8 })
    assert.deepEqual(context.range(3), [0, 7])
    context.restore(3, end, { from: 8, to: last })
    const restored = await greedy(backend, prompt.subarray(-1), {
      count: 5,
      sequence: 3,
      from: prompt.length - 1,
    })
    assert.deepEqual(
      restored,
      await greedy(backend, prompt.subarray(-1), {
        count: 5,
        sequence: 1,
        from: prompt.length - 1,
      }),
    )
    const cut = end.subarray(0, end.length / 2)
    context.restore(2, beginning, { from: 0, to: 8 })
    for (const [bytes, part] of [
      [cut, { from: 8, to: last }],
      [beginning, { from: 8, to: 11 }],
    ] as const)
      assert.throws(() => context.restore(2, bytes, part), { code: "invalid-input" })
    assert.deepEqual(context.range(2), [0, 7])
  })

  test("is as large as it says, and nothing where it cannot be read", async () => {
    using model = await loadDemo()
    await using backend = await smallBackend(model)
    await decode(backend, { tokens: tokensOf(model, PROMPT), sequence: 1 })
    assert.equal(backend.saveSequence(1, 0, 9)?.length, backend.stateBytes(1, 0, 9))
    for (const broken of [{ cria_state_size: () => 2 ** 40 }, { cria_state_get: () => -3 }]) {
      using other = await loadModel(withFunctions(broken), { paths: [DEMO] })
      await using second = await smallBackend(other)
      await decode(second, { tokens: tokensOf(other, PROMPT), sequence: 1 })
      assert.equal(second.saveSequence(1, 0, 9), undefined)
      assert.equal((await decode(second, { tokens: [1], sequence: 2 })).code, 0)
    }
  })
})

const WITHOUT_OPENMP = existsSync(join(findFolder(), "libgomp.so.1"))
  ? undefined
  : "the libraries compute without OpenMP"

/** A busy loop on each core. */
function busyCores(): Disposable {
  const loops = Array.from({ length: availableParallelism() }, () =>
    spawn("/bin/sh", ["-c", "while :; do :; done"], { stdio: "ignore" }),
  )
  return {
    [Symbol.dispose]() {
      for (const loop of loops) loop.kill("SIGKILL")
    },
  }
}

describe("threads that compute with OpenMP", () => {
  testUnless(WITHOUT_OPENMP)("sleep soon beside busy programs", async () => {
    using model = await loadDemo()
    const options = { cells: 512, batchTokens: 64, sequences: 4, threads: availableParallelism() }
    const context = await createContext(model, options)
    await using backend = new NativeBackend(model, context)
    using _ = busyCores()
    const prompt = tokensOf(model, PROMPT)
    const before = await greedy(backend, prompt, { count: 3 })
    while (!context.readInfo().short_spin) {
      backend.removeSequence(0, 0, -1)
      // One step after the other.
      // oxlint-disable-next-line no-await-in-loop
      assert.deepEqual(await greedy(backend, prompt, { count: 3 }), before)
    }
  })
})
