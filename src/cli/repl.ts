/**
 * A conversation at the terminal.
 *
 * @module
 */

import { createInterface, type Interface } from "node:readline"

import type { ShowReply } from "../api/ollama.ts"
import { CriaError } from "../util/errors.ts"
import { printAnswer, printMetrics } from "./answer-printer.ts"
import type { Session } from "./commands/run.ts"
import { printError, Spinner } from "./output.ts"

const PROMPT = ">>> "
const CONTINUATION = "... "
const QUOTES = '"""'

const HELP = `Available Commands:
  /clear          Clear session context
  /bye            Exit
  /?, /help       Help for a command

Use """ to begin a multi-line message.
`

interface Turn {
  readonly role: "user" | "assistant"
  readonly content: string
}

/**
 * Talks until the user leaves.
 *
 * @param spinner Turns already; it stops when the model is loaded.
 */
export async function talk(session: Session, known: ShowReply, spinner: Spinner): Promise<void> {
  const { client, model, fields, signal } = session
  await client.generateOnce({ model, ...fields }, signal)
  spinner[Symbol.dispose]()
  const turns: Turn[] = []
  for (const { role, content } of known.messages ?? []) {
    console.log(role === "user" ? `${PROMPT}${content}` : `${content}\n`)
  }
  using input = new Input()
  for (;;) {
    const text = await input.message()
    if (text === undefined || text === "/bye" || text === "/exit") return
    if (text.trim() === "") continue
    if (text.startsWith("/")) command(text, turns)
    else await exchange(session, turns, input, text)
  }
}

function command(text: string, turns: Turn[]): void {
  const [name = ""] = text.split(/\s/)
  switch (name) {
    case "/clear":
      turns.length = 0
      console.log("Cleared session context")
      return
    case "/?":
    case "/help":
      console.error(HELP)
      return
    default:
      console.log(`Unknown command '${name}'. Type /? for help`)
  }
}

/** One turn of the user and the answer. Ctrl-C stops the answer, which is forgotten then. */
async function exchange(
  session: Session,
  turns: Turn[],
  input: Input,
  content: string,
): Promise<void> {
  const asked: Turn = { role: "user", content }
  const stop = new AbortController()
  using _ = input.onInterrupt(() => stop.abort(new CriaError("unavailable", "interrupted")))
  using spinner = new Spinner()
  try {
    const { client, model, fields } = session
    const replies = client.chat({ model, messages: [...turns, asked], ...fields }, stop.signal)
    const answer = await printAnswer(replies, session, () => spinner[Symbol.dispose]())
    process.stdout.write("\n\n")
    turns.push(asked, { role: "assistant", content: answer.content })
    if (session.isVerbose) printMetrics(answer.metrics)
  } catch (error) {
    if (stop.signal.aborted) process.stdout.write("\n\n")
    else printError(error)
  }
}

/** Lines from the terminal, joined to messages. */
class Input implements Disposable {
  readonly #lines: Interface
  #onInterrupt: (() => void) | undefined
  #waiting: ((line: string | undefined) => void) | undefined
  readonly #queued: (string | undefined)[] = []

  constructor() {
    this.#lines = createInterface({ input: process.stdin, output: process.stdout })
    this.#lines.on("line", (line) => this.#give(line))
    this.#lines.on("close", () => this.#give(undefined))
    this.#lines.on("SIGINT", () => this.#interrupt())
  }

  /** Calls back at Ctrl-C until the result is disposed. */
  onInterrupt(callback: () => void): Disposable {
    this.#onInterrupt = callback
    return {
      [Symbol.dispose]: () => {
        this.#onInterrupt = undefined
      },
    }
  }

  /** The next message; undefined at the end of input. */
  async message(): Promise<string | undefined> {
    const first = await this.#line(PROMPT)
    if (first === undefined || !first.startsWith(QUOTES)) return first
    const lines = [first.slice(QUOTES.length)]
    while (!(lines.at(-1) ?? "").endsWith(QUOTES)) {
      const line = await this.#line(CONTINUATION)
      if (line === undefined) return undefined
      lines.push(line)
    }
    return lines.join("\n").slice(0, -QUOTES.length)
  }

  [Symbol.dispose](): void {
    this.#lines.close()
  }

  #line(prompt: string): Promise<string | undefined> {
    // The end of input may wait there too.
    if (this.#queued.length > 0) return Promise.resolve(this.#queued.shift())
    this.#lines.setPrompt(prompt)
    this.#lines.prompt()
    return new Promise((resolve) => {
      this.#waiting = resolve
    })
  }

  #give(line: string | undefined): void {
    const waiting = this.#waiting
    this.#waiting = undefined
    if (waiting === undefined) this.#queued.push(line)
    else waiting(line)
  }

  #interrupt(): void {
    if (this.#onInterrupt !== undefined) {
      this.#onInterrupt()
      return
    }
    process.stdout.write("\nUse Ctrl + d or /bye to exit.\n")
    this.#lines.prompt()
  }
}
