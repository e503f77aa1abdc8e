/**
 * `bun bench/models.ts`: what is done with model files, beside llama.cpp's own tools from the same source.
 *
 *   bun bench/models.ts [--rounds 5]
 *
 * Listing a store of 500 models; quantising a model of the shape of Qwen2.5-0.5B, whose peer is `llama-quantize`
 * (`npm run native -- cpu --peers` builds it). Both sides take turns; run nothing else meanwhile.
 *
 * @module
 */

import { existsSync, mkdirSync, mkdtempSync, rmSync, statSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { parseArgs } from "node:util"

import { cacheFolder } from "../scripts/build-native.ts"
import { makeModel } from "../scripts/make-model.ts"
import { buildFolder } from "../scripts/native/build.ts"
import { openStore } from "../src/store/folder-store.ts"
import { readConfig } from "../src/store/store.ts"
import { TestStore } from "../src/store/test-store.ts"
import { compare, formatComparisons, median } from "./measure.ts"

const ROOT = join(import.meta.dirname, "..")
const MODELS = 500

const RIVAL = { name: "llama-quantize", goal: 1 }

/** Milliseconds that a list takes as `/api/tags` makes it: manifests and configs are read. */
function listTimes(rounds: number): number[] {
  using store = new TestStore()
  for (let i = 0; i < MODELS; i++) store.weights(`model-${i}`)
  const folder = openStore(store.root, { readOnly: true })
  return Array.from({ length: rounds }, () => {
    const start = performance.now()
    for (const { manifest } of folder.list().models) readConfig(folder, manifest)
    return performance.now() - start
  })
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
  const folder = mkdtempSync(join(tmpdir(), "cria-bench-"))
  const [output, theirOutput] = [join(folder, "cria.gguf"), join(folder, "llama.gguf")]
  const job = JSON.stringify({ input, output, type })
  const ours: Cost[] = []
  const theirs: Cost[] = []
  try {
    for (let round = 0; round < rounds; round++) {
      // One after the other: they would slow each other down.
      ours.push(await run([process.execPath, join(ROOT, "src/main.ts"), "quantize-worker", job]))
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
const times = listTimes(Math.max(rounds, 5))
console.log(`list of ${MODELS} models: ${median(times).toFixed(1)} ms (goal: 50 ms)`)
await quantization("Q4_K_M", rounds)
