/**
 * A typed client of the HTTP API, for the command line and for programs that talk to a server.
 *
 * @module
 */

import type {
  ChatReply,
  FitReply,
  GenerateReply,
  ProgressReply,
  PsModel,
  ShowReply,
  TagsModel,
} from "../api/ollama.ts"
import { CriaError, type ErrorCode } from "../util/errors.ts"
import { linesOf } from "../util/lines.ts"

/** Fields of a request, as the HTTP API documents them. */
export type RequestFields = Readonly<Record<string, unknown>>

/** Sends a request: `fetch`, or what stands in for it. */
export type Send = (url: string, init: RequestInit) => Promise<Response>

/** Talks to one server. */
export class Client {
  readonly url: string
  readonly #send: Send

  /** @param url Without a slash at the end. */
  constructor(url: string, send: Send = fetch) {
    this.url = url
    this.#send = send
  }

  /** True when a server answers. @throws {CriaError} When something answers, but no such server. */
  async isUp(): Promise<boolean> {
    try {
      const response = await this.#send(`${this.url}/`, { method: "HEAD" })
      if (response.ok) return true
      throw new CriaError(
        "unavailable",
        `${this.url} answers ${response.status}: it is no cria server`,
      )
    } catch (error) {
      if (error instanceof CriaError) throw error
      return false
    }
  }

  async tags(): Promise<readonly TagsModel[]> {
    const { models } = await this.#json<{ models: TagsModel[] }>("GET", "/api/tags")
    return models
  }

  async ps(): Promise<readonly PsModel[]> {
    const { models } = await this.#json<{ models: PsModel[] }>("GET", "/api/ps")
    return models
  }

  show(model: string, isVerbose = false): Promise<ShowReply> {
    return this.#json("POST", "/api/show", { model, verbose: isVerbose })
  }

  /** One generate request without streaming; used to load and to unload. */
  generateOnce(fields: RequestFields, signal?: AbortSignal): Promise<GenerateReply> {
    return this.#json("POST", "/api/generate", { ...fields, stream: false }, signal)
  }

  generate(fields: RequestFields, signal?: AbortSignal): AsyncGenerator<GenerateReply> {
    return this.#stream("/api/generate", fields, signal)
  }

  chat(fields: RequestFields, signal?: AbortSignal): AsyncGenerator<ChatReply> {
    return this.#stream("/api/chat", fields, signal)
  }

  /** Creates a model. Leaving the iteration early cancels it. */
  create(fields: RequestFields, signal?: AbortSignal): AsyncGenerator<ProgressReply> {
    return this.#stream("/api/create", fields, signal)
  }

  /** Gives a model another name. Servers of Ollama say nothing on the way. */
  copy(source: string, destination: string, signal?: AbortSignal): AsyncGenerator<ProgressReply> {
    return this.#stream("/api/copy", { source, destination, stream: true }, signal)
  }

  /** Removes a model. Where there is another of this name, which cannot be removed; undefined when there is none. */
  async delete(model: string): Promise<string | undefined> {
    const response = await this.#fetch("DELETE", "/api/delete", { model }, undefined)
    const text = await response.text()
    // The server's documented shape; Ollama's reply is empty.
    return text === "" ? undefined : (JSON.parse(text) as { kept_in?: string }).kept_in
  }

  async hasBlob(digest: string): Promise<boolean> {
    const response = await this.#send(`${this.url}/api/blobs/${digest}`, { method: "HEAD" })
    if (response.ok) return true
    if (response.status === 404) return false
    throw await errorOf(response)
  }

  /** Uploads a blob: a `Blob`, or anything that has a size and a stream. */
  async putBlob(
    digest: string,
    content: Pick<Blob, "size" | "stream">,
    signal?: AbortSignal,
  ): Promise<void> {
    const response = await this.#send(`${this.url}/api/blobs/${digest}`, {
      method: "POST",
      body: content instanceof Blob ? content : content.stream(),
      headers: { "Content-Length": String(content.size) },
      ...(signal === undefined ? {} : { signal }),
    })
    if (!response.ok) throw await errorOf(response)
  }

  /** Fetches a model from its registry. */
  pull(fields: RequestFields, signal?: AbortSignal): AsyncGenerator<ProgressReply> {
    return this.#stream("/api/pull", fields, signal)
  }

  /** The quantisations of a repository, and which of them fit the server's machine. */
  fit(fields: RequestFields): Promise<FitReply> {
    return this.#json("POST", "/api/fit", fields)
  }

  /** Sends a model to its registry. */
  push(fields: RequestFields, signal?: AbortSignal): AsyncGenerator<ProgressReply> {
    return this.#stream("/api/push", fields, signal)
  }

  async #json<T>(
    method: Method,
    path: string,
    body?: RequestFields,
    signal?: AbortSignal,
  ): Promise<T> {
    const response = await this.#fetch(method, path, body, signal)
    // The server's documented shape.
    return (await response.json()) as T
  }

  async *#stream<T extends object>(
    path: string,
    body: RequestFields,
    signal?: AbortSignal,
  ): AsyncGenerator<T, void> {
    const response = await this.#fetch("POST", path, body, signal)
    if (response.body === null) return
    for await (const line of linesOf(response.body)) {
      // The server's documented shape, or an error in mid-stream.
      const item = JSON.parse(line) as T & { error?: string; hint?: string }
      if (item.error !== undefined) {
        const { error, hint } = item
        throw new CriaError("internal", error, hint === undefined ? {} : { hint })
      }
      yield item as Awaited<T>
    }
  }

  async #fetch(
    method: Method,
    path: string,
    body: RequestFields | undefined,
    signal: AbortSignal | undefined,
  ): Promise<Response> {
    const response = await this.#send(`${this.url}${path}`, {
      method,
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      ...(signal === undefined ? {} : { signal }),
    })
    if (response.ok) return response
    throw await errorOf(response)
  }
}

type Method = "GET" | "POST" | "DELETE"

const CODES: Readonly<Record<number, ErrorCode>> = {
  400: "invalid-input",
  404: "not-found",
  409: "conflict",
  503: "unavailable",
}

async function errorOf(response: Response): Promise<CriaError> {
  const text = await response.text()
  const code = CODES[response.status] ?? "internal"
  try {
    const { error, hint } = JSON.parse(text) as { error?: string; hint?: string }
    return new CriaError(code, error ?? text, hint === undefined ? {} : { hint })
  } catch {
    return new CriaError(code, `${response.status} ${response.statusText}: ${text}`)
  }
}
