/**
 * What a loaded model can be asked, as plain data: it crosses to a runner process unchanged.
 *
 * @module
 */

import type { Message, Tool } from "../chat/message.ts"
import type { RequestTerms } from "../chat/terms.ts"
import type { CacheSetting } from "../engine/cache-type.ts"
import type { SamplingOptions } from "../engine/sampling.ts"

/**
 * Tokens of context that a model gets unasked wherever they fit: with less a chat with tools does not work any more, so
 * up to here a cache takes all the memory that there is.
 */
export const MODEST_TOKENS = 8192

/** A conversation, a gap to fill, or a prompt that is taken as it is. */
export type AnswerInput =
  | {
      readonly kind: "chat"
      readonly messages: readonly Message[]
      readonly tools: readonly Tool[]
      /** Undefined leaves it to the template. */
      readonly thinking?: boolean
      /** Level of thinking, for templates that know levels. */
      readonly effort?: string
      /** Leave messages at the front out when the prompt is too long; otherwise that is an error. */
      readonly truncate: boolean
      /** Tokens of an earlier exchange that come before the prompt. */
      readonly before: readonly number[]
      /** Go template to render with, in place of the one in the model's file. */
      readonly template?: string
    }
  | {
      /** Text that is missing between two others. */
      readonly kind: "insert"
      readonly prompt: string
      readonly suffix: string
      /** Go template that knows how the model wants to be asked. */
      readonly template: string
      readonly before: readonly number[]
      readonly thinking?: boolean
      readonly effort?: string
    }
  | { readonly kind: "text"; readonly text: string }

/** One request to a model. */
export interface AnswerRequest {
  readonly input: AnswerInput
  readonly sampling: SamplingOptions
  /** Null: as many as the context holds. */
  readonly maxTokens: number | null
  /** Smaller than what the model was loaded with. */
  readonly contextTokens?: number
  readonly stop: readonly string[]
  /** Report log-probabilities, with so many alternatives. */
  readonly logprobs?: number
  /** JSON schema, as text, that the answer has to follow. */
  readonly format?: string
  /** Give the tokens of prompt and answer back. */
  readonly wantsContext: boolean
  /**
   * Go on when the context is full, without the older half of what follows the first `keepTokens` tokens (negative:
   * the whole prompt). No more is kept than half of the context.
   */
  readonly shift?: { readonly keepTokens: number }
  readonly terms?: RequestTerms
}

/** Whether attention is computed without its whole matrix; `auto` where llama.cpp can. */
export type FlashAttention = "auto" | "on" | "off"

/** What to load and how. */
export interface LoadOptions {
  /** For messages. */
  readonly name: string
  /** The GGUF file, or the first part of a split one. */
  readonly path: string
  /** GGUF files of LoRA adapters, which act on every answer. */
  readonly adapters?: readonly string[]
  /** Tokens of prompt and answer of one request; undefined: what fits. */
  readonly contextTokens?: number
  /** Requests that can have a full context at the same time; undefined: what fits. */
  readonly parallel?: number
  /** Requests that may wait. */
  readonly queueMax?: number
  /** Tokens in a step. */
  readonly batchTokens?: number
  readonly threads?: number
  /** Layers on the GPU; −1 all. */
  readonly gpuLayers?: number
  readonly mainGpu?: number
  readonly useMmap?: boolean
  /** Default: auto. */
  readonly flashAttention?: FlashAttention
  /** Default: f16. */
  readonly cacheType?: CacheSetting
  /**
   * Whether layers with a sliding window keep all tokens: any beginning of a prompt can be shared then, in as much
   * memory as the other layers take. Undefined: when the context fits so that is asked for, or was trained.
   */
  readonly isWindowFull?: boolean
  /** Bytes of memory for prefixes that no longer fit into the KV cache. */
  readonly prefixRamBytes?: number
  /** Prefixes that outlive the process: in this folder, so many bytes for each model. */
  readonly prefixDisk?: { readonly folder: string; readonly bytesMax: number }
}

/** What a model was loaded with. */
export interface LoadedFacts {
  readonly contextTokens: number
  readonly parallel: number
  /** Requests that run at once, if their contexts are short enough. */
  readonly runningMax?: number
  /** What layers with a sliding window keep: all tokens, or those in the window; undefined without such layers. */
  readonly window?: "kept" | "sliding"
  /** Weights and cache. */
  readonly totalBytes: number
  /** Of those on GPUs. */
  readonly gpuBytes: number
  readonly llamaVersion: string
  /** What it was loaded with. */
  readonly cacheType: CacheSetting
  readonly flashAttention: FlashAttention
  /** Where it got less than was asked for, in words. */
  readonly notes?: readonly string[]
}
