/**
 * A registry in this process that misbehaves on demand: for tests.
 *
 * Speaks the `/v2` protocol over loopback, with repositories in memory, and can cut connections, answer with errors,
 * send slowly, lie about lengths, ignore ranges, redirect to a second host, and ask for tokens.
 *
 * @module
 */

import { hash } from "node:crypto"

import { MEDIA_TYPES } from "../store/manifest.ts"
import { askedFor, hubReply } from "./fake-hub.ts"

/** A request as a fault sees it. */
export interface SeenRequest {
  readonly method: string
  readonly path: string
  readonly headers: Headers
  /** How many requests of this kind and path came before. */
  readonly nth: number
}

/** What may go wrong: a reply instead of the right one, or undefined. */
export type FakeFault = (
  request: SeenRequest,
) => Response | undefined | Promise<Response | undefined>

/** See the module. */
export class FakeRegistry implements AsyncDisposable {
  readonly blobs = new Map<string, Uint8Array>()
  readonly manifests = new Map<string, Uint8Array>()
  readonly uploads = new Map<string, Buffer>()
  /** `etag` of each upload that was finished. */
  readonly etags: (string | null)[] = []
  /** All requests, as `GET /v2/…`, with their `Authorization` and the range that they ask for or bring. */
  readonly log: { line: string; authorization: string | null; range: string | null }[] = []
  fault: FakeFault = () => undefined
  ignoresRanges = false
  /** Sends blobs by a redirect to this origin. */
  storage: string | undefined
  /** Has the parts of uploads sent to this one. */
  uploadStorage: FakeRegistry | undefined
  /** Called after each piece of a body that is read, with the bytes so far; the next one waits for it. */
  onPiece: (path: string, bytes: number) => Promise<void> | void = () => {}
  /** Files of repositories, as Hugging Face has them, by `user/repository/path`. */
  readonly files = new Map<string, Uint8Array>()
  /** What was sent to it as the storage of another, by path. */
  readonly parts = new Map<string, Buffer>()
  readonly #counts = new Map<string, number>()
  #server = this.#listen(0)

  /** `127.0.0.1:port`. */
  get host(): string {
    return `127.0.0.1:${this.#server.port}`
  }

  get origin(): string {
    return `http://${this.host}`
  }

  /** Puts a model there; the digest of each content. */
  add(name: string, contents: readonly Uint8Array[], config = "{}"): string[] {
    const put = (bytes: Uint8Array, mediaType: string) => {
      const digest = `sha256:${hash("sha256", bytes, "hex")}`
      this.blobs.set(digest, bytes)
      return { mediaType, digest, size: bytes.length }
    }
    const layers = contents.map((bytes) => put(bytes, MEDIA_TYPES.model))
    const manifest = {
      schemaVersion: 2,
      mediaType: MEDIA_TYPES.manifest,
      config: put(Buffer.from(config), MEDIA_TYPES.config),
      layers,
    }
    this.manifests.set(name, Buffer.from(JSON.stringify(manifest)))
    return layers.map(({ digest }) => digest)
  }

  /** Goes away with all its connections, and comes back at the same address. */
  async restart(awayMs: number): Promise<void> {
    const { port = 0 } = this.#server
    await this.#server.stop(true)
    await Bun.sleep(awayMs)
    this.#server = this.#listen(port)
  }

  /** Requests whose line matches. */
  count(pattern: RegExp): number {
    return this.log.filter(({ line }) => pattern.test(line)).length
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#server.stop(true)
  }

  #listen(port: number) {
    return Bun.serve({
      port,
      hostname: "127.0.0.1",
      idleTimeout: 0,
      maxRequestBodySize: Number.MAX_SAFE_INTEGER,
      fetch: (request) => this.#answer(request),
    })
  }

  async #answer(request: Request): Promise<Response> {
    const { pathname: path, searchParams } = new URL(request.url)
    const { method, headers } = request
    const key = `${method} ${path}`
    const nth = this.#counts.get(key) ?? 0
    this.#counts.set(key, nth + 1)
    const authorization = headers.get("Authorization")
    const range = headers.get("Range") ?? headers.get("Content-Range")
    this.log.push({ line: key, authorization, range })
    const faulty = await this.fault({ method, path, headers, nth })
    if (faulty !== undefined) return faulty
    const [, name = "", kind = "", rest = ""] =
      /^\/v2\/(.+?)\/(manifests|blobs|tags)\/(.+)$/.exec(path) ?? []
    if (path.startsWith("/bucket/")) return this.#put(request, path)
    const hub = hubReply(request, this.files, this.storage)
    if (hub !== undefined) return hub
    if (kind === "tags") return this.#tags(name)
    if (kind === "manifests") return this.#manifest(request, `${name}:${rest}`)
    if (rest.startsWith("uploads/")) return this.#upload(request, rest, searchParams)
    if (kind === "blobs") return this.#blob(request, rest)
    return new Response("what?", { status: 404 })
  }

  #tags(name: string): Response {
    const tags = [...this.manifests.keys()]
      .filter((key) => key.startsWith(`${name}:`))
      .map((key) => key.slice(name.length + 1))
    return Response.json({ name, tags })
  }

  async #manifest(request: Request, key: string): Promise<Response> {
    if (request.method === "PUT") {
      this.manifests.set(key, await request.bytes())
      return new Response(null, { status: 201 })
    }
    const bytes = this.manifests.get(key)
    return bytes === undefined
      ? Response.json({ errors: [{ code: "MANIFEST_UNKNOWN" }] }, { status: 404 })
      : new Response(bytes)
  }

  #blob({ method, headers }: Request, digest: string): Response {
    const bytes = this.blobs.get(digest)
    if (bytes === undefined) return new Response(null, { status: 404 })
    if (method === "HEAD") {
      return new Response(null, { headers: { "Content-Length": String(bytes.length) } })
    }
    if (this.storage !== undefined) {
      return new Response(null, {
        status: 307,
        headers: { Location: `${this.storage}/v2/store/x/blobs/${digest}` },
      })
    }
    return this.ignoresRanges ? new Response(bytes) : askedFor(bytes, headers)
  }

  async #upload(request: Request, rest: string, query: URLSearchParams): Promise<Response> {
    const { method } = request
    const headers = (id: string): Record<string, string> => {
      const end = Math.max(0, (this.uploads.get(id)?.length ?? 0) - 1)
      return {
        Location: new URL(request.url).pathname.replace(/uploads\/.*/, `uploads/${id}`),
        Range: `0-${end}`,
      }
    }
    if (method === "POST") {
      if (this.blobs.has(query.get("mount") ?? "")) return new Response(null, { status: 201 })
      const id = crypto.randomUUID()
      this.uploads.set(id, Buffer.alloc(0))
      return new Response(null, { status: 202, headers: headers(id) })
    }
    const id = rest.slice("uploads/".length)
    const content = this.uploads.get(id)
    if (content === undefined) return new Response(null, { status: 404 })
    if (method === "GET") return new Response(null, { status: 204, headers: headers(id) })
    if (method === "PATCH") return this.#patch(request, id, headers)
    const full = this.uploadStorage === undefined ? content : this.uploadStorage.#assembled(id)
    const digest = `sha256:${hash("sha256", full, "hex")}`
    if (digest !== query.get("digest")) return new Response("DIGEST_INVALID", { status: 400 })
    this.etags.push(query.get("etag"))
    this.blobs.set(digest, full)
    this.uploads.delete(id)
    return new Response(null, { status: 201 })
  }

  async #patch(
    request: Request,
    id: string,
    headers: (id: string) => Record<string, string>,
  ): Promise<Response> {
    const content = this.uploads.get(id) ?? Buffer.alloc(0)
    const start = Number(/^(\d+)-/.exec(request.headers.get("Content-Range") ?? "")?.[1])
    if (this.uploadStorage !== undefined) {
      const { Location = "" } = headers(id)
      const part = `${this.uploadStorage.origin}/bucket/${id}/${String(start).padStart(15, "0")}`
      const redirect = { Location: part, "Docker-Upload-Location": Location }
      return new Response(null, { status: 307, headers: redirect })
    }
    if (start !== content.length) return new Response(null, { status: 416, headers: headers(id) })
    await this.#read(request, (bytes) => this.uploads.set(id, Buffer.concat([content, bytes])))
    return new Response(null, { status: 202, headers: headers(id) })
  }

  async #put(request: Request, path: string): Promise<Response> {
    await this.#read(request, (bytes) => this.parts.set(path, bytes))
    return new Response(null, { status: 200 })
  }

  #assembled(id: string): Buffer {
    const parts = [...this.parts]
      .filter(([path]) => path.startsWith(`/bucket/${id}/`))
      .toSorted(byPath)
    return Buffer.concat(parts.map(([, bytes]) => bytes))
  }

  /** Reads a body at the pace of {@link onPiece}; `keep` gets what has come, also of one that breaks off. */
  async #read(request: Request, keep: (bytes: Buffer) => void): Promise<void> {
    const { pathname } = new URL(request.url)
    const pieces: Uint8Array[] = []
    let bytes = 0
    try {
      for await (const piece of request.body ?? []) {
        pieces.push(piece)
        bytes += piece.length
        await this.onPiece(pathname, bytes)
      }
    } finally {
      keep(Buffer.concat(pieces))
    }
  }
}

function byPath([a]: [string, Buffer], [b]: [string, Buffer]): number {
  return a < b ? -1 : 1
}

/** A reply that gives these bytes in pieces, each when `next` resolves. */
export function slowReply(
  pieces: readonly Uint8Array[],
  next: (index: number) => Promise<void>,
  init: ResponseInit,
): Response {
  let index = 0
  const body = new ReadableStream<Uint8Array>({
    async pull(controller) {
      const piece = pieces[index]
      if (piece === undefined) return controller.close()
      await next(index++)
      controller.enqueue(piece)
    },
  })
  return new Response(body, init)
}
