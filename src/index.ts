/**
 * cria as a library: models loaded into your own Bun or Deno program, and a client for a server.
 *
 * ```ts
 * await using model = await openModel("./model.gguf")
 * for await (const event of model.chat([{ role: "user", content: "Hello" }])) {
 *   if (event.kind === "delta") console.log(event.content)
 * }
 * ```
 *
 * @module
 */

import { openLibrary } from "../ffi/library.ts"
import type { ChatEvent, Message, Tool } from "./chat/message.ts"
import type { RequestTerms } from "./chat/terms.ts"
import type { CacheSetting } from "./engine/cache-type.ts"
import type { EngineStatus } from "./engine/engine-status.ts"
import { SAMPLING_DEFAULTS, type SamplingOptions } from "./engine/sampling.ts"
import type { ModelFacts } from "./gguf/facts.ts"
import { LocalModel } from "./model/local-model.ts"
import type { AnswerInput, AnswerRequest } from "./model/request.ts"
import type { Logger } from "./util/log.ts"

export type { ChatEvent, Message, TokenLogprobs, Tool, ToolCall } from "./chat/message.ts"
export type { RequestTerms } from "./chat/terms.ts"
export { Client } from "./client/client.ts"
export type { CacheSetting } from "./engine/cache-type.ts"
export type { EngineStatus } from "./engine/engine-status.ts"
export type { SamplingOptions } from "./engine/sampling.ts"
export { type ModelFacts, modelFacts } from "./gguf/facts.ts"
export { readGguf } from "./gguf/read.ts"
export { CriaError, type ErrorCode } from "./util/errors.ts"
export type { Logger } from "./util/log.ts"

/** How to load a model. */
export interface OpenOptions {
  /**
   * Tokens of prompt and answer of one request. Default: what the model was trained for, as far as a quarter of the free
   * memory holds it.
   */
  readonly contextTokens?: number
  /** Requests that can have a full context at the same time. */
  readonly parallel?: number
  /** Requests that may wait; more are refused with `busy`. Default: 512. */
  readonly queueMax?: number
  /** CPU threads. Default: one per physical core. */
  readonly threads?: number
  /** Layers on the GPU; default −1, all. */
  readonly gpuLayers?: number
  /** Default: auto. */
  readonly flashAttention?: "auto" | "on" | "off"
  /** Type of the KV cache, or `keys/values`: `q8_0/f16`. Default: f16. */
  readonly cacheType?: CacheSetting
  /** Bytes of memory for prompts that were read before and no longer fit into the KV cache. Default: 0. */
  readonly prefixRamBytes?: number
  /**
   * Keeps such prompts on disk too, where another program finds them that loads the model in the same way: in this
   * folder, so many bytes for each model. What is not written yet is written when the model is disposed. Default: none.
   */
  readonly prefixDisk?: { readonly folder: string; readonly bytesMax: number }
  /** Folder of the native libraries; default: beside the program, or a checkout's `dist/native`. */
  readonly nativeFolder?: string
  /** Fractions from 0 to 1. */
  readonly onProgress?: (fraction: number) => void
  readonly signal?: AbortSignal
  /** Gets what llama.cpp logs while loading, and warnings when something goes on without a part of it. */
  readonly log?: Logger
}

/**
 * How to answer. Sampling options have Ollama's names in camel case and Ollama's defaults. What is said of terms matters
 * when several requests are under way.
 */
export interface AnswerOptions extends Partial<SamplingOptions>, RequestTerms {
  readonly maxTokens?: number
  readonly stop?: readonly string[]
  /** Report log-probabilities, with so many alternatives. */
  readonly logprobs?: number
  /** JSON schema that the answer has to follow. */
  readonly format?: object
  /**
   * Go on when the context is full, without the older half of what follows the first `keepTokens` tokens (negative: the
   * prompt; at most half of the context). `usage.shiftedTokens` says how many left. Default: the answer ends.
   */
  readonly shift?: { readonly keepTokens: number }
  readonly signal?: AbortSignal
}

/** How to chat. */
export interface ChatOptions extends AnswerOptions {
  readonly tools?: readonly Tool[]
  /** Default: as the model's template decides. */
  readonly thinking?: boolean
  /** Go template, as in a Modelfile's TEMPLATE, in place of the one in the model's file. */
  readonly template?: string
}

/** A model in this process. Dispose it to free its memory. */
export class Model implements AsyncDisposable {
  readonly #local: LocalModel

  /** Takes ownership; use {@link openModel}. */
  constructor(local: LocalModel) {
    this.#local = local
  }

  /** What the file says about the model. */
  get facts(): ModelFacts {
    return this.#local.facts
  }

  /** Tokens of prompt and answer that one request can have. */
  get contextTokens(): number {
    return this.#local.loaded.contextTokens
  }

  /** What the engine does now, and did so far. */
  get status(): EngineStatus {
    return this.#local.status
  }

  /** The status now and after each change; who is slow misses some, never the last. Ends when the model is disposed. */
  statuses(signal?: AbortSignal): AsyncGenerator<EngineStatus> {
    return this.#local.statuses(signal)
  }

  /**
   * Answers a conversation. Many calls at once share the work. Leaving the iteration early ends the request.
   *
   * @throws {CriaError} `invalid-input` for a prompt that is too long or options that cannot be used.
   */
  chat(messages: readonly Message[], options: ChatOptions = {}): AsyncGenerator<ChatEvent> {
    const { tools = [], thinking, template } = options
    return this.#answer(
      {
        kind: "chat",
        messages,
        tools,
        truncate: false,
        before: [],
        ...(thinking === undefined ? {} : { thinking }),
        ...(template === undefined ? {} : { template }),
      },
      options,
    )
  }

  /** Continues a text, without any template. */
  complete(text: string, options: AnswerOptions = {}): AsyncGenerator<ChatEvent> {
    return this.#answer({ kind: "text", text }, options)
  }

  /** Turns texts into vectors of Euclidean length 1, in order. */
  embed(texts: readonly string[]): Promise<Float32Array[]> {
    return this.#local.embed(texts)
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#local[Symbol.asyncDispose]()
  }

  #answer(input: AnswerInput, options: AnswerOptions): AsyncGenerator<ChatEvent> {
    const { maxTokens, stop = [], logprobs, format, shift, signal, ...rest } = options
    const { priority, client, cacheScope, ...sampling } = rest
    const request: AnswerRequest = {
      input,
      sampling: { ...SAMPLING_DEFAULTS, ...sampling },
      maxTokens: maxTokens ?? null,
      stop,
      ...(logprobs === undefined ? {} : { logprobs }),
      ...(format === undefined ? {} : { format: JSON.stringify(format) }),
      ...(shift === undefined ? {} : { shift }),
      terms: {
        ...(priority === undefined ? {} : { priority }),
        ...(client === undefined ? {} : { client }),
        ...(cacheScope === undefined ? {} : { cacheScope }),
      },
      wantsContext: false,
    }
    return this.#local.answer(request, signal)
  }
}

/**
 * Loads a GGUF file.
 *
 * @throws {CriaError} `invalid-input` for a file that is no model, `insufficient-memory` when it does not fit,
 * `unavailable` without native libraries.
 */
export async function openModel(path: string, options: OpenOptions = {}): Promise<Model> {
  const { nativeFolder, onProgress, signal, log, ...load } = options
  const library = openLibrary({ folder: nativeFolder })
  const hooks = {
    warn: (message: string) => log?.warn(message),
    ...(onProgress === undefined ? {} : { onProgress }),
    ...(signal === undefined ? {} : { signal }),
  }
  try {
    return new Model(await LocalModel.load(library, { name: path, path, ...load }, hooks))
  } finally {
    if (log !== undefined) library.drainLog(log)
  }
}
