/**
 * What the end-to-end tests share: a private copy of the executable, servers, clients, and a look at what runs.
 *
 * @module
 */

import { createHash } from "node:crypto"
import {
  cpSync,
  existsSync,
  linkSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  realpathSync,
  rmSync,
  writeFileSync,
} from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"

import { outputFolder } from "../../scripts/build.ts"

const ROOT = join(import.meta.dirname, "../..")

/** The demo model. */
export const DEMO: string = join(ROOT, "models/demo/cria-demo-q8_0.gguf")

/** A second, smaller model. */
export const DRAFT: string = join(ROOT, "tests/fixtures/cria-demo-draft-q8_0.gguf")

/**
 * Something that answers at length: a list of at least 1000 numbers, until the context is almost full. It goes on for
 * seconds, which is what tests need that do something meanwhile.
 */
export const LONG_ANSWER = {
  prompt: "Count",
  format: { type: "array", items: { type: "integer" }, minItems: 1000 },
  options: { num_predict: 1900, temperature: 0 },
  think: false,
}

/** How a process ended. */
export interface Outcome {
  readonly code: number | null
  readonly stdout: string
  readonly stderr: string
}

/** Options of {@link World.start}. */
export interface StartOptions {
  readonly env?: Readonly<Record<string, string>>
  readonly stdin?: string
  readonly cwd?: string
}

/** A process of ours. */
export type Running = Bun.Subprocess<"pipe" | "ignore", "pipe", "pipe">

/**
 * A folder with a copy of the executable, a home and a store. The copy has a path of its own, so that its processes
 * can be told from all others. Disposing it ends what still runs and removes everything.
 */
export class World implements AsyncDisposable {
  readonly folder: string = mkdtempSync(join(realpathSync(tmpdir()), "cria-e2e-"))
  readonly executable: string = join(this.folder, "app/cria")
  readonly home: string = join(this.folder, "home")
  readonly store: string = join(this.folder, "store")
  /** Whether registries may be asked; a test of names that are not there must not ask one on the internet. */
  isOffline = false

  constructor() {
    const built = outputFolder()
    mkdirSync(join(this.folder, "app"))
    mkdirSync(this.home)
    // A link takes no time and no space; the kernel shows the path that was executed.
    linkOrCopy(join(built, "cria"), this.executable)
    cpSync(join(built, "native"), join(this.folder, "app/native"), { recursive: true })
  }

  /** Environment in which nothing of this machine's own settings is left. */
  env(extra: Readonly<Record<string, string>> = {}): Record<string, string> {
    return {
      PATH: "/usr/bin:/bin",
      HOME: this.home,
      CRIA_MODELS: this.store,
      CRIA_HOST: "127.0.0.1:1",
      CRIA_OFFLINE: this.isOffline ? "1" : "0",
      ...extra,
    }
  }

  /** Starts the executable. */
  start(
    args: readonly string[],
    { env = {}, stdin, cwd = this.folder }: StartOptions = {},
  ): Running {
    return Bun.spawn([this.executable, ...args], {
      cwd,
      env: this.env(env),
      stdin: stdin === undefined ? "ignore" : new Blob([stdin]),
      stdout: "pipe",
      stderr: "pipe",
    }) as Running
  }

  /** Runs the executable to its end. */
  async run(args: readonly string[], options: StartOptions = {}): Promise<Outcome> {
    const child = this.start(args, options)
    const [stdout, stderr] = await Promise.all([child.stdout.text(), child.stderr.text()])
    await child.exited
    return { code: child.exitCode, stdout, stderr }
  }

  /** Starts a server on a free port and waits until it listens. */
  async serve(env: Readonly<Record<string, string>> = {}): Promise<Server> {
    const child = this.start(["serve"], { env: { CRIA_HOST: "127.0.0.1:0", ...env } })
    const log = new LogReader(child.stderr)
    const url = await log.find(/msg=listening url=(\S+)\s/)
    if (url !== undefined) return new Server(child, url)
    throw new Error(`the server ended: ${log.text}`)
  }

  /** Puts a GGUF file into the store, or another one, under a name; with a Go template if there is one. */
  install(
    name: string,
    file: string,
    { template, store = this.store }: { template?: string; store?: string } = {},
  ): void {
    const content = readFileSync(file)
    const blob = (data: Uint8Array | string, mediaType: string) => {
      const hex = createHash("sha256").update(data).digest("hex")
      mkdirSync(join(store, "blobs"), { recursive: true })
      writeFileSync(join(store, "blobs", `sha256-${hex}`), data)
      return { mediaType, digest: `sha256:${hex}`, size: Buffer.byteLength(data) }
    }
    const manifest = {
      schemaVersion: 2,
      mediaType: "application/vnd.docker.distribution.manifest.v2+json",
      config: blob(
        JSON.stringify({
          model_format: "gguf",
          model_family: "qwen3",
          model_type: "1M",
          file_type: "Q8_0",
        }),
        "application/vnd.docker.container.image.v1+json",
      ),
      layers: [
        blob(content, "application/vnd.ollama.image.model"),
        ...(template === undefined
          ? []
          : [blob(template, "application/vnd.ollama.image.template")]),
      ],
    }
    const folder = join(store, "manifests/registry.ollama.ai/library", name)
    mkdirSync(folder, { recursive: true })
    writeFileSync(join(folder, "latest"), JSON.stringify(manifest))
  }

  /** Process ids of all that run our copy of the executable. */
  processes(): number[] {
    return readdirSync("/proc")
      .filter((name) => /^\d+$/.test(name))
      .filter((pid) => executableOf(pid) === this.executable)
      .map(Number)
  }

  /** Waits until nothing of ours runs. */
  async quiet(): Promise<void> {
    await until(() => this.processes().length === 0)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const pid of this.processes()) killIfThere(pid)
    await this.quiet()
    rmSync(this.folder, { recursive: true, force: true })
  }
}

/** Time in milliseconds that {@link until} waits: less than a test may take, so that it can say what did not come. */
const UNTIL_MS = 100_000

/** Waits until a condition holds, however slow the machine is. */
export async function until(holds: () => boolean | Promise<boolean>): Promise<void> {
  const end = performance.now() + UNTIL_MS
  while (!(await holds())) {
    if (performance.now() > end) throw new Error(`never came true: ${String(holds)}`)
    await Bun.sleep(20)
  }
}

/** Reads a stream to its end in the background. */
export class LogReader {
  text = ""
  readonly #ended: Promise<void>
  #onText: () => void = () => {}

  constructor(stream: ReadableStream<Uint8Array>) {
    this.#ended = this.#read(stream)
  }

  /** The first group of the first match; undefined when the stream ends without one. */
  async find(pattern: RegExp): Promise<string | undefined> {
    for (;;) {
      const found = pattern.exec(this.text)?.[1]
      if (found !== undefined) return found
      const more = new Promise<boolean>((resolve) => {
        this.#onText = () => resolve(true)
      })
      if (!(await Promise.race([more, this.#ended.then(() => false)]))) return undefined
    }
  }

  async #read(stream: ReadableStream<Uint8Array>): Promise<void> {
    const decoder = new TextDecoder()
    for await (const chunk of stream) {
      this.text += decoder.decode(chunk, { stream: true })
      this.#onText()
    }
  }
}

/** A server that listens. */
export class Server implements AsyncDisposable {
  readonly child: Running
  readonly url: string

  constructor(child: Running, url: string) {
    this.child = child
    this.url = url
  }

  /** Process ids of its runners. */
  get runners(): number[] {
    const path = `/proc/${this.child.pid}/task/${this.child.pid}/children`
    return readFileSync(path, "utf8")
      .split(" ")
      .filter((pid) => pid.trim() !== "")
      .map(Number)
  }

  /** Process id of its first runner. */
  get runner(): number {
    const [runner] = this.runners
    if (runner === undefined) throw new Error("the server has no runner")
    return runner
  }

  /** Waits until it has no runners. */
  async idle(): Promise<void> {
    await until(() => this.runners.length === 0)
  }

  /** Waits until the engine of its first model has so many requests that run or wait. */
  async busy(counts: { readonly running?: number; readonly waiting?: number }): Promise<void> {
    await until(async () => {
      const { models } = (await this.json("/api/ps")) as {
        models: { engine?: Record<string, unknown> }[]
      }
      return Object.entries(counts).every(([key, count]) => models[0]?.engine?.[key] === count)
    })
  }

  post(path: string, body: unknown, signal?: AbortSignal): Promise<Response> {
    return fetch(`${this.url}${path}`, {
      method: "POST",
      body: typeof body === "string" ? body : JSON.stringify(body),
      ...(signal === undefined ? {} : { signal }),
    })
  }

  /** A reply of JSON. */
  async json(path: string, body?: unknown): Promise<Record<string, unknown>> {
    const response =
      body === undefined ? await fetch(`${this.url}${path}`) : await this.post(path, body)
    // Tests look at what is there.
    return (await response.json()) as Record<string, unknown>
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.child.kill("SIGTERM")
    await this.child.exited
  }
}

/** The objects of an NDJSON reply. */
export async function ndjson(response: Response): Promise<Record<string, unknown>[]> {
  const text = await response.text()
  return text
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line) as Record<string, unknown>)
}

/** Reads an NDJSON reply until `count` lines have come, and leaves the rest to the caller. */
export async function firstLines(
  response: Response,
  count: number,
): Promise<{ rest: () => Promise<string> }> {
  const reader = (response.body ?? new ReadableStream()).getReader()
  const decoder = new TextDecoder()
  let text = ""
  while (text.split("\n").length <= count) {
    const { value, done } = await reader.read()
    if (done) break
    text += decoder.decode(value as Uint8Array, { stream: true })
  }
  return {
    async rest() {
      for (;;) {
        const { value, done } = await reader.read()
        if (done) return text
        text += decoder.decode(value as Uint8Array, { stream: true })
      }
    },
  }
}

function linkOrCopy(from: string, to: string): void {
  if (!existsSync(from))
    throw new Error(`${from} is not built; run npm test, or bun scripts/build.ts`)
  try {
    linkSync(from, to)
  } catch {
    cpSync(from, to)
  }
}

function executableOf(pid: string): string {
  try {
    return readlinkSync(`/proc/${pid}/exe`)
  } catch {
    // It has ended, or is another user's.
    return ""
  }
}

function killIfThere(pid: number): void {
  try {
    process.kill(pid, "SIGKILL")
  } catch {
    // It has ended meanwhile.
  }
}

/** Bytes of memory that a process has for itself: without the pages of its executable, which are the system's. */
export function residentBytes(pid: number): number {
  const status = readFileSync(`/proc/${pid}/status`, "utf8")
  return Number(/RssAnon:\s+(\d+) kB/.exec(status)?.[1] ?? 0) * 1024
}
