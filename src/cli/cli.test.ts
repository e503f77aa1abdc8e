import { describe, expect, test } from "bun:test"
import { join } from "node:path"

import { VARIABLES } from "../config.ts"
import { cliMain } from "./cli.ts"
import { TestTerminal } from "./test-terminal.ts"

/** Runs a command line that ends before any server is needed. */
async function run(...args: readonly string[]) {
  using terminal = new TestTerminal()
  await cliMain(args)
  const { stdout, stderr } = terminal
  const code = process.exitCode ?? 0
  process.exitCode = 0
  return { code, stdout, stderr }
}

describe("cria — wrong arguments end with 1 and one line, in the words of Ollama's command line", () => {
  test.each<[string[], string]>([
    [["fly"], 'unknown command "fly" for "cria"'],
    [["lost"], 'unknown command "lost" for "cria"'],
    [["--wings"], "unknown flag: --wings"],
    [["list", "--wings"], "unknown flag: --wings"],
    [["list", "--wings=2"], "unknown flag: --wings"],
    [["list", "-w"], "unknown shorthand flag: 'w' in -w"],
    [["run"], "requires at least 1 arg(s), only received 0"],
    [["run", "--verbose"], "requires at least 1 arg(s), only received 0"],
    [["show"], "accepts 1 arg(s), received 0"],
    [["show", "a", "b"], "accepts 1 arg(s), received 2"],
    [["show", "-v"], "accepts 1 arg(s), received 0"],
    [["stop"], "accepts 1 arg(s), received 0"],
    [["stop", "a", "b", "c"], "accepts 1 arg(s), received 3"],
    [["serve", "a"], "accepts 0 arg(s), received 1"],
    [["start", "a"], "accepts 0 arg(s), received 1"],
    [["run", "m", "--format"], "flag needs an argument: --format"],
    [["run", "m", "--keepalive"], "flag needs an argument: --keepalive"],
    [["run", "m", "--keepalive", "300"], 'time: missing unit in duration "300"'],
    [["run", "m", "--keepalive=soon"], 'time: invalid duration "soon"'],
    [
      ["run", "m", "--think=x"],
      'invalid value for --think: "x" (must be true, false, high, medium, low, or max)',
    ],
    [
      ["run", "m", "--think="],
      'invalid value for --think: "" (must be true, false, high, medium, low, or max)',
    ],
    [
      ["run", "m", "--think=constructor"],
      'invalid value for --think: "constructor" (must be true, false, high, medium, low, or max)',
    ],
    [["run", "m", "--format", "xml"], 'Cannot use --format "xml": expected json or a JSON schema'],
  ])("%j", async (args, message) => {
    expect(await run(...args)).toEqual({ code: 1, stdout: "", stderr: `Error: ${message}\n` })
  })

  test("--think takes no word behind it: neither the model nor the prompt", async () => {
    const late = { code: 1, stdout: "", stderr: 'Error: time: missing unit in duration "300"\n' }
    expect(await run("run", "--think", "m", "--keepalive", "300")).toEqual(late)
    expect(await run("run", "m", "--think", "hi", "--keepalive", "300")).toEqual(late)
    expect(await run("run", "--keepalive", "300", "m", "--", "--think")).toEqual(late)
  })
})

describe("cria — errors for scripts", () => {
  test.each<[string[], string]>([
    [["create"], "accepts 1 arg(s), received 0"],
    [["export", "no-such-model", "-o", "/nope/x.tar"], "model 'no-such-model' not found"],
    [["pull", "m", "--wings"], "unknown flag: --wings"],
    [["verify", "no-such-model"], "model 'no-such-model' not found"],
  ])("%j --json: the last line on stdout is the error", async ([name = "", ...args], message) => {
    const { code, stdout, stderr } = await run(name, "--json", ...args)
    expect(code).toBe(1)
    expect(stdout.trim().split("\n").at(-1)).toBe(JSON.stringify({ error: message }))
    expect(stderr).toContain(`Error: ${message}\n`)
  })
})

describe("cria — help and version", () => {
  test("without arguments the commands are listed, in the order of Ollama's", async () => {
    const { code, stdout, stderr } = await run()
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" })
    const commands = [...stdout.matchAll(/^ {2}(\w+)(?:\||[ ])/gm)].map(([, name]) => name)
    expect(commands.join(" ")).toBe(
      "serve create show run stop pull push list ps cp rm export import verify help",
    )
    expect((await run("--help")).stdout).toBe(stdout)
    expect((await run("help")).stdout).toBe(stdout)
  })

  test.each(["serve", "show", "run", "stop", "pull", "push", "list", "ps"])(
    "%s has a page",
    async (command) => {
      const { code, stdout, stderr } = await run(command, "--help")
      expect({ code, stderr }).toEqual({ code: 0, stderr: "" })
      expect(stdout).toStartWith(`Usage: cria ${command}`)
      expect((await run("help", command)).stdout).toBe(stdout)
      // What only cria itself passes stays out of sight.
      expect(stdout).not.toContain("--private")
    },
  )

  test("each page names the variables that count: one for clients, all for the server", async () => {
    const { stdout } = await run("list", "--help")
    expect(stdout).toEndWith(
      "\nEnvironment Variables:\n" +
        "      OLLAMA_HOST                   Address of the server: [scheme://]host[:port]\n",
    )
    const { stdout: serve } = await run("serve", "--help")
    const named = [...serve.matchAll(/^ {6}([A-Z_]+) +\S/gm)].map(([, name]) => name)
    expect(named).toEqual(VARIABLES.map(({ name }) => name))
  })

  test("the version goes to stdout", async () => {
    const expected = expect.stringMatching(
      /^cria version is \d+\.\d+\.\d+\nllama\.cpp v\S+ \(\w+\)\n$/,
    )
    expect(await run("--version")).toEqual({ code: 0, stdout: expected, stderr: "" })
    expect(await run("-v")).toEqual({ code: 0, stdout: expected, stderr: "" })
  })
})

describe("cria — settings", () => {
  const main = join(import.meta.dirname, "../main.ts")

  test.each<[Record<string, string>, number, RegExp]>([
    [
      { CRIA_HOST: "host:port" },
      1,
      /^Error: Cannot use OLLAMA_HOST="host:port": expected \[scheme/,
    ],
    [
      { OLLAMA_MAX_QUEUE: "many" },
      0,
      /^Warning: Cannot use OLLAMA_MAX_QUEUE="many": .*; using the default\n$/,
    ],
  ])("%j", async (env, code, message) => {
    const child = Bun.spawn([process.execPath, main, "help"], {
      env: { ...process.env, ...env },
      stdout: "pipe",
      stderr: "pipe",
    })
    expect(await child.stderr.text()).toMatch(message)
    expect(await child.exited).toBe(code)
  })
})
