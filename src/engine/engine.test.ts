import { describe, expect, test } from "bun:test"

import { CriaError } from "../util/errors.ts"
import { Engine } from "./engine.ts"
import { FakeBackend, fakeToken, fakeVocabulary } from "./fake-backend.ts"
import { SAMPLING_DEFAULTS } from "./sampling.ts"
import type { EngineEvent, GenerateRequest } from "./sequence.ts"

const VOCABULARY = 256
const END = VOCABULARY - 1

function engineOf(backend: FakeBackend, contextTokens?: number): Engine {
  let clock = 0
  return new Engine(backend, fakeVocabulary(VOCABULARY), {
    now: () => clock++,
    ...(contextTokens === undefined ? {} : { contextTokens }),
  })
}

function request(overrides: Partial<GenerateRequest> = {}): GenerateRequest {
  return {
    prompt: [1, 2, 3],
    sampling: { ...SAMPLING_DEFAULTS, seed: 7 },
    maxTokens: 5,
    ...overrides,
  }
}

/** What the fake answers to a prompt when nothing goes wrong. */
function expected(prompt: readonly number[], maxTokens: number, seed = 7): number[] {
  const visible = [...prompt]
  const answer: number[] = []
  while (answer.length < maxTokens) {
    const token = fakeToken(visible, seed, VOCABULARY)
    if (token === END) break
    visible.push(token)
    answer.push(token)
  }
  return answer
}

async function collect(events: AsyncIterable<EngineEvent>) {
  let text = ""
  for await (const event of events) {
    if (event.kind === "text") text += event.text
    else return { text, done: event, tokens: [...event.completion] }
  }
  throw new Error("no done event")
}

const textOf = (tokens: readonly number[]) => tokens.map((token) => `t${token} `).join("")

describe("Engine", () => {
  test("answers a request with the tokens that follow its prompt", async () => {
    await using engine = engineOf(new FakeBackend())
    const { text, done, tokens } = await collect(engine.submit(request()))
    expect(tokens).toEqual(expected([1, 2, 3], 5))
    expect(text).toBe(textOf(tokens))
    expect(done).toMatchObject({
      reason: { kind: "length" },
      usage: { promptTokens: 3, completionTokens: 5, cachedTokens: 0 },
    })
  })

  test("answers many requests at once as if each were alone", async () => {
    await using engine = engineOf(new FakeBackend())
    const prompts = Array.from({ length: 8 }, (_, i) =>
      Array.from({ length: 1 + i * 9 }, (__, j) => (i * 31 + j) % END),
    )
    const answers = await Promise.all(
      prompts.map((prompt) => collect(engine.submit(request({ prompt, maxTokens: 12 })))),
    )
    expect(answers.map(({ tokens }) => tokens)).toEqual(
      prompts.map((prompt) => expected(prompt, 12)),
    )
  })

  test("computes a prompt that is longer than a step in chunks", async () => {
    const steps: number[] = []
    await using engine = engineOf(
      new FakeBackend({ batchTokens: 16, onStep: ({ tokens }) => steps.push(tokens) }),
    )
    const prompt = Array.from({ length: 40 }, (_, i) => i)
    const { tokens } = await collect(engine.submit(request({ prompt, maxTokens: 1 })))
    expect(steps).toEqual([16, 16, 8])
    expect(tokens).toEqual(expected(prompt, 1))
  })

  test("stops at a token that ends generation and does not send it", async () => {
    // A prompt after which the fake says END: found by search, so that the test has a reason to stop.
    const last = Array.from({ length: 10_000 }, (_, i) => i).find(
      (i) =>
        fakeToken([i % END, 3], 7, VOCABULARY) === END ||
        fakeToken([1, i % END], 7, VOCABULARY) === END,
    )
    const prompt =
      fakeToken([1, (last ?? 0) % END], 7, VOCABULARY) === END
        ? [1, (last ?? 0) % END]
        : [(last ?? 0) % END, 3]
    await using engine = engineOf(new FakeBackend())
    const { text, done, tokens } = await collect(engine.submit(request({ prompt })))
    expect({ text, tokens, reason: done.reason }).toEqual({
      text: "",
      tokens: [],
      reason: { kind: "stop", match: undefined },
    })
    expect(done.usage.completionTokens).toBe(1)
  })

  test("stops at a stop string and says which", async () => {
    const answer = expected([1, 2, 3], 5)
    const stop = `t${answer[2]} `
    await using engine = engineOf(new FakeBackend())
    const { text, done } = await collect(engine.submit(request({ stop: ["never", stop] })))
    expect(text).toBe(textOf(answer.slice(0, 2)))
    expect(done.reason).toEqual({ kind: "stop", match: stop })
  })

  test("ends with length when the context is full", async () => {
    await using engine = engineOf(new FakeBackend(), 8)
    const { done, tokens } = await collect(engine.submit(request({ maxTokens: Infinity })))
    expect(done.reason).toEqual({ kind: "length" })
    expect(tokens).toHaveLength(5)
  })

  test("holds a request to a smaller context of its own", async () => {
    await using engine = engineOf(new FakeBackend())
    const { tokens } = await collect(
      engine.submit(request({ maxTokens: Infinity, contextTokens: 6 })),
    )
    expect(tokens).toHaveLength(3)
  })

  test("answers a request for no tokens at once", async () => {
    await using engine = engineOf(new FakeBackend())
    const { done } = await collect(engine.submit(request({ maxTokens: 0 })))
    expect(done).toMatchObject({
      reason: { kind: "length" },
      usage: { promptTokens: 3, completionTokens: 0 },
    })
    expect(engine.status.counters.steps).toBe(0)
  })

  test("lets requests wait until there are cells, in the order of their arrival", async () => {
    const backend = new FakeBackend({ cells: 20 })
    await using engine = engineOf(backend)
    const order: string[] = []
    const ask = async (name: string, prompt: number[]) => {
      await collect(engine.submit(request({ prompt, maxTokens: 10 })))
      order.push(name)
    }
    await Promise.all([
      ask("first", [1, 2, 3, 4]),
      ask("second", [5, 6, 7, 8, 9]),
      ask("third", [1]),
    ])
    expect(order).toEqual(["first", "second", "third"])
    expect(engine.status).toMatchObject({ running: 0, waiting: 0, activeCells: 0, totalCells: 20 })
  })

  test("keeps nothing when all requests are over, but cells that can be given up", async () => {
    const backend = new FakeBackend()
    await using engine = engineOf(backend)
    await Promise.all(
      [1, 2, 3].map((token) => collect(engine.submit(request({ prompt: [token] })))),
    )
    expect(backend.liveSamplers).toBe(0)
    expect(engine.status).toMatchObject({ activeCells: 0, cachedCells: backend.usedCells })
  })

  test.each([
    ["an empty prompt", { prompt: [] }, "Cannot generate from an empty prompt"],
    [
      "a prompt that fills the context",
      { prompt: Array.from({ length: 256 }, () => 1) },
      "Cannot read a prompt of 256 tokens: the context holds 256, answer included",
    ],
    [
      "a token outside the vocabulary",
      { prompt: [1, VOCABULARY] },
      "Cannot read token 256: it is not in the vocabulary",
    ],
    ["a negative token", { prompt: [-1] }, "Cannot read token -1: it is not in the vocabulary"],
    [
      "a negative number of tokens",
      { maxTokens: -1 },
      "Cannot generate -1 tokens: expected 0 or more",
    ],
    [
      "a limit that is not a number",
      { maxTokens: Number.NaN },
      "Cannot generate NaN tokens: expected 0 or more",
    ],
    ["too many alternatives", { logprobs: 5 }, "Cannot give 5 log-probabilities: at most 4"],
    [
      "a temperature below 0",
      { sampling: { ...SAMPLING_DEFAULTS, temperature: -1 } },
      "Cannot sample with temperature -1: expected a number from 0 to 100",
    ],
    [
      "a temperature that is not a number",
      { sampling: { ...SAMPLING_DEFAULTS, temperature: Number.NaN } },
      "Cannot sample with temperature NaN: expected a number from 0 to 100",
    ],
    [
      "a penalty that divides by zero",
      { sampling: { ...SAMPLING_DEFAULTS, repeatPenalty: 0 } },
      "Cannot sample with repeat_penalty 0: expected a number from 0.01 to 100",
    ],
    [
      "half a token to look back at",
      { sampling: { ...SAMPLING_DEFAULTS, repeatLastN: 1.5 } },
      "Cannot sample with repeat_last_n 1.5: expected a whole number from -1 to 1000000",
    ],
  ] satisfies [string, Partial<GenerateRequest>, string][])(
    "refuses %s",
    async (_, overrides, message) => {
      const backend = new FakeBackend()
      await using engine = engineOf(backend)
      expect(() => engine.submit(request(overrides))).toThrow(
        new CriaError("invalid-input", message),
      )
      expect(backend.liveSamplers).toBe(0)
    },
  )

  test("frees a request whose signal aborts, and throws the signal's reason", async () => {
    const backend = new FakeBackend()
    await using engine = engineOf(backend)
    const controller = new AbortController()
    const events = engine.submit(request({ maxTokens: 1000 / 10 }), controller.signal)
    await events.next()
    controller.abort(new Error("gone"))
    const rest = (async () => {
      for await (const _ of events);
    })()
    expect(await rest.catch((error: unknown) => error)).toEqual(new Error("gone"))
    const other = await collect(engine.submit(request()))
    expect(other.tokens).toEqual(expected([1, 2, 3], 5))
    expect(engine.status.activeCells).toBe(0)
  })

  test("frees a request whose iteration is left, without disturbing the others", async () => {
    const backend = new FakeBackend()
    await using engine = engineOf(backend)
    const other = collect(engine.submit(request({ prompt: [9, 9], maxTokens: 20 })))
    for await (const _ of engine.submit(request({ maxTokens: 100 }))) break
    expect((await other).tokens).toEqual(expected([9, 9], 20))
    expect(engine.status).toMatchObject({ running: 0, activeCells: 0 })
    expect(backend.liveSamplers).toBe(0)
  })

  test("frees a request that is left while it waits", async () => {
    await using engine = engineOf(new FakeBackend({ cells: 16 }))
    const first = collect(engine.submit(request({ maxTokens: 13 })))
    const waiting = engine.submit(request({ maxTokens: 13 }))
    await waiting.return?.()
    await first
    expect(engine.status).toMatchObject({ waiting: 0, activeCells: 0 })
  })

  test("cuts a step short when nobody wants it any more, and only then", async () => {
    class CountingBackend extends FakeBackend {
      cancels = 0

      override cancel(): void {
        this.cancels++
        super.cancel()
      }
    }
    const step = Promise.withResolvers<void>()
    const begun = Promise.withResolvers<void>()
    const backend = new CountingBackend({
      delay: () => step.promise,
      onStep: () => begun.resolve(),
    })
    await using engine = engineOf(backend)
    const controllers = [new AbortController(), new AbortController()]
    const answers = controllers.map(({ signal }) => collect(engine.submit(request(), signal)))
    await begun.promise
    controllers[0]?.abort(new Error("gone"))
    expect(backend.cancels).toBe(0)
    controllers[1]?.abort(new Error("gone"))
    expect(backend.cancels).toBe(1)
    step.resolve()
    expect((await Promise.allSettled(answers)).map(({ status }) => status)).toEqual([
      "rejected",
      "rejected",
    ])
  })

  test("reads in one step what comes together, when it was at rest and reading takes long", async () => {
    const steps: number[] = []
    const backend = new FakeBackend({
      batchTokens: 64,
      onStep: ({ tokens }) => steps.push(tokens),
      decodeMicros: ({ tokens }) => tokens * 1_000_000,
    })
    await using engine = new Engine(backend, fakeVocabulary(VOCABULARY), {
      now: () => performance.now(),
      gatherMs: 20,
    })
    const ask = (first: number) =>
      collect(engine.submit(request({ prompt: Array(20).fill(first), maxTokens: 1 })))
    // It knows now how long reading takes.
    await ask(1)
    const answers = [ask(2)]
    for (const first of [3, 4]) {
      await Bun.sleep(1)
      answers.push(ask(first))
    }
    await Promise.all(answers)
    expect(steps).toEqual([20, 60])
  })

  test("goes on from what the memory holds when a step was cut short", async () => {
    await using engine = engineOf(
      new FakeBackend({ codeOf: (step) => (step === 2 ? 2 : undefined) }),
    )
    const { tokens } = await collect(engine.submit(request()))
    expect(tokens).toEqual(expected([1, 2, 3], 5))
  })

  test("lets requests give way when llama.cpp finds no cells, and finishes all of them", async () => {
    await using engine = engineOf(
      new FakeBackend({ codeOf: (step) => (step === 2 ? 1 : undefined) }),
    )
    const prompts = [[1, 2, 3], [4]]
    const answers = await Promise.all(
      prompts.map((prompt) => collect(engine.submit(request({ prompt })))),
    )
    expect(answers.map(({ tokens }) => tokens)).toEqual(prompts.map((p) => expected(p, 5)))
    expect(engine.status.counters.preemptions).toBe(1)
  })

  test("fails the only request for which llama.cpp finds no cells", async () => {
    await using engine = engineOf(new FakeBackend({ codeOf: () => 1 }))
    expect(await collect(engine.submit(request())).catch((error: unknown) => error)).toMatchObject({
      code: "insufficient-memory",
      message: "Cannot go on: the KV cache is full",
    })
  })

  test("fails the requests of a step that could not be computed, and serves the next", async () => {
    const backend = new FakeBackend({ codeOf: (step) => (step === 1 ? -3 : undefined) })
    await using engine = engineOf(backend)
    expect(await collect(engine.submit(request())).catch((error: unknown) => error)).toMatchObject({
      code: "internal",
      message: "Cannot compute a step: llama.cpp returned -3",
    })
    expect((await collect(engine.submit(request()))).tokens).toEqual(expected([1, 2, 3], 5))
  })

  test("fails everything, now and later, when the backend itself breaks", async () => {
    const backend = new FakeBackend({ delay: () => Promise.reject(new Error("device lost")) })
    const engine = engineOf(backend)
    const failures = await Promise.allSettled([
      collect(engine.submit(request())),
      collect(engine.submit(request())),
    ])
    expect(
      failures.map((failure) => failure.status === "rejected" && String(failure.reason)),
    ).toEqual(["CriaError: device lost", "CriaError: device lost"])
    expect(() => engine.submit(request())).toThrow("device lost")
  })

  test("fails what runs and what waits when it is disposed", async () => {
    const backend = new FakeBackend({ cells: 16 })
    const engine = engineOf(backend)
    const answers = [
      engine.submit(request({ maxTokens: 13 })),
      engine.submit(request({ maxTokens: 13 })),
    ].map(collect)
    await engine[Symbol.asyncDispose]()
    const settled = await Promise.allSettled(answers)
    expect(settled.map(({ status }) => status)).toEqual(["rejected", "rejected"])
    expect(backend.isDisposed).toBe(true)
    expect(() => engine.submit(request())).toThrow("The model was unloaded")
  })

  test("measures waiting, prompt and answer apart", async () => {
    await using engine = engineOf(new FakeBackend())
    const { done } = await collect(engine.submit(request()))
    const { queueMs, promptMs, decodeMs } = done.usage
    expect([queueMs > 0, promptMs > 0, decodeMs > 0]).toEqual([true, true, true])
  })

  test("reports log-probabilities beside the text when asked", async () => {
    await using engine = engineOf(new FakeBackend())
    const events = await Array.fromAsync(engine.submit(request({ logprobs: 2, maxTokens: 2 })))
    const logprobs = events.flatMap((event) => (event.kind === "text" ? event.logprobs : []))
    expect(logprobs.map(({ token, logprob }) => [token, logprob])).toEqual(
      expected([1, 2, 3], 2).map((token) => [token, -0.5]),
    )
  })
})
