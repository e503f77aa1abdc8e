/**
 * `npm run demo [prompt]`: from a fresh clone to an answer of the built-in demo model.
 *
 * @module
 */

import { spawn } from "node:child_process"
import { join } from "node:path"

import { ensureNative } from "./build-native.ts"

const ROOT = join(import.meta.dirname, "..")
const DEFAULT_PROMPT = "Hello! Who are you?"

const prompt = process.argv.slice(2).join(" ") || DEFAULT_PROMPT

try {
  await ensureNative("cpu", "any")
} catch (error) {
  console.error(error instanceof Error ? error.message : String(error))
  process.exit(1)
}

console.error(`\n$ cria run demo ${JSON.stringify(prompt)}\n`)
const child = spawn(
  process.execPath,
  [join(ROOT, "src/main.ts"), "run", "demo", "--think=false", prompt],
  {
    stdio: ["ignore", "inherit", "inherit"],
  },
)
child.once("close", (code) => {
  if (code === 0)
    console.error(
      "Next: npm run cria -- run demo     (a conversation)\n      npm run cria -- serve        (the API on localhost:11434)",
    )
  process.exit(code ?? 1)
})
