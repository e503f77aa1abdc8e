/**
 * The statuses of all loaded models as one stream, for metrics.
 *
 * @module
 */

import type { Pool } from "../pool/pool.ts"
import type { EngineStatus } from "../runner/protocol.ts"
import { Merged } from "../util/iterate.ts"
import type { ModelRunner } from "./generate.ts"

/** What the engine of a model does. */
export interface ModelStatus {
  /** Short name of the model that was asked for when it was loaded. */
  readonly model: string
  /** Undefined: it is loaded no more. */
  readonly status: EngineStatus | undefined
}

/** See `Catalog.watch`. */
export async function* watchModels(
  pool: Pool<ModelRunner>,
  { intervalMs, signal }: { intervalMs: number; signal?: AbortSignal },
): AsyncGenerator<ModelStatus> {
  if (signal?.aborted === true) return
  const watched = new WeakSet<ModelRunner>()
  const merged = new Merged<ModelStatus | "changed">(signal)
  merged.add((ended) => changesOf(pool, ended))
  for await (const item of merged) {
    if (item !== "changed") {
      yield item
      continue
    }
    for (const { name, runner, state } of pool.list()) {
      if (runner === undefined || state !== "ready" || watched.has(runner)) continue
      watched.add(runner)
      merged.add((ended) => statusesOf(name, runner, { intervalMs, ended }))
    }
  }
}

/** Now, and after each change of what is loaded. */
async function* changesOf(pool: Pool<ModelRunner>, ended: AbortSignal): AsyncGenerator<"changed"> {
  const aborted = Promise.withResolvers<void>()
  const onAbort = () => aborted.resolve()
  ended.addEventListener("abort", onAbort)
  try {
    while (!ended.aborted) {
      const { changed } = pool
      yield "changed"
      // oxlint-disable-next-line no-await-in-loop
      await Promise.race([changed, aborted.promise])
    }
  } finally {
    ended.removeEventListener("abort", onAbort)
  }
}

async function* statusesOf(
  model: string,
  runner: ModelRunner,
  { intervalMs, ended }: { intervalMs: number; ended: AbortSignal },
): AsyncGenerator<ModelStatus> {
  for await (const status of runner.statuses(intervalMs, ended)) yield { model, status }
  if (!ended.aborted) yield { model, status: undefined }
}
