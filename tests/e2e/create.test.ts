import { afterAll, beforeAll, describe, expect, test } from "bun:test"
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from "node:fs"
import { join } from "node:path"

import { readGguf } from "../../src/gguf/read.ts"
import { writeFloats } from "../weights.ts"
import { NO_SMALL_DISK, SmallDisk, testUnless } from "./requirements.ts"
import { DEMO, type Running, type Server, until, World } from "./support.ts"

const FIXTURES = join(import.meta.dirname, "../fixtures")
const HF_FOLDER = join(FIXTURES, "hf-cria-demo")
const CONVERT = join(FIXTURES, "convert")

/** Bytes of the weights of a model that is too large to be held in memory by accident. */
const LARGE_TENSORS = 3
const LARGE_SIDE = 10_240

/** What converting it may take: the runtime itself has about half of that. */
const CONVERT_BYTES_MAX = 400 * 2 ** 20

let world: World
let server: Server
let floats: string
let large: string

beforeAll(async () => {
  world = new World()
  world.isOffline = true
  server = await world.serve()
  floats = join(world.folder, "floats.gguf")
  await writeFloats(floats)
  large = writeLarge(join(world.folder, "large"))
})

afterAll(() => world[Symbol.asyncDispose]())

/** A model of 1.2 GB of zeros in 32 bits, which take no place on the disk. */
function writeLarge(folder: string): string {
  cpSync(join(CONVERT, "llama-3"), folder, { recursive: true })
  const bytes = 4 * LARGE_SIDE ** 2
  const header = Object.fromEntries(
    Array.from({ length: LARGE_TENSORS }, (_, i) => [
      `model.layers.${i}.mlp.up_proj.weight`,
      {
        dtype: "F32",
        shape: [LARGE_SIDE, LARGE_SIDE],
        data_offsets: [i * bytes, (i + 1) * bytes],
      },
    ]),
  )
  const text = Buffer.from(JSON.stringify(header))
  const length = Buffer.alloc(8)
  length.writeBigUInt64LE(BigInt(text.length))
  const path = join(folder, "model.safetensors")
  writeFileSync(path, Buffer.concat([length, text]))
  truncateSync(path, 8 + text.length + LARGE_TENSORS * bytes)
  return folder
}

let modelfiles = 0

/** Writes a Modelfile; its path. */
function modelfile(text: string): string {
  const path = join(world.folder, `Modelfile-${++modelfiles}`)
  writeFileSync(path, text)
  return path
}

function start(...args: readonly string[]): Running {
  return world.start(args, { env: { CRIA_HOST: server.url.slice("http://".length) } })
}

async function cria(...args: readonly string[]) {
  return world.run(args, { env: { CRIA_HOST: server.url.slice("http://".length) } })
}

function blobs(store = world.store): string[] {
  return existsSync(join(store, "blobs")) ? readdirSync(join(store, "blobs")).toSorted() : []
}

interface Manifest {
  readonly config: { readonly digest: string }
  readonly layers: readonly { readonly mediaType: string; readonly digest: string }[]
}

function manifestOf(name: string, store = world.store): Manifest {
  const path = join(store, "manifests/registry.ollama.ai/library", name, "latest")
  return JSON.parse(readFileSync(path, "utf8")) as Manifest
}

/** What kinds of layers a model has. */
function typesOf(name: string): (string | undefined)[] {
  return manifestOf(name).layers.map(({ mediaType }) => mediaType.split(".").at(-1))
}

/** Names of the files that a model needs. */
function filesOf(name: string, store = world.store): string[] {
  const { config, layers } = manifestOf(name, store)
  return [config, ...layers].map(({ digest }) => digest.replace(":", "-"))
}

/** Reads stderr until it has a text. */
async function said(child: Running, text: string): Promise<string> {
  const reader = child.stderr.getReader()
  const decoder = new TextDecoder()
  let all = ""
  while (!all.includes(text)) {
    // oxlint-disable-next-line no-await-in-loop
    const { done, value } = await reader.read()
    if (done) break
    all += decoder.decode(value, { stream: true })
  }
  reader.releaseLock()
  return all
}

/** The most memory that a process has had so far; 0 when it has ended. */
function peakBytes(pid: number): number {
  try {
    const status = readFileSync(`/proc/${pid}/status`, "utf8")
    return Number(/VmHWM:\s+(\d+) kB/.exec(status)?.[1] ?? 0) * 1024
  } catch {
    return 0
  }
}

describe("converting and quantising in one go", () => {
  test("shows both, and leaves nothing but the model", async () => {
    const before = blobs()
    const path = modelfile(`FROM ${HF_FOLDER}\n`)
    const { code, stderr } = await cria("create", "small", "-q", "q4_k_m", "-f", path)
    expect({ code, stderr }).toMatchObject({
      code: 0,
      stderr: expect.stringMatching(
        /converting model: 100%.*quantizing F16 model to Q4_K_M: 0%.*quantizing F16 model to Q4_K_M: 100%/s,
      ),
    })
    expect(blobs().filter((name) => !before.includes(name))).toEqual(filesOf("small").toSorted())
    await cria("rm", "small")
    expect(blobs()).toEqual(before)
  })

  test("of a model and its draft, and adapters in a folder", async () => {
    const adapted = modelfile(
      `FROM ${join(CONVERT, "llama-spm")}\nADAPTER ${join(CONVERT, "lora-llama")}\n`,
    )
    expect(await cria("create", "adapted", "-f", adapted)).toMatchObject({
      code: 0,
      stderr: expect.stringContaining("converting adapter: 100%"),
    })
    expect(typesOf("adapted")).toEqual(["model", "adapter"])
    const drafted = modelfile(`FROM ${DEMO}\nDRAFT ./floats.gguf\n`)
    const args = ["create", "drafted", "--draft-quantize", "q8_0", "-f", drafted]
    expect(await cria(...args)).toMatchObject({
      code: 0,
      stderr: expect.stringContaining("quantizing F32 model to Q8_0: 100%"),
    })
    expect(typesOf("drafted").slice(0, 2)).toEqual(["draft", "model"])
    const shown = await cria("show", "drafted", "--modelfile")
    const draft = /^DRAFT (.*)$/m.exec(shown.stdout)?.[1] ?? ""
    expect(statSync(draft).size).toBeLessThan(statSync(floats).size / 3)
    await cria("rm", "adapted", "drafted")
  })
})

/** Starts one through the command line, and waits until it writes. */
async function begin(name: string): Promise<Running> {
  const child = start("create", name, "-f", modelfile(`FROM ${large}\n`))
  expect(await said(child, "converting model:")).toContain("converting model:")
  return child
}

describe("a large conversion", () => {
  test("takes little memory, and none of the server's", async () => {
    const child = await begin("large")
    const worker = server.runner
    let most = 0
    while (server.runners.includes(worker)) {
      most = Math.max(most, peakBytes(worker))
      // oxlint-disable-next-line no-await-in-loop
      await Bun.sleep(10)
    }
    expect(await child.exited).toBe(0)
    expect(most).toBeGreaterThan(0)
    expect(most).toBeLessThan(CONVERT_BYTES_MAX)
    expect(peakBytes(server.child.pid)).toBeLessThan(CONVERT_BYTES_MAX)
    await cria("rm", "large")
  })

  test.each(["SIGINT", "SIGTERM"] as const)("ends with %s, and leaves nothing", async (signal) => {
    const before = blobs().filter((name) => statSync(join(world.store, "blobs", name)).size < 1e9)
    const child = await begin("cancelled")
    child.kill(signal)
    expect(await child.exited).toBe(signal === "SIGINT" ? 130 : 143)
    await server.idle()
    // What was uploaded stays for another attempt. The file that was written goes after the process.
    await until(() => !blobs().some((name) => !before.includes(name) && name.includes("tmp")))
  })

  test("that dies is an error, and the store is as it was", async () => {
    const child = await begin("dead")
    const before = blobs().filter((name) => !name.includes("tmp"))
    process.kill(server.runner, "SIGKILL")
    expect(await said(child, "its process")).toContain("its process ended with SIGKILL")
    expect(await child.exited).toBe(1)
    await until(() => !blobs().some((name) => name.includes("tmp")))
    expect(blobs()).toEqual(before)
  })

  test("ends with a server that is killed", async () => {
    const child = await begin("killed")
    server.child.kill("SIGKILL")
    await child.exited
    await world.quiet()
    server = await world.serve()
    expect((await cria("list")).stdout).not.toContain("killed")
  })
})

/** A model whose file has gigabytes of nothing. */
function installHuge(name: string): void {
  const digest = `sha256:${"ab".repeat(32)}`
  const path = join(world.store, "blobs", digest.replace(":", "-"))
  writeFileSync(path, "")
  truncateSync(path, 6e9)
  const config = {
    mediaType: "application/vnd.docker.container.image.v1+json",
    digest,
    size: 6e9,
  }
  const folder = join(world.store, "manifests/registry.ollama.ai/library", name)
  mkdirSync(folder, { recursive: true })
  const layers = [{ ...config, mediaType: "application/vnd.ollama.image.model" }]
  writeFileSync(join(folder, "latest"), JSON.stringify({ schemaVersion: 2, config, layers }))
}

describe("cria export", () => {
  test.each(["SIGINT", "SIGTERM"] as const)("%s leaves no half of an archive", async (signal) => {
    installHuge("huge")
    const folder = mkdtempSync(join(world.folder, "out-"))
    const child = start("export", "huge", "-o", join(folder, "huge.tar"))
    expect(await said(child, "exporting to")).toContain("huge.tar: 0%")
    child.kill(signal)
    expect(await child.exited).toBe(signal === "SIGINT" ? 130 : 143)
    expect(readdirSync(folder)).toEqual([])
    await cria("rm", "huge")
  })

  test("to a device that is full says so, and leaves the device", async () => {
    await cria("create", "demo2", "-f", modelfile(`FROM ${DEMO}\n`))
    const { code, stderr } = await cria("export", "demo2", "-o", "/dev/full")
    expect({ code, stderr }).toMatchObject({
      code: 1,
      stderr: expect.stringContaining('Cannot write "/dev/full": ENOSPC'),
    })
    expect(statSync("/dev/full").isCharacterDevice()).toBe(true)
    const { stdout } = await cria("export", "demo2", "-o", join(world.folder, "d.tar"), "--json")
    const lines = stdout.trim().split("\n")
    expect(JSON.parse(lines[0] ?? "")).toMatchObject({
      total: statSync(join(world.folder, "d.tar")).size,
    })
    expect(lines.at(-1)).toBe('{"status":"success"}')
    const imported = await cria("import", join(world.folder, "d.tar"), "again", "--json")
    expect(imported.stdout).toEndWith('{"status":"success","models":["again:latest"]}\n')
    await cria("rm", "demo2", "again")
  })
})

/** Runs a command against another server. */
function runAt({ url }: Server, args: readonly string[]) {
  return world.run(args, { env: { CRIA_HOST: url.slice("http://".length) } })
}

describe("a disk that is too small", () => {
  testUnless(NO_SMALL_DISK)("is said before an upload, a conversion or a copy begins", async () => {
    using disk = new SmallDisk(64 * 2 ** 20)
    await using small = await world.serve({ CRIA_MODELS: disk.path })
    const from = modelfile(`FROM ${large}\n`)
    expect(await runAt(small, ["create", "m", "-f", from])).toMatchObject({
      code: 1,
      stderr: expect.stringMatching(/Cannot store a file: it takes 1\.3 GB, ".*" has room for \d/),
    })
    await using reading = await world.serve({
      CRIA_MODELS: disk.path,
      CRIA_READ_MODELS: world.store,
    })
    // The other store has what is to be uploaded.
    const child = await begin("large")
    child.kill("SIGINT")
    await child.exited
    expect(await runAt(reading, ["create", "m", "-f", from])).toMatchObject({
      code: 1,
      stderr: expect.stringMatching(/Cannot convert "m": it takes \d+ MB, ".*" has room for \d/),
    })
    installHuge("huge")
    expect(await runAt(reading, ["cp", "huge", "copy"])).toMatchObject({
      code: 1,
      stderr: expect.stringMatching(/Cannot copy ".*": it takes 6 GB, ".*" has room for \d/),
    })
    await cria("rm", "huge")
    expect(blobs(disk.path).filter((name) => name.includes("tmp"))).toEqual([])
  })

  testUnless(NO_SMALL_DISK)(
    "is said before a quantisation begins, and when it ends for that",
    async () => {
      using disk = new SmallDisk(64 * 2 ** 20)
      await using small = await world.serve({ CRIA_MODELS: disk.path })
      expect(
        (await runAt(small, ["create", "f32", "-f", modelfile(`FROM ${floats}\n`)])).code,
      ).toBe(0)
      const quantize = ["create", "q8", "-q", "q8_0", "-f", modelfile("FROM f32\n")]
      const elements = readGguf(floats).tensors.reduce((sum, tensor) => sum + tensor.elements, 0)
      const before = blobs(disk.path)
      // Less than the bits of the weights alone: nothing is begun.
      disk.fill(elements / 2)
      expect((await runAt(small, quantize)).stderr).toMatch(
        /Cannot quantize to Q8_0: it takes .* has room for/,
      )
      // More than that, less than what is written in the end.
      disk.fill(elements * 1.02)
      expect((await runAt(small, quantize)).stderr).toMatch(
        /Cannot quantize to Q8_0: the disk is full/,
      )
      expect(blobs(disk.path)).toEqual(before)
    },
  )
})

describe("a store on another disk", () => {
  test.skipIf(!existsSync("/dev/shm"))(
    "copies what it takes of others, with progress",
    async () => {
      const store = mkdtempSync("/dev/shm/cria-store-")
      try {
        await cria("create", "theirs", "-f", modelfile(`FROM ${floats}\n`))
        await using other = await world.serve({ CRIA_MODELS: store, CRIA_READ_MODELS: world.store })
        const args = ["create", "ours", "-f", modelfile("FROM theirs\nSYSTEM x\n")]
        expect(await runAt(other, args)).toMatchObject({
          code: 0,
          stderr: expect.stringMatching(
            /copying [0-9a-f]{12}: \d+% .*copying [0-9a-f]{12}: 100% /s,
          ),
        })
        expect(await runAt(other, ["cp", "theirs", "copy"])).toMatchObject({ code: 0 })
        expect((await runAt(other, ["rm", "ours", "copy"])).code).toBe(0)
        expect(blobs(store)).toEqual([])
        await cria("rm", "theirs")
      } finally {
        rmSync(store, { recursive: true, force: true })
      }
    },
  )
})

describe("a store whose blobs are on another disk", () => {
  test.skipIf(!existsSync("/dev/shm"))("takes safetensors", async () => {
    const store = mkdtempSync(join(world.folder, "store-"))
    const elsewhere = mkdtempSync("/dev/shm/cria-blobs-")
    try {
      symlinkSync(elsewhere, join(store, "blobs"))
      await using other = await world.serve({ CRIA_MODELS: store })
      const path = modelfile(`FROM ${HF_FOLDER}\n`)
      const { code, stderr } = await runAt(other, ["create", "m", "-f", path])
      expect({ code, stderr }).toMatchObject({
        code: 0,
        stderr: expect.stringMatching(/copying file sha256:[0-9a-f]{64}: 100%/),
      })
      expect(blobs(store)).toEqual(filesOf("m", store).toSorted())
      expect((await runAt(other, ["rm", "m"])).code).toBe(0)
      expect(blobs(store)).toEqual([])
    } finally {
      rmSync(elsewhere, { recursive: true, force: true })
    }
  })
})
