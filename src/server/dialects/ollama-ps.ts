/**
 * What Ollama's native API says of loaded models. Pure.
 *
 * @module
 */

import type { PsEngine, PsModel } from "../../api/ollama.ts"
import type { EngineStatus, LoadedModel } from "../../services/catalog.ts"
import { formatLocal } from "../../util/units.ts"
import { details } from "./ollama.ts"

/** Far enough ahead that clients print "Forever". */
const FOREVER_MS = 100 * 365 * 24 * 3_600_000

/** An entry of GET /api/ps. */
export function psModel(loaded: LoadedModel, now: number, status?: EngineStatus): PsModel {
  const { model } = loaded
  return {
    name: model.name,
    model: model.name,
    size: loaded.totalBytes,
    digest: model.stored.id,
    details: details(model),
    expires_at: formatLocal(Math.min(loaded.expiresAt, now + FOREVER_MS)),
    size_vram: loaded.gpuBytes,
    context_length: loaded.contextTokens,
    ...(loaded.cacheType === undefined ? {} : { kv_cache_type: loaded.cacheType }),
    ...(loaded.flashAttention === undefined ? {} : { flash_attention: loaded.flashAttention }),
    ...(status === undefined ? {} : { engine: engineFields(status) }),
  }
}

/** All counts in one object, the last step and the requests, in the API's spelling. */
function engineFields({ counters, step, requests, ...now }: EngineStatus): PsEngine {
  return {
    ...spelledFields({ ...now, ...counters }),
    ...(step === undefined ? {} : { step: spelledFields(step) }),
    requests: requests.map((request) => spelledFields(request)),
  }
}

function spelledFields<T extends object>(fields: T): Record<string, T[keyof T]> {
  return Object.fromEntries(
    Object.entries(fields).map(([key, value]) => [spelled(key), value as T[keyof T]]),
  )
}

function spelled(key: string): string {
  return key.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`)
}
