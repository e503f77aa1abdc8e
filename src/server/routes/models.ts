/**
 * Routes of Ollama's API that change which models are installed.
 *
 * @module
 */

import { type Context, Hono } from "hono"

import {
  type CopyBody,
  copyRequest,
  type CreateBody,
  createRequest,
  type DeleteBody,
  deleteRequest,
} from "../../api/models.ts"
import type { ProgressReply } from "../../api/ollama.ts"
import { parseBody } from "../../api/parts.ts"
import type { App } from "../../services/app.ts"
import type { CreateRequest } from "../../services/create.ts"
import { type Digest, parseDigest } from "../../services/library.ts"
import type { Progress } from "../../services/progress.ts"
import { CriaError } from "../../util/errors.ts"
import { drain } from "../../util/iterate.ts"
import { toReply } from "../errors.ts"
import { type Framing, streamed } from "../stream.ts"

const EMPTY_BODY = "missing request body"

const JSON_TYPE = { "Content-Type": "application/json" }

/** Where blobs are uploaded to: the only route whose body has no limit. */
export const BLOBS_PATH = "/api/blobs/"

/** Create, copy, delete, uploads. */
export function modelRoutes({ library }: App): Hono {
  return new Hono()
    .post("/api/create", async (c) => {
      const body = parseBody<CreateBody>(createRequest, await c.req.text(), EMPTY_BODY)
      const command = createCommand(body)
      return progressReply(c, body.stream, (signal) => library.create(command, signal))
    })
    .post("/api/copy", async (c) => {
      const body = parseBody<CopyBody>(copyRequest, await c.req.text(), EMPTY_BODY)
      const { source, destination, stream } = body
      if (stream)
        return progressReply(c, stream, (signal) => library.copy(source, destination, signal))
      await drain(library.copy(source, destination, c.req.raw.signal))
      return c.body(null, 200)
    })
    .delete("/api/delete", async (c) => {
      const body = parseBody<DeleteBody>(deleteRequest, await c.req.text(), EMPTY_BODY)
      const name = body.model || body.name
      if (name.trim() === "") throw new CriaError("invalid-input", "model is required")
      const keptIn = await library.remove(name)
      // Ollama's reply is empty; ours has something to say when the name is still listed.
      return keptIn === undefined ? c.body(null, 200) : c.json({ kept_in: keptIn })
    })
    .get(`${BLOBS_PATH}:digest`, (c) => {
      if (c.req.method !== "HEAD") return c.text("405 method not allowed", 405)
      const digest = parseDigest(c.req.param("digest"))
      if (library.hasBlob(digest)) return c.body(null, 200)
      throw new CriaError("not-found", `blob "${digest}" not found`)
    })
    .post(`${BLOBS_PATH}:digest`, async (c) => upload(c, library))
}

async function upload(c: Context, library: App["library"]): Promise<Response> {
  const digest = parseDigest(c.req.param("digest") ?? "")
  if (library.hasBlob(digest)) return c.body(null, 200)
  const body = c.req.raw.body ?? new ReadableStream({ start: (stream) => stream.close() })
  const size = Number(c.req.header("Content-Length") ?? 0)
  await library.putBlob(digest, body, { size, signal: c.req.raw.signal })
  return c.body(null, 201)
}

/** A request of the wire in our own words. */
function createCommand(body: CreateBody): CreateRequest {
  return {
    model: body.model || body.name,
    from: body.from || undefined,
    files: digests(body.files),
    adapters: digests(body.adapters),
    draftFiles: digests(body.draft_files),
    quantize: body.quantize || body.quantization || undefined,
    draftQuantize: body.draft_quantize || undefined,
    imatrix: body.imatrix === "" ? undefined : parseDigest(body.imatrix),
    discard: body.discard.map(parseDigest),
    texts: {
      template: body.template,
      system: body.system,
      licenses: body.license,
      parameters: body.parameters,
      messages: body.messages,
      renderer: body.renderer,
      parser: body.parser,
      requires: body.requires || undefined,
      info: body.info,
    },
  }
}

function digests(files: Readonly<Record<string, string>>): Map<string, Digest> {
  return new Map(Object.entries(files).map(([name, digest]) => [name, parseDigest(digest)]))
}

/** Steps as lines; without streaming only the last one. */
async function progressReply(
  c: Context,
  isStreamed: boolean,
  begin: (signal: AbortSignal) => AsyncGenerator<Progress, void>,
): Promise<Response> {
  // Leaving the reply ends what is being done, and so does a client that goes away before it begins.
  const controller = new AbortController()
  const steps = begin(AbortSignal.any([controller.signal, c.req.raw.signal]))
  if (isStreamed) return streamed(abortable(steps, controller), PROGRESS)
  let last: Progress = { status: "success" }
  for await (const step of steps) last = step
  return new Response(JSON.stringify(wireStep(last)), { headers: JSON_TYPE })
}

/** Steps whose source is told when the client has gone: it may be in the middle of a long one. */
function abortable(
  steps: AsyncGenerator<Progress, void>,
  controller: AbortController,
): AsyncIterator<Progress, undefined> {
  return {
    async next() {
      const { done, value } = await steps.next()
      return done === true ? { done, value: undefined } : { done: false, value }
    },
    async return() {
      controller.abort()
      await steps.return()
      return { done: true, value: undefined }
    },
  }
}

/** As in Go: zero is left out. */
function wireStep({ status, digest, total, completed }: Progress): ProgressReply {
  return {
    status,
    ...(digest === undefined ? {} : { digest }),
    ...(total ? { total } : {}),
    ...(completed ? { completed } : {}),
  }
}

const PROGRESS: Framing<Progress> = {
  contentType: "application/x-ndjson",
  frame: (step) => `${JSON.stringify(wireStep(step))}\n`,
  error: (error) => {
    const { message, hint } = toReply(error)
    return `${JSON.stringify({ error: message, ...(hint === undefined ? {} : { hint }) })}\n`
  },
  end: "",
}
