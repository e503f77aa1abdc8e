/**
 * `npm run bench`: cria beside llama.cpp's own programs from the same source, on a model of the shape of
 * Qwen2.5-0.5B with random weights, Q4_K_M.
 *
 *   npm run bench [-- --rounds 7] [-- --threads 2]
 *
 * Everything is warmed up, loaded without mmap, and takes turns; medians of the rounds count. Run nothing else
 * meanwhile. Results go to dist/bench.json.
 *
 * @module
 */

import { existsSync, mkdirSync, writeFileSync } from "node:fs"
import { cpus } from "node:os"
import { join } from "node:path"
import { parseArgs } from "node:util"

import { physicalCores } from "../ffi/machine.ts"
import { cacheFolder, ensureNative } from "../scripts/build-native.ts"
import { makeModel } from "../scripts/make-model.ts"
import { type Contender, startCria, startLlamaServer, type Timing } from "./contenders.ts"
import { createDecoder, llamaBench } from "./decode.ts"
import { type Comparison, compare, formatComparisons } from "./measure.ts"

const ROOT = join(import.meta.dirname, "..")
const DECODE_TOKENS = 64
const STREAM_TOKENS = 64

const WORDS =
  "the of and to in a is that for it as was with be by on not he his but at are this have from or had an they which one you were all her she there would their we him been has when who will no more if out so up said what its about than into them can only other time new some could these two may first then do any like my now over such our man me even most made after also did many".split(
    " ",
  )

/** A prompt of about 1.1 tokens a word that no cache has seen. */
function prompt(words: number, seed: number): string {
  return Array.from(
    { length: words },
    (_, i) => WORDS[(i * 31 + seed * 17 + ((i * seed) % 7)) % WORDS.length],
  ).join(" ")
}

async function model(): Promise<string> {
  const folder = join(cacheFolder(), "bench")
  const path = join(folder, "qwen2.5-0.5b-q4_k_m.gguf")
  if (existsSync(path)) return path
  mkdirSync(folder, { recursive: true })
  console.error("making the model …")
  await makeModel({
    shape: "qwen2.5-0.5b",
    type: "Q4_K_M",
    out: path,
    seed: 1,
    vocabDir: join(ROOT, "vendor/llama.cpp/src/models"),
  })
  return path
}

interface Options {
  readonly path: string
  readonly threads: number
  readonly rounds: number
}

/** (a) One stream through the engine, without HTTP. */
async function engineCase({ path, threads, rounds }: Options): Promise<Comparison[]> {
  await using decoder = await createDecoder(path, threads)
  await decoder.decode(16)
  const ours: number[] = []
  const theirs: number[] = []
  for (let round = 0; round < rounds; round++) {
    ours.push(await decoder.decode(DECODE_TOKENS))
    theirs.push(await llamaBench(path, threads, DECODE_TOKENS))
    console.error(
      `decode, round ${round + 1}: ${ours.at(-1)?.toFixed(1)} against ${theirs.at(-1)?.toFixed(1)} tokens/s`,
    )
  }
  return [
    compare(
      { name: "one stream, engine against llama-bench", unit: "tok/s", goal: 0.97, better: "more" },
      ours,
      theirs,
    ),
  ]
}

const speedOf = ({ tokens, firstMs, lastMs }: Timing) => ((tokens - 1) / (lastMs - firstMs)) * 1000

/** (b) One stream over HTTP: time to the first text, and speed after it. */
async function singleCase({ path, threads, rounds }: Options): Promise<Comparison[]> {
  const setting = { model: path, threads, contextTokens: 1024, parallel: 1 }
  await using cria = await startCria(setting)
  await using llama = await startLlamaServer(setting)
  const ours: Timing[] = []
  const theirs: Timing[] = []
  for (let round = 0; round < rounds; round++) {
    const text = prompt(180, round + 1)
    ours.push(await cria.ask(text, STREAM_TOKENS))
    theirs.push(await llama.ask(text, STREAM_TOKENS))
    console.error(`one stream, round ${round + 1}: ${JSON.stringify([ours.at(-1), theirs.at(-1)])}`)
  }
  return [
    compare(
      { name: "one stream over HTTP, time to first token", unit: "ms", goal: 1, better: "less" },
      ours.map(({ firstMs }) => firstMs),
      theirs.map(({ firstMs }) => firstMs),
    ),
    compare(
      { name: "one stream over HTTP, speed", unit: "tok/s", goal: 1, better: "more" },
      ours.map(speedOf),
      theirs.map(speedOf),
    ),
  ]
}

/** Eight requests at once; tokens of all per second. */
async function together(contender: Contender, round: number): Promise<number> {
  const started = performance.now()
  const timings = await Promise.all(
    Array.from({ length: 8 }, (_, i) =>
      contender.ask(prompt(60, round * 8 + i + 100), STREAM_TOKENS),
    ),
  )
  const tokens = timings.reduce((sum, timing) => sum + timing.tokens, 0)
  return (tokens / (performance.now() - started)) * 1000
}

/** (c) Eight streams at once over HTTP: tokens of all per second, prompts included in the time. */
async function parallelCase({ path, threads, rounds }: Options): Promise<Comparison[]> {
  const setting = { model: path, threads, contextTokens: 1024, parallel: 8 }
  await using cria = await startCria(setting)
  await using llama = await startLlamaServer(setting)
  await together(cria, 99)
  await together(llama, 99)
  const ours: number[] = []
  const theirs: number[] = []
  for (let round = 0; round < rounds; round++) {
    ours.push(await together(cria, round))
    theirs.push(await together(llama, round))
    console.error(
      `eight streams, round ${round + 1}: ${ours.at(-1)?.toFixed(1)} against ${theirs.at(-1)?.toFixed(1)} tokens/s`,
    )
  }
  return [
    compare(
      { name: "eight streams over HTTP, all together", unit: "tok/s", goal: 1, better: "more" },
      ours,
      theirs,
    ),
  ]
}

const CASES = { engine: engineCase, single: singleCase, parallel: parallelCase }

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      rounds: { type: "string", default: "7" },
      threads: { type: "string", default: String(physicalCores()) },
      only: { type: "string" },
    },
  })
  await ensureNative("cpu", "source", true)
  const options = {
    path: await model(),
    threads: Number(values.threads),
    rounds: Number(values.rounds),
  }
  const results: Comparison[] = []
  for (const [name, run] of Object.entries(CASES)) {
    if (values.only === undefined || values.only.split(",").includes(name))
      results.push(...(await run(options)))
  }
  const machine = `${cpus()[0]?.model ?? "unknown"}, ${options.threads} threads, ${options.rounds} rounds`
  writeFileSync(join(ROOT, "dist/bench.json"), `${JSON.stringify({ machine, results }, null, 2)}\n`)
  console.log(`${machine}\n\n${formatComparisons(results)}`)
}

await main()
