import { describe, expect, test } from "bun:test"

import * as fc from "fast-check"

import { StopMatcher } from "./stop.ts"

/** What reaches the user when `pieces` arrive one by one. */
function run(stops: readonly string[], pieces: readonly string[]) {
  const matcher = new StopMatcher(stops)
  const sent: string[] = []
  for (const piece of pieces) {
    const { text, match } = matcher.push(piece)
    sent.push(text)
    if (match !== undefined) return { text: sent.join(""), match, sent }
  }
  sent.push(matcher.flush())
  return { text: sent.join(""), match: undefined, sent }
}

describe("StopMatcher", () => {
  test("passes text through when there are no stop strings", () => {
    expect(run([], ["a", "b"]).sent).toEqual(["a", "b", ""])
  })

  test("holds back what may become a stop string, and sends it when it does not", () => {
    expect(run(["END"], ["x E", "N", "jo"]).sent).toEqual(["x ", "", "ENjo", ""])
  })

  test("never sends a part of a stop string that arrives in pieces", () => {
    expect(run(["<|im_end|>"], ["Hi<", "|im", "_end", "|>tail"])).toMatchObject({
      text: "Hi",
      match: "<|im_end|>",
    })
  })

  test("sends what was held back at the end", () => {
    expect(run(["STOP"], ["ends with ST"]).text).toBe("ends with ST")
  })

  test("takes the match that begins first, of equal beginnings the longest", () => {
    expect(run(["b", "ab"], ["xab"]).text).toBe("x")
    expect(run(["ab", "abc"], ["xabc"]).match).toBe("abc")
  })

  test("ignores empty stop strings", () => {
    expect(run([""], ["text"])).toMatchObject({ text: "text", match: undefined })
  })

  test("gives the same text however the answer is cut into pieces", () => {
    const letters = fc.string({ unit: fc.constantFrom("a", "b", "c"), maxLength: 30 })
    const stops = fc.array(
      fc.string({ unit: fc.constantFrom("a", "b", "c"), minLength: 2, maxLength: 4 }),
      { maxLength: 3 },
    )
    fc.assert(
      fc.property(stops, fc.array(letters), (stopList, pieces) => {
        const whole = pieces.join("")
        const found = stopList
          .map((stop) => ({ stop, index: whole.indexOf(stop) }))
          .filter(({ index }) => index >= 0)
        const earliest = Math.min(...found.map(({ index, stop }) => index + stop.length))
        const { text, match } = run(stopList, pieces)
        if (found.length === 0) return match === undefined && text === whole
        // Pieces decide when a match is seen, but never more is sent than before the first complete one.
        return (
          match !== undefined &&
          whole.startsWith(text) &&
          text.length <= earliest &&
          !stopList.some((stop) => text.includes(stop))
        )
      }),
    )
  })
})
