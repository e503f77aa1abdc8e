/**
 * Starts cria and llama.cpp's own server on the same model with the same settings, and asks both the same.
 *
 * @module
 */

import { join } from "node:path"

import { buildFolder } from "../scripts/native/build.ts"

const ROOT = join(import.meta.dirname, "..")

/** Full contexts that cria makes room for when it is not told how many: see src/model/fit.ts. */
const FULL_CONTEXTS = 4

/** Settings that both get. */
export interface Setting {
  readonly model: string
  readonly threads: number
  /** Requests at once. */
  readonly parallel: number
  /** Most tokens of one request. */
  readonly contextTokens: number
  /** KV cells of all requests together; default: a full context for each. */
  readonly cells?: number
}

/** What one request saw. Milliseconds from sending it. */
export interface Timing {
  readonly firstMs: number
  readonly lastMs: number
  /** The server's own count; 0 when the answer broke off. */
  readonly tokens: number
  /** When pieces of text arrived, on the clock of `performance.now()`. */
  readonly arrivals: readonly number[]
}

/** A message of a chat. */
export interface ChatMessage {
  readonly role: "system" | "user" | "assistant"
  readonly content: string
}

/** Which program. `server-1` is llama-server with one slot, which is how Ollama runs it. */
export type ContenderName = "cria" | "server" | "server-1"

/** A server under measurement. */
export interface Contender extends AsyncDisposable {
  readonly name: ContenderName
  /**
   * Streams an answer of exactly `tokens` tokens. With a signal the answer can be left; what arrived until then counts.
   *
   * @throws {Error} What the server said instead of an answer.
   */
  ask(prompt: string, tokens: number, signal?: AbortSignal): Promise<Timing>
  /** Answers a chat. @returns Tokens of its prompt, and how many of them were computed. */
  chat(messages: readonly ChatMessage[], tokens: number): Promise<PromptCount>
  /** What cria's engine counted so far, as `/api/ps` has it; empty for others. */
  counters(): Promise<Readonly<Record<string, number>>>
}

/** Tokens of a prompt. */
export interface PromptCount {
  readonly promptTokens: number
  readonly computedTokens: number
}

/** Folder of llama.cpp's programs, from the same build. */
export function peerFolder(): string {
  return join(buildFolder("cpu"), "bin")
}

/** Starts a contender and warms it up. */
export async function start(name: ContenderName, setting: Setting): Promise<Contender> {
  const contender =
    name === "cria"
      ? await startCria(setting)
      : await startServer(name, name === "server" ? setting : { ...setting, parallel: 1 })
  await Promise.all([1, 2, 3].map((i) => contender.ask(`warm up number ${i}`, 8)))
  return contender
}

/** Starts cria from this checkout. */
async function startCria({ cells, ...setting }: Setting): Promise<Contender> {
  const contextTokens =
    cells === undefined ? setting.contextTokens : Math.floor(cells / FULL_CONTEXTS)
  const child = Bun.spawn(
    [process.execPath, join(ROOT, "src/main.ts"), "serve", "--private", "--file", setting.model],
    {
      stdin: "pipe",
      stdout: "pipe",
      stderr: "ignore",
      env: {
        ...process.env,
        CRIA_HOST: "127.0.0.1:0",
        CRIA_THREADS: String(setting.threads),
        OLLAMA_NUM_PARALLEL: cells === undefined ? String(setting.parallel) : "0",
        OLLAMA_CONTEXT_LENGTH: String(contextTokens),
        OLLAMA_KEEP_ALIVE: "-1",
      },
    },
  )
  const { value } = await child.stdout.getReader().read()
  const url = new TextDecoder().decode(value).trim()
  const { models } = (await (await fetch(`${url}/api/tags`)).json()) as {
    models: { name: string }[]
  }
  const model = models.find(({ name }) => name !== "demo:latest")?.name ?? ""
  return {
    name: "cria",
    ask(prompt, tokens, signal) {
      const options = { temperature: 0, num_predict: tokens }
      return stream(`${url}/api/generate`, { model, prompt, raw: true, options }, signal)
    },
    chat: (messages, tokens) => chat(url, { model, messages, max_tokens: tokens }),
    async counters() {
      const reply = (await (await fetch(`${url}/api/ps`)).json()) as {
        models: { engine?: Record<string, unknown> }[]
      }
      const counts = Object.entries(reply.models[0]?.engine ?? {})
      return Object.fromEntries(
        counts.flatMap(([key, count]) => (typeof count === "number" ? [[key, count]] : [])),
      )
    },
    async [Symbol.asyncDispose]() {
      await child.stdin.end()
      await child.exited
    },
  }
}

/** Starts llama-server with the same settings; what it does not ask for by default is what serves it best. */
async function startServer(name: ContenderName, setting: Setting): Promise<Contender> {
  const { parallel, contextTokens, cells = contextTokens * parallel } = setting
  const port = 18_000 + Math.floor(Math.random() * 20_000)
  const flags = {
    "--model": setting.model,
    "--threads": String(setting.threads),
    "--ctx-size": String(cells),
    "--parallel": String(parallel),
    "--load-mode": "none",
    "--host": "127.0.0.1",
    "--port": String(port),
  }
  const command = [
    join(peerFolder(), "llama-server"),
    ...Object.entries(flags).flat(),
    "--kv-unified",
  ]
  const child = Bun.spawn(command, { stdin: "ignore", stdout: "ignore", stderr: "ignore" })
  const kill = () => child.kill("SIGKILL")
  process.on("exit", kill)
  const url = `http://127.0.0.1:${port}`
  await until(async () => (await fetch(`${url}/health`)).ok)
  return {
    name,
    ask(prompt, tokens, signal) {
      const sampling = { n_predict: tokens, temperature: 0, ignore_eos: true }
      return stream(
        `${url}/completion`,
        { prompt, ...sampling, cache_prompt: true, stream: true },
        signal,
      )
    },
    chat: (messages, tokens) => chat(url, { messages, max_tokens: tokens, cache_prompt: true }),
    counters: () => Promise.resolve({}),
    async [Symbol.asyncDispose]() {
      process.off("exit", kill)
      kill()
      await child.exited
    },
  }
}

async function until(condition: () => Promise<boolean>): Promise<void> {
  for (let tries = 0; tries < 600; tries++) {
    if (await condition().catch(() => false)) return
    await Bun.sleep(100)
  }
  throw new Error("llama-server did not start within a minute")
}

/**
 * Nothing is given up because it is slow: that is what is measured. Each request has a connection of its own, since
 * llama-server closes those that are not used for seconds, perhaps just when a request is sent.
 */
const PATIENCE = { timeout: false, keepalive: false } as RequestInit

/** Sends a request and times its pieces of text; the token count is the server's own. */
async function stream(url: string, body: object, signal?: AbortSignal): Promise<Timing> {
  const started = performance.now()
  const decoder = new TextDecoder()
  const arrivals: number[] = []
  let text = ""
  try {
    const response = await fetch(url, {
      method: "POST",
      body: JSON.stringify(body),
      ...PATIENCE,
      ...(signal === undefined ? {} : { signal }),
    })
    if (!response.ok || response.body === null) throw new Error(`${url}: ${await response.text()}`)
    for await (const chunk of response.body) {
      arrivals.push(performance.now())
      text += decoder.decode(chunk, { stream: true })
    }
  } catch (error) {
    if (signal?.aborted !== true) throw error
  }
  const counts = [...text.matchAll(/"(?:eval_count|predicted_n)":(\d+)/g)].map(([, digits]) =>
    Number(digits),
  )
  return {
    firstMs: (arrivals[0] ?? Number.NaN) - started,
    lastMs: (arrivals.at(-1) ?? Number.NaN) - started,
    tokens: counts.at(-1) ?? 0,
    arrivals,
  }
}

async function chat(url: string, body: object): Promise<PromptCount> {
  const response = await fetch(`${url}/v1/chat/completions`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ ...body, temperature: 0 }),
    ...PATIENCE,
  })
  if (!response.ok) throw new Error(`${url}: ${await response.text()}`)
  const { usage, timings } = (await response.json()) as {
    usage: { prompt_tokens: number; prompt_tokens_details?: { cached_tokens: number } }
    /** Of llama-server only. */
    timings?: { prompt_n: number }
  }
  const cached = usage.prompt_tokens_details?.cached_tokens ?? Number.NaN
  return {
    promptTokens: usage.prompt_tokens,
    computedTokens: timings?.prompt_n ?? usage.prompt_tokens - cached,
  }
}
