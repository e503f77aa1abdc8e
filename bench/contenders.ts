/**
 * Starts cria and llama.cpp's own server on the same model with the same settings, and asks both the same.
 *
 * @module
 */

import { join } from "node:path"

import { buildFolder } from "../scripts/native/build.ts"

const ROOT = join(import.meta.dirname, "..")

/** Settings that both get. */
export interface Setting {
  readonly model: string
  readonly threads: number
  /** Tokens of one request. */
  readonly contextTokens: number
  /** Requests at once. */
  readonly parallel: number
}

/** What one request saw. Milliseconds from sending it. */
export interface Timing {
  readonly firstMs: number
  readonly lastMs: number
  readonly tokens: number
}

/** A server under measurement. */
export interface Contender extends AsyncDisposable {
  readonly name: string
  /** Streams an answer of exactly `tokens` tokens to a prompt that it has not seen before. */
  ask(prompt: string, tokens: number): Promise<Timing>
}

/** Folder of llama.cpp's programs, from the same build. */
export function peerFolder(): string {
  return join(buildFolder("cpu"), "bin")
}

/** Starts cria from this checkout. */
export async function startCria(setting: Setting): Promise<Contender> {
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
        OLLAMA_NUM_PARALLEL: String(setting.parallel),
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
  const contender: Contender = {
    name: "cria",
    ask(prompt, tokens) {
      return stream(`${url}/api/generate`, {
        model,
        prompt,
        raw: true,
        options: {
          temperature: 0,
          num_predict: tokens,
          num_ctx: setting.contextTokens,
          use_mmap: false,
        },
      })
    },
    async [Symbol.asyncDispose]() {
      await child.stdin.end()
      await child.exited
    },
  }
  await contender.ask("warm up", 8)
  return contender
}

/** Starts llama-server with the same settings. */
export async function startLlamaServer(setting: Setting): Promise<Contender> {
  const port = 18_000 + Math.floor(Math.random() * 20_000)
  const flags = {
    "--model": setting.model,
    "--threads": String(setting.threads),
    "--ctx-size": String(setting.contextTokens * setting.parallel),
    "--parallel": String(setting.parallel),
    "--load-mode": "none",
    "--host": "127.0.0.1",
    "--port": String(port),
  }
  const child = Bun.spawn([join(peerFolder(), "llama-server"), ...Object.entries(flags).flat()], {
    stdin: "ignore",
    stdout: "ignore",
    stderr: "ignore",
  })
  const url = `http://127.0.0.1:${port}`
  await until(async () => (await fetch(`${url}/health`)).ok)
  const contender: Contender = {
    name: "llama-server",
    ask(prompt, tokens) {
      return stream(`${url}/completion`, {
        prompt,
        n_predict: tokens,
        temperature: 0,
        ignore_eos: true,
        cache_prompt: false,
        stream: true,
      })
    },
    async [Symbol.asyncDispose]() {
      child.kill("SIGKILL")
      await child.exited
    },
  }
  await contender.ask("warm up", 8)
  return contender
}

async function until(condition: () => Promise<boolean>): Promise<void> {
  for (let tries = 0; tries < 600; tries++) {
    if (await condition().catch(() => false)) return
    await Bun.sleep(100)
  }
  throw new Error("llama-server did not start within a minute")
}

/** Sends a request and times its pieces of text; the token count is the server's own. */
async function stream(url: string, body: object): Promise<Timing> {
  const started = performance.now()
  const response = await fetch(url, { method: "POST", body: JSON.stringify(body) })
  if (!response.ok || response.body === null) throw new Error(`${url}: ${await response.text()}`)
  const decoder = new TextDecoder()
  let firstMs = 0
  let lastMs = 0
  let text = ""
  for await (const chunk of response.body) {
    lastMs = performance.now() - started
    if (firstMs === 0) firstMs = lastMs
    text += decoder.decode(chunk, { stream: true })
  }
  const counts = [...text.matchAll(/"(?:eval_count|predicted_n)":(\d+)/g)].map(([, digits]) =>
    Number(digits),
  )
  return { firstMs, lastMs, tokens: counts.at(-1) ?? 0 }
}
