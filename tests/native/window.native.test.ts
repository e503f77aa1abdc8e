import assert from "node:assert/strict"

import type { NativeBackend } from "../../ffi/backend.ts"
import { STEP_CODE } from "../../src/engine/backend.ts"
import { check, type Kind, KINDS, Laboratory, type Question } from "./differential.ts"
import { cutShort, decode, describe, GREEDY, test } from "./support.ts"

/** Log-probabilities of the twenty best tokens after what a sequence holds and one token more. */
async function next(
  backend: NativeBackend,
  sequence: number,
  token: number,
): Promise<readonly (readonly [token: number, logprob: number])[]> {
  const sampler = backend.createSampler(GREEDY)
  const from = backend.lastPosition(sequence) + 1
  const { code } = await decode(backend, { tokens: [token], from, sequence, sampler, top: 20 })
  assert.equal(code, 0)
  backend.freeSampler(sampler)
  const { topToken, topLogprob } = backend.arrays
  return Array.from({ length: 20 }, (_, i) => [topToken[i] ?? -1, topLogprob[i] ?? 0])
}

/** Computes tokens at the end of a sequence, a batch at a time. */
async function read(
  backend: NativeBackend,
  sequence: number,
  tokens: readonly number[],
): Promise<void> {
  const { batchTokens } = backend.info
  for (let from = 0; from < tokens.length; from += batchTokens) {
    const part = tokens.slice(from, from + batchTokens)
    // A step at a time.
    // oxlint-disable-next-line no-await-in-loop
    assert.equal((await decode(backend, { tokens: part, from, sequence })).code, 0)
  }
}

/** What {@link next} says after a prompt that nobody else had a part in. */
async function afresh(laboratory: Laboratory, prompt: readonly number[], token: number) {
  await using backend = await laboratory.backend()
  await read(backend, 1, prompt)
  return await next(backend, 1, token)
}

/** The same tokens are best, and the model as sure of each. */
function assertAgree(
  found: Awaited<ReturnType<typeof next>>,
  expected: Awaited<ReturnType<typeof next>>,
  { tolerance }: Kind,
): void {
  for (const [i, [token, logprob]] of expected.entries()) {
    const other = found.find(([candidate]) => candidate === token)?.[1]
    const distance = Math.abs((other ?? -Infinity) - logprob)
    assert.ok(distance <= tolerance, `${i}. of the best tokens is ${distance} off`)
  }
}

/**
 * Sequence 2 holds `prompt`, which is longer than a window. Others came and went, and a later one needed more cells
 * than those left behind: llama.cpp takes what lies outside of its only holder's window before it looks further on.
 */
async function crowd(laboratory: Laboratory, prompt: readonly number[]): Promise<NativeBackend> {
  const backend = await laboratory.backend()
  await read(backend, 1, laboratory.tokens(100))
  await read(backend, 2, prompt)
  backend.removeSequence(1, 0, -1)
  await read(backend, 3, laboratory.tokens(150))
  return backend
}

for (const kind of KINDS) {
  if (kind.memory !== "window" || !kind.isWindowFull) continue

  describe(`a window that is kept whole: ${kind.name}`, () => {
    test("keeps what has left it, whoever needs cells", async () => {
      await using laboratory = await Laboratory.open(kind)
      const prompt = laboratory.tokens(kind.window + 140)
      await using backend = await crowd(laboratory, prompt)
      assert.deepEqual(backend.range(2), [0, prompt.length - 1])
      for (const length of [60, kind.window + 70]) {
        const [token = 0] = laboratory.tokens(1)
        backend.copySequence(2, 4, 0, length)
        const found = await next(backend, 4, token)
        assertAgree(found, await afresh(laboratory, prompt.slice(0, length), token), kind)
        backend.removeSequence(4, 0, -1)
      }
    })

    test("can be rolled back to any position", async () => {
      await using laboratory = await Laboratory.open(kind)
      const prompt = laboratory.tokens(kind.window + 140)
      await using backend = await crowd(laboratory, prompt)
      for (const length of [kind.window + 70, 60]) {
        const [token = 0] = laboratory.tokens(1)
        assert.ok(backend.removeSequence(2, length, -1))
        assertAgree(
          await next(backend, 2, token),
          await afresh(laboratory, prompt.slice(0, length), token),
          kind,
        )
      }
    })

    test("goes on after a step that was cut short", async () => {
      await using laboratory = await Laboratory.open(kind)
      const prompt = laboratory.tokens(kind.window + 40)
      await using backend = await laboratory.backend()
      await read(backend, 2, prompt)
      await cutShort(backend, { tokens: laboratory.tokens(64), from: prompt.length, sequence: 2 })
      assert.deepEqual(backend.range(2), [0, prompt.length - 1])
      const [token = 0] = laboratory.tokens(1)
      assertAgree(await next(backend, 2, token), await afresh(laboratory, prompt, token), kind)
    })

    test("is whole in a saved state", async () => {
      await using laboratory = await Laboratory.open(kind)
      const prompt = laboratory.tokens(kind.window + 140)
      await using backend = await crowd(laboratory, prompt)
      const state = backend.saveSequence(2)
      assert.ok(state !== undefined)
      await using other = await laboratory.backend()
      await read(other, 1, laboratory.tokens(70))
      assert.ok(other.restoreSequence(5, state))
      assert.deepEqual(other.range(5), [0, prompt.length - 1])
      const [token = 0] = laboratory.tokens(1)
      const length = 60
      assert.ok(other.removeSequence(5, length, -1))
      assertAgree(
        await next(other, 5, token),
        await afresh(laboratory, prompt.slice(0, length), token),
        kind,
      )
    })
  })
}

for (const kind of KINDS) {
  if (kind.memory !== "window" || kind.isWindowFull) continue

  describe(`a window that slides: ${kind.name}`, () => {
    test("has room for each sequence, whoever it began with", async () => {
      await using laboratory = await Laboratory.open(kind)
      await using backend = await laboratory.backend()
      const prompt = laboratory.tokens(500)
      await read(backend, 1, prompt)
      const others = [2, 3, 4, 5]
      for (const sequence of others) backend.copySequence(1, sequence, 0, -1)
      // Shared cells would have left all windows by now, and nobody could take them.
      const tails = others.map(() => laboratory.tokens(120))
      for (let from = 0; from < 120; from += 60) {
        for (const [i, sequence] of others.entries()) {
          const tokens = tails[i]?.slice(from, from + 60) ?? []
          const { code } = await decode(backend, { tokens, from: prompt.length + from, sequence })
          assert.equal(code, 0)
        }
      }
      const [token = 0] = laboratory.tokens(1)
      for (const [i, sequence] of others.entries()) {
        const whole = [...prompt, ...(tails[i] ?? [])]
        const expected = await afresh(laboratory, whole, token)
        assertAgree(await next(backend, sequence, token), expected, kind)
      }
      assertAgree(await next(backend, 1, token), await afresh(laboratory, prompt, token), kind)
    })

    test("keeps one chat when another goes on", async () => {
      await using laboratory = await Laboratory.open(kind)
      await using engine = await laboratory.engine()
      const idle = await laboratory.question([], kind.window + 30)
      const chat = await laboratory.question([], 420)
      const turns = [chat, await turn(laboratory, chat, 100), await turn(laboratory, idle, 20)]
      for (const question of [idle, ...turns]) await check(engine, question)
      const { evictedTokens } = engine.status.counters
      assert.equal(evictedTokens, 0)
    })

    for (const cells of [256, 2048]) {
      test(`never has less room than its cells say: ${cells}`, async () => {
        await using laboratory = await Laboratory.open(kind)
        const backend = await laboratory.backend({ cells })
        const codes: number[] = []
        const wait = backend.wait.bind(backend)
        backend.wait = async () => {
          const outcome = await wait()
          codes.push(outcome.code)
          return outcome
        }
        await using engine = laboratory.run(backend)
        const common = laboratory.tokens(100)
        const asked: Question[] = []
        for (const count of [20, 40, 60, 80, 90])
          asked.push(await laboratory.question(common, count, 24))
        for (const _ of [1, 2]) await Promise.all(asked.map((question) => check(engine, question)))
        assert.ok(!codes.includes(STEP_CODE.noCells))
      })
    }
  })
}

/** What follows a question and its answer. */
function turn(laboratory: Laboratory, { prompt, cold }: Question, count: number) {
  return laboratory.question([...prompt, ...cold.tokens], count)
}
