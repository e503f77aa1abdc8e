/**
 * The command line: which commands there are, and how their arguments are read.
 *
 * @module
 */

import { Command, CommanderError } from "commander"

import { type Config, readConfig, type Variable, VARIABLES } from "../config.ts"
import { errorMessage } from "../util/errors.ts"
import { versionText } from "../version.ts"
import type { ExportFlags, ImportFlags, VerifyFlags } from "./commands/archive.ts"
import type { CreateFlags } from "./commands/create.ts"
import type { ListFlags } from "./commands/list.ts"
import type { RunFlags } from "./commands/run.ts"
import type { ServeFlags } from "./commands/serve.ts"
import type { ShowFlags } from "./commands/show.ts"
import type { PullFlags, TransferFlags } from "./commands/transfer.ts"
import { connect, connectToChange } from "./connect.ts"
import { printError } from "./output.ts"

/**
 * Runs a command. Errors go to stderr in one line, with --json to stdout too, as its last line, and the exit status is 1.
 */
export async function cliMain(args: readonly string[]): Promise<void> {
  // Whoever reads our output may stop reading, as head does; a server of our own ends with us.
  process.stdout.on("error", () => process.exit(1))
  reachLoopbackDirectly()
  const program = new Command("cria")
  try {
    const config = readConfig(process.env, (warning) => console.error(`Warning: ${warning}`))
    fillProgram(program, config)
    if (args.length === 0) program.outputHelp()
    else await program.parseAsync(withThinkValue(args), { from: "user" })
  } catch (error) {
    if (error instanceof CommanderError && error.exitCode === 0) return
    const said = error instanceof CommanderError ? new Error(wording(error, program)) : error
    if (calledCommand(program)?.opts()["json"] === true) {
      console.log(JSON.stringify({ error: errorMessage(said) }))
    }
    printError(said)
    process.exitCode = 1
  }
}

/** A proxy is for other machines: without this, requests to our own server would go through it too. */
function reachLoopbackDirectly(): void {
  const loopback = ["localhost", "127.0.0.1", "::1"]
  const own = process.env["NO_PROXY"] ?? process.env["no_proxy"] ?? ""
  if (own.trim() === "*") return
  const hosts = [own, ...loopback].filter((host) => host !== "").join(",")
  process.env["NO_PROXY"] = hosts
  process.env["no_proxy"] = hosts
}

/** `--think` takes its value after a `=` only: the word behind it is the model or the prompt. */
function withThinkValue(args: readonly string[]): string[] {
  const end = args.indexOf("--")
  return args.map((arg, i) => (arg === "--think" && (end < 0 || i < end) ? "--think=true" : arg))
}

/** The table of commands. */
function fillProgram(program: Command, config: Config): void {
  program
    .description("Run language models on your own machine")
    .version(versionText(), "-v, --version")
    .helpCommand("help [command]", "Help about a command")
    .configureOutput({ outputError: () => {}, writeErr: () => {} })
    .exitOverride()
    // Behind a command, -v is that command's.
    .enablePositionalOptions()
    .showHelpAfterError(false)
  addServe(program, config)
  addCreate(program, config)
  addShow(program, config)
  addRun(program, config)
  addStop(program, config)
  addTransfers(program, config)
  addLists(program, config)
  addChanges(program, config)
  addArchives(program, config)
  for (const command of [program, ...program.commands]) {
    const isServe = command.name() === "serve"
    const used = VARIABLES.filter(({ name }) => isServe || name === "OLLAMA_HOST")
    command.addHelpText("after", environmentText(used))
  }
}

/** The end of a page of help. */
function environmentText(variables: readonly Variable[]): string {
  const rows = variables.map(({ name, about }) => `      ${name.padEnd(27)}   ${about}`)
  return `\nEnvironment Variables:\n${rows.join("\n")}`
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
    .option(
      "--think <value>",
      "think first, as --think or --think=high: true, false, high, medium, low, max",
    )
    .option("--insecure", "use plain HTTP when the model has to be pulled")
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
    .option("--fit", "show which quantisations of its repository fit this machine")
    .option("--insecure", "with --fit: use plain HTTP")
    .option("--json", "print it as JSON, as the API does")
    .action(async (model: string, flags: ShowFlags) => {
      if (flags.fit === true) {
        const { showFit } = await import("./commands/fit.ts")
        await showFit(config, model, flags)
      } else {
        const { show } = await import("./commands/show.ts")
        await show(await connect(config), model, flags)
      }
    })
}

function addCreate(program: Command, config: Config): void {
  program
    .command("create <model>")
    .description("Create a model from a Modelfile")
    .option("-f, --file <path>", "the Modelfile (./Modelfile)")
    .option("-q, --quantize <type>", "quantize to this type, such as q4_K_M")
    .option("--draft-quantize <type>", "quantize the draft model to this type")
    .option("--imatrix <path>", "importance matrix, which the smallest types need")
    .option("--json", "print progress as lines of JSON")
    .action(async (model: string, flags: CreateFlags) => {
      const { create } = await import("./commands/create.ts")
      await using server = await connectToChange(config)
      await create(server.client, config, model, flags)
    })
}

function addChanges(program: Command, config: Config): void {
  program
    .command("cp <source> <destination>")
    .description("Copy a model")
    .action(async (source: string, destination: string) => {
      const { copy } = await import("./commands/models.ts")
      await using server = await connectToChange(config)
      await copy(server.client, source, destination)
    })
  program
    .command("rm <model...>")
    .description("Remove models")
    .action(async (models: string[]) => {
      const { remove } = await import("./commands/models.ts")
      await using server = await connectToChange(config)
      await remove(server.client, models)
    })
}

function addArchives(program: Command, config: Config): void {
  program
    .command("export <model...>")
    .description("Write models to a tar file, for machines without a network")
    .requiredOption("-o, --output <path>", "the file to write, or - for stdout")
    .option("--json", "print progress as lines of JSON")
    .action(async (models: string[], flags: ExportFlags) => {
      const { exportArchive } = await import("./commands/archive.ts")
      await exportArchive(config, models, flags)
    })
  program
    .command("import <file> [model]")
    .description("Install the models of a tar file, or of stdin as -")
    .option("--json", "print progress as lines of JSON")
    .action(async (file: string, name: string | undefined, flags: ImportFlags) => {
      const { importArchive } = await import("./commands/archive.ts")
      await importArchive(config, file, { ...flags, name })
    })
  program
    .command("verify [model...]")
    .description("Check that the files of models are undamaged")
    .option("--repair", "remove damaged files, so that a pull gets them again")
    .option("--json", "print what is found as lines of JSON")
    .action(async (models: string[], flags: VerifyFlags) => {
      const { verify } = await import("./commands/archive.ts")
      await verify(config, models, flags)
    })
}

function addStop(program: Command, config: Config): void {
  program
    .command("stop <model>")
    .description("Unload a model")
    .action(async (model: string) => {
      const { stop } = await import("./commands/list.ts")
      await stop(await connect(config), model)
    })
}

function addTransfers(program: Command, config: Config): void {
  program
    .command("pull <model>")
    .description("Pull a model from a registry")
    .option("--quant <type>", "quantisation to take, instead of the best that fits this machine")
    .option("--insecure", "use plain HTTP")
    .option("--json", "print progress as JSON, one object a line")
    .action(async (model: string, flags: PullFlags) => {
      const { pull } = await import("./commands/transfer.ts")
      await pull(config, model, flags)
    })
  program
    .command("push <model>")
    .description("Push a model to a registry")
    .option("--insecure", "use plain HTTP")
    .option("--json", "print progress as JSON, one object a line")
    .action(async (model: string, flags: TransferFlags) => {
      const { push } = await import("./commands/transfer.ts")
      await push(config, model, flags)
    })
}

function addLists(program: Command, config: Config): void {
  program
    .command("list [prefix]")
    .alias("ls")
    .allowExcessArguments()
    .description("List installed models")
    .option("--json", "print them as JSON, as the API does")
    .action(async (prefix: string | undefined, flags: ListFlags) => {
      const { list } = await import("./commands/list.ts")
      await list(await connect(config), prefix, flags)
    })
  program
    .command("ps [prefix]")
    .allowExcessArguments()
    .description("List loaded models")
    .option("--json", "print them as JSON, as the API does")
    .action(async (prefix: string | undefined, flags: ListFlags) => {
      const { ps } = await import("./commands/list.ts")
      await ps(await connect(config), prefix, flags)
    })
}

/** Commander's complaints in the words of Ollama's command line. */
function wording(error: CommanderError, program: Command): string {
  const [, quoted = ""] = /'([^']*)'/.exec(error.message) ?? []
  switch (error.code) {
    case "commander.unknownCommand":
      return `unknown command "${quoted}" for "cria"`
    case "commander.unknownOption":
      return unknownFlag(quoted)
    case "commander.optionMissingArgument":
      return `flag needs an argument: ${quoted.split(" ")[0]}`
    case "commander.missingArgument":
    case "commander.excessArguments":
      return wrongCount(program)
    default:
      return error.message.replace(/^error: /, "")
  }
}

function unknownFlag(written: string): string {
  if (written.startsWith("--")) return `unknown flag: ${written.split("=")[0]}`
  return `unknown shorthand flag: '${written[1]}' in ${written}`
}

/** Of arguments that were given to the command that was called. */
function wrongCount(program: Command): string {
  const { args = [], registeredArguments = [] } = calledCommand(program) ?? {}
  const wanted = registeredArguments.filter(({ required }) => required).length
  return registeredArguments.some(({ variadic }) => variadic)
    ? `requires at least ${wanted} arg(s), only received ${args.length}`
    : `accepts ${wanted} arg(s), received ${args.length}`
}

function calledCommand({ args: [name = ""], commands }: Command): Command | undefined {
  return commands.find((command) => [command.name(), ...command.aliases()].includes(name))
}
