import { describe, expect, test } from "bun:test"

import { Output } from "./output.ts"
import { Vocabulary } from "./vocabulary.ts"

/** A vocabulary of these pieces; `control` are control tokens. */
function vocabulary(
  pieces: readonly (string | number[])[],
  control: readonly number[] = [],
): Vocabulary {
  const bytes = pieces.map((piece) =>
    typeof piece === "string" ? new TextEncoder().encode(piece) : Uint8Array.from(piece),
  )
  const offsets = new Int32Array(pieces.length + 1)
  for (const [i, piece] of bytes.entries()) offsets[i + 1] = (offsets[i] ?? 0) + piece.length
  const blob = new Uint8Array(offsets.at(-1) ?? 0)
  for (const [i, piece] of bytes.entries()) blob.set(piece, offsets[i])
  return new Vocabulary(
    blob,
    offsets,
    Uint8Array.from(pieces, (_, i) => (control.includes(i) ? 1 : 0)),
  )
}

function output(
  words: Vocabulary,
  stop: readonly string[] = [],
  shownControl: readonly number[] = [],
): Output {
  return new Output(words, { stop, shownControl: new Set(shownControl) })
}

const LOGPROB = { token: 0, logprob: -1, top: [] }

describe("Output", () => {
  test("joins a character that is spread over tokens", () => {
    const words = vocabulary([[0xf0, 0x9f], [0xa6], [0x99], "!"])
    const out = output(words)
    expect([0, 1, 2, 3].map((token) => out.push(token).chunk.text)).toEqual(["", "", "🦙", "!"])
  })

  test("shows a character that was never completed as U+FFFD", () => {
    const out = output(vocabulary([[0xf0, 0x9f]]))
    out.push(0)
    expect(out.flush().text).toBe("\uFFFD")
  })

  test("keeps a byte order mark, which is text like any other", () => {
    expect(output(vocabulary(["\uFEFFx"])).push(0).chunk.text).toBe("\uFEFFx")
  })

  test("leaves control tokens out unless they are wanted", () => {
    const words = vocabulary(["<think>", "<eot>", "a"], [0, 1])
    const out = output(words, [], [0])
    expect([0, 1, 2].map((token) => out.push(token).chunk.text)).toEqual(["<think>", "", "a"])
  })

  test("ends at a stop string that is spread over tokens, and sends nothing of it", () => {
    const out = output(vocabulary(["ab", "cd"]), ["bc"])
    expect(out.push(0).chunk.text).toBe("a")
    expect(out.push(1)).toMatchObject({ chunk: { text: "" }, match: "bc" })
  })

  test("finds a stop string among control tokens that are not shown", () => {
    const out = output(vocabulary(["a", "<x>", "b"], [1]), ["ab"])
    expect([0, 1].map((token) => out.push(token).chunk.text)).toEqual(["", ""])
    expect(out.push(2).match).toBe("ab")
  })

  test("keeps log-probabilities until the text they belong to is sent", () => {
    const out = output(vocabulary(["a", "b", "x"]), ["abc"])
    expect(out.push(0, LOGPROB).chunk).toEqual({ text: "", logprobs: [] })
    expect(out.push(2, LOGPROB).chunk).toEqual({ text: "ax", logprobs: [LOGPROB, LOGPROB] })
  })
})
