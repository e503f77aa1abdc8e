/**
 * How fast the engine decodes one stream, beside llama.cpp's own bench tool.
 *
 * The engine works in a process of its own, as runners do, with their environment: large pages and the like are
 * decided when a process starts.
 *
 * @module
 */

import { join } from "node:path"

import { RUNNER_ENVIRONMENT } from "../src/runner/handle.ts"
import { linesOf } from "../src/util/lines.ts"
import { peerFolder } from "./contenders.ts"
import type { BenchOptions } from "./load.ts"
import { type Comparison, compare } from "./measure.ts"

const DECODE_TOKENS = 64

/** Rounds are short: there can be more of them. */
const ROUNDS_FACTOR = 3

/** One stream through the engine, without HTTP. */
export async function engineCase({ path, threads, rounds }: BenchOptions): Promise<Comparison[]> {
  await using decoder = startDecoder(path, threads)
  await decoder.decode(16)
  const ours: number[] = []
  const theirs: number[] = []
  for (let round = 0; round < rounds * ROUNDS_FACTOR; round++) {
    ours.push(await decoder.decode(DECODE_TOKENS))
    theirs.push(await llamaBench(path, threads, DECODE_TOKENS))
    console.error(
      `engine, round ${round + 1}: ${ours.at(-1)?.toFixed(1)} against ${theirs.at(-1)?.toFixed(1)} tokens/s`,
    )
  }
  const what = { name: "one stream, engine alone", unit: "tok/s", better: "more" } as const
  return [compare(what, { name: "llama-bench", goal: 0.97 }, ours, theirs)]
}

/** The process of {@link file://./decoder.ts}. */
function startDecoder(path: string, threads: number) {
  const child = Bun.spawn(
    [process.execPath, join(import.meta.dirname, "decoder.ts"), path, String(threads)],
    {
      stdin: "pipe",
      stdout: "pipe",
      stderr: "inherit",
      env: { ...RUNNER_ENVIRONMENT, ...process.env },
    },
  )
  const lines = linesOf(child.stdout)
  return {
    /** @returns Tokens per second. */
    async decode(tokens: number): Promise<number> {
      void child.stdin.write(`${tokens}\n`)
      void child.stdin.flush()
      const { value, done } = await lines.next()
      if (done === true) throw new Error("the engine's process ended")
      return Number(value)
    },
    async [Symbol.asyncDispose]() {
      await child.stdin.end()
      await child.exited
    },
  }
}

/** The same by llama-bench, which decodes random tokens and samples none. */
async function llamaBench(path: string, threads: number, tokens: number): Promise<number> {
  const flags = {
    "-m": path,
    "-t": String(threads),
    "-p": "0",
    "-n": String(tokens),
    "-r": "1",
    "-lm": "none",
    "-fa": "auto",
    "-o": "json",
  }
  const command = [join(peerFolder(), "llama-bench"), ...Object.entries(flags).flat()]
  const child = Bun.spawn(command, { stdout: "pipe", stderr: "ignore" })
  const [result] = (await new Response(child.stdout).json()) as { avg_ts: number }[]
  return result?.avg_ts ?? Number.NaN
}
