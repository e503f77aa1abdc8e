/**
 * Routes about registries: `/api/pull` and `/api/push`.
 *
 * @module
 */

import { type Context, Hono } from "hono"

import {
  type FitReply,
  type FitRequest,
  fitRequest,
  type PullRequest,
  pullRequest,
  type PushRequest,
  pushRequest,
} from "../../api/ollama.ts"
import { parseBody } from "../../api/parts.ts"
import type { App } from "../../services/app.ts"
import type { QuantFit } from "../../services/fit.ts"
import type { Progress } from "../../services/progress.ts"
import type { TransferOptions } from "../../services/transfer.ts"
import { CriaError, toCriaError } from "../../util/errors.ts"
import { type Framing, streamed } from "../stream.ts"

const EMPTY_BODY = "missing request body"

/** The routes. */
export function registryRoutes(app: App): Hono {
  return new Hono()
    .post("/api/pull", async (c) => pull(c, app))
    .post("/api/push", async (c) => push(c, app))
    .post("/api/fit", async (c) => fit(c, app))
}

async function pull(c: Context, { transfers }: App): Promise<Response> {
  const request = parseBody<PullRequest>(pullRequest, await c.req.text(), EMPTY_BODY)
  const { insecure, stream, quant } = request
  const options = { insecure, quant: quant || undefined, signal: c.req.raw.signal }
  return reply(transfers.pull(request.model || request.name, options), stream)
}

async function fit(c: Context, app: App): Promise<Response> {
  const request = parseBody<FitRequest>(fitRequest, await c.req.text(), EMPTY_BODY)
  const { insecure } = request
  const { signal } = c.req.raw
  const fits = await fitsOf(app, request.model || request.name, { insecure, signal })
  const { gpuBytes, hostBytes } = await app.transfers.chooser.memory()
  const table: FitReply = {
    memory: { gpu: gpuBytes, host: hostBytes },
    quants: fits.map(({ label, tag, bytes, files, place, contextTokens, isChosen }) => ({
      quant: label,
      tag,
      size: bytes,
      files,
      place,
      context: contextTokens,
      chosen: isChosen,
    })),
  }
  return Response.json(table)
}

/** A registry that lists nothing, or cannot be asked, still leaves us what is installed. */
async function fitsOf(
  { transfers, catalog }: App,
  name: string,
  options: TransferOptions,
): Promise<readonly QuantFit[]> {
  let obstacle: CriaError | undefined
  try {
    const listed = await transfers.fits(name, options)
    if (listed.length > 0) return listed
  } catch (error) {
    options.signal?.throwIfAborted()
    obstacle = toCriaError(error)
    if (obstacle.code === "invalid-input") throw obstacle
  }
  try {
    const { model } = catalog.describe(name, { system: undefined, options: {} }, false)
    return await transfers.chooser.installed(model.stored.name.tag, model.facts)
  } catch (error) {
    const { code } = toCriaError(error)
    if (code !== "not-found") throw error
    if (obstacle !== undefined) throw obstacle
    throw new CriaError(code, `Cannot list the quantisations of "${name}"`, {
      hint: "It is not installed, and its registry does not tell; Hugging Face (hf.co/user/repository) does, and registries with a tag for each",
    })
  }
}

async function push(c: Context, { transfers }: App): Promise<Response> {
  const request = parseBody<PushRequest>(pushRequest, await c.req.text(), EMPTY_BODY)
  const name = request.model || request.name
  if (name.trim() === "") throw new CriaError("invalid-input", "model is required")
  const { insecure, stream } = request
  return reply(transfers.push(name, { insecure, signal: c.req.raw.signal }), stream)
}

async function reply(
  progress: AsyncGenerator<Progress, undefined>,
  isStream: boolean,
): Promise<Response> {
  return isStream ? streamed(progress, NDJSON) : lastOf(progress)
}

/** Clients that want no stream get the last line; every failure on the way is a 500, as in Ollama. */
async function lastOf(progress: AsyncIterable<Progress>): Promise<Response> {
  const headers = { "Content-Type": "application/json" }
  let last: Progress | undefined
  try {
    for await (const line of progress) last = line
  } catch (error) {
    return new Response(failure(error), { status: 500, headers })
  }
  return new Response(JSON.stringify(last), { headers })
}

/** Zeros are left out, as Go does. */
const NDJSON: Framing<Progress> = {
  contentType: "application/x-ndjson",
  frame: ({ status, digest, total, completed }) =>
    `${JSON.stringify({
      status,
      ...(digest === undefined ? {} : { digest }),
      ...(total ? { total } : {}),
      ...(completed ? { completed } : {}),
    })}\n`,
  error: (error) => `${failure(error)}\n`,
  end: "",
}

function failure(error: unknown): string {
  const { message, hint } = toCriaError(error)
  return JSON.stringify({ error: message, ...(hint === undefined ? {} : { hint }) })
}
