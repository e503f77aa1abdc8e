/**
 * `npm run bench`: cria beside llama.cpp's own programs from the same source, on a model of the shape of
 * Qwen2.5-0.5B with random weights, Q4_K_M. README.md says what each case is.
 *
 *   npm run bench [-- --rounds 7] [--long-rounds 3] [--threads 2] [--only shared,long] [--beside server] [--quick]
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

import { cacheFolder, ensureNative } from "../scripts/build-native.ts"
import { makeModel } from "../scripts/make-model.ts"
import { physicalCores } from "../src/util/processor.ts"
import { engineCase } from "./decode.ts"
import { hogsCase } from "./hogs.ts"
import { type BenchOptions, type LoadCase, runLoad } from "./load.ts"
import { eightCase, sharedCase, singleCase, unrelatedCase } from "./many.ts"
import { type Comparison, formatComparisons } from "./measure.ts"
import { chatsCase, crampedCase, longCase } from "./mixed.ts"
import { overheadCase } from "./overhead.ts"

const ROOT = join(import.meta.dirname, "..")

/** Sizes of `--quick`, as a part of the whole ones. */
const QUICK = 1 / 4

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

type Case = (options: BenchOptions) => Promise<Comparison[]>

function load<Key extends string>(
  name: string,
  caseOf: (options: BenchOptions) => LoadCase<Key>,
): Record<string, Case> {
  return { [name]: (options) => runLoad(name, caseOf(options), options) }
}

const CASES: Readonly<Record<string, Case>> = {
  overhead: overheadCase,
  engine: engineCase,
  ...load("single", singleCase),
  ...load("parallel", eightCase),
  ...load("shared", sharedCase),
  ...load("unrelated", (options) => unrelatedCase({ promptWords: 200, tokens: 64 }, options)),
  ...load("answers", (options) =>
    unrelatedCase({ promptWords: 16, tokens: 128, goalAlone: 2.5 }, options),
  ),
  ...load("chats", chatsCase),
  ...load("long", longCase),
  ...load("cramped", crampedCase),
  ...load("hogs", hogsCase),
}

async function main(): Promise<void> {
  // So that what was started is ended too.
  for (const signal of ["SIGINT", "SIGTERM"]) process.on(signal, () => process.exit(1))
  const { values } = parseArgs({
    options: {
      rounds: { type: "string", default: "7" },
      "long-rounds": { type: "string", default: "3" },
      threads: { type: "string", default: String(physicalCores()) },
      only: { type: "string", default: Object.keys(CASES).join(",") },
      beside: { type: "string", default: "server,server-1" },
      quick: { type: "boolean", default: false },
    },
  })
  await ensureNative("cpu", "source", true)
  const options: BenchOptions = {
    path: await model(),
    threads: Number(values.threads),
    rounds: Number(values.rounds),
    longRounds: Number(values["long-rounds"]),
    scale: values.quick ? QUICK : 1,
    beside: values.beside.split(","),
  }
  const { rounds, longRounds, threads } = options
  const machine = `${cpus()[0]?.model ?? "unknown"}, ${threads} threads, ${rounds} and ${longRounds} rounds`
  const results: Comparison[] = []
  for (const name of values.only.split(",")) {
    const run = CASES[name]
    if (run === undefined)
      throw new Error(`There is no case "${name}": ${Object.keys(CASES).join(", ")}`)
    results.push(...(await run(options)))
    // After each case: a later one that fails takes nothing with it.
    const report = `${JSON.stringify({ machine, results }, null, 2)}\n`
    writeFileSync(join(ROOT, "dist/bench.json"), report)
  }
  console.log(`${machine}\n\n${formatComparisons(results)}`)
}

await main()
