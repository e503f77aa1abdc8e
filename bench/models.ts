/**
 * `bun bench/models.ts`: what is done with model files, beside llama.cpp's own tools from the same source.
 *
 *   bun bench/models.ts [--rounds 5]
 *
 * Listing 500 models: the store alone, `GET /api/tags`, and the whole of `cria list`. Quantising a model of the shape of
 * Qwen2.5-0.5B, whose peer is `llama-quantize` (`npm run native -- cpu --peers` builds it). Both sides take turns; run
 * nothing else meanwhile. The executable is measured when it is built (`npm run build`), else the source.
 *
 * @module
 */

import { existsSync, mkdirSync, mkdtempSync, rmSync, statSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { parseArgs } from "node:util"

import { cacheFolder } from "../scripts/build-native.ts"
import { outputFolder } from "../scripts/build.ts"
import { makeModel } from "../scripts/make-model.ts"
import { buildFolder } from "../scripts/native/build.ts"
import { openStore } from "../src/store/folder-store.ts"
import { readConfig } from "../src/store/store.ts"
import { TestStore } from "../src/store/test-store.ts"
import { linesOf } from "../src/util/lines.ts"
import { compare, formatComparisons, median } from "./measure.ts"

const ROOT = join(import.meta.dirname, "..")
const MODELS = 500

const RIVAL = { name: "llama-quantize", goal: 1 }

/** Starts cria. */
const EXECUTABLE = join(outputFolder(), "cria")
const CRIA = existsSync(EXECUTABLE) ? [EXECUTABLE] : [process.execPath, join(ROOT, "src/main.ts")]

/** Milliseconds that the store takes for a list as `/api/tags` makes it: manifests and configs are read. */
function storeTimes(root: string, rounds: number): number[] {
  const folder = openStore(root, { readOnly: true })
  return Array.from({ length: rounds }, () => {
    const start = performance.now()
    for (const { manifest } of folder.list().models) readConfig(folder, manifest)
    return performance.now() - start
  })
}

/** Milliseconds of something that is awaited, several times. */
async function times(rounds: number, action: () => Promise<void>): Promise<number[]> {
  const all: number[] = []
  for (let round = 0; round < rounds; round++) {
    const start = performance.now()
    // One after the other: they would slow each other down.
    // oxlint-disable-next-line no-await-in-loop
    await action()
    all.push(performance.now() - start)
  }
  return all
}

function report(what: string, all: readonly number[], goal = ""): void {
  console.log(`${what} of ${MODELS} models: ${median(all).toFixed(1)} ms${goal}`)
}

/** What a list of many models takes, on every level. */
async function lists(rounds: number): Promise<void> {
  using store = new TestStore()
  for (let i = 0; i < MODELS; i++) store.weights(`model-${i}`)
  report("the store's list", storeTimes(store.root, rounds), " (goal: 50 ms)")
  const env = {
    ...process.env,
    HOME: store.root,
    CRIA_MODELS: store.root,
    CRIA_HOST: "127.0.0.1:0",
  }
  const server = Bun.spawn([...CRIA, "serve"], { env, stdout: "ignore", stderr: "pipe" })
  try {
    let url = ""
    for await (const line of linesOf(server.stderr)) {
      url = /url=(\S+)/.exec(line)?.[1] ?? ""
      if (url !== "") break
    }
    // Files that were written a moment ago are read each time; those of a real store are older.
    await Bun.sleep(4000)
    const tags = async () => void (await (await fetch(`${url}/api/tags`)).text())
    await tags()
    report("GET /api/tags", await times(rounds, tags), " (goal: 50 ms)")
    const clientEnv = { ...env, CRIA_HOST: url.slice("http://".length) }
    const client = (...args: string[]) =>
      times(rounds, async () => {
        await Bun.spawn([...CRIA, ...args], { env: clientEnv, stdout: "ignore" }).exited
      })
    report("cria list", await client("list"))
    report(
      "of it, starting a program that asks the server for nothing",
      await client("list", "--help"),
    )
  } finally {
    server.kill()
    await server.exited
  }
}

/** What a program took. */
interface Cost {
  readonly seconds: number
  /** Most resident memory. */
  readonly megabytes: number
}

async function run(command: readonly string[]): Promise<Cost> {
  const start = performance.now()
  // A child whose stdin is closed takes its parent for gone.
  const child = Bun.spawn([...command], { stdin: "pipe", stdout: "ignore", stderr: "pipe" })
  const complaints = new Response(child.stderr).text()
  await child.exited
  const seconds = (performance.now() - start) / 1000
  if (child.exitCode !== 0) throw new Error(`${command[0]}: ${await complaints}`)
  return { seconds, megabytes: (child.resourceUsage()?.maxRSS ?? 0) / 1e6 }
}

async function floats(): Promise<string> {
  const folder = join(cacheFolder(), "bench")
  const path = join(folder, "qwen2.5-0.5b-f16.gguf")
  if (existsSync(path)) return path
  mkdirSync(folder, { recursive: true })
  console.error("making the model …")
  const vocabDir = join(ROOT, "vendor/llama.cpp/src/models")
  await makeModel({ shape: "qwen2.5-0.5b", type: "F16", out: path, seed: 1, vocabDir })
  return path
}

async function quantization(type: string, rounds: number): Promise<void> {
  const peer = join(buildFolder("cpu"), "bin/llama-quantize")
  if (!existsSync(peer)) {
    console.log(`${peer} is not built: npm run native -- cpu --peers`)
    return
  }
  const input = await floats()
  // In memory where there is such a disk: what one side has written is else flushed while the other one runs.
  const disk = existsSync("/dev/shm") ? "/dev/shm" : tmpdir()
  const folder = mkdtempSync(join(disk, "cria-bench-"))
  const [output, theirOutput] = [join(folder, "cria.gguf"), join(folder, "llama.gguf")]
  const job = JSON.stringify({ input, output, type })
  const ours: Cost[] = []
  const theirs: Cost[] = []
  try {
    for (let round = 0; round < rounds; round++) {
      // One after the other: they would slow each other down.
      ours.push(await run([...CRIA, "quantize-worker", job]))
      theirs.push(await run([peer, input, theirOutput, type]))
    }
    const same = Bun.spawnSync(["cmp", output, theirOutput]).exitCode === 0
    const speed = compare(
      { name: `quantize to ${type}`, unit: "s", better: "less" },
      RIVAL,
      ours.map(({ seconds }) => seconds),
      theirs.map(({ seconds }) => seconds),
    )
    const memory = compare(
      { name: "its peak memory", unit: "MB", better: "less" },
      RIVAL,
      ours.map(({ megabytes }) => megabytes),
      theirs.map(({ megabytes }) => megabytes),
    )
    console.log(formatComparisons([speed, memory]))
    const rate = statSync(input).size / 1e9 / median(speed.ours)
    console.log(`${rate.toFixed(2)} GB/s of F16; the files are ${same ? "the same" : "different"}`)
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

const { values } = parseArgs({ options: { rounds: { type: "string", default: "5" } } })
const rounds = Number(values.rounds)
await lists(Math.max(rounds, 5))
await quantization("Q4_K_M", rounds)
