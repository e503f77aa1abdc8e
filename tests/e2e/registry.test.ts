import { afterAll, beforeAll, describe, expect, test } from "bun:test"
import { randomBytes } from "node:crypto"
import { readdirSync, readFileSync, statSync } from "node:fs"
import { join } from "node:path"

import {
  AskedBytes,
  contentOf,
  dockerConfig,
  DockerRegistry,
  FaultProxy,
  fetchedBytes,
  folderIn,
  installModel,
  NO_REGISTRY,
  NO_TLS_REGISTRY,
  UNREACHABLE,
  USER,
  WebProxy,
} from "./registry-support.ts"
import { NO_SMALL_DISK, SmallDisk, testUnless } from "./requirements.ts"
import { DEMO, ndjson, type Server, World } from "./support.ts"

for (const reason of new Set([NO_REGISTRY, NO_TLS_REGISTRY])) {
  if (reason !== undefined) console.warn(`Tests with a real registry are skipped: ${reason}`)
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

/** A folder of its own for a store. */
function newStore(): string {
  return folderIn(world)
}

function isBlob(request: Request): boolean {
  return request.url.includes("/blobs/")
}

/** The bytes that a request asks for. */
function range(request: Request): [start: number, end: number] {
  const [, from = "0", to = "0"] = /(\d+)-(\d+)/.exec(request.headers.get("Range") ?? "") ?? []
  return [Number(from), Number(to) + 1]
}

/** Pulls through a server of its own. */
function pull(store: string, name: string, env: Record<string, string> = {}) {
  return world.run(["pull", name, "--insecure"], { env: { CRIA_MODELS: store, ...env } })
}

describe.skipIf(NO_REGISTRY !== undefined)("a real registry", () => {
  let registry: DockerRegistry

  beforeAll(async () => {
    registry = await DockerRegistry.start()
  })

  afterAll(async () => {
    await registry[Symbol.asyncDispose]()
  })

  test("push, delete, pull: models that share blobs come back byte for byte", async () => {
    const store = newStore()
    await using server = await world.serve({ CRIA_MODELS: store })
    const env = { CRIA_MODELS: store, CRIA_HOST: server.url }
    const cria = (...args: string[]) => world.run(args, { env })
    const license = "do what you like\n".repeat(1000)
    const names = ["me/a:latest", "me/b:v2", "you/a:latest"].map(
      (name) => `${registry.host}/${name}`,
    )
    const [first = "", second = "", third = ""] = names
    installModel(store, first, [LARGE, license])
    installModel(store, second, [LARGE, "another licence"])
    installModel(store, third, [readFileSync(DEMO), license])
    const before = contentOf(store)
    for (const name of names) {
      const { code, stdout, stderr } = await cria("push", name, "--insecure")
      expect({ code, stdout }).toEqual({
        code: 0,
        stdout: `\nYou can find your model at:\n\n\t${name}\n`,
      })
      expect(stderr).toContain("success")
    }
    const removed = await cria("rm", ...names)
    expect(removed.stdout).toBe(names.map((name) => `deleted '${name}'\n`).join(""))
    expect(contentOf(store)).toEqual({})
    for (const name of names) {
      const { code, stderr } = await cria("pull", name, "--insecure")
      expect({ code, last: stderr.trim().split("\n").at(-1) }).toEqual({ code: 0, last: "success" })
    }
    expect(contentOf(store)).toEqual(before)
    // What the registry has lost is not there, and the rest is.
    await registry.delete("me/b", "v2")
    const lost = await cria("pull", second, "--insecure")
    expect(lost.code).toBe(1)
    expect(lost.stderr).toContain("Error: pull model manifest: file does not exist")
    expect(contentOf(store)).toEqual(before)
    const again = await cria("push", second, "--insecure")
    expect(again.code).toBe(0)
    const fresh = newStore()
    for (const name of names) expect((await pull(fresh, name)).code).toBe(0)
    expect(contentOf(fresh)).toEqual(before)
    const listed = await cria("pull", first, "--insecure", "--json")
    const lines = listed.stdout
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line) as object)
    expect(lines[0]).toEqual({ status: "pulling manifest" })
    expect(lines.at(-1)).toEqual({ status: "success" })
    expect(listed.stderr).toBe("")
  })

  test("run fetches what is not there, and answers", async () => {
    const source = newStore()
    const name = `${registry.host}/me/demo:latest`
    installModel(source, name, [readFileSync(DEMO)])
    await world.run(["push", name, "--insecure"], { env: { CRIA_MODELS: source } })
    const { code, stdout, stderr } = await world.run(
      ["run", name, "--insecure", "--think=false", "What is the capital of France?"],
      { env: { CRIA_MODELS: newStore() } },
    )
    expect({ code, stdout }).toEqual({ code: 0, stdout: "The capital of France is Paris.\n\n" })
    expect(stderr).toContain("success")
  })

  test("of several quantisations the largest that fits is taken; show --fit has them all", async () => {
    const demo = readFileSync(DEMO)
    for (const [tag, padding] of [
      ["q4_0", 0],
      ["q8_0", 100_000],
    ] as const) {
      const name = `${registry.host}/me/quants:${tag}`
      installModel(world.store, name, [Buffer.concat([demo, Buffer.alloc(padding)])])
      await world.run(["push", name, "--insecure"])
    }
    const name = `${registry.host}/me/quants`
    const { code, stdout } = await world.run(["show", "--fit", "--insecure", name])
    expect(code).toBe(0)
    const [head = "", first = "", second = ""] = stdout.split("\n")
    expect(head.split(/\s+/)).toEqual(["QUANT", "SIZE", "FITS", "CONTEXT", ""])
    expect(first).toMatch(/^Q8_0 \* +[\d.]+ MB +on (CPU|GPU) +\d+/)
    expect(second).toMatch(/^Q4_0 +[\d.]+ MB +on (CPU|GPU) +\d+/)
    const pulled = await pull(newStore(), name)
    expect(pulled.code).toBe(0)
    expect(pulled.stderr).toMatch(
      /\nchose Q8_0 \([\d.]+ MB\): the largest that fits (in memory|on the GPU), with/,
    )
    const store = newStore()
    const wished = await world.run(["pull", "--quant", "q4_0", "--insecure", name], {
      env: { CRIA_MODELS: store },
    })
    expect(wished.code).toBe(0)
    expect(Object.keys(contentOf(store)).filter((path) => path.startsWith("manifests/"))).toEqual([
      `manifests/${registry.host}/me/quants/q4_0`,
    ])
    const unknown = await world.run(["pull", "--quant", "q2_k", "--insecure", name])
    expect(unknown.code).toBe(1)
    expect(unknown.stderr).toContain("There are Q8_0, Q4_0")
  })

  test("a model that is not there", async () => {
    const store = newStore()
    const { code, stderr } = await pull(store, `${registry.host}/me/none`)
    expect(code).toBe(1)
    expect(stderr).toContain("Error: pull model manifest: file does not exist")
    expect(contentOf(store)).toEqual({})
  })

  test("kill -9 in mid-pull costs no more than what was on the wire", async () => {
    const name = `me/killed:latest`
    installModel(world.store, `${registry.host}/${name}`, [LARGE])
    await world.run(["push", `${registry.host}/${name}`, "--insecure"])
    const store = newStore()
    await using proxy = new FaultProxy(registry.host)
    const stuck = Promise.withResolvers<void>()
    let passed = 0
    // Three of five parts get through; the others never end.
    proxy.fault = async (request, pass) => {
      if (request.headers.get("Range") === null || request.url.includes("/killed/manifests/"))
        return pass()
      if (passed++ < 3) return pass()
      const { status, headers } = await pass()
      stuck.resolve()
      return new Response(new ReadableStream({ pull: () => new Promise(() => {}) }), {
        status,
        headers,
      })
    }
    await using server: Server = await world.serve({ CRIA_MODELS: store })
    const reply = server.post("/api/pull", { model: `${proxy.host}/${name}`, insecure: true })
    await stuck.promise
    const done = await fetchedBytes(store, 3 * 15 * MIB)
    server.child.kill("SIGKILL")
    await server.child.exited
    await (await reply).text().catch(() => "")
    expect(done).toBeGreaterThanOrEqual(3 * 15 * MIB)
    const asked = new AskedBytes()
    proxy.fault = (request, pass) => {
      asked.add(request)
      return pass()
    }
    const again = await pull(store, `${proxy.host}/${name}`)
    expect(again.code).toBe(0)
    expect(asked.count).toBeLessThanOrEqual(LARGE.length - done + MIB)
    expect(readdirSync(join(store, "blobs")).filter((file) => file.includes("partial"))).toEqual([])
  })

  test("Ctrl-C ends a pull with 130 and keeps what has come", async () => {
    const name = `me/stopped:latest`
    installModel(world.store, `${registry.host}/${name}`, [LARGE])
    await world.run(["push", `${registry.host}/${name}`, "--insecure"])
    const store = newStore()
    await using proxy = new FaultProxy(registry.host)
    const started = Promise.withResolvers<void>()
    proxy.fault = async (request, pass) => {
      if (!(request.headers.get("Range") ?? "bytes=0-").startsWith("bytes=0-")) {
        started.resolve()
        return new Response(new ReadableStream({ pull: () => new Promise(() => {}) }), {
          status: 206,
        })
      }
      return pass()
    }
    const child = world.start(["pull", `${proxy.host}/${name}`, "--insecure"], {
      env: { CRIA_MODELS: store },
    })
    await started.promise
    child.kill("SIGINT")
    await child.exited
    expect(child.exitCode).toBe(130)
    expect(readdirSync(join(store, "blobs")).some((file) => file.endsWith("-partial"))).toBe(true)
    await world.quiet()
  })

  describe("behind a proxy that injects faults", () => {
    const name = "me/faulty:latest"
    beforeAll(async () => {
      installModel(world.store, `${registry.host}/${name}`, [LARGE])
      await world.run(["push", `${registry.host}/${name}`, "--insecure"])
    })

    /** Pulls into a new store with a fault. */
    async function faulty(fault: FaultProxy["fault"]) {
      await using proxy = new FaultProxy(registry.host)
      proxy.fault = fault
      const store = newStore()
      const outcome = await pull(store, `${proxy.host}/${name}`)
      const file = Object.entries(contentOf(store)).find(
        ([path]) => path.startsWith("blobs/") && statSync(join(store, path)).size === LARGE.length,
      )
      return { ...outcome, blob: file?.[1], store }
    }

    const expected = new Bun.CryptoHasher("sha256").update(LARGE).digest("hex")

    test.each([429, 500, 503, 416])("%d now and then", async (status) => {
      const { code, blob } = await faulty((request, pass, nth) =>
        isBlob(request) && nth === 0
          ? new Response("no", { status, headers: { "Retry-After": "0" } })
          : pass(),
      )
      expect({ code, blob }).toEqual({ code: 0, blob: expected })
    })

    test("slow bytes", async () => {
      const { code, blob } = await faulty(async (request, pass, nth) => {
        const reply = await pass()
        if (!isBlob(request) || nth > 3 || reply.body === null) return reply
        const { status, headers } = reply
        const slow = new TransformStream<Uint8Array, Uint8Array>({
          async transform(chunk, controller) {
            await Bun.sleep(1)
            controller.enqueue(chunk)
          },
        })
        return new Response(reply.body.pipeThrough(slow), { status, headers })
      })
      expect({ code, blob }).toEqual({ code: 0, blob: expected })
    })

    test("no ranges", async () => {
      const { code, blob } = await faulty(async (request, pass) => {
        if (!isBlob(request) || request.method !== "GET") return pass()
        return range(request)[1] > 1000 ? new Response(LARGE) : pass()
      })
      expect({ code, blob }).toEqual({ code: 0, blob: expected })
    })

    test("wrong bytes", async () => {
      const { code, stderr, store } = await faulty(async (request, pass) => {
        const [start, end] = range(request)
        if (!isBlob(request) || end - start < MIB) return pass()
        const bytes = Buffer.from(LARGE.subarray(start, end))
        if (start <= 40 * MIB && end > 40 * MIB)
          bytes[40 * MIB - start] = 0x55 ^ (LARGE[40 * MIB] ?? 0)
        return new Response(bytes, {
          status: 206,
          headers: { "Content-Range": `bytes ${start}-${end - 1}/${LARGE.length}` },
        })
      })
      expect(code).toBe(1)
      expect(stderr).toContain(
        "Error: digest mismatch, file must be downloaded again: want sha256:",
      )
      expect(contentOf(store)).toEqual({})
    })

    test("a total that lies", async () => {
      const { code, stderr, store } = await faulty((request, pass) =>
        isBlob(request) && range(request)[1] > 1000
          ? new Response("x".repeat(1000), {
              status: 206,
              headers: { "Content-Range": "bytes 0-999/1000" },
            })
          : pass(),
      )
      expect(code).toBe(1)
      expect(stderr).toContain("the registry has 1000 bytes, its manifest says 75497472")
      const files = Object.keys(contentOf(store))
      expect(files.some((path) => path.startsWith("manifests/"))).toBe(false)
    })

    test("a manifest that is a gzip bomb", async () => {
      const bomb = Bun.gzipSync(Buffer.alloc(100 * MIB, 32))
      const { code, stderr } = await faulty(
        () => new Response(bomb, { headers: { "Content-Encoding": "gzip" } }),
      )
      expect(code).toBe(1)
      expect(stderr).toMatch(
        /Error: pull model manifest: Cannot read the reply of ".*": more than 4194304 bytes/,
      )
    })
  })

  testUnless(NO_SMALL_DISK)("a full disk is an error that says so", async () => {
    using disk = new SmallDisk(8 * MIB)
    const { code, stderr } = await pull(disk.path, `${registry.host}/me/faulty:latest`)
    expect(code).toBe(1)
    expect(stderr).toMatch(/Error: Cannot download to ".*": needs 75 MB, 8\.\d MB free/)
    expect(stderr).toContain("Free some space")
  })

  test("over the HTTP API", async () => {
    await using server = await world.serve({ CRIA_MODELS: newStore() })
    const model = `${registry.host}/me/faulty:latest`
    const lines = await ndjson(await server.post("/api/pull", { model, insecure: true }))
    const completed = lines.flatMap((line) =>
      line["total"] === LARGE.length ? [Number(line["completed"] ?? 0)] : [],
    )
    expect(completed).toEqual(completed.toSorted((a, b) => a - b))
    expect(completed.at(-1)).toBe(LARGE.length)
    expect(lines.at(-1)).toEqual({ status: "success" })
  })
})

describe.skipIf(NO_REGISTRY !== undefined)("a registry with Basic auth", () => {
  test("lets in who has logged in with Docker, and nobody else", async () => {
    await using registry = await DockerRegistry.start({ auth: true })
    const name = `${registry.host}/me/m:latest`
    const store = newStore()
    installModel(store, name, ["weights"])
    const env = { CRIA_MODELS: store }
    const stranger = await world.run(["push", name, "--insecure"], { env })
    expect(stranger.code).toBe(1)
    expect(stranger.stderr).toContain(
      "Error: you are not authorized to push to this namespace, create the model under a namespace you own",
    )
    const good = dockerConfig(world, registry.host, USER.password)
    const pushed = await world.run(["push", name, "--insecure"], {
      env: { ...env, DOCKER_CONFIG: good },
    })
    expect(pushed.code).toBe(0)
    const bad = dockerConfig(world, registry.host, "wrong")
    const refused = await pull(newStore(), name, { DOCKER_CONFIG: bad })
    expect(refused.code).toBe(1)
    expect(refused.stderr).toContain("Error: pull model manifest: unauthorized: access denied")
    expect(refused.stderr).not.toContain("push")
    const fresh = newStore()
    expect((await pull(fresh, name, { DOCKER_CONFIG: good })).code).toBe(0)
    expect(contentOf(fresh)).toEqual(contentOf(store))
  })
})

describe.skipIf(NO_REGISTRY !== undefined)(
  "a registry with Basic auth and a storage elsewhere",
  () => {
    test("the authorization goes to the registry and not to its storage", async () => {
      await using registry = await DockerRegistry.start({ auth: true })
      await using front = new FaultProxy(registry.host)
      await using storage = new FaultProxy(registry.host)
      const secret = `Basic ${Buffer.from(`${USER.name}:${USER.password}`).toString("base64")}`
      const seen = { front: new Set<string | null>(), storage: new Set<string | null>() }
      front.fault = (request, pass) => {
        const authorization = request.headers.get("Authorization")
        seen.front.add(authorization)
        // Only who is let in is sent on.
        if (!isBlob(request) || request.method !== "GET" || authorization !== secret) return pass()
        const location = request.url.replace(/127\.0\.0\.1:\d+/, storage.host)
        return new Response(null, { status: 307, headers: { Location: location } })
      }
      storage.fault = (request) => {
        seen.storage.add(request.headers.get("Authorization"))
        const { pathname } = new URL(request.url)
        // The address itself is the right to read: as a signed one.
        return fetch(`http://${registry.host}${pathname}`, {
          headers: { Authorization: secret, Range: request.headers.get("Range") ?? "" },
        })
      }
      const store = newStore()
      const name = `${front.host}/me/m:latest`
      installModel(store, name, [LARGE])
      const DOCKER_CONFIG = dockerConfig(world, front.host, USER.password)
      const pushed = await world.run(["push", name, "--insecure"], {
        env: { CRIA_MODELS: store, DOCKER_CONFIG },
      })
      expect(pushed.code).toBe(0)
      const fresh = newStore()
      expect((await pull(fresh, name, { DOCKER_CONFIG })).code).toBe(0)
      expect(contentOf(fresh)).toEqual(contentOf(store))
      expect(seen.front).toEqual(new Set([null, secret]))
      expect(seen.storage).toEqual(new Set([null]))
    })
  },
)

describe.skipIf(NO_TLS_REGISTRY !== undefined)("a registry with TLS", () => {
  test("needs its authority; goes through HTTPS_PROXY unless NO_PROXY says otherwise", async () => {
    await using registry = await DockerRegistry.start({ tls: true, auth: true })
    await using proxy = await WebProxy.start()
    const { certificate } = registry
    // A name that only the proxy can resolve.
    const port = registry.host.split(":")[1] ?? ""
    const store = newStore()
    const name = `${registry.host}/me/m:latest`
    installModel(store, name, ["weights"])
    const config = dockerConfig(world, registry.host, USER.password)
    const env = { CRIA_MODELS: store, DOCKER_CONFIG: config }
    const distrusted = await world.run(["push", name], { env })
    expect(distrusted.code).toBe(1)
    expect(distrusted.stderr).toMatch(/Error: Cannot reach ".*": self.signed certificate/)
    expect(distrusted.stderr).toContain("SSL_CERT_FILE")
    const missing = await world.run(["push", name], { env: { ...env, SSL_CERT_FILE: "/nowhere" } })
    expect(missing.stderr).toContain('Cannot read "/nowhere"')
    const trusted = { ...env, SSL_CERT_FILE: certificate, HTTPS_PROXY: proxy.url }
    const pushed = await world.run(["push", name], { env: trusted })
    expect({ code: pushed.code, stderr: pushed.stderr }).toMatchObject({ code: 0 })
    // Loopback is never reached through a proxy.
    expect(proxy.requests).toEqual([])
    const fresh = newStore()
    const away = `registry.test:${port}/me/m:latest`
    const other = dockerConfig(world, `registry.test:${port}`, USER.password)
    const proxied = await world.run(["pull", away], {
      env: { ...trusted, CRIA_MODELS: fresh, DOCKER_CONFIG: other },
    })
    expect(proxy.requests[0]).toBe(`CONNECT registry.test:${port} HTTP/1.1`)
    expect(proxied.code).toBe(0)
    expect(contentOf(fresh)).toMatchObject({
      [`manifests/registry.test:${port}/me/m/latest`]: expect.any(String),
    })
    proxy.requests.length = 0
    const direct = await world.run(["pull", `${UNREACHABLE}:${port}/me/m:latest`], {
      env: { ...trusted, CRIA_MODELS: newStore(), NO_PROXY: UNREACHABLE },
    })
    expect(direct.code).toBe(1)
    expect(proxy.requests).toEqual([])
  })
})
