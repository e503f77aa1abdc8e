/**
 * Many requests that arrive at once: with a long prefix in common, and with nothing in common.
 *
 * @module
 */

import { type BenchOptions, type LoadCase, speedOf, together } from "./load.ts"
import { median } from "./measure.ts"
import { freshText } from "./prompts.ts"

const REQUESTS = 16

/** 16 requests with a prefix of 1,500 tokens in common, 32 tokens each. */
export function sharedCase({ scale }: BenchOptions): LoadCase<"wallMs" | "firstMs"> {
  const prefixWords = Math.round(1500 * scale)
  return {
    setting: { parallel: REQUESTS, contextTokens: 2048 },
    isLong: true,
    rivals: ["server", "server-1"],
    figures: {
      wallMs: { name: `${REQUESTS} with a shared prefix, wall time`, ...LESS_MS, server: 5 },
      firstMs: { name: "the same, median time to first token", ...LESS_MS, server: 5 },
    },
    async measure(contender) {
      const prefix = freshText(prefixWords)
      const prompts = Array.from({ length: REQUESTS }, () => `${prefix} ${freshText(16)}`)
      const { wallMs, timings } = await together(contender, prompts, 32)
      return { wallMs, firstMs: median(timings.map(({ firstMs }) => firstMs)) }
    },
  }
}

/** 16 requests with nothing in common: tokens of all answers per second, prompts included in the time. */
export function unrelatedCase(
  { promptWords, tokens, goalAlone }: { promptWords: number; tokens: number; goalAlone?: number },
  { scale }: BenchOptions,
): LoadCase<"speed" | "firstMs"> {
  const name = `${REQUESTS} unrelated, ${promptWords} + ${tokens} tokens`
  const count = Math.round(tokens * scale)
  return {
    setting: { parallel: REQUESTS, contextTokens: 512 },
    isLong: true,
    rivals: ["server", "server-1"],
    figures: {
      speed: {
        name,
        unit: "tok/s",
        better: "more",
        server: 1,
        ...(goalAlone === undefined ? {} : { "server-1": goalAlone }),
      },
      firstMs: { name: `${name}, median time to first token`, ...LESS_MS },
    },
    async measure(contender) {
      const prompts = Array.from({ length: REQUESTS }, () => freshText(promptWords))
      const { wallMs, timings } = await together(contender, prompts, count)
      const all = timings.reduce((sum, timing) => sum + timing.tokens, 0)
      return {
        speed: (all / wallMs) * 1000,
        firstMs: median(timings.map(({ firstMs }) => firstMs)),
      }
    },
  }
}

/** Eight requests of 60 words. */
export function eightCase(): LoadCase<"speed"> {
  return {
    setting: { parallel: 8, contextTokens: 1024 },
    isLong: false,
    rivals: ["server"],
    figures: {
      speed: { name: "8 unrelated, 60 + 64 tokens", unit: "tok/s", better: "more", server: 1 },
    },
    async measure(contender) {
      const prompts = Array.from({ length: 8 }, () => freshText(60))
      const { wallMs, timings } = await together(contender, prompts, 64)
      return { speed: (timings.reduce((sum, { tokens }) => sum + tokens, 0) / wallMs) * 1000 }
    },
  }
}

/** One request: time to the first text, and speed after it. */
export function singleCase(): LoadCase<"speed" | "firstMs"> {
  return {
    setting: { parallel: 1, contextTokens: 4096 },
    isLong: false,
    rivals: ["server"],
    figures: {
      speed: { name: "one stream, speed", unit: "tok/s", better: "more", server: 1 },
      firstMs: { name: "one stream, time to first token", ...LESS_MS, server: 1 },
    },
    async measure(contender) {
      const timing = await contender.ask(freshText(200), 64)
      return { speed: speedOf(timing), firstMs: timing.firstMs }
    },
  }
}

const LESS_MS = { unit: "ms", better: "less" } as const
