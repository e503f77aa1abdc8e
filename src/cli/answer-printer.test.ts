import { describe, expect, test } from "bun:test"
import { rejects } from "node:assert/strict"

import type { ChatReply, GenerateReply, Metrics } from "../api/ollama.ts"
import { printAnswer, type PrintedAnswer, printMetrics } from "./answer-printer.ts"
import { TestTerminal } from "./test-terminal.ts"

const HEAD = { model: "tiny", created_at: "" }

/** A reply to generate. */
function part(response: string, fields: Partial<GenerateReply> = {}): GenerateReply {
  return { ...HEAD, response, done: false, ...fields }
}

/** A reply to chat. */
function turn(content: string, fields: Partial<ChatReply["message"]> = {}): ChatReply {
  return { ...HEAD, message: { role: "assistant", content, ...fields }, done: false }
}

const END = part("", { done: true, done_reason: "stop", eval_count: 2 })

async function* streamOf<T>(...items: readonly T[]): AsyncGenerator<T> {
  yield* items
}

async function* breakingAfter<T>(...items: readonly T[]): AsyncGenerator<T> {
  yield* items
  throw new Error("the runner died")
}

interface Printed extends PrintedAnswer {
  readonly stdout: string
  readonly stderr: string
}

async function print(
  replies: readonly (GenerateReply | ChatReply)[],
  { hideThinking = false, isTerminal = false } = {},
): Promise<Printed> {
  using terminal = new TestTerminal(isTerminal)
  const answer = await printAnswer(streamOf(...replies), { hideThinking }, () => {})
  return { ...answer, stdout: terminal.stdout, stderr: terminal.stderr }
}

describe("printAnswer() — text", () => {
  test("goes to stdout as it comes, and is given back whole", async () => {
    expect(await print([part("Hel"), part("lo\n"), END])).toEqual({
      stdout: "Hello\n",
      stderr: "",
      content: "Hello\n",
      thinking: "",
      metrics: END,
    })
    expect((await print([turn("Hel"), turn("lo")])).stdout).toBe("Hello")
  })

  test("before the first of it the caller is told, so that a spinner can go", async () => {
    using terminal = new TestTerminal()
    const seen: string[] = []
    const replies = streamOf(part(""), part("a"), part("b"), END)
    await printAnswer(replies, { hideThinking: false }, () => seen.push(terminal.stdout))
    expect(seen[0]).toBe("")
  })

  test("before the end of an answer without any the caller is told too", async () => {
    using _ = new TestTerminal()
    let calls = 0
    await printAnswer(streamOf(END), { hideThinking: false }, () => calls++)
    expect(calls).toBe(1)
  })
})

describe("printAnswer() — thinking", () => {
  const replies = [part("", { thinking: "h" }), part("", { thinking: "m" }), part("4"), END]

  test("is set apart", async () => {
    expect(await print(replies)).toMatchObject({
      stdout: "Thinking...\nhm\n...done thinking.\n\n4",
      content: "4",
      thinking: "hm",
    })
  })

  test("that ends its line gets no empty one", async () => {
    const { stdout } = await print([part("", { thinking: "hm\n" }), part("4"), END])
    expect(stdout).toBe("Thinking...\nhm\n...done thinking.\n\n4")
  })

  test("is hidden on request, and still given back", async () => {
    expect(await print(replies, { hideThinking: true })).toMatchObject({
      stdout: "4",
      content: "4",
      thinking: "hm",
    })
  })

  test("is grey at a terminal, and only it", async () => {
    const { stdout } = await print(replies, { isTerminal: true })
    expect(stdout).toBe("\u001b[38;5;245mThinking...\nhm\n...done thinking.\n\u001b[0m\n4")
  })

  test("that is all there is leaves the terminal as it was", async () => {
    const { stdout } = await print([part("", { thinking: "hm" }), END], { isTerminal: true })
    expect(stdout).toBe("\u001b[38;5;245mThinking...\nhm\u001b[0m")
    expect((await print([part("", { thinking: "hm" }), END])).stdout).toBe("Thinking...\nhm")
  })

  test("that breaks off leaves the terminal as it was", async () => {
    using terminal = new TestTerminal(true)
    const broken = breakingAfter(part("", { thinking: "hm" }))
    await rejects(
      printAnswer(broken, { hideThinking: false }, () => {}),
      /the runner died/,
    )
    expect(terminal.stdout).toEndWith("\u001b[0m")
  })
})

describe("printAnswer() — tool calls, which nobody offered", () => {
  test("are printed, after thinking is over", async () => {
    const call = { id: "c", function: { index: 0, name: "wx", arguments: { city: "Oslo" } } }
    const { stdout } = await print([
      turn("", { thinking: "hm" }),
      { ...turn("", { tool_calls: [call] }), done: true },
    ])
    expect(stdout).toBe(
      "Thinking...\nhm\n...done thinking.\n\n" +
        `  Model called a non-existent function 'wx()' with arguments: {"city":"Oslo"}\n`,
    )
  })
})

function printed(metrics: Metrics): string {
  using terminal = new TestTerminal()
  printMetrics(metrics)
  expect(terminal.stdout).toBe("")
  return terminal.stderr
}

describe("printMetrics()", () => {
  test("is what Ollama prints", () => {
    expect(
      printed({
        total_duration: 1_234_567_891,
        load_duration: 20_100_000,
        prompt_eval_count: 12,
        prompt_eval_duration: 30_000_000,
        eval_count: 50,
        eval_duration: 1_100_000_000,
      }),
    ).toBe(`total duration:       1.234567891s
load duration:        20.1ms
prompt eval count:    12 token(s)
prompt eval duration: 30ms
prompt eval rate:     400.00 tokens/s
eval count:           50 token(s)
eval duration:        1.1s
eval rate:            45.45 tokens/s
`)
  })

  test.each<[Metrics, string]>([
    [{}, ""],
    [{ total_duration: 0, eval_count: 0 }, ""],
    [{ eval_count: 5 }, "eval count:           5 token(s)\n"],
    [{ eval_duration: 5000 }, "eval duration:        5µs\n"],
    [{ total_duration: 62_500_000_000 }, "total duration:       1m2.5s\n"],
  ])("leaves out what is 0: %j", (metrics, expected) => {
    expect(printed(metrics)).toBe(expected)
  })
})
