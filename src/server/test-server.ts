/**
 * The server over a {@link TestApp}, without a socket: for tests.
 *
 * @module
 */

import type { Hono } from "hono"

import { ABLE_TEMPLATE, TestApp } from "../services/test-app.ts"
import { createRoutes } from "./server.ts"

/** A reply, read to its end. */
export interface TestReply {
  readonly status: number
  readonly type: string
  readonly text: string
}

/** See the module. */
export class TestServer implements AsyncDisposable {
  readonly app: TestApp
  readonly #routes: Hono

  /** Of a server that was started with some variables and has no models. */
  constructor(env: Readonly<Record<string, string>> = {}) {
    this.app = new TestApp(env)
    const { app } = this
    const { config, log } = app
    this.#routes = createRoutes({ app, config, log, version: { cria: "0.1.0" } })
  }

  /** A server with a model `tiny` that can think and call tools. */
  static async start(env: Readonly<Record<string, string>> = {}): Promise<TestServer> {
    const server = new TestServer(env)
    await server.app.install("tiny", { chatTemplate: ABLE_TEMPLATE })
    return server
  }

  async request(path: string, init?: RequestInit): Promise<Response> {
    return this.#routes.request(path, init)
  }

  /** Sends a request without a body. */
  async get(path: string, method = "GET"): Promise<TestReply> {
    return read(await this.request(path, { method }))
  }

  /** Sends JSON, or a text as it is. */
  async post(path: string, body: object | string, signal?: AbortSignal): Promise<TestReply> {
    const text = typeof body === "string" ? body : JSON.stringify(body)
    const init = { method: "POST", body: text, ...(signal === undefined ? {} : { signal }) }
    return read(await this.request(path, init))
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.app[Symbol.asyncDispose]()
  }
}

async function read(response: Response): Promise<TestReply> {
  const type = response.headers.get("Content-Type") ?? ""
  return { status: response.status, type, text: await response.text() }
}
