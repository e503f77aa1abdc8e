import { describe, expect, test } from "bun:test"

import { Embedder, type EmbeddingBackend } from "./embedder.ts"
import { FakeBackend } from "./fake-backend.ts"

/** Vectors that say which tokens the sequence held: [sum, count]. */
class FakeEmbeddings extends FakeBackend implements EmbeddingBackend {
  embedding(sequence: number): Float32Array {
    const { token, sequence: owner } = this.arrays
    const own = Array.from(token).filter((_, i) => owner[i] === sequence && i < this.stepTokens)
    return Float32Array.of(
      own.reduce((sum, value) => sum + value, 0),
      own.length,
    )
  }

  stepTokens = 0

  override submit(tokens: number, rows: number): void {
    this.stepTokens = tokens
    super.submit(tokens, rows)
  }
}

describe("Embedder", () => {
  test("gives one vector of length 1 per input, in order", async () => {
    await using embedder = new Embedder(new FakeEmbeddings())
    const vectors = await embedder.embed([[3], [4, 4], [1, 2, 3]])
    expect(vectors.map((vector) => (vector[0] ?? 0) / (vector[1] ?? 1))).toEqual(
      [3, 4, 2].map((x) => expect.closeTo(x, 5)),
    )
    expect(vectors.map((vector) => Math.hypot(...vector))).toEqual(
      [1, 1, 1].map((x) => expect.closeTo(x, 5)),
    )
  })

  test("packs inputs into steps that hold them", async () => {
    const steps: number[] = []
    const backend = new FakeEmbeddings({
      batchTokens: 10,
      sequences: 3,
      onStep: ({ tokens }) => steps.push(tokens),
    })
    await using embedder = new Embedder(backend)
    await embedder.embed([[1, 1, 1, 1], [2, 2, 2, 2], [3, 3, 3], [4], [5], [6]])
    expect(steps).toEqual([8, 5, 1])
    expect(backend.usedCells).toBe(0)
  })

  test("takes calls that overlap one after the other", async () => {
    await using embedder = new Embedder(new FakeEmbeddings())
    const [a, b] = await Promise.all([embedder.embed([[2]]), embedder.embed([[7]])])
    expect([a[0]?.[0], b[0]?.[0]]).toEqual([
      expect.closeTo(2 / Math.hypot(2, 1), 5),
      expect.closeTo(7 / Math.hypot(7, 1), 5),
    ])
  })

  test("goes on after a vector that is no vector, and after a step that failed", async () => {
    let step = 0
    const backend = new FakeEmbeddings({ codeOf: () => (++step === 2 ? -3 : undefined) })
    const embedding = backend.embedding.bind(backend)
    backend.embedding = (sequence) =>
      step === 1 ? Float32Array.of(Number.NaN, 1) : embedding(sequence)
    await using embedder = new Embedder(backend)
    expect(await embedder.embed([[1], [2]]).catch((error: unknown) => error)).toMatchObject({
      code: "invalid-input",
      message: "embedding contains NaN or Inf values",
    })
    expect(backend.usedCells).toBe(0)
    expect(await embedder.embed([[1]]).catch((error: unknown) => error)).toMatchObject({
      code: "internal",
    })
    expect(await embedder.embed([[1], [2]])).toHaveLength(2)
  })

  test.each([
    ["an empty input", [] as number[], 0],
    ["an input that no step holds", Array.from({ length: 33 }, () => 1), 33],
  ])("refuses %s and goes on with the next call", async (_, input, length) => {
    await using embedder = new Embedder(new FakeEmbeddings())
    expect(await embedder.embed([[1], input]).catch((error: unknown) => error)).toMatchObject({
      code: "invalid-input",
      message: `Cannot embed an input of ${length} tokens: expected 1 to 32`,
    })
    expect(await embedder.embed([[1]])).toHaveLength(1)
  })
})
