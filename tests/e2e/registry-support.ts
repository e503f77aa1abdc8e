/**
 * A real registry for the end-to-end tests: Debian's `docker-registry` on loopback, with or without Basic auth and TLS,
 * and proxies to put in front of it.
 *
 * @module
 */

import { createHash } from "node:crypto"
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs"
import { type AddressInfo, connect, createServer, type Server, type Socket } from "node:net"
import { tmpdir } from "node:os"
import { dirname, join } from "node:path"

import { until, type World } from "./support.ts"

const PROGRAM = Bun.which("docker-registry")
const OPENSSL = Bun.which("openssl")

/** Why the tests cannot run here; undefined when they can. */
export const NO_REGISTRY: string | undefined =
  PROGRAM === null
    ? "docker-registry is not installed (apt-get install docker-registry)"
    : undefined

/** Like {@link NO_REGISTRY}, of tests with TLS. */
export const NO_TLS_REGISTRY: string | undefined =
  NO_REGISTRY ?? (OPENSSL === null ? "openssl is not installed" : undefined)

/** The user that registries with Basic auth know. */
export const USER = { name: "tester", password: "pass:word" } as const

/** No address of a machine, so that the system refuses to connect to it at once; to a proxy it is one like others. */
export const UNREACHABLE = "224.0.0.1"

/** A running registry. Disposing it ends it and removes what it holds. */
export class DockerRegistry implements AsyncDisposable {
  readonly folder: string
  readonly host: string
  readonly #child: Bun.Subprocess

  /** Use {@link DockerRegistry.start}. */
  constructor(folder: string, host: string, child: Bun.Subprocess) {
    this.folder = folder
    this.host = host
    this.#child = child
  }

  /** File with the certificate of a registry with TLS. */
  get certificate(): string {
    return join(this.folder, "cert.pem")
  }

  static async start(options: { auth?: boolean; tls?: boolean } = {}): Promise<DockerRegistry> {
    const folder = mkdtempSync(join(tmpdir(), "cria-registry-"))
    if (options.tls === true) makeCertificate(folder)
    if (options.auth === true) {
      const hash = await Bun.password.hash(USER.password, { algorithm: "bcrypt", cost: 4 })
      writeFileSync(join(folder, "htpasswd"), `${USER.name}:${hash}\n`)
    }
    for (;;) {
      const host = `127.0.0.1:${await freePort()}`
      const registry = new DockerRegistry(folder, host, serve(folder, host, options))
      // Another program may take the port meanwhile: then the registry ends, and gets another one.
      if (await registry.#listens()) return registry
    }
  }

  /** Waits until it listens; false when it has ended instead. */
  async #listens(): Promise<boolean> {
    const port = Number(this.host.split(":")[1])
    await until(async () => this.#child.exitCode !== null || (await canConnect(port)))
    return this.#child.exitCode === null
  }

  /** Takes a model away, by the digest of its manifest, as the protocol wants it. */
  async delete(name: string, tag: string): Promise<void> {
    const url = `http://${this.host}/v2/${name}/manifests/`
    const accept = "application/vnd.docker.distribution.manifest.v2+json"
    const head = await fetch(`${url}${tag}`, { method: "HEAD", headers: { Accept: accept } })
    const digest = head.headers.get("Docker-Content-Digest") ?? ""
    const { status } = await fetch(`${url}${digest}`, { method: "DELETE" })
    if (status !== 202) throw new Error(`the registry answers ${status} to DELETE ${name}:${tag}`)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#child.kill("SIGKILL")
    await this.#child.exited
    rmSync(this.folder, { recursive: true, force: true })
  }
}

/** Starts the program, with its files in a folder. */
function serve(
  folder: string,
  host: string,
  options: { auth?: boolean; tls?: boolean },
): Bun.Subprocess {
  const config = {
    version: "0.1",
    log: { level: "error", accesslog: { disabled: true } },
    storage: {
      filesystem: { rootdirectory: join(folder, "data") },
      delete: { enabled: true },
    },
    http: {
      addr: host,
      // Whatever stands in front of it stays in front of it.
      relativeurls: true,
      ...(options.tls === true
        ? { tls: { certificate: join(folder, "cert.pem"), key: join(folder, "key.pem") } }
        : {}),
    },
    ...(options.auth === true
      ? { auth: { htpasswd: { realm: "test", path: join(folder, "htpasswd") } } }
      : {}),
  }
  // JSON is YAML.
  writeFileSync(join(folder, "config.yml"), JSON.stringify(config))
  return Bun.spawn([PROGRAM ?? "", "serve", join(folder, "config.yml")], {
    stdout: "ignore",
    stderr: "ignore",
  })
}

/** A store folder with models of arbitrary content. */
export function installModel(
  store: string,
  name: string,
  contents: readonly (Uint8Array | string)[],
): string {
  const put = (content: Uint8Array | string, mediaType: string) => {
    const hex = createHash("sha256").update(content).digest("hex")
    mkdirSync(join(store, "blobs"), { recursive: true })
    writeFileSync(join(store, "blobs", `sha256-${hex}`), content)
    return { mediaType, digest: `sha256:${hex}`, size: Buffer.byteLength(content) }
  }
  const config = { model_format: "gguf", model_family: "qwen3", file_type: "Q8_0" }
  const manifest = {
    schemaVersion: 2,
    mediaType: "application/vnd.docker.distribution.manifest.v2+json",
    config: put(JSON.stringify(config), "application/vnd.docker.container.image.v1+json"),
    layers: contents.map((content, i) =>
      put(content, `application/vnd.ollama.image.${i === 0 ? "model" : "license"}`),
    ),
  }
  const path = join(store, "manifests", name.replace(/:([^:/]+)$/, "/$1"))
  mkdirSync(dirname(path), { recursive: true })
  writeFileSync(path, `${JSON.stringify(manifest)}\n`)
  return path
}

/** A new folder of a world. */
export function folderIn({ folder }: World): string {
  return mkdtempSync(join(folder, "folder-"))
}

/** Writes a Docker configuration with {@link USER} and returns its folder. */
export function dockerConfig(world: World, host: string, password: string): string {
  const folder = folderIn(world)
  const auth = Buffer.from(`${USER.name}:${password}`).toString("base64")
  writeFileSync(join(folder, "config.json"), JSON.stringify({ auths: { [host]: { auth } } }))
  return folder
}

/** Waits until the notes of a store's partial blobs add up to some bytes; what they say then. */
export async function fetchedBytes(store: string, bytes: number): Promise<number> {
  const folder = join(store, "blobs")
  let sum = 0
  await until(() => {
    const files = existsSync(folder) ? readdirSync(folder) : []
    const notes = files.filter((file) => /-partial-\d+$/.test(file))
    sum = notes.reduce((total, file) => total + completedBytes(join(folder, file)), 0)
    return sum >= bytes
  })
  return sum
}

/** What a note says; 0 while it is written, or when it has gone. */
function completedBytes(note: string): number {
  try {
    return (JSON.parse(readFileSync(note, "utf8")) as { Completed: number }).Completed
  } catch {
    return 0
  }
}

/** Which bytes of a blob are asked for, through a proxy. */
export class AskedBytes {
  readonly #ranges: [start: number, end: number][] = []

  /** Remembers the range of a request, if it has one. */
  add(request: Request): void {
    const [, start, end] = /bytes=(\d+)-(\d+)/.exec(request.headers.get("Range") ?? "") ?? []
    if (start !== undefined) this.#ranges.push([Number(start), Number(end) + 1])
  }

  /**
   * How many they are. One that is asked for twice counts once: the end of a part that is slow is fetched by another
   * connection, too.
   */
  get count(): number {
    let count = 0
    let counted = 0
    for (const [start, end] of this.#ranges.toSorted(([a], [b]) => a - b)) {
      count += Math.max(0, end - Math.max(start, counted))
      counted = Math.max(counted, end)
    }
    return count
  }
}

/** All files below the manifests and blobs of a store, with their content's digest. */
export function contentOf(store: string): Record<string, string> {
  const files = new Bun.Glob("{manifests,blobs}/**").scanSync({ cwd: store, onlyFiles: true })
  return Object.fromEntries(
    [...files].toSorted().map((file) => [
      file,
      createHash("sha256")
        .update(readFileSync(join(store, file)))
        .digest("hex"),
    ]),
  )
}

/** A proxy for HTTP and, by CONNECT, for HTTPS. */
export class WebProxy implements AsyncDisposable {
  /** First lines of what came. */
  readonly requests: string[] = []
  readonly #server: Server
  readonly #sockets = new Set<Socket>()

  /** Use {@link WebProxy.start}. */
  constructor(server: Server) {
    this.#server = server
    server.on("connection", (socket) => this.#accept(socket))
  }

  static async start(): Promise<WebProxy> {
    const server = createServer()
    const listening = Promise.withResolvers<void>()
    server.listen(0, "127.0.0.1", () => listening.resolve())
    await listening.promise
    return new WebProxy(server)
  }

  get url(): string {
    // A server on TCP has an address with a port.
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const socket of this.#sockets) socket.destroy()
    const closed = Promise.withResolvers<void>()
    this.#server.close(() => closed.resolve())
    await closed.promise
  }

  #accept(client: Socket): void {
    this.#keep(client)
    client.once("data", (head) => {
      const [line = ""] = head.toString("latin1").split("\r\n")
      this.requests.push(line)
      const [, method, port] = /^(\w+) (?:http:\/\/)?[^:]+:(\d+)/.exec(line) ?? []
      // Whatever the name: for this proxy all the world is on loopback.
      const upstream = connect(Number(port), "127.0.0.1", () => {
        // Servers take the whole address of a plain request, too.
        if (method === "CONNECT") client.write("HTTP/1.1 200 OK\r\n\r\n")
        else upstream.write(head)
        client.pipe(upstream)
        upstream.pipe(client)
      })
      this.#keep(upstream)
    })
  }

  #keep(socket: Socket): void {
    this.#sockets.add(socket)
    socket.on("error", () => socket.destroy())
    socket.on("close", () => this.#sockets.delete(socket))
  }
}

/** What a {@link FaultProxy} does with a request: its own reply, or that of the registry, changed. */
export type ProxyFault = (
  request: Request,
  pass: () => Promise<Response>,
  nth: number,
) => Response | Promise<Response>

/** Stands in front of a registry and does what a test says. */
export class FaultProxy implements AsyncDisposable {
  fault: ProxyFault = (_, pass) => pass()
  readonly #counts = new Map<string, number>()
  readonly #server: ReturnType<typeof Bun.serve>

  /** @param host `address:port` of the registry. */
  constructor(host: string) {
    this.#server = Bun.serve({
      port: 0,
      hostname: "127.0.0.1",
      idleTimeout: 0,
      maxRequestBodySize: Number.MAX_SAFE_INTEGER,
      fetch: (request) => this.#answer(request, host),
    })
  }

  get host(): string {
    return `127.0.0.1:${this.#server.port}`
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#server.stop(true)
  }

  async #answer(request: Request, host: string): Promise<Response> {
    const { pathname, search } = new URL(request.url)
    const nth = this.#counts.get(pathname) ?? 0
    this.#counts.set(pathname, nth + 1)
    const pass = () =>
      fetch(`http://${host}${pathname}${search}`, {
        method: request.method,
        headers: request.headers,
        body: request.body,
        redirect: "manual",
      })
    return this.fault(request, pass, nth)
  }
}

function makeCertificate(folder: string): void {
  const command =
    "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost"
  const { exitCode, stderr } = Bun.spawnSync(
    [
      OPENSSL ?? "",
      ...command.split(" "),
      "-keyout",
      "key.pem",
      "-out",
      "cert.pem",
      "-addext",
      "subjectAltName=DNS:registry.test,IP:127.0.0.1",
    ],
    { cwd: folder },
  )
  if (exitCode !== 0 || !existsSync(join(folder, "cert.pem"))) throw new Error(stderr.toString())
}

async function freePort(): Promise<number> {
  const server = createServer()
  const listening = Promise.withResolvers<void>()
  server.listen(0, "127.0.0.1", () => listening.resolve())
  await listening.promise
  const { port } = server.address() as AddressInfo
  const closed = Promise.withResolvers<void>()
  server.close(() => closed.resolve())
  await closed.promise
  return port
}

function canConnect(port: number): Promise<boolean> {
  const { promise, resolve } = Promise.withResolvers<boolean>()
  const socket = connect(port, "127.0.0.1", () => {
    socket.destroy()
    resolve(true)
  })
  socket.on("error", () => resolve(false))
  return promise
}
