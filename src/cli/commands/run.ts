/**
 * `cria run`: asks a model one thing, or talks with it.
 *
 * @module
 */

import { resolve } from "node:path"

import type { ShowReply } from "../../api/ollama.ts"
import type { Client } from "../../client/client.ts"
import type { Config } from "../../config.ts"
import { CriaError, errorMessage } from "../../util/errors.ts"
import { parseDurationMs } from "../../util/units.ts"
import { printAnswer, printMetrics } from "../answer-printer.ts"
import { connectOrStart, connectToChange } from "../connect.ts"
import { Spinner } from "../output.ts"
import { talk } from "../repl.ts"
import { pullMissing } from "./transfer.ts"

/** Flags of the command. */
export interface RunFlags {
  readonly keepalive?: string
  readonly verbose?: boolean
  readonly format?: string
  readonly think?: string
  readonly hidethinking?: boolean
  readonly insecure?: boolean
}

/** What stays the same during a session with a model. */
export interface Session {
  readonly client: Client
  readonly model: string
  readonly signal: AbortSignal
  /** Fields of every request. */
  readonly fields: Readonly<Record<string, unknown>>
  readonly isVerbose: boolean
  readonly hideThinking: boolean
}

/** Exit status of a program that Ctrl-C ended, by convention. */
const INTERRUPTED = 130

const THINK_VALUES: ReadonlyMap<string, boolean | string> = new Map<string, boolean | string>([
  ["true", true],
  ["false", false],
  ...["high", "medium", "low", "max"].map((level) => [level, level] as const),
])

/**
 * Runs a model.
 *
 * @param model A name, or the path of a GGUF file.
 * @param words The prompt; what comes in on stdin stands before it.
 */
export async function run(
  config: Config,
  model: string,
  words: readonly string[],
  flags: RunFlags,
): Promise<void> {
  const fields = fieldsOf(flags)
  const file = looksLikeFile(model) ? resolve(model) : undefined
  const isInteractive = process.stdin.isTTY && process.stdout.isTTY && words.length === 0
  const prompt = isInteractive ? "" : await promptOf(words)
  const interrupt = new AbortController()
  process.once("SIGINT", () => interrupt.abort(new CriaError("unavailable", "interrupted")))
  const spinner = new Spinner()
  try {
    await using connection = await connectOrStart(config, file)
    const { client } = connection
    // A server of our own for a file has that model only, under a name that it made of the file's.
    const name = file === undefined ? model : ((await client.tags())[0]?.name ?? file)
    const known = await showOrPull(config, client, { ...flags, model: name }, interrupt.signal)
    const session: Session = {
      client,
      model: name,
      signal: interrupt.signal,
      // Models that can think do, unless they are told.
      fields: { ...(known.capabilities.includes("thinking") ? { think: true } : {}), ...fields },
      isVerbose: flags.verbose === true,
      hideThinking: flags.hidethinking === true,
    }
    if (isInteractive) await talk(session, known, spinner)
    else await ask(session, prompt, spinner)
  } catch (error) {
    if (!interrupt.signal.aborted) throw error
    process.exitCode = INTERRUPTED
  } finally {
    spinner[Symbol.dispose]()
  }
}

/** What a model is; one that is not installed is pulled first. */
async function showOrPull(
  config: Config,
  client: Client,
  { model, insecure }: RunFlags & { readonly model: string },
  signal: AbortSignal,
): Promise<ShowReply> {
  try {
    return await client.show(model)
  } catch (error) {
    if (!(error instanceof CriaError && error.code === "not-found")) throw error
    await using own = config.allowsChanges ? undefined : await connectToChange(config)
    await pullMissing(own?.client ?? client, { model, insecure }, signal)
    return client.show(model)
  }
}

/** One prompt, one answer; an empty prompt only loads the model. */
async function ask(session: Session, prompt: string, spinner: Spinner): Promise<void> {
  const { client, model, signal, fields } = session
  if (prompt === "") {
    await client.generateOnce({ model, ...fields }, signal)
    return
  }
  const replies = client.generate({ model, prompt, ...fields }, signal)
  const { metrics } = await printAnswer(replies, session, () => spinner[Symbol.dispose]())
  process.stdout.write("\n\n")
  if (session.isVerbose) printMetrics(metrics)
}

/** What is piped in, then the words of the command line. */
async function promptOf(words: readonly string[]): Promise<string> {
  const piped = process.stdin.isTTY ? "" : await Bun.stdin.text()
  return [piped, ...words].filter((part) => part !== "").join(" ")
}

function fieldsOf(flags: RunFlags): Record<string, unknown> {
  const fields: Record<string, unknown> = {}
  if (flags.keepalive !== undefined) fields["keep_alive"] = checkedDuration(flags.keepalive)
  if (flags.format !== undefined) fields["format"] = formatOf(flags.format)
  if (flags.think !== undefined) fields["think"] = thinkOf(flags.think)
  return fields
}

function checkedDuration(text: string): string {
  try {
    parseDurationMs(text)
    return text
  } catch (cause) {
    throw new CriaError("invalid-input", errorMessage(cause), { cause })
  }
}

function formatOf(text: string): unknown {
  if (text === "json") return text
  try {
    return JSON.parse(text)
  } catch (cause) {
    const message = `Cannot use --format ${JSON.stringify(text)}: expected json or a JSON schema`
    throw new CriaError("invalid-input", message, { cause })
  }
}

function thinkOf(text: string): boolean | string {
  const value = THINK_VALUES.get(text)
  if (value !== undefined) return value
  throw new CriaError(
    "invalid-input",
    `invalid value for --think: ${JSON.stringify(text)} (must be true, false, high, medium, low, or max)`,
  )
}

/** Whether an argument means a file and not a name. */
function looksLikeFile(argument: string): boolean {
  return /^(\.{0,2}\/|~\/|[A-Za-z]:\\)/.test(argument) || /\.gguf$/i.test(argument)
}
