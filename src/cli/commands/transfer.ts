/**
 * `cria pull` and `cria push`.
 *
 * @module
 */

import type { ProgressReply } from "../../api/ollama.ts"
import type { Client } from "../../client/client.ts"
import type { Config } from "../../config.ts"
import { CriaError, toCriaError } from "../../util/errors.ts"
import { connectOrStart, connectToChange } from "../connect.ts"
import { interruptible } from "../interrupt.ts"
import { ProgressDisplay } from "../progress.ts"

/** Flags of both commands. */
export interface TransferFlags {
  readonly insecure?: boolean
  readonly json?: boolean
}

/** Flags of `pull`. */
export interface PullFlags extends TransferFlags {
  readonly quant?: string
}

/** Fetches a model. */
export async function pull(config: Config, model: string, flags: PullFlags): Promise<void> {
  const { insecure, quant } = flags
  await transfer(config, flags, (client, signal) => client.pull({ model, insecure, quant }, signal))
}

/** Sends a model. */
export async function push(config: Config, model: string, flags: TransferFlags): Promise<void> {
  const { insecure, json } = flags
  await transfer(config, flags, (client, signal) => client.push({ model, insecure }, signal)).catch(
    (error: unknown) => {
      throw pushError(error)
    },
  )
  if (json === true) return
  console.log(`\nYou can find your model at:\n\n\t${addressOf(model)}`)
}

/** Fetches a model that a command needs, with progress on stderr. */
export async function pullMissing(
  client: Client,
  fields: { readonly model: string; readonly insecure?: boolean | undefined },
  signal: AbortSignal,
): Promise<void> {
  await display(client.pull(fields, signal))
}

/** Runs a request and shows how it goes. */
async function transfer(
  config: Config,
  { json = false }: TransferFlags,
  request: (client: Client, signal: AbortSignal) => AsyncGenerator<ProgressReply>,
): Promise<void> {
  await interruptible(async (signal) => {
    await using connection = config.allowsChanges
      ? await connectOrStart(config)
      : await connectToChange(config)
    const lines = request(connection.client, signal)
    if (json) for await (const line of lines) console.log(JSON.stringify(line))
    else await display(lines)
  })
}

async function display(lines: AsyncIterable<ProgressReply>): Promise<void> {
  using progress = new ProgressDisplay()
  for await (const line of lines) progress.show(line, performance.now())
}

/** A push that is refused, in Ollama's words. */
export function pushError(error: unknown): unknown {
  const { code, message, hint } = toCriaError(error)
  if (!/access denied|unauthorized/.test(message)) return error
  const text =
    "you are not authorized to push to this namespace, create the model under a namespace you own"
  return new CriaError(code, text, { hint: hint ?? message, cause: error })
}

/** Where people look at a pushed model: a page for Ollama's registry, else its name. */
export function addressOf(model: string): string {
  const short = model.replace(/^(?:https:\/\/)?registry\.ollama\.ai\//i, "").replace(/:latest$/, "")
  const isDefault = short.split("/").length <= 2
  return isDefault ? `https://ollama.com/${short}` : model
}
