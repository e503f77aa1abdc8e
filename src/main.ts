#!/usr/bin/env bun
/**
 * Where the executable starts: as a runner, or as the command line.
 *
 * Imports only what the chosen part needs, so that short commands start at once.
 *
 * @module
 */

const [, , first] = process.argv

if (first === "runner") {
  const { runnerMain } = await import("./runner/main.ts")
  await runnerMain()
} else if (first === "--version" || first === "-v") {
  const { LLAMA_COMMIT, LLAMA_VERSION, VERSION } = await import("./version.ts")
  process.stdout.write(`cria version is ${VERSION}\nllama.cpp ${LLAMA_VERSION} (${LLAMA_COMMIT})\n`)
} else {
  const { cliMain } = await import("./cli/cli.ts")
  await cliMain(process.argv.slice(2))
}
