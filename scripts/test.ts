/**
 * `npm test`: everything, in the order of how fast it fails.
 *
 *   npm test [-- --only <stage>[,<stage>]]
 *
 * Checks (format, lint, types, house rules, dead code) count only when they fail; the last line counts tests.
 *
 * @module
 */

import { mkdtempSync, readFileSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { delimiter, join } from "node:path"
import { parseArgs } from "node:util"

const ROOT = join(import.meta.dirname, "..")
const BIN = join(ROOT, "node_modules/.bin")
const LINTED = ["src", "ffi", "scripts", "tests", "bench", "examples"]

/** How a stage went. */
interface Count {
  readonly passed: number
  readonly failed: number
  readonly skipped: number
}

/** A stage: a command, and how to read its outcome. */
interface Stage {
  readonly name: string
  readonly command: readonly string[]
  readonly count: (exitCode: number, output: string) => Count
  /** Stages that have to have passed before. */
  readonly after?: readonly string[]
  readonly env?: Readonly<Record<string, string>>
}

const folder = mkdtempSync(join(tmpdir(), "cria-test-"))

function check(name: string, command: readonly string[]): Stage {
  return { name, command, count: (code) => ({ passed: 0, failed: code === 0 ? 0 : 1, skipped: 0 }) }
}

/**
 * Milliseconds that one test may take: what ends a test that hangs. It has to be long enough for tests that start
 * processes or load models, on a machine that does other things.
 */
const TEST_MS = 120_000

/** Tests talk to servers on this machine: a proxy that the user has is not for them. */
const NO_PROXY = [process.env["NO_PROXY"] ?? process.env["no_proxy"], "127.0.0.1", "localhost"]
  .filter(Boolean)
  .join(",")

/** A run of `bun test`, counted from its JUnit report. */
function bunTests(name: string, paths: readonly string[], after: readonly string[] = []): Stage {
  const report = join(folder, `${name}.xml`)
  return {
    name,
    after,
    command: [
      "bun",
      "test",
      `--timeout=${TEST_MS}`,
      "--reporter=junit",
      `--reporter-outfile=${report}`,
      ...paths,
    ],
    count: (code) => countJunit(report, code),
  }
}

/** Native tests that take minutes and are about the engine, which is the same under both runtimes. */
const ONCE = ["sharing", "window"].map((name) => `tests/native/${name}.native.test.ts`)

const STAGES: readonly Stage[] = [
  check("format", ["oxfmt", "--check", ...LINTED]),
  check("lint", ["oxlint", ...LINTED]),
  check("types", ["tsc", "--noEmit"]),
  check("types-deno", [
    "deno",
    "check",
    "--quiet",
    "src/index.ts",
    "ffi/deno.ts",
    "examples/embed-deno.ts",
  ]),
  check("house-rules", ["bun", "scripts/check.ts"]),
  check("dead-code", ["knip"]),
  bunTests("unit", ["./src", "./scripts", "./tests/templates"]),
  bunTests("simulation", ["./tests/simulation"]),
  check("native", ["bun", "scripts/build-native.ts", "cpu", "--from", "source", "--with-source"]),
  bunTests("native-bun", ["./tests/native"], ["native"]),
  {
    name: "native-deno",
    after: ["native"],
    command: [
      "deno",
      "test",
      "--allow-all",
      "--no-check",
      "--quiet",
      `--ignore=${ONCE.join(",")}`,
      "tests/native",
    ],
    count: countDeno,
  },
  { ...check("executable", ["bun", "scripts/build.ts"]), after: ["native"] },
  bunTests("e2e", ["./tests/e2e"], ["executable"]),
]

function countJunit(report: string, exitCode: number): Count {
  const text = readFileSync(report, { encoding: "utf8", flag: "a+" })
  const head = /<testsuites[^>]*>/.exec(text)?.[0] ?? ""
  const number = (name: string) => Number(new RegExp(`\\b${name}="(\\d+)"`).exec(head)?.[1] ?? 0)
  const failed = number("failures")
  const skipped = number("skipped")
  // A run that broke without failing a test has failed all the same.
  const broken = exitCode !== 0 && failed === 0 ? 1 : 0
  return { passed: number("tests") - failed - skipped, failed: failed + broken, skipped }
}

/** Deno counts groups and calls the tests in them steps. */
function countDeno(exitCode: number, output: string): Count {
  const number = (word: string) => {
    const match = new RegExp(`(\\d+) ${word}(?: \\((\\d+) steps?\\))?`).exec(output)
    return Number(match?.[2] ?? match?.[1] ?? 0)
  }
  const failed = number("failed")
  const broken = exitCode !== 0 && failed === 0 ? 1 : 0
  return { passed: number("passed"), failed: failed + broken, skipped: number("ignored") }
}

/** Runs a command with its output shown and kept. */
async function runStage({
  command: [program = "", ...args],
  env = {},
}: Stage): Promise<[number, string]> {
  const executable = program === "bun" ? process.execPath : join(BIN, program)
  const child = Bun.spawn([executable, ...args], {
    cwd: ROOT,
    stdin: "ignore",
    stdout: "pipe",
    stderr: "pipe",
    env: {
      ...process.env,
      PATH: `${BIN}${delimiter}${process.env["PATH"] ?? ""}`,
      NO_COLOR: "1",
      NO_PROXY,
      no_proxy: NO_PROXY,
      ...env,
    },
  })
  let output = ""
  const show = async (stream: ReadableStream<Uint8Array>) => {
    const decoder = new TextDecoder()
    for await (const chunk of stream) {
      const text = decoder.decode(chunk, { stream: true })
      output += text
      process.stderr.write(text)
    }
  }
  await Promise.all([show(child.stdout), show(child.stderr)])
  return [await child.exited, output]
}

async function main(): Promise<number> {
  const { values } = parseArgs({ options: { only: { type: "string" } } })
  const only = values.only?.split(",")
  const total = { passed: 0, failed: 0, skipped: 0 }
  const failed = new Set<string>()
  for (const [i, stage] of STAGES.entries()) {
    if (only !== undefined && !only.includes(stage.name)) continue
    const missing = stage.after?.find((name) => failed.has(name))
    const title = `[${i + 1}/${STAGES.length}] ${stage.name}`
    if (missing !== undefined) {
      console.error(`${title}: not run, ${missing} failed`)
      failed.add(stage.name)
      continue
    }
    const started = performance.now()
    console.error(`\n${title} …`)
    // Stages build on each other.
    // oxlint-disable-next-line no-await-in-loop
    const [code, output] = await runStage(stage)
    const count = stage.count(code, output)
    if (count.failed > 0) failed.add(stage.name)
    total.passed += count.passed
    total.failed += count.failed
    total.skipped += count.skipped
    const seconds = ((performance.now() - started) / 1000).toFixed(1)
    const tests = count.passed + count.skipped > 0 ? `, ${count.passed} passed` : ""
    console.error(`${title}: ${count.failed === 0 ? "ok" : "FAILED"}${tests} in ${seconds} s`)
  }
  rmSync(folder, { recursive: true, force: true })
  if (failed.size > 0) console.error(`\nfailed: ${[...failed].join(", ")}`)
  const skipped = total.skipped > 0 ? `, ${total.skipped} skipped` : ""
  console.log(`${total.passed} passed, ${total.failed} failed${skipped}`)
  return total.failed === 0 ? 0 : 1
}

process.exit(await main())
