/**
 * A load that several contenders take in turns: what a case says of itself, and the rounds over it.
 *
 * @module
 */

import { loadavg } from "node:os"

import {
  type Contender,
  type ContenderName,
  type Setting,
  start,
  type Timing,
} from "./contenders.ts"
import { type Comparison, compare, type Figure } from "./measure.ts"

/** What all cases get. */
export interface BenchOptions {
  readonly path: string
  readonly threads: number
  /** Rounds of short cases. */
  readonly rounds: number
  /** Rounds of cases that take minutes each. */
  readonly longRounds: number
  /** 1, or less for a quick look: sizes of loads are multiplied by it. */
  readonly scale: number
  /** Rivals that take part. */
  readonly beside: readonly string[]
}

type Rival = Exclude<ContenderName, "cria">

/** Everything that is measured on a machine under one load. */
export interface LoadCase<Key extends string = string> {
  readonly setting: Omit<Setting, "model" | "threads">
  readonly isLong: boolean
  /** Whom cria stands beside. */
  readonly rivals: readonly Rival[]
  /** Figures, each with the least ratio that is wanted beside a rival. */
  readonly figures: Readonly<Record<Key, Figure & Partial<Record<Rival, number>>>>
  /** One round of one contender. */
  measure(contender: Contender): Promise<Record<Key, number>>
}

/** Starts the contenders of a case, lets them take turns, compares. */
export async function runLoad<Key extends string>(
  name: string,
  load: LoadCase<Key>,
  options: BenchOptions,
): Promise<Comparison[]> {
  const setting = { ...load.setting, model: options.path, threads: options.threads }
  await using stack = new AsyncDisposableStack()
  const contenders: Contender[] = []
  const rivals = load.rivals.filter((rival) => options.beside.includes(rival))
  for (const contender of ["cria", ...rivals] as const)
    contenders.push(stack.use(await start(contender, setting)))
  const results = new Map<ContenderName, Record<Key, number>[]>()
  console.error(`${name}: load average ${loadavg()[0]?.toFixed(2)}`)
  for (let round = 0; round < (load.isLong ? options.longRounds : options.rounds); round++) {
    const first = round % contenders.length
    for (const contender of [...contenders.slice(first), ...contenders.slice(0, first)]) {
      const before = await contender.counters()
      const result = await load.measure(contender)
      reportCounters(name, before, await contender.counters())
      results.set(contender.name, [...(results.get(contender.name) ?? []), result])
      console.error(`${name}, round ${round + 1}, ${contender.name}: ${JSON.stringify(result)}`)
    }
  }
  return comparisons({ ...load, rivals }, results)
}

/** Where the time went: what the engine counted during one round. */
function reportCounters(
  name: string,
  before: Readonly<Record<string, number>>,
  after: Readonly<Record<string, number>>,
): void {
  const entries = Object.entries(after).map(([key, value]) => [key, value - (before[key] ?? 0)])
  if (entries.length > 0)
    console.error(`${name}, engine: ${JSON.stringify(Object.fromEntries(entries))}`)
}

function comparisons<Key extends string>(
  load: LoadCase<Key>,
  results: ReadonlyMap<ContenderName, readonly Record<Key, number>[]>,
): Comparison[] {
  // Object.keys widens the keys; the record has exactly these.
  return (Object.keys(load.figures) as Key[]).flatMap((key) => {
    const valuesOf = (name: ContenderName) => (results.get(name) ?? []).map((each) => each[key])
    const { server, "server-1": alone, ...figure } = load.figures[key]
    const goals = { server, "server-1": alone }
    return load.rivals.map((rival) =>
      compare(
        figure,
        { name: RIVAL_NAMES[rival], goal: goals[rival] },
        valuesOf("cria"),
        valuesOf(rival),
      ),
    )
  })
}

const RIVAL_NAMES = { server: "llama-server -np N", "server-1": "llama-server -np 1" }

/** Sends all prompts at once. */
export async function together(
  contender: Contender,
  prompts: readonly string[],
  tokens: number,
): Promise<{ wallMs: number; timings: readonly Timing[] }> {
  const started = performance.now()
  const timings = await Promise.all(prompts.map((prompt) => contender.ask(prompt, tokens)))
  const wallMs = performance.now() - started
  const short = timings.filter((timing) => timing.tokens !== tokens).length
  if (short > 0) console.error(`${contender.name}: ${short} answers have not ${tokens} tokens`)
  return { wallMs, timings }
}

/** Tokens per second of one stream, after its first token. */
export function speedOf({ tokens, firstMs, lastMs }: Timing): number {
  return ((tokens - 1) / (lastMs - firstMs)) * 1000
}
