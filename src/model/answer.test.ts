import { describe, expect, test } from "bun:test"
import { rejects } from "node:assert/strict"

import type { NativeLibrary } from "../../ffi/native.ts"
import type { ChatEvent } from "../chat/message.ts"
import { fakeVocabulary } from "../engine/fake-backend.ts"
import type { TokenLogprob } from "../engine/output.ts"
import type { EngineEvent, FinishReason } from "../engine/sequence.ts"
import { answerEvents } from "./answer.ts"
import type { TagReading } from "./go-prompt.ts"
import { ParseShare } from "./parse-share.ts"

const USAGE = {
  promptTokens: 3,
  cachedTokens: 1,
  shiftedTokens: 0,
  preemptions: 0,
  completionTokens: 2,
  queueMs: 1,
  promptMs: 2,
  decodeMs: 3,
}

const PROMPT = {
  text: "t1 t2 t3 ",
  tokens: Int32Array.of(1, 2, 3),
  rendered: undefined,
  droppedMessages: 0,
}

function text(content: string, ...logprobs: TokenLogprob[]): EngineEvent {
  return { kind: "text", text: content, logprobs }
}

function done(reason: FinishReason = { kind: "stop", match: undefined }): EngineEvent {
  return { kind: "done", reason, usage: USAGE, completion: Int32Array.of(4, 5) }
}

function logprob(token: number, ...top: number[]): TokenLogprob {
  return { token, logprob: -token, top: top.map((other) => ({ token: other, logprob: -other })) }
}

/** What an answer to a prompt of plain text gives: without a chat template no native parser is needed. */
function answer(
  events: AsyncIterable<EngineEvent>,
  options: { wantsContext?: boolean; droppedMessages?: number } = {},
): AsyncGenerator<ChatEvent> {
  return answerEvents(events, {
    // Never touched without a template.
    library: undefined as unknown as NativeLibrary,
    vocabulary: fakeVocabulary(16),
    prompt: { ...PROMPT, droppedMessages: options.droppedMessages ?? 0 },
    parsing: new ParseShare(),
    hasTools: false,
    wantsContext: options.wantsContext ?? false,
  })
}

async function* streamOf(...events: readonly EngineEvent[]): AsyncGenerator<EngineEvent> {
  yield* events
}

function all(
  events: readonly EngineEvent[],
  options: { wantsContext?: boolean; droppedMessages?: number } = {},
): Promise<ChatEvent[]> {
  return Array.fromAsync(answer(streamOf(...events), options))
}

/** The tokens whose log-probabilities each delta carries. */
function tokensOf(events: readonly ChatEvent[]): string[][] {
  return events.flatMap((event) =>
    event.kind === "delta" ? [event.logprobs.map(({ token }) => token)] : [],
  )
}

async function* breaking(): AsyncGenerator<EngineEvent> {
  yield text("a")
  throw new Error("the engine died")
}

describe("answerEvents() — of a prompt that is plain text", () => {
  test("each chunk is content as it is, markup too, and the end comes last", async () => {
    expect(await all([text("a <think>"), text(" b\n"), done()])).toEqual([
      { kind: "delta", content: "a <think>", thinking: "", logprobs: [] },
      { kind: "delta", content: " b\n", thinking: "", logprobs: [] },
      { kind: "done", reason: "stop", usage: USAGE, droppedMessages: 0 },
    ])
  })

  test.each<[FinishReason, string]>([
    [{ kind: "stop", match: undefined }, "stop"],
    [{ kind: "stop", match: "\n\n" }, "stop"],
    [{ kind: "length" }, "length"],
  ])("%j ends as %s", async (reason, expected) => {
    expect((await all([done(reason)]))[0]).toMatchObject({ kind: "done", reason: expected })
  })

  test("gives the tokens of prompt and answer only to those who want them", async () => {
    const [wanted] = await all([done()], { wantsContext: true })
    expect(wanted).toMatchObject({ context: [1, 2, 3, 4, 5] })
    const [unwanted] = await all([done()])
    expect(unwanted).not.toHaveProperty("context")
  })

  test("says how many messages were left out", async () => {
    expect((await all([done()], { droppedMessages: 7 }))[0]).toMatchObject({ droppedMessages: 7 })
  })

  test("an error of the engine is passed on after what came before it", async () => {
    const events = answer(breaking())
    expect((await events.next()).value).toMatchObject({ content: "a" })
    await rejects(events.next(), /the engine died/)
  })

  test("leaving early returns the engine's events", async () => {
    let isReturned = false
    async function* endless(): AsyncGenerator<EngineEvent> {
      try {
        for (;;) yield text("a")
      } finally {
        isReturned = true
      }
    }
    for await (const _ of answer(endless())) break
    expect(isReturned).toBe(true)
  })
})

describe("answerEvents() — log-probabilities", () => {
  test("have the token's text and bytes, and its alternatives", async () => {
    const [delta] = await all([text("t2 ", logprob(2, 2, 7)), done()])
    expect(delta).toEqual({
      kind: "delta",
      content: "t2 ",
      thinking: "",
      logprobs: [
        {
          token: "t2 ",
          logprob: -2,
          bytes: [0x74, 0x32, 0x20],
          top: [
            { token: "t2 ", logprob: -2, bytes: [0x74, 0x32, 0x20] },
            { token: "t7 ", logprob: -7, bytes: [0x74, 0x37, 0x20] },
          ],
        },
      ],
    })
  })

  test("stay with the text that their tokens became", async () => {
    const events = [text("a", logprob(1)), text("bc", logprob(2), logprob(3)), text("d"), done()]
    expect(tokensOf(await all(events))).toEqual([["t1 "], ["t2 ", "t3 "], []])
  })

  test("of tokens that gave no text are not lost at the end", async () => {
    const events = await all([text("a", logprob(1)), text("", logprob(2), logprob(3)), done()])
    expect(tokensOf(events)).toEqual([["t1 "], ["t2 ", "t3 "]])
    expect(events.map(({ kind }) => kind)).toEqual(["delta", "delta", "done"])
    expect(events[1]).toMatchObject({ content: "", thinking: "" })
  })
})

describe("answerEvents() — of the prompt of a Go template", () => {
  const READING: TagReading = {
    thinking: { opening: "<think>", closing: "</think>" },
    isThinkingOpen: false,
    toolTag: "<call>",
    toolNames: ["wx"],
  }

  async function read(pieces: readonly string[], reading: Partial<TagReading> = {}) {
    const events = await Array.fromAsync(
      answerEvents(streamOf(...pieces.map((piece) => text(piece)), done()), {
        library: undefined as unknown as NativeLibrary,
        vocabulary: fakeVocabulary(16),
        prompt: { ...PROMPT, reading: { ...READING, ...reading } },
        parsing: new ParseShare(),
        hasTools: true,
        wantsContext: false,
      }),
    )
    return events.map((event) => {
      if (event.kind === "delta") return `${event.thinking}|${event.content}`
      return event.kind === "done" ? "done" : `${event.call.name} ${event.call.arguments}`
    })
  }

  test("thoughts, content, calls, the end", async () => {
    const pieces = [
      "<think>",
      "a ",
      "b</think>",
      "\nSo: ",
      "<call>",
      '{"name":"wx",',
      '"arguments":{}}',
    ]
    expect(await read(pieces)).toEqual(["a|", " b|", "|So: ", "wx {}", "done"])
  })

  test("tags of thoughts that nobody wants are content", async () => {
    expect(await read(["<think>a</think>"], { thinking: undefined })).toEqual([
      "|<think>a</think>",
      "done",
    ])
  })

  test("without tools their tag is content", async () => {
    expect(await read(["<call>{}"], { toolNames: [] })).toEqual(["|<call>{}", "done"])
  })

  test("what was held back comes at the end", async () => {
    expect(await read(["a <cal"])).toEqual(["|a ", "|<cal", "done"])
    expect(await read(["<think>a "])).toEqual(["a|", " |", "done"])
  })
})
