/**
 * Prints an answer as it arrives: text on stdout, thinking set apart, statistics on stderr.
 *
 * @module
 */

import type { ChatReply, GenerateReply, Metrics } from "../api/ollama.ts"
import { formatDuration } from "../util/units.ts"

const GREY = "\u001b[38;5;245m"
const RESET = "\u001b[0m"
const LABEL_WIDTH = 22

/** How to print. */
export interface PrintOptions {
  readonly hideThinking: boolean
}

/** What a whole answer was. */
export interface PrintedAnswer {
  readonly content: string
  readonly thinking: string
  readonly metrics: Metrics
}

/**
 * Prints an answer to its end.
 *
 * @param onFirst Called before the first text is printed.
 */
export async function printAnswer(
  replies: AsyncIterable<GenerateReply | ChatReply>,
  options: PrintOptions,
  onFirst: () => void,
): Promise<PrintedAnswer> {
  using printer = new Printer(options)
  for await (const reply of replies) {
    const part =
      "message" in reply ? reply.message : { content: reply.response, thinking: reply.thinking }
    if (part.content !== "" || part.thinking !== undefined || reply.done) onFirst()
    printer.print(part.content, part.thinking ?? "")
    if ("message" in reply) printer.printCalls(reply.message.tool_calls ?? [])
    if (reply.done) return { content: printer.content, thinking: printer.thinking, metrics: reply }
  }
  return { content: printer.content, thinking: printer.thinking, metrics: {} }
}

/** Statistics after an answer, in Ollama's form. */
export function printMetrics(metrics: Metrics): void {
  duration("total duration:", metrics.total_duration)
  duration("load duration:", metrics.load_duration)
  count("prompt eval count:", metrics.prompt_eval_count)
  duration("prompt eval duration:", metrics.prompt_eval_duration)
  rate("prompt eval rate:", metrics.prompt_eval_count, metrics.prompt_eval_duration)
  count("eval count:", metrics.eval_count)
  duration("eval duration:", metrics.eval_duration)
  rate("eval rate:", metrics.eval_count, metrics.eval_duration)
}

function duration(label: string, nanos = 0): void {
  if (nanos > 0) row(label, formatDuration(nanos))
}

function count(label: string, tokens = 0): void {
  if (tokens > 0) row(label, `${tokens} token(s)`)
}

function rate(label: string, tokens = 0, nanos = 0): void {
  if (tokens > 0 && nanos > 0) row(label, `${(tokens / (nanos / 1e9)).toFixed(2)} tokens/s`)
}

function row(label: string, value: string): void {
  console.error(`${label.padEnd(LABEL_WIDTH)}${value}`)
}

/** Dispose it, so that the terminal gets its colour back however the answer ended. */
class Printer implements Disposable {
  content = ""
  thinking = ""
  readonly #hideThinking: boolean
  readonly #grey = process.stdout.isTTY ? GREY : ""
  readonly #reset = process.stdout.isTTY ? RESET : ""
  /** The heading of the thinking is printed, its end is not. */
  #isThinking = false

  constructor({ hideThinking }: PrintOptions) {
    this.#hideThinking = hideThinking
  }

  print(content: string, thinking: string): void {
    if (thinking !== "") this.#printThinking(thinking)
    if (content === "") return
    this.#endThinking()
    this.content += content
    process.stdout.write(content)
  }

  printCalls(calls: readonly { function: { name: string; arguments: unknown } }[]): void {
    if (calls.length > 0) this.#endThinking()
    for (const { function: call } of calls) {
      const args = JSON.stringify(call.arguments)
      console.log(`  Model called a non-existent function '${call.name}()' with arguments: ${args}`)
    }
  }

  [Symbol.dispose](): void {
    if (this.#isThinking) process.stdout.write(this.#reset)
  }

  #printThinking(text: string): void {
    this.thinking += text
    if (this.#hideThinking) return
    if (!this.#isThinking) process.stdout.write(`${this.#grey}Thinking...\n`)
    this.#isThinking = true
    process.stdout.write(text)
  }

  #endThinking(): void {
    if (!this.#isThinking) return
    this.#isThinking = false
    const lineEnd = this.thinking.endsWith("\n") ? "" : "\n"
    process.stdout.write(`${lineEnd}...done thinking.\n${this.#reset}\n`)
  }
}
