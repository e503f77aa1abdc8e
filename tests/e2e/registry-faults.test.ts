import { afterAll, beforeAll, describe, expect, test } from "bun:test"
import { randomBytes } from "node:crypto"
import { readdirSync, readFileSync, rmSync, statSync } from "node:fs"
import { join } from "node:path"

import { inputOf, tensorsOf } from "../../src/gguf/merge.ts"
import { readModel } from "../../src/gguf/split.ts"
import { encodeGguf, type GgufInput } from "../../src/gguf/write.ts"
import { CuttingProxy } from "../../src/registry/cutting-proxy.ts"
import { FakeRegistry } from "../../src/registry/fake-registry.ts"
import {
  AskedBytes,
  contentOf,
  DockerRegistry,
  FaultProxy,
  fetchedBytes,
  folderIn,
  installModel,
  NO_REGISTRY,
  type ProxyFault,
  UNREACHABLE,
  WebProxy,
} from "./registry-support.ts"
import { NO_SMALL_DISK, SmallDisk, testUnless } from "./requirements.ts"
import { DEMO, World } from "./support.ts"

if (NO_REGISTRY !== undefined) {
  console.warn(`Tests with a real registry are skipped: ${NO_REGISTRY}`)
}

const MIB = 2 ** 20
const LARGE = randomBytes(72 * MIB)

let world: World

beforeAll(() => {
  world = new World()
})

afterAll(async () => {
  await world[Symbol.asyncDispose]()
})

/** Pulls through a server of its own. */
function pull(store: string, name: string, env: Record<string, string> = {}) {
  return world.run(["pull", name, "--insecure"], { env: { CRIA_MODELS: store, ...env } })
}

/** Pushes through a server of its own. */
function push(store: string, name: string, env: Record<string, string> = {}) {
  return world.run(["push", name, "--insecure"], { env: { CRIA_MODELS: store, ...env } })
}

/** A store with one model. */
function storeWith(name: string, contents: readonly (Uint8Array | string)[]): string {
  const store = folderIn(world)
  installModel(store, name, contents)
  return store
}

function rangeOf(request: Request): string {
  return request.headers.get("Range") ?? ""
}

/** The blobs of a store, whatever its models are called. */
function blobsOf(store: string): Record<string, string> {
  const all = Object.entries(contentOf(store))
  return Object.fromEntries(all.filter(([path]) => path.startsWith("blobs/")))
}

describe.skipIf(NO_REGISTRY !== undefined)("a real registry, over connections that break", () => {
  let registry: DockerRegistry
  let original: string

  beforeAll(async () => {
    registry = await DockerRegistry.start()
    original = storeWith(`${registry.host}/me/m:latest`, [LARGE])
    expect((await push(original, `${registry.host}/me/m:latest`)).code).toBe(0)
  })

  afterAll(async () => {
    await registry[Symbol.asyncDispose]()
  })

  test("a pull whose connections are cut in the middle", async () => {
    await using proxy = await CuttingProxy.start(registry.host, Array<number>(15).fill(MIB))
    const store = folderIn(world)
    const { code, stderr } = await pull(store, `${proxy.host}/me/m:latest`)
    expect({ code, stderr }).toMatchObject({ code: 0 })
    expect(proxy.cuts).toBe(15)
    expect(blobsOf(store)).toEqual(blobsOf(original))
  })

  test("a push whose connections are cut in the middle of what they send", async () => {
    await using proxy = await CuttingProxy.start(
      registry.host,
      [MIB, 10 * MIB, 30 * MIB],
      "requests",
    )
    const name = `${proxy.host}/cut/m:latest`
    const store = storeWith(name, [randomBytes(48 * MIB), "a licence"])
    const { code, stderr } = await push(store, name)
    expect({ code, stderr }).toMatchObject({ code: 0 })
    expect(proxy.cuts).toBe(3)
    const fresh = folderIn(world)
    expect((await pull(fresh, `${registry.host}/cut/m:latest`)).code).toBe(0)
    expect(blobsOf(fresh)).toEqual(blobsOf(store))
  })

  test.each<[string, (count: () => number) => ProxyFault]>([
    [
      "busy registries",
      (count) => (request, pass) =>
        request.method !== "GET" && count() % 3 === 0
          ? new Response("busy", { status: 503, headers: { "Retry-After": "0" } })
          : pass(),
    ],
    [
      "limits",
      (count) => (request, pass) =>
        request.method === "PATCH" && count() < 2
          ? new Response("slow down", { status: 429, headers: { "Retry-After": "0" } })
          : pass(),
    ],
    [
      "uploads that are forgotten",
      (count) => (request, pass) =>
        request.method === "PATCH" && count() === 0 ? new Response(null, { status: 404 }) : pass(),
    ],
    [
      "answers that are lost when all is done",
      (count) => async (request, pass) => {
        const reply = await pass()
        return request.method === "PUT" && request.url.includes("/uploads/") && count() < 2
          ? new Response("the upstream did not answer", { status: 504 })
          : reply
      },
    ],
  ])("a push through %s", async (_, faultOf) => {
    await using proxy = new FaultProxy(registry.host)
    let seen = 0
    proxy.fault = faultOf(() => seen++)
    const name = `${proxy.host}/faulty/m:latest`
    const store = storeWith(name, [randomBytes(20 * MIB), "a licence"])
    const { code, stderr } = await push(store, name)
    expect({ code, stderr }).toMatchObject({ code: 0 })
    expect(seen).toBeGreaterThan(0)
    const fresh = folderIn(world)
    expect((await pull(fresh, `${registry.host}/faulty/m:latest`)).code).toBe(0)
    expect(blobsOf(fresh)).toEqual(blobsOf(store))
  })

  test("kill -9 in mid-push: the next process sends what the registry has not", async () => {
    await using proxy = new FaultProxy(registry.host)
    const name = `${proxy.host}/killed/m:latest`
    // Two parts: the registry forgets an upload whose part broke off, so the second one never gets there.
    const store = storeWith(name, [randomBytes(120_000_000)])
    const stuck = Promise.withResolvers<void>()
    proxy.fault = (request, pass) => {
      const [start = "0"] = (request.headers.get("Content-Range") ?? "").split("-")
      if (request.method !== "PATCH" || start === "0" || start === "") return pass()
      stuck.resolve()
      return new Promise<Response>(() => {})
    }
    const server = await world.serve({ CRIA_MODELS: store })
    const reply = server.post("/api/push", { model: name, insecure: true })
    await stuck.promise
    server.child.kill("SIGKILL")
    await server.child.exited
    await (await reply).text().catch(() => "")
    const sent: string[] = []
    proxy.fault = (request, pass) => {
      sent.push(`${request.method} ${request.headers.get("Content-Range") ?? ""}`)
      return pass()
    }
    const { code, stderr } = await push(store, name)
    expect({ code, stderr }).toMatchObject({ code: 0 })
    const parts = sent.filter((line) => line.startsWith("PATCH 1"))
    expect(parts).toEqual(["PATCH 100000000-119999999"])
    const fresh = folderIn(world)
    expect((await pull(fresh, `${registry.host}/killed/m:latest`)).code).toBe(0)
    expect(blobsOf(fresh)).toEqual(blobsOf(store))
  })

  test("two processes that pull one blob at once fetch it once", async () => {
    await using proxy = new FaultProxy(registry.host)
    const both = Promise.withResolvers<void>()
    let manifests = 0
    const asked: string[] = []
    proxy.fault = async (request, pass) => {
      if (request.url.includes("/manifests/") && ++manifests === 2) both.resolve()
      const [start] = /bytes=\d+/.exec(rangeOf(request)) ?? []
      if (start === undefined) return pass()
      asked.push(`${new URL(request.url).pathname} ${start}`)
      // Nobody is done before the other has begun.
      await both.promise
      return pass()
    }
    const store = folderIn(world)
    const name = `${proxy.host}/me/m:latest`
    const ends = await Promise.all([pull(store, name), pull(store, name)])
    expect(ends.map(({ code }) => code)).toEqual([0, 0])
    expect(ends.every(({ stderr }) => stderr.includes("success"))).toBe(true)
    expect(blobsOf(store)).toEqual(blobsOf(original))
    // Each part once. (The end of one that is slow may be fetched by another connection, too, which begins in it.)
    expect(asked.toSorted()).toEqual([...new Set(asked)].toSorted())
  })

  test("a registry without TLS is reached through HTTP_PROXY, loopback never", async () => {
    await using proxy = await WebProxy.start()
    const port = registry.host.split(":")[1] ?? ""
    const env = { HTTP_PROXY: proxy.url }
    // A name that only the proxy can resolve.
    const away = `registry.test:${port}/me/m:latest`
    const store = folderIn(world)
    const { code, stderr } = await pull(store, away, env)
    expect({ code, stderr }).toMatchObject({ code: 0 })
    expect(proxy.requests[0]).toStartWith(`GET http://registry.test:${port}/v2/me/m/`)
    expect(blobsOf(store)).toEqual(blobsOf(original))
    proxy.requests.length = 0
    const direct = await pull(folderIn(world), `${UNREACHABLE}:${port}/me/m:latest`, {
      ...env,
      NO_PROXY: UNREACHABLE,
    })
    expect(direct.code).toBe(1)
    expect((await pull(folderIn(world), `${registry.host}/me/m:latest`, env)).code).toBe(0)
    expect(proxy.requests).toEqual([])
  })

  test("at a terminal there is a bar, which becomes full", async () => {
    let screen = ""
    const ended = Promise.withResolvers<void>()
    const child = Bun.spawn(
      [world.executable, "pull", `${registry.host}/me/m:latest`, "--insecure"],
      {
        env: world.env({ CRIA_MODELS: folderIn(world), TERM: "xterm" }),
        terminal: {
          cols: 90,
          rows: 30,
          data: (_, bytes) => (screen += Buffer.from(bytes).toString()),
          exit: () => ended.resolve(),
        },
      },
    )
    expect(await child.exited).toBe(0)
    // What it has written may still be on the way.
    await ended.promise
    const rows = screen.split(/\r?\n|\r/)
    expect(rows.some((row) => /pulling [0-9a-f]{12}: +\d+% ▕█* *▏/.test(row))).toBe(true)
    expect(screen).toMatch(/pulling [0-9a-f]{12}: 100% ▕█+▏ +75 MB/)
    // The cursor is hidden meanwhile, and comes back.
    expect(screen).toContain("\u001b[?25l")
    expect(screen.lastIndexOf("\u001b[?25h")).toBeGreaterThan(screen.lastIndexOf("\u001b[?25l"))
    expect(rows.some((row) => row.endsWith("success"))).toBe(true)
  })

  testUnless(NO_SMALL_DISK)(
    "a disk that is full in the middle of a pull: said, and what has come is kept",
    async () => {
      using disk = new SmallDisk(100 * MIB)
      const mounted = disk.path
      await using proxy = new FaultProxy(registry.host)
      const name = `${proxy.host}/me/m:latest`
      const full = Promise.withResolvers<void>()
      proxy.fault = async (request, pass) => {
        const isFirst = rangeOf(request).startsWith("bytes=0-")
        if (rangeOf(request) !== "" && !isFirst) await full.promise
        return pass()
      }
      const pulling = pull(mounted, name)
      const kept = await fetchedBytes(mounted, 16 * MIB)
      expect(kept).toBeGreaterThanOrEqual(16 * MIB)
      disk.fill(0)
      full.resolve()
      const { code, stderr } = await pulling
      expect(code).toBe(1)
      expect(stderr).toMatch(/Error: Cannot write ".*-partial(-\d+)?": ENOSPC/)
      expect(stderr).toContain("The disk is full: free some space")
      const files = Object.keys(contentOf(mounted))
      expect(files.some((path) => path.startsWith("manifests/"))).toBe(false)
      rmSync(disk.filler)
      const asked = new AskedBytes()
      proxy.fault = (request, pass) => {
        asked.add(request)
        return pass()
      }
      const again = await pull(mounted, name)
      expect({ code: again.code, stderr: again.stderr }).toMatchObject({ code: 0 })
      expect(asked.count).toBeLessThanOrEqual(LARGE.length - kept + MIB)
      expect(blobsOf(mounted)).toEqual(blobsOf(original))
    },
  )

  test("CRIA_HTTP_CHANGES=0: the API changes nothing, commands do", async () => {
    const store = folderIn(world)
    const settings = { CRIA_MODELS: store, CRIA_HTTP_CHANGES: "0" }
    await using server = await world.serve(settings)
    const model = `${registry.host}/me/m:latest`
    expect((await server.post("/api/pull", { model, insecure: true })).status).toBe(403)
    const stranger = await pull(store, model, { CRIA_HOST: server.url })
    expect(stranger.code).toBe(1)
    expect(stranger.stderr).toContain("Error: this server changes no models over HTTP")
    const env = { ...settings, CRIA_HOST: server.url }
    expect((await pull(store, model, env)).code).toBe(0)
    const { stdout } = await world.run(["list"], { env })
    expect(stdout).toContain(model)
    expect((await world.run(["cp", model, "mine"], { env })).code).toBe(0)
    expect((await push(store, model, env)).code).toBe(0)
    const removed = await world.run(["rm", model, "mine"], { env })
    expect(removed.code).toBe(0)
    expect(contentOf(store)).toEqual({})
    expect(JSON.stringify(await server.json("/api/tags"))).not.toContain(registry.host)
  })

  test("leaves no process behind", async () => {
    await world.quiet()
  })
})

/** The demo model, cut in two as llama.cpp does it. */
async function halves(): Promise<Buffer[]> {
  const { header } = readModel(DEMO)
  const tensors = tensorsOf(DEMO, header)
  const half = Math.ceil(tensors.length / 2)
  const metadata = [...header.metadata].map(([key, value]): [string, GgufInput] => [
    key,
    inputOf(DEMO, value),
  ])
  const fields = (number: number): [string, GgufInput][] => [
    ["split.no", { type: "u16", value: number }],
    ["split.count", { type: "u16", value: 2 }],
    ["split.tensors.count", { type: "i32", value: tensors.length }],
  ]
  const encode = async (entries: [string, GgufInput][], part: typeof tensors) =>
    Buffer.concat(await Array.fromAsync(encodeGguf({ metadata: new Map(entries), tensors: part })))
  return [
    await encode([...metadata, ...fields(0)], tensors.slice(0, half)),
    await encode(fields(1), tensors.slice(half)),
  ]
}

describe("a model that Hugging Face has in several files", () => {
  test("is shown, pulled, merged, and answers", async () => {
    await using hub = new FakeRegistry()
    const parts = await halves()
    parts.forEach((bytes, i) => {
      hub.files.set(`me/demo-GGUF/demo-Q8_0-0000${i + 1}-of-00002.gguf`, bytes)
    })
    const store = folderIn(world)
    const env = { CRIA_MODELS: store, HF_ENDPOINT: hub.origin, HF_TOKEN: "hf_secret" }
    const name = `${hub.host}/me/demo-GGUF`
    const shown = await world.run(["show", "--fit", "--insecure", name], { env })
    expect(shown.stdout).toMatch(/\nQ8_0 \* +[\d.]+ MB in 2 files +on (CPU|GPU) +\d+/)
    const { code, stdout, stderr } = await world.run(
      ["run", name, "--insecure", "--think=false", "What is the capital of France?"],
      { env },
    )
    expect({ code, stdout, stderr }).toMatchObject({
      code: 0,
      stdout: "The capital of France is Paris.\n\n",
    })
    expect(stderr).toContain("merging 2 parts")
    // The merged file has the tensors of the original, which was written by the same rules.
    const [merged = ""] = readdirSync(join(store, "blobs")).filter(
      (file) => statSync(join(store, "blobs", file)).size > MIB,
    )
    const whole = readModel(join(store, "blobs", merged))
    expect(whole.header.tensors.map(({ name: tensor }) => tensor)).toEqual(
      readModel(DEMO).header.tensors.map(({ name: tensor }) => tensor),
    )
    expect(readFileSync(join(store, "blobs", merged)).length).toBe(statSync(DEMO).size)
    expect(readdirSync(join(store, "blobs"))).toHaveLength(2)
    expect(hub.log.every(({ authorization }) => authorization === "Bearer hf_secret")).toBe(true)
  })
})
