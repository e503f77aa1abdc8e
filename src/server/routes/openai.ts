/**
 * Routes of the OpenAI-compatible API.
 *
 * @module
 */

import { type Context, Hono } from "hono"

import { type ChatCompletionRequest, chatCompletionRequest } from "../../api/openai.ts"
import { parseBody } from "../../api/parts.ts"
import type { RequestTerms } from "../../chat/terms.ts"
import type { App } from "../../services/app.ts"
import type { InstalledModel } from "../../services/catalog.ts"
import { CriaError } from "../../util/errors.ts"
import {
  chatCompletionCommand,
  type CompletionContext,
  completionChunks,
  completionReply,
  openaiError,
} from "../dialects/openai.ts"
import { toStreamReply } from "../errors.ts"
import { type Framing, streamed } from "../stream.ts"
import { termsOf } from "../terms.ts"

const EMPTY_BODY = "EOF"

/** All routes under `/v1`. */
export function openaiRoutes(app: App): Hono {
  return new Hono()
    .get("/v1/models", (c) => {
      const models = app.catalog.installed().map((model) => openaiModel(model))
      return c.json({ object: "list", data: models.length === 0 ? null : models })
    })
    .get("/v1/models/:model", (c) => {
      const requested = c.req.param("model")
      const { stored } = app.catalog.describe(
        requested,
        { system: undefined, options: {} },
        false,
      ).model
      const created = seconds(stored.modifiedAt)
      return c.json({ id: requested, object: "model", created, owned_by: stored.name.namespace })
    })
    .post("/v1/chat/completions", async (c) => chatCompletions(c, app))
}

async function chatCompletions(c: Context, app: App): Promise<Response> {
  const request = parseBody<ChatCompletionRequest>(
    chatCompletionRequest,
    await c.req.text(),
    EMPTY_BODY,
  )
  if (request.model.trim() === "") throw new CriaError("invalid-input", "model is required")
  const terms = termsOf(c.req.raw.headers, {
    priority: request.priority ?? tierPriority(request.service_tier),
    cachePrompt: request.cache_prompt,
    user: request.user ?? undefined,
  })
  const command = { ...chatCompletionCommand(request), terms }
  const { events } = await app.generator.answers(command, request.n, c.req.raw.signal)
  const context: CompletionContext = {
    model: request.model,
    id: `chatcmpl-${Math.floor(Math.random() * 999)}`,
    created: seconds(new Date()),
    choices: request.n,
    includeUsage: request.stream_options?.include_usage === true,
  }
  if (request.stream) return streamed(completionChunks(events, context), SSE)
  return c.json(await completionReply(events, context))
}

/** OpenAI's own tiers, as far as they say something here. */
function tierPriority(tier: string | null | undefined): RequestTerms["priority"] {
  if (tier === "priority") return "interactive"
  return tier === "flex" ? "batch" : undefined
}

const SSE: Framing<object> = {
  contentType: "text/event-stream",
  frame: (chunk) => `data: ${JSON.stringify(chunk)}\n\n`,
  error: (error) => {
    const { status, message } = toStreamReply(error)
    return `data: ${JSON.stringify(openaiError(status, message))}\n\n`
  },
  end: "data: [DONE]\n\n",
}

function openaiModel({ name, modifiedAt, namespace }: InstalledModel): object {
  return { id: name, object: "model", created: seconds(modifiedAt), owned_by: namespace }
}

function seconds(date: Date): number {
  return Math.floor(date.getTime() / 1000)
}
