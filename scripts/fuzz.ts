/**
 * `npm run fuzz`: gives every reader of what others write whatever comes, for as long as you like.
 *
 *   npm run fuzz -- [--seconds 60] [--only name,manifest,modelfile,template,gguf,safetensors,conversion]
 *
 * One fuzzer after the other, each for so many seconds. Ends with the first that finds something; what it has found, and
 * the seed that finds it again, are in the output.
 *
 * @module
 */

import { join } from "node:path"
import { parseArgs } from "node:util"

const ROOT = join(import.meta.dirname, "..")

/** The tests of each fuzzer. */
const FUZZERS: Readonly<Record<string, string>> = {
  name: "src/store/name.test.ts",
  manifest: "src/store/manifest.test.ts",
  modelfile: "src/modelfile/parse.test.ts",
  template: "src/template/fuzz.test.ts",
  gguf: "src/gguf/fuzz.test.ts",
  safetensors: "src/convert/safetensors.test.ts",
  conversion: "src/convert/fuzz.test.ts",
}

/** Seconds, for what the runner itself does. */
const GRACE_SECONDS = 60

async function fuzz(name: string, path: string, seconds: number): Promise<boolean> {
  console.error(`\n${name}: ${seconds} s …`)
  const timeoutMs = 1000 * (seconds + GRACE_SECONDS)
  const child = Bun.spawn([process.execPath, "test", `--timeout=${timeoutMs}`, `./${path}`], {
    cwd: ROOT,
    env: { ...process.env, CRIA_FUZZ_SECONDS: String(seconds) },
    stdout: "inherit",
    stderr: "inherit",
  })
  return (await child.exited) === 0
}

async function main(): Promise<number> {
  const { values } = parseArgs({
    options: {
      seconds: { type: "string", default: "60" },
      only: { type: "string", default: Object.keys(FUZZERS).join(",") },
    },
  })
  const seconds = Number(values.seconds)
  const names = values.only.split(",")
  const unknown = names.find((name) => !Object.hasOwn(FUZZERS, name))
  if (unknown !== undefined || !(seconds > 0)) {
    const wrong = unknown === undefined ? `--seconds ${values.seconds}` : `--only ${unknown}`
    console.error(
      `Cannot use ${wrong}: expected a number above 0, and some of ${Object.keys(FUZZERS).join(", ")}`,
    )
    return 1
  }
  for (const name of names) {
    // They would slow each other down.
    // oxlint-disable-next-line no-await-in-loop
    if (!(await fuzz(name, FUZZERS[name] ?? "", seconds))) return 1
  }
  console.log(`nothing found: ${names.join(", ")}`)
  return 0
}

process.exit(await main())
