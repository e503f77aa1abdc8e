import { afterAll, beforeAll, describe, expect, test } from "bun:test"
import { cpSync, mkdirSync, readFileSync, statSync, truncateSync, writeFileSync } from "node:fs"
import { join } from "node:path"

import {
  encodeGguf,
  type GgufInput,
  packStrings,
  text as textValue,
  u32,
} from "../../src/gguf/write.ts"
import { DEMO, World } from "./support.ts"

let world: World

beforeAll(() => {
  world = new World()
})

afterAll(async () => {
  await world[Symbol.asyncDispose]()
})

describe("cria run", () => {
  test("answers a prompt of the command line", async () => {
    const { code, stdout, stderr } = await world.run([
      "run",
      "demo",
      "--think=false",
      "What is the capital of France?",
    ])
    expect({ code, stdout, stderr }).toEqual({
      code: 0,
      stdout: "The capital of France is Paris.\n\n",
      stderr: "",
    })
  })

  test("puts what is piped in before the prompt", async () => {
    const { stdout } = await world.run(["run", "demo", "--think=false", "of France?"], {
      stdin: "What is the capital",
    })
    expect(stdout).toBe("The capital of France is Paris.\n\n")
  })

  test("shows what the model thinks, or does not", async () => {
    const open = await world.run(["run", "demo", "2+3?"])
    expect(open.stdout).toMatch(
      /^Thinking\.\.\.\n[\s\S]+\n\.\.\.done thinking\.\n\n2 \+ 3 = 5\.\n\n$/,
    )
    const hidden = await world.run(["run", "demo", "--hidethinking", "2+3?"])
    expect(hidden.stdout).toBe("2 + 3 = 5.\n\n")
  })

  test("answers in JSON when asked", async () => {
    const { stdout } = await world.run([
      "run",
      "demo",
      "--think=false",
      "--format",
      "json",
      "Tell me about Oslo as JSON",
    ])
    expect(typeof JSON.parse(stdout)).toBe("object")
  })

  test("prints timings with --verbose, on stderr", async () => {
    const { stdout, stderr } = await world.run([
      "run",
      "demo",
      "--think=false",
      "--verbose",
      "Hello",
    ])
    expect(stdout).toStartWith("Hello!")
    expect(stderr).toMatch(
      /^total duration: {7}[\d.]+m?s\nload duration: {8}[\d.]+m?s\nprompt eval count: {4}\d+ token\(s\)\n/,
    )
    expect(stderr).toMatch(/eval rate: {12}[\d.]+ tokens\/s\n$/)
  })

  test("runs a GGUF file where it lies, by a relative path too", async () => {
    cpSync(DEMO, join(world.folder, "my model.gguf"))
    const { code, stdout } = await world.run(["run", "./my model.gguf", "--think=false", "Hello"])
    expect({ code, stdout }).toEqual({
      code: 0,
      stdout: "Hello! I am Cria, a tiny demo model. How can I help you?\n\n",
    })
  })

  test("loads without answering for an empty prompt", async () => {
    expect(await world.run(["run", "demo", ""])).toEqual({ code: 0, stdout: "", stderr: "" })
  })

  test("talks at a terminal, keeps the history, stops at /bye", async () => {
    const script =
      "What is the capital of France?\nMy name is Anna.\nWhat is my name?\n/nonsense\n/clear\n/bye\n"
    const child = Bun.spawn(
      ["script", "-qec", `${world.executable} run demo --think=false`, "/dev/null"],
      {
        env: world.env({ TERM: "dumb" }),
        stdin: new Blob([script]),
        stdout: "pipe",
        stderr: "pipe",
      },
    )
    const text = await child.stdout.text()
    expect(await child.exited).toBe(0)
    expect(text).toContain("The capital of France is Paris.")
    expect(text).toMatch(/What is my name\?[\s\S]*Anna/)
    expect(text).toContain("Unknown command '/nonsense'. Type /? for help")
    expect(text).toContain("Cleared session context")
  })

  test("leaves no process behind", async () => {
    await world.quiet()
  })
})

/** Runs a file and gives the complaint. */
async function complaint(path: string): Promise<string> {
  const { code, stdout, stderr } = await world.run(["run", path, "Hello"])
  expect({ code, stdout }).toEqual({ code: 1, stdout: "" })
  return stderr
}

function writeFile(name: string, content: string | Uint8Array): string {
  const path = join(world.folder, name)
  writeFileSync(path, content)
  return path
}

describe("cria run, when something is wrong", () => {
  test.each([
    [
      "a file that is no GGUF",
      "text.gguf",
      () => "Once upon a time, in a land far away\n",
      /Cannot read ".*text\.gguf" as GGUF/,
    ],
    ["an empty file", "empty.gguf", () => "", /the file is 0 bytes, a GGUF header has at least 24/],
    [
      "a file of 23 bytes",
      "short.gguf",
      () => readFileSync(DEMO).subarray(0, 23),
      /the file is 23 bytes, a GGUF header has at least 24/,
    ],
    [
      "a file that ends in the header",
      "cut.gguf",
      () => readFileSync(DEMO).subarray(0, 5000),
      /Cannot read ".*cut\.gguf" as GGUF/,
    ],
    [
      "a file that ends in the weights",
      "half.gguf",
      () => readFileSync(DEMO).subarray(0, 3_000_000),
      /ends at byte \d+, the file at 3000000: it may be incomplete/,
    ],
  ])("says what is wrong with %s", async (_, name, content, message) => {
    const stderr = await complaint(writeFile(name, content()))
    expect(stderr).toStartWith("Error: ")
    expect(stderr).toMatch(message)
  })

  test("says that a folder is no model", async () => {
    mkdirSync(join(world.folder, "folder.gguf"))
    expect(await complaint(join(world.folder, "folder.gguf"))).toMatch(/^Error: .*folder\.gguf/)
  })

  test("says that a file is not there", async () => {
    expect(await complaint("./nowhere.gguf")).toMatch(/^Error: .*nowhere\.gguf/)
  })

  test("says that a model does not fit into memory, with both sizes", async () => {
    const path = await hugeModel(join(world.folder, "huge.gguf"))
    expect(await complaint(path)).toMatch(
      /^Error: Cannot load "huge:latest": needs \d+\.\d GiB with \d+ tokens of context, \d+\.\d GiB available\n/,
    )
  })

  test.each([
    [
      ["run", "127.0.0.1:1/library/no-such-model", "Hi"],
      /^Error: pull model manifest: Cannot reach "127\.0\.0\.1:1": .*\nCheck the name, the network/m,
    ],
    [["run", "../evil", "Hi"], /^Error: /],
    [["run", "bad name!", "Hi"], /^Error: invalid model name\n/],
    [
      ["run", "demo", "--think=maybe", "Hi"],
      'Error: invalid value for --think: "maybe" (must be true, false, high, medium, low, or max)\n',
    ],
    [["run", "demo", "--keepalive", "300", "Hi"], 'Error: time: missing unit in duration "300"\n'],
    [
      ["run", "demo", "--format", "{", "Hi"],
      /^Error: Cannot use --format "\{": expected json or a JSON schema\n/,
    ],
    [["run"], "Error: requires at least 1 arg(s), only received 0\n"],
    [["fly"], 'Error: unknown command "fly" for "cria"\n'],
    [["list", "--wings"], "Error: unknown flag: --wings\n"],
    [["list"], "Error: could not connect to cria server, run 'cria serve' to start it\n"],
    [["ps"], "Error: could not connect to cria server, run 'cria serve' to start it\n"],
  ])("%p ends with 1 and says why", async (args, message) => {
    const { code, stdout, stderr } = await world.run(args)
    expect({ code, stdout }).toEqual({ code: 1, stdout: "" })
    if (typeof message === "string") expect(stderr).toBe(message)
    else expect(stderr).toMatch(message)
  })

  test("leaves no process behind", async () => {
    await world.quiet()
  })
})

/** A model whose only tensor is a hole of 8 TB: a header that is right, and nothing behind it. */
async function hugeModel(path: string): Promise<string> {
  const rows = 2 ** 30
  const metadata = new Map<string, GgufInput>([
    ["general.architecture", textValue("llama")],
    ["llama.block_count", u32(1)],
    ["llama.context_length", u32(4096)],
    ["llama.embedding_length", u32(4096)],
    ["llama.attention.head_count", u32(32)],
    ["tokenizer.ggml.model", textValue("llama")],
    ["tokenizer.ggml.tokens", packStrings(["a", "b"])],
  ])
  const tensors = [
    { name: "token_embd.weight", type: "F16" as const, dims: [4096, rows], chunks: [] },
  ]
  for await (const header of encodeGguf({ metadata, tensors })) {
    writeFileSync(path, header)
    break
  }
  truncateSync(path, Math.ceil(statSync(path).size / 32) * 32 + 4096 * rows * 2)
  return path
}
