#!/usr/bin/env bun
/**
 * Where the executable starts: as a runner, or as the command line.
 *
 * Imports only what the chosen part needs, so that short commands start at once. No top-level await: the executable
 * is compiled to bytecode, which cannot have it.
 *
 * @module
 */

async function main(args: readonly string[]): Promise<void> {
  const [first] = args
  if (first === "runner") {
    const { runnerMain } = await import("./runner/main.ts")
    await runnerMain()
  } else if (first === "quantize-worker") {
    const { quantizeMain } = await import("./runner/quantize-main.ts")
    await quantizeMain(args[1] ?? "")
  } else if (first === "convert-worker") {
    const { convertMain } = await import("./runner/convert-main.ts")
    await convertMain()
  } else if (first === "devices-worker") {
    const { devicesMain } = await import("./runner/devices-main.ts")
    devicesMain()
  } else if (first === "--version" || first === "-v") {
    const { versionText } = await import("./version.ts")
    process.stdout.write(`${versionText()}\n`)
  } else {
    const { cliMain } = await import("./cli/cli.ts")
    await cliMain(args)
  }
}

void main(process.argv.slice(2))
