/**
 * Routes of Ollama's native API.
 *
 * @module
 */

import { type Context, Hono } from "hono"

import {
  type ChatReply,
  type ChatRequest,
  chatRequest,
  type GenerateReply,
  type GenerateRequest,
  generateRequest,
  type ShowRequest,
  showRequest,
} from "../../api/ollama.ts"
import { parseBody } from "../../api/parts.ts"
import type { RequestTerms } from "../../chat/terms.ts"
import type { App } from "../../services/app.ts"
import type { AnswerCommand } from "../../services/generate.ts"
import { CriaError } from "../../util/errors.ts"
import { formatUtc } from "../../util/units.ts"
import { psModel } from "../dialects/ollama-ps.ts"
import {
  chatCommand,
  chatReplies,
  chatReply,
  generateCommand,
  generateReplies,
  generateReply,
  remoteReply,
  type ReplyContext,
  showReply,
  tagsModel,
} from "../dialects/ollama.ts"
import { toStreamReply } from "../errors.ts"
import { type Framing, streamed } from "../stream.ts"
import { termsOf } from "../terms.ts"

const EMPTY_BODY = "missing request body"

/** The chat of VS Code shows this key of the metadata as the name of the model. */
const COPILOT = "GitHubCopilotChat/"

const PLAIN_TEXT = "text/plain; charset=utf-8"

/** The version of Ollama whose API this is: clients ask before they use newer parts. */
const OLLAMA_VERSION = "0.20.0"

/** All native routes. */
export function ollamaRoutes(app: App, version: Readonly<Record<string, string>>): Hono {
  const { catalog } = app
  return new Hono()
    .get("/", (c) => c.body("Ollama is running", 200, { "Content-Type": PLAIN_TEXT }))
    .get("/api/version", (c) => json(c, { version: OLLAMA_VERSION, ...version }))
    .get("/api/tags", (c) => json(c, { models: catalog.installed().map(tagsModel) }))
    .get("/api/ps", async (c) => {
      const models = catalog
        .loaded()
        .map(async (model) => psModel(model, Date.now(), await model.status()))
      return json(c, { models: await Promise.all(models) })
    })
    .post("/api/show", async (c) => show(c, app))
    .post("/api/generate", async (c) => generate(c, app))
    .post("/api/chat", async (c) => chat(c, app))
}

async function show(c: Context, { catalog }: App): Promise<Response> {
  const request = parseBody<ShowRequest>(showRequest, await c.req.text(), EMPTY_BODY)
  const name = required(request.model || request.name)
  const remote = catalog.remote(name)
  if (remote !== undefined) return json(c, remoteReply(remote))
  const overlay = { system: request.system || undefined, options: request.options }
  const reply = showReply(catalog.describe(name, overlay, request.verbose), request.system)
  if (!c.req.header("User-Agent")?.startsWith(COPILOT)) return json(c, reply)
  return json(c, { ...reply, model_info: { ...reply.model_info, "general.basename": name } })
}

async function generate(c: Context, app: App): Promise<Response> {
  const request = parseBody<GenerateRequest>(generateRequest, await c.req.text(), EMPTY_BODY)
  if (request.model.trim() === "") throw new CriaError("not-found", "model '' not found")
  const head = { model: request.model, created_at: formatUtc(Date.now()) }
  if (request.prompt === "") {
    const reason = await loadOrUnload(c, app, request)
    return json(c, { ...head, response: "", done: true, done_reason: reason })
  }
  const command = { ...generateCommand(request), terms: terms(c, request) }
  if (request._debug_render_only) {
    return json(c, { ...head, response: "", done: false, ...(await rendered(c, app, command)) })
  }
  const { events, context } = await answer(c, app, command)
  const replies = generateReplies(events, context)
  return request.stream ? streamed(replies, NDJSON) : json(c, await generateReply(replies))
}

async function chat(c: Context, app: App): Promise<Response> {
  const request = parseBody<ChatRequest>(chatRequest, await c.req.text(), EMPTY_BODY)
  required(request.model)
  const head = { model: request.model, created_at: formatUtc(Date.now()) }
  const message = { role: "assistant", content: "" }
  if (request.messages.length === 0) {
    const reason = await loadOrUnload(c, app, request)
    return json(c, { ...head, message, done: true, done_reason: reason })
  }
  const command = { ...chatCommand(request), terms: terms(c, request) }
  if (request._debug_render_only) {
    return json(c, { ...head, message, done: false, ...(await rendered(c, app, command)) })
  }
  const { events, context } = await answer(c, app, command)
  const replies = chatReplies(events, context)
  return request.stream ? streamed(replies, NDJSON) : json(c, await chatReply(replies))
}

/** Starts an answer and notes what its replies have to say about time. */
async function answer(c: Context, app: App, command: AnswerCommand) {
  const startedAt = performance.now()
  const { signal } = c.req.raw
  const { events, loadMs } = await app.generator.answer(command, signal)
  const context: ReplyContext = {
    model: command.model,
    now: () => Date.now(),
    startedAt: Date.now() - (performance.now() - startedAt),
    loadMs,
  }
  return { events, context }
}

function terms(c: Context, request: GenerateRequest | ChatRequest): RequestTerms {
  const { priority, cache_prompt: cachePrompt } = request
  return termsOf(c.req.raw.headers, { priority, cachePrompt })
}

async function rendered(c: Context, app: App, command: AnswerCommand): Promise<object> {
  const template = await app.generator.render(command, c.req.raw.signal)
  return { _debug_info: { rendered_template: template } }
}

/** An empty request loads the model, or with `keep_alive: 0` unloads it. */
async function loadOrUnload(
  c: Context,
  app: App,
  { model, options, keep_alive: keepAliveMs }: GenerateRequest | ChatRequest,
): Promise<"load" | "unload"> {
  if (keepAliveMs === 0) {
    app.generator.unload(model)
    return "unload"
  }
  await app.generator.load({ model, options, keepAliveMs }, c.req.raw.signal)
  return "load"
}

const NDJSON: Framing<GenerateReply | ChatReply> = {
  contentType: "application/x-ndjson",
  frame: (reply) => `${JSON.stringify(reply)}\n`,
  error: (error) => `${JSON.stringify({ error: toStreamReply(error).message })}\n`,
  end: "",
}

function json(c: Context, body: object): Response {
  return c.body(JSON.stringify(body), 200, { "Content-Type": "application/json; charset=utf-8" })
}

function required(model: string): string {
  if (model.trim() === "") throw new CriaError("invalid-input", "model is required")
  return model
}
