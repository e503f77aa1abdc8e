/**
 * Finds the server that a command talks to, or starts one for this command alone.
 *
 * @module
 */

import { Client } from "../client/client.ts"
import { type Config, hostUrl } from "../config.ts"
import { CriaError } from "../util/errors.ts"
import { selfCommand } from "../util/executable.ts"
import { linesOf } from "../util/lines.ts"

/** A server to talk to. Disposing it ends the server when it was started for us. */
export interface Connection extends AsyncDisposable {
  readonly client: Client
}

/** A private server is given so long to end its runners before it is killed. */
const STOP_GRACE_MS = 8000

/** @throws {CriaError} `unavailable` when no server listens. */
export async function connect(config: Config): Promise<Client> {
  const client = new Client(hostUrl(config.host))
  if (await client.isUp()) return client
  throw new CriaError(
    "unavailable",
    "could not connect to cria server, run 'cria serve' to start it",
  )
}

/**
 * The server that listens, or else one of our own.
 *
 * @param file A GGUF file to serve: always takes a server of our own, because a server opens no files that a request
 * names.
 */
export async function connectOrStart(config: Config, file?: string): Promise<Connection> {
  const client = new Client(hostUrl(config.host))
  if (file === undefined && (await client.isUp())) {
    return { client, async [Symbol.asyncDispose]() {} }
  }
  return startPrivate(file)
}

/**
 * A server that may change models: the one that listens, unless that is told to change none over HTTP; then one of our
 * own, over the same store.
 *
 * @throws {CriaError} `unavailable` when no server listens and the command needs one.
 */
export async function connectToChange(config: Config): Promise<Connection> {
  if (!config.allowsChanges) return startPrivate(undefined)
  return { client: await connect(config), async [Symbol.asyncDispose]() {} }
}

/**
 * Starts a server on a free port of the loopback address. It ends with us, however we end: it watches its stdin.
 *
 * @throws {CriaError} With what the server said, when it did not start.
 */
async function startPrivate(file: string | undefined): Promise<Connection> {
  const child = Bun.spawn(
    [...selfCommand(), "serve", "--private", ...(file === undefined ? [] : ["--file", file])],
    {
      stdin: "pipe",
      stdout: "pipe",
      stderr: "pipe",
      env: { ...process.env, CRIA_HOST: "127.0.0.1:0" },
      // Ctrl-C is for us; we end the server.
      detached: true,
    },
  )
  const complaints = collect(child.stderr)
  for await (const url of linesOf(child.stdout)) {
    return {
      client: new Client(url),
      async [Symbol.asyncDispose]() {
        await child.stdin.end()
        const timer = setTimeout(() => child.kill("SIGKILL"), STOP_GRACE_MS)
        await child.exited
        clearTimeout(timer)
      },
    }
  }
  await child.exited
  const lines = await complaints
  const [message = "the server ended without a word", ...hints] = lines
    .slice(lines.findIndex((line) => line.startsWith("Error: ")))
    .map((line) => line.replace(/^Error: /, ""))
  throw new CriaError("unavailable", message, hints.length === 0 ? {} : { hint: hints.join("\n") })
}

/** The last lines of a stream, which is read to its end so that its writer never waits. */
async function collect(stream: ReadableStream<Uint8Array>): Promise<string[]> {
  const lines: string[] = []
  for await (const line of linesOf(stream)) {
    lines.push(line)
    if (lines.length > 20) lines.shift()
  }
  return lines
}
