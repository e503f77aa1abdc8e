/**
 * The command line: which commands there are, and how their arguments are read.
 *
 * @module
 */

import { Command, CommanderError } from "commander"

import { type Config, readConfig } from "../config.ts"
import { versionText } from "../version.ts"
import type { RunFlags } from "./commands/run.ts"
import type { ServeFlags } from "./commands/serve.ts"
import type { ShowFlags } from "./commands/show.ts"
import { connect } from "./connect.ts"
import { printError } from "./output.ts"

/** Runs a command. Errors go to stderr in one line, and the exit status is 1. */
export async function cliMain(args: readonly string[]): Promise<void> {
  // Whoever reads our output may stop reading, as head does; a server of our own ends with us.
  process.stdout.on("error", () => process.exit(1))
  try {
    const config = readConfig(process.env, (warning) => console.error(`Warning: ${warning}`))
    const program = createProgram(config)
    if (args.length === 0) program.outputHelp()
    else await program.parseAsync([...args], { from: "user" })
  } catch (error) {
    if (error instanceof CommanderError && error.exitCode === 0) return
    printError(error instanceof CommanderError ? new Error(wording(error)) : error)
    process.exitCode = 1
  }
}

/** The table of commands. */
function createProgram(config: Config): Command {
  const program = new Command("cria")
    .description("Run language models on your own machine")
    .version(versionText(), "-v, --version")
    .helpCommand("help [command]", "Help about a command")
    .configureOutput({ outputError: () => {}, writeErr: () => {} })
    .exitOverride()
    .showHelpAfterError(false)
  addServe(program, config)
  addRun(program, config)
  addShow(program, config)
  addLists(program, config)
  return program
}

function addServe(program: Command, config: Config): void {
  program
    .command("serve")
    .alias("start")
    .description("Start the server")
    .option("--private", "", false)
    .option("--file <path>")
    .helpOption("-h, --help", "Help for serve")
    .configureHelp({ visibleOptions: () => [] })
    .action(async (flags: ServeFlags) => {
      const { serve } = await import("./commands/serve.ts")
      await serve(config, flags)
    })
}

function addRun(program: Command, config: Config): void {
  program
    .command("run <model> [prompt...]")
    .description("Run a model, by its name or the path of a GGUF file")
    .option("--keepalive <duration>", "how long the model stays loaded afterwards (5m)")
    .option("--verbose", "show timings for the answer")
    .option("--format <format>", "format of the answer: json, or a JSON schema")
    .option("--think [value]", "think first: true, false, high, medium, low, max")
    .option("--hidethinking", "do not show what the model thinks")
    .option("--nowordwrap", "leave lines as the model wrote them, which is always so")
    .action(async (model: string, prompt: string[], flags: RunFlags) => {
      const { run } = await import("./commands/run.ts")
      await run(config, model, prompt, flags)
    })
}

function addShow(program: Command, config: Config): void {
  program
    .command("show <model>")
    .description("Show what a model is")
    .option("--license", "show its license")
    .option("--modelfile", "show its Modelfile")
    .option("--parameters", "show its parameters")
    .option("--system", "show its system message")
    .option("--template", "show its template")
    .option("-v, --verbose", "show all metadata and tensors")
    .action(async (model: string, flags: ShowFlags) => {
      const { show } = await import("./commands/show.ts")
      await show(await connect(config), model, flags)
    })
}

function addLists(program: Command, config: Config): void {
  program
    .command("list [prefix]")
    .alias("ls")
    .description("List installed models")
    .action(async (prefix: string | undefined) => {
      const { list } = await import("./commands/list.ts")
      await list(await connect(config), prefix)
    })
  program
    .command("ps [prefix]")
    .description("List loaded models")
    .action(async (prefix: string | undefined) => {
      const { ps } = await import("./commands/list.ts")
      await ps(await connect(config), prefix)
    })
  program
    .command("stop <model>")
    .description("Unload a model")
    .action(async (model: string) => {
      const { stop } = await import("./commands/list.ts")
      await stop(await connect(config), model)
    })
}

/** Commander's complaints in the words of Ollama's command line. */
function wording(error: CommanderError): string {
  const [, quoted = ""] = /'([^']*)'/.exec(error.message) ?? []
  switch (error.code) {
    case "commander.unknownCommand":
      return `unknown command "${quoted}" for "cria"`
    case "commander.unknownOption":
      return `unknown flag: ${quoted}`
    case "commander.missingArgument":
      return "requires at least 1 arg(s), only received 0"
    default:
      return error.message.replace(/^error: /, "")
  }
}
