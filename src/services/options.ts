/**
 * Turns options under Ollama's names into what a runner takes: sampling, limits, load options.
 *
 * @module
 */

import { join } from "node:path"

import type { Config } from "../config.ts"
import { SAMPLING_DEFAULTS, type SamplingOptions } from "../engine/sampling.ts"
import { checkLoad } from "../model/check-load.ts"
import type { Options } from "../modelfile/parameters.ts"
import type { AnswerRequest, LoadOptions } from "../runner/protocol.ts"
import { CriaError } from "../util/errors.ts"
import type { RunnableModel } from "./resolve.ts"

/** Sampling under the names of the engine; what is not given has Ollama's default. */
export function samplingOf(options: Options): SamplingOptions {
  return {
    temperature: options.temperature ?? SAMPLING_DEFAULTS.temperature,
    topK: options.top_k ?? SAMPLING_DEFAULTS.topK,
    topP: options.top_p ?? SAMPLING_DEFAULTS.topP,
    minP: options.min_p ?? SAMPLING_DEFAULTS.minP,
    typicalP: options.typical_p ?? SAMPLING_DEFAULTS.typicalP,
    repeatPenalty: options.repeat_penalty ?? SAMPLING_DEFAULTS.repeatPenalty,
    repeatLastN: options.repeat_last_n ?? SAMPLING_DEFAULTS.repeatLastN,
    presencePenalty: options.presence_penalty ?? SAMPLING_DEFAULTS.presencePenalty,
    frequencyPenalty: options.frequency_penalty ?? SAMPLING_DEFAULTS.frequencyPenalty,
    seed: seedOf(options.seed ?? SAMPLING_DEFAULTS.seed),
  }
}

/** Negative is random. Larger seeds than 32 bits, such as the time in milliseconds, count modulo 2^32. */
function seedOf(seed: number): number {
  return seed < 0 ? -1 : seed % 2 ** 32
}

/** Limits of one answer. A negative number of tokens means as many as the context holds. */
export function limitsOf(
  options: Options,
): Pick<AnswerRequest, "maxTokens" | "stop"> & { contextTokens?: number } {
  const most = options.num_predict ?? -1
  return {
    maxTokens: most < 0 ? null : most,
    stop: options.stop ?? [],
    ...(options.num_ctx === undefined ? {} : { contextTokens: contextOf(options.num_ctx) }),
  }
}

/**
 * What to load and how, from the model's file, the options and the server's configuration. What nobody asked for is
 * left open: a model that is loaded already serves as it is.
 *
 * @throws {CriaError} `invalid-input` for numbers out of range, or what this model cannot have.
 */
export function loadOptionsOf(model: RunnableModel, options: Options, config: Config): LoadOptions {
  const context = options.num_ctx ?? (config.contextTokens || undefined)
  const threads = Math.max(0, options.num_thread ?? 0) || config.threads || undefined
  const load: LoadOptions = {
    name: model.name,
    path: model.stored.modelPath,
    ...(model.stored.adapterPaths.length === 0 ? {} : { adapters: model.stored.adapterPaths }),
    ...(options.kv_cache_type === undefined ? {} : { cacheType: options.kv_cache_type }),
    ...(options.flash_attention === undefined ? {} : { flashAttention: options.flash_attention }),
    ...prefixesOf(config),
    ...(context === undefined ? {} : { contextTokens: contextOf(context) }),
    ...(config.parallel === 0 ? {} : { parallel: config.parallel }),
    queueMax: config.queueMax,
    ...(threads === undefined ? {} : { threads: positive("num_thread", threads, 512) }),
    ...(options.num_batch === undefined
      ? {}
      : { batchTokens: within("num_batch", options.num_batch, [2, 65_536]) }),
    ...placementOf(options.num_gpu, model.facts.blockCount ?? 0),
    ...(options.main_gpu === undefined ? {} : { mainGpu: options.main_gpu }),
    ...(options.use_mmap === undefined ? {} : { useMmap: options.use_mmap }),
  }
  // Before a model that runs is unloaded for it.
  checkLoad(load, model.facts)
  return load
}

/** What is loaded in the end: what was left open is as the server is configured. */
export function withDefaults(load: LoadOptions, config: Config): LoadOptions {
  const { cacheType, flashAttention } = config
  return { cacheType, flashAttention, ...load }
}

function prefixesOf({ prefixRamBytes, prefixDiskBytes: bytesMax, cache }: Config) {
  return {
    ...(prefixRamBytes === 0 ? {} : { prefixRamBytes }),
    ...(bytesMax === 0 ? {} : { prefixDisk: { folder: join(cache, "prefixes"), bytesMax } }),
  }
}

/** Negative leaves it open; more layers than the model has means all, as in the 999 that people write. */
function placementOf(layers: number | undefined, layersMax: number): { gpuLayers?: number } {
  if (layers === undefined || layers < 0) return {}
  return { gpuLayers: layers > layersMax ? -1 : layers }
}

/** The smallest context that Ollama accepts. */
const CONTEXT_TOKENS_MIN = 4

/** No model is trained for more; far below what overflows in native code. */
const CONTEXT_TOKENS_MAX = 2 ** 27

function contextOf(tokens: number): number {
  return Math.max(CONTEXT_TOKENS_MIN, positive("num_ctx", tokens, CONTEXT_TOKENS_MAX))
}

function positive(name: string, value: number, max: number): number {
  return within(name, value, [1, max])
}

function within(name: string, value: number, [min, max]: readonly [number, number]): number {
  if (value >= min && value <= max) return value
  throw new CriaError("invalid-input", `Cannot use ${name} ${value}: expected ${min} to ${max}`)
}
