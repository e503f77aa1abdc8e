import { describe, expect, test } from "bun:test"

import { chosenQuant, explainChoice, fitQuants } from "./fit.ts"

const GIB = 2 ** 30

/** An 8B model as it is found on the web. */
const QUANTS = [
  { tag: "BF16", label: "BF16", bytes: 16 * GIB, files: 1, parts: [] },
  { tag: "Q8_0", label: "Q8_0", bytes: 8.5 * GIB, files: 1, parts: [] },
  { tag: "Q6_K", label: "Q6_K", bytes: 6.6 * GIB, files: 2, parts: [] },
  { tag: "Q5_K_M", label: "Q5_K_M", bytes: 5.7 * GIB, files: 1, parts: [] },
  { tag: "Q4_K_M", label: "Q4_K_M", bytes: 4.9 * GIB, files: 1, parts: [] },
  { tag: "Q2_K", label: "Q2_K", bytes: 3.2 * GIB, files: 1, parts: [] },
]
const SHAPE = { kvBytesPerToken: 128 * 1024, trainedTokens: 131_072 }

function places(gpuGib: number, hostGib: number): string {
  const memory = { gpuBytes: gpuGib * GIB, hostBytes: hostGib * GIB }
  return fitQuants(QUANTS, SHAPE, memory)
    .map(({ label, place, isChosen }) => `${label}${isChosen ? "*" : ""} ${place}`)
    .join(", ")
}

describe("fitQuants()", () => {
  test.each([
    // A large GPU takes the best quantisation, not the unquantised weights.
    [80, 128, "BF16 gpu, Q8_0* gpu, Q6_K gpu, Q5_K_M gpu, Q4_K_M gpu, Q2_K gpu"],
    // What is all on the GPU is preferred to what is larger.
    [8, 32, "BF16 partly, Q8_0 partly, Q6_K partly, Q5_K_M* gpu, Q4_K_M gpu, Q2_K gpu"],
    [4, 32, "BF16 partly, Q8_0* partly, Q6_K partly, Q5_K_M partly, Q4_K_M partly, Q2_K partly"],
    [0, 16, "BF16 none, Q8_0* cpu, Q6_K cpu, Q5_K_M cpu, Q4_K_M cpu, Q2_K cpu"],
    // Split files cannot be had under a tag.
    [0, 10.5, "BF16 none, Q8_0 none, Q6_K cpu, Q5_K_M* cpu, Q4_K_M cpu, Q2_K cpu"],
    [0, 4, "BF16 none, Q8_0 none, Q6_K none, Q5_K_M none, Q4_K_M none, Q2_K none"],
  ])("%d GiB on the GPU, %d beside", (gpu, host, expected) => {
    expect(places(gpu, host)).toBe(expected)
  })

  test("the context is what room there is, up to what the model was trained for", () => {
    const at = (gpuBytes: number) => fitQuants(QUANTS, SHAPE, { gpuBytes, hostBytes: 0 })
    expect(at(80 * GIB).at(-1)?.contextTokens).toBe(131_072)
    const tight = at(8 * GIB).at(-1)?.contextTokens ?? 0
    expect(tight).toBeGreaterThan(8192)
    expect(tight * SHAPE.kvBytesPerToken + 3.2 * GIB).toBeLessThan(8 * GIB)
    expect(at(GIB).at(-1)?.contextTokens).toBe(0)
  })

  test("a model that was trained for little is content with little", () => {
    const shape = { ...SHAPE, trainedTokens: 512 }
    const [fit] = fitQuants(QUANTS.slice(-1), shape, { gpuBytes: 0, hostBytes: 4.8 * GIB })
    expect(fit).toMatchObject({ place: "cpu", contextTokens: 512, isChosen: true })
  })
})

describe("chosenQuant()", () => {
  test("says why", () => {
    const fits = fitQuants(QUANTS, SHAPE, { gpuBytes: 8 * GIB, hostBytes: 32 * GIB })
    expect(explainChoice(chosenQuant(fits, "m"))).toMatch(
      /^chose Q5_K_M \(6\.1 GB\): the largest that fits on the GPU, with \d+ tokens of context$/,
    )
  })

  test("says when nothing fits, and how to take it all the same", () => {
    const fits = fitQuants(QUANTS, SHAPE, { gpuBytes: 0, hostBytes: GIB })
    expect(() => chosenQuant(fits, "hf.co/u/m")).toThrow(
      'None of the 6 quantisations of "hf.co/u/m" fits this machine: the smallest, Q2_K, has 3.4 GB',
    )
  })
})
