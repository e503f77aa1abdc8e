import { afterAll, beforeAll, describe, expect, test } from "bun:test"
import { rejects } from "node:assert/strict"
import { createHash } from "node:crypto"
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  utimesSync,
  writeFileSync,
} from "node:fs"
import { join } from "node:path"

import { Ollama } from "ollama"

import { text as ggufText, writeGguf } from "../../src/gguf/write.ts"
import { writeFloats, writeImportance } from "../weights.ts"
import { DRAFT, ndjson, residentBytes, type Server, until, World } from "./support.ts"

const HF_FOLDER = join(import.meta.dirname, "../fixtures/hf-cria-demo")

/** No test may ask a registry. */
const OFFLINE = { CRIA_OFFLINE: "1" }

let world: World
let server: Server
let floats: string
let imatrix: string

beforeAll(async () => {
  world = new World()
  world.isOffline = true
  server = await world.serve()
  floats = join(world.folder, "floats.gguf")
  imatrix = join(world.folder, "imatrix.gguf")
  await writeFloats(floats)
  await writeImportance(imatrix)
})

afterAll(() => world[Symbol.asyncDispose]())

/** Runs a command against the server. */
async function cria(...args: readonly string[]) {
  return world.run(args, { env: { CRIA_HOST: server.url.slice("http://".length) } })
}

let modelfiles = 0

/** Writes a Modelfile; its path. */
function modelfile(text: string): string {
  const path = join(world.folder, `Modelfile-${++modelfiles}`)
  writeFileSync(path, text)
  return path
}

function blobs(): string[] {
  return readdirSync(join(world.store, "blobs")).toSorted()
}

function digestOf(path: string): string {
  return `sha256:${createHash("sha256").update(readFileSync(path)).digest("hex")}`
}

async function names(): Promise<string[]> {
  const { models } = (await server.json("/api/tags")) as { models: { name: string }[] }
  return models.map(({ name }) => name).toSorted()
}

/** Digests of the layers of a model. */
function layersOf(name: string): { mediaType: string; digest: string }[] {
  const folder = join(world.store, "manifests/registry.ollama.ai/library", name)
  const { layers } = JSON.parse(readFileSync(join(folder, "latest"), "utf8")) as {
    layers: { mediaType: string; digest: string }[]
  }
  return layers.map(({ mediaType, digest }) => ({ mediaType, digest }))
}

const QUESTION = "What is the capital of France?"
const ANSWER = "The capital of France is Paris.\n\n"

/** Starts a quantisation that takes a while; resolves when it has begun. */
async function begin(model: string, signal: AbortSignal): Promise<Response> {
  for (const path of [floats, imatrix]) {
    // oxlint-disable-next-line no-await-in-loop
    await fetch(`${server.url}/api/blobs/${digestOf(path)}`, {
      method: "POST",
      body: Bun.file(path),
    })
  }
  const response = await server.post(
    "/api/create",
    {
      model,
      files: { "floats.gguf": digestOf(floats) },
      quantize: "IQ2_XXS",
      imatrix: digestOf(imatrix),
    },
    signal,
  )
  const reader = (response.body ?? new ReadableStream()).getReader()
  for (let text = ""; !text.includes("quantizing");) {
    // oxlint-disable-next-line no-await-in-loop
    const { value, done } = await reader.read()
    if (done) throw new Error(`no quantisation began: ${text}`)
    text += new TextDecoder().decode(value as Uint8Array)
  }
  return response
}

/** Waits until no blob is half-written. */
async function tidy(): Promise<void> {
  await until(() => !blobs().some((name) => name.includes("tmp")))
}

describe("cria create", () => {
  test("takes a GGUF file where it lies, and the model answers with its texts", async () => {
    const path = modelfile(
      `FROM ./floats.gguf\nPARAMETER temperature 0\nSYSTEM """\nBe brief.\n"""\nLICENSE MIT\nREQUIRES v0.1.0\nMESSAGE user Hi\nMESSAGE assistant "Hello"\n`,
    )
    const { code, stdout, stderr } = await cria("create", "mine", "-f", path)
    expect({ code, stdout }).toEqual({ code: 0, stdout: "" })
    expect(stderr).toMatch(
      /^gathering model components\nusing floats.gguf in place \((reflink|hard link)\)\n/,
    )
    expect(stderr).toEndWith("writing manifest\nsuccess\n")
    const blob = join(world.store, "blobs", digestOf(floats).replace(":", "-"))
    expect(stderr.includes("(reflink)") || statSync(blob).ino === statSync(floats).ino).toBe(true)
    const shown = await cria("show", "mine", "--modelfile")
    expect(shown.stdout).toContain('SYSTEM "\nBe brief.\n"\n')
    expect((await cria("run", "mine", "--think=false", QUESTION)).stdout).toContain("Paris")
  })

  test("with what show --modelfile prints makes the same model", async () => {
    const { stdout } = await cria("show", "mine", "--modelfile")
    expect((await cria("create", "twin", "-f", modelfile(stdout))).code).toBe(0)
    // A template that stands for none has been written down.
    const others = layersOf("twin").filter(({ mediaType }) => !mediaType.endsWith(".template"))
    expect(others).toEqual(layersOf("mine"))
    const ask = async (model: string) =>
      (await cria("run", model, "--think=false", QUESTION)).stdout
    expect(await ask("twin")).toBe(await ask("mine"))
  })

  test("converts a folder of safetensors, which answers as the shipped file does", async () => {
    const { code, stderr } = await cria("create", "hf", "-f", modelfile(`FROM ${HF_FOLDER}\n`))
    expect({ code, stderr }).toMatchObject({
      code: 0,
      stderr: expect.stringContaining("converting model: 100%"),
    })
    expect((await cria("run", "hf", "--think=false", QUESTION)).stdout).toBe(ANSWER)
  })

  test("quantises, with progress as JSON for scripts", async () => {
    const path = modelfile(`FROM ${floats}\n`)
    const { code, stdout } = await cria("create", "q4", "-q", "q5_k_m", "-f", path, "--json")
    expect(code).toBe(0)
    const steps = stdout
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line) as Record<string, unknown>)
    expect(steps.at(-1)).toEqual({ status: "success" })
    const bars = steps.filter(({ status }) => status === "quantizing F32 model to Q5_K_M")
    expect(bars.at(-1)?.["completed"]).toBe(bars.at(-1)?.["total"])
    expect((await server.json("/api/show", { model: "q4" }))["details"]).toMatchObject({
      quantization_level: "Q5_K_M",
    })
    expect((await cria("run", "q4", "--think=false", QUESTION)).stdout).toContain("France")
  })

  test("says what stands in the way, in one line and its hint", async () => {
    writeFileSync(join(world.folder, "huge"), Buffer.alloc(100_000_000, "FROM x\n"))
    const before = blobs()
    const cases: [string[], string][] = [
      [["create", "b ad"], "invalid model name: b ad"],
      [["create", "m", "-f", "nope"], "specified Modelfile wasn't found"],
      [["create", "m", "-f", "huge"], "Cannot read the Modelfile: 16777217 bytes, limit 16777216"],
      [
        ["create", "m", "-f", "/dev/zero"],
        "Cannot read the Modelfile: 16777217 bytes, limit 16777216",
      ],
      [["create", "m", "-f", modelfile("FROM ./nope.gguf")], 'Cannot find "./nope.gguf"'],
      [["create", "m", "-f", modelfile("FROM nope")], "model 'nope' not found"],
      [["create", "m", "-f", modelfile("FROM /dev/zero")], "expected a file or a folder"],
      [
        ["create", "m", "-f", modelfile("FROM mine\nPARAMETER top_kk 3")],
        "unknown parameter 'top_kk'",
      ],
      [["create", "m", "-f", modelfile("FROM mine\nPARAMETER top_k x")], "invalid int value [x]"],
      [
        ["create", "m", "-q", "q9", "-f", modelfile("FROM mine")],
        "unsupported quantization type Q9",
      ],
    ]
    for (const [args, message] of cases) {
      // oxlint-disable-next-line no-await-in-loop
      const { code, stdout, stderr } = await cria(...args)
      expect({ code, stdout }).toEqual({ code: 1, stdout: "" })
      expect(stderr).toContain(message)
    }
    expect(blobs()).toEqual(before)
  })
})

describe("a quantisation that nobody waits for any more", () => {
  test("ends with its process, and leaves nothing half-written", async () => {
    for (const model of ["mine", "hf", "q4"]) {
      // oxlint-disable-next-line no-await-in-loop
      await server.post("/api/generate", { model, keep_alive: 0 })
    }
    await server.idle()
    const controller = new AbortController()
    await begin("cancelled", controller.signal)
    await until(() => server.runners.length === 1)
    controller.abort()
    await server.idle()
    // The file goes after the process.
    await tidy()
    expect(await names()).not.toContain("cancelled:latest")
  })

  test("a server killed with -9 in the middle leaves a sound store and no process", async () => {
    const before = await names()
    const controller = new AbortController()
    await begin("killed", controller.signal)
    server.child.kill("SIGKILL")
    await server.child.exited
    await world.quiet()
    controller.abort()
    server = await world.serve(OFFLINE)
    expect(await names()).toEqual(before)
    const { code, stdout } = await cria("verify")
    expect({ code, stdout }).toMatchObject({ code: 0, stdout: expect.stringContaining("all well") })
    // What was half-written is removed by a later start.
    const left = blobs().filter((name) => name.includes("tmp"))
    for (const name of left) utimesSync(join(world.store, "blobs", name), 1, 1)
    await server[Symbol.asyncDispose]()
    server = await world.serve(OFFLINE)
    await tidy()
    expect(await names()).toEqual(before)
  })
})

describe("the client of npm", () => {
  test("creates, copies and deletes", async () => {
    const ollama = new Ollama({ host: server.url })
    const steps: string[] = []
    const stream = await ollama.create({
      model: "npm/pirate",
      from: "mine",
      system: "Talk like a pirate",
      parameters: { temperature: 0.3, stop: ["<x>"] },
      stream: true,
    })
    for await (const { status } of stream) steps.push(status)
    expect(steps.at(-1)).toBe("success")
    expect(await ollama.show({ model: "npm/pirate" })).toMatchObject({
      system: "Talk like a pirate",
    })
    expect(await ollama.copy({ source: "npm/pirate", destination: "npm/copy:2" })).toEqual({
      status: "success",
    })
    expect(await ollama.delete({ model: "npm/pirate" })).toEqual({ status: "success" })
    expect(await names()).toContain("npm/copy:2")
    await ollama.delete({ model: "npm/copy:2" })
    await rejects(ollama.delete({ model: "npm/copy:2" }), /not found/)
    const reply = await ollama.create({ model: "npm/again", from: "mine", stream: false })
    expect(reply).toMatchObject({ status: "success" })
  })
})

describe("uploads", () => {
  test("of a gigabyte need no memory", async () => {
    const path = join(world.folder, "big")
    Bun.spawnSync(["truncate", "-s", "1G", path])
    const hash = createHash("sha256")
    for (let i = 0; i < 1024; i++) hash.update(new Uint8Array(2 ** 20))
    const digest = `sha256:${hash.digest("hex")}`
    let most = 0
    const timer = setInterval(() => {
      most = Math.max(most, residentBytes(server.child.pid))
    }, 20)
    const response = await fetch(`${server.url}/api/blobs/${digest}`, {
      method: "POST",
      body: Bun.file(path),
    })
    clearInterval(timer)
    expect(response.status).toBe(201)
    expect(most).toBeGreaterThan(0)
    expect(most).toBeLessThan(400 * 2 ** 20)
  })

  test("that end early leave nothing", async () => {
    const before = blobs()
    const digest = `sha256:${"ab".repeat(32)}`
    const controller = new AbortController()
    const body = new ReadableStream({
      async pull(stream) {
        stream.enqueue(new Uint8Array(1000))
        await Bun.sleep(5)
      },
    })
    const request = fetch(`${server.url}/api/blobs/${digest}`, {
      method: "POST",
      body,
      signal: controller.signal,
    })
    await until(() => blobs().length === before.length + 1)
    controller.abort()
    await request.catch(() => {})
    await until(() => blobs().length === before.length)
    expect(blobs()).toEqual(before)
  })
})

describe("cria cp, rm, export, import, verify", () => {
  test("move a model by hand, byte for byte", async () => {
    expect(await cria("cp", "mine", "you/copy:1")).toMatchObject({
      code: 0,
      stdout: "copied 'mine' to 'you/copy:1'\n",
    })
    const archive = join(world.folder, "models.tar")
    const exported = await cria("export", "mine", "you/copy:1", "-o", archive)
    expect(exported).toMatchObject({
      code: 0,
      stderr: expect.stringMatching(/^exporting to .*models\.tar: 0% 0 B.*: 100% /s),
    })
    await using other = new World()
    const imported = await other.run(["import", archive])
    expect(imported.stdout).toBe("imported 'mine:latest'\nimported 'you/copy:1'\n")
    const manifest = "manifests/registry.ollama.ai/library/mine/latest"
    expect(readFileSync(join(other.store, manifest))).toEqual(
      readFileSync(join(world.store, manifest)),
    )
    expect((await other.run(["verify"])).stdout).toMatch(/all well\n$/)
    const piped = Bun.file(archive)
    const fromPipe = await other.run(["import", "-", "x"], { stdin: await piped.text() })
    expect(fromPipe.code).toBe(1)
    expect(await cria("rm", "you/copy:1", "nope", "mine")).toMatchObject({
      code: 1,
      stdout: "deleted 'you/copy:1'\n",
      stderr: expect.stringContaining("Error: model 'nope' not found"),
    })
  })

  test("a damaged file is found, removed on request, and said what to do about", async () => {
    await using other = new World()
    other.install("demo2", DRAFT)
    const blob = join(other.store, "blobs", digestOf(DRAFT).replace(":", "-"))
    const bytes = readFileSync(blob)
    bytes[bytes.length - 1] = (bytes.at(-1) ?? 0) ^ 1
    writeFileSync(blob, bytes)
    const found = await other.run(["verify"])
    expect(found.code).toBe(1)
    expect(found.stdout).toContain(`damaged     ${digestOf(DRAFT)} (demo2:latest)`)
    expect(found.stdout).toContain("cria pull demo2:latest")
    expect((await other.run(["verify", "--repair"])).stdout).toContain("removed 1 damaged file")
    expect(existsSync(blob)).toBe(false)
  })
})

describe("models of Ollama's registry", () => {
  test("that cannot be translated are refused with the reason and what to take", async () => {
    const file = join(world.folder, "mllama.gguf")
    const metadata = new Map([["general.architecture", ggufText("mllama")]])
    await writeGguf(file, { metadata, tensors: [] })
    world.install("llama3.2-vision", file)
    const reply = await server.post("/api/generate", { model: "llama3.2-vision", prompt: "Hi" })
    expect(reply.status).toBe(503)
    expect(await reply.text()).toContain("llama.cpp has no Llama 3.2 Vision")
    const { code, stderr } = await cria("run", "llama3.2-vision", "Hi")
    expect(code).toBe(1)
    expect(stderr).toContain("cria pull llama3.1")
  })
})

describe("stores that are only read", () => {
  test("offer their models, which can be built upon and not removed", async () => {
    await using other = new World()
    other.install("theirs", DRAFT)
    const before = readdirSync(other.store, { recursive: true }).map(String).toSorted()
    const mine = join(other.folder, "mine")
    mkdirSync(mine)
    await using reading = await other.serve({ CRIA_MODELS: mine, CRIA_READ_MODELS: other.store })
    const run = (...args: string[]) =>
      other.run(args, { env: { CRIA_HOST: reading.url.slice("http://".length) } })
    expect((await run("list")).stdout).toContain("theirs:latest")
    const refused = await run("rm", "theirs")
    expect(refused.stderr).toContain(`it is in "${other.store}", which is only read`)
    expect((await run("cp", "theirs", "ours")).code).toBe(0)
    const reply = await reading.post("/api/create", { model: "b", from: "theirs", system: "x" })
    expect((await ndjson(reply)).at(-1)).toEqual({ status: "success" })
    expect((await run("rm", "b")).code).toBe(0)
    expect(readdirSync(other.store, { recursive: true }).map(String).toSorted()).toEqual(before)
    const blob = digestOf(DRAFT).replace(":", "-")
    expect(existsSync(join(mine, "blobs", blob))).toBe(true)
  })

  test("are found where Ollama keeps them in the user's home, and nothing there changes", async () => {
    await using other = new World()
    other.isOffline = true
    const theirs = join(other.home, ".ollama/models")
    other.install("theirs", DRAFT, { store: theirs })
    // Nothing needs it, and it is old: in a store of one's own it would go when a server starts.
    const orphan = join(theirs, "blobs", `sha256-${"0".repeat(64)}`)
    writeFileSync(orphan, "left over")
    utimesSync(orphan, 1000, 1000)
    const before = snapshot(theirs)
    await using reading = await other.serve({ CRIA_MODELS: "" })
    const run = (...args: string[]) =>
      other.run(args, { env: { CRIA_HOST: reading.url.slice("http://".length) } })
    expect((await run("list")).stdout).toContain("theirs:latest")
    expect((await run("run", "theirs", "Hi")).code).toBe(0)
    expect((await run("show", "theirs", "--modelfile")).stdout).toContain(`FROM ${theirs}/blobs/`)
    const refused = await run("rm", "theirs")
    expect(refused).toMatchObject({ code: 1, stderr: expect.stringContaining("only read") })
    const created = await reading.post("/api/create", { model: "theirs", from: "theirs" })
    expect((await ndjson(created)).at(-1)).toEqual({ status: "success" })
    expect(snapshot(theirs)).toEqual(before)
    expect(existsSync(join(other.home, ".cria/models/manifests"))).toBe(true)
  })
})

/** Everything below a folder: paths, sizes, and when they were written. */
function snapshot(folder: string): [path: string, bytes: number, writtenAt: number][] {
  const paths = readdirSync(folder, { recursive: true }).map(String).toSorted()
  return paths.map((path) => {
    const { size, mtimeMs } = statSync(join(folder, path))
    return [path, size, mtimeMs]
  })
}
