/**
 * Loads that get in each other's way: chats in rotation, a long prompt beside streams, a cache that is too small.
 *
 * @module
 */

import type { ChatMessage, Contender, Timing } from "./contenders.ts"
import { type BenchOptions, type LoadCase } from "./load.ts"
import { percentile } from "./measure.ts"
import { freshText } from "./prompts.ts"

const CHATS = 4
const TURNS = 6
const QUESTION_WORDS = 30

/** What the template puts after a question: the end of the message, and the beginning of the answer. */
const TEMPLATE_TOKENS = 5

/**
 * Four chats take turns; they have a system prompt of 1,000 tokens in common. What the assistant said is scripted: the
 * words of a model with random weights do not turn back into the same tokens, which real ones mostly do.
 */
export function chatsCase({ scale }: BenchOptions): LoadCase<"computed"> {
  const systemWords = Math.round(1000 * scale)
  return {
    setting: { parallel: CHATS, contextTokens: 4096 },
    isLong: true,
    rivals: ["server", "server-1"],
    figures: {
      computed: {
        name: `${CHATS} chats in rotation, ${TURNS} turns, prompt tokens computed per new one`,
        unit: "",
        better: "less",
        limit: 1.05,
      },
    },
    async measure(contender) {
      const system: ChatMessage = { role: "system", content: freshText(systemWords) }
      const chats = Array.from({ length: CHATS }, (): ChatMessage[] => [system])
      const lengths = new Map<ChatMessage[], number>()
      let computed = 0
      let fresh = 0
      for (let turn = 0; turn < TURNS; turn++) {
        for (const messages of chats) {
          messages.push({ role: "user", content: freshText(QUESTION_WORDS) })
          const count = await contender.chat(messages, 16)
          messages.push({ role: "assistant", content: freshText(16) })
          computed += count.computedTokens
          const isFirst = turn === 0 && messages === chats[0]
          const isNewChat = turn === 0 && !isFirst
          fresh += isNewChat
            ? QUESTION_WORDS + TEMPLATE_TOKENS
            : count.promptTokens - (lengths.get(messages) ?? 0)
          lengths.set(messages, count.promptTokens)
        }
      }
      return { computed: computed / fresh }
    },
  }
}

const STREAMS = 8

/** Tokens of each stream before the long prompt comes: enough for a p99 of all of them. */
const QUIET_TOKENS = 40

/** A prompt of 8,000 tokens beside eight streams. */
export function longCase({
  scale,
}: BenchOptions): LoadCase<"p99Ms" | "quietP99Ms" | "stretch" | "longMs"> {
  const longWords = Math.round(8000 * scale)
  const less = { unit: "ms", better: "less" } as const
  return {
    setting: { parallel: STREAMS + 1, contextTokens: 9216 },
    isLong: true,
    rivals: ["server"],
    figures: {
      p99Ms: { name: "8 streams beside an 8k prompt, p99 between tokens", ...less, server: 5 },
      quietP99Ms: { name: "the same without the prompt", ...less },
      stretch: { name: "p99 with the prompt / without", unit: "×", better: "less", limit: 4 },
      longMs: { name: "the 8k prompt beside 8 streams, time to first token", ...less },
    },
    async measure(contender) {
      const { timings, quietFrom, from, until } = await beside(contender, longWords)
      const gaps = timings.flatMap(({ arrivals }) =>
        arrivals.slice(1).map((at, i) => ({ at, ms: at - (arrivals[i] ?? at) })),
      )
      const quiet = gaps.filter(({ at, ms }) => at - ms > quietFrom && at < from)
      const busy = gaps.filter(({ at, ms }) => at >= from && at - ms <= until)
      const p99 = (some: typeof gaps) =>
        percentile(
          some.map(({ ms }) => ms),
          0.99,
        )
      return {
        p99Ms: p99(busy),
        quietP99Ms: p99(quiet),
        stretch: p99(busy) / p99(quiet),
        longMs: until - from,
      }
    },
  }
}

/** Streams, a while without and then with a long prompt beside them; they are left when it has been read. */
async function beside(
  contender: Contender,
  longWords: number,
): Promise<{ timings: readonly Timing[]; quietFrom: number; from: number; until: number }> {
  const leaving = new AbortController()
  const streams = Array.from({ length: STREAMS }, () =>
    contender.ask(freshText(20), 4096, leaving.signal),
  )
  const quiet = await contender.ask(freshText(20), QUIET_TOKENS)
  const from = performance.now()
  const long = await contender.ask(freshText(longWords), 1)
  leaving.abort()
  // A gap that is still open when the prompt has been read belongs to it too: arrivals end there.
  return {
    timings: await Promise.all(streams),
    quietFrom: quiet.arrivals[0] ?? from,
    from,
    until: from + long.firstMs,
  }
}

/** 16 requests of 128 + 128 tokens with cells for half of them. */
export function crampedCase({ scale }: BenchOptions): LoadCase<"failed" | "speed"> {
  const [requests, each] = [16, Math.round(128 * scale)]
  return {
    setting: { parallel: requests, contextTokens: each * 4, cells: requests * each },
    isLong: true,
    rivals: ["server"],
    figures: {
      failed: { name: "KV cache half the size: failed of 16", unit: "", better: "less", limit: 0 },
      speed: { name: "the same, tokens of whole answers", unit: "tok/s", better: "more" },
    },
    async measure(contender) {
      const started = performance.now()
      const answers = await Promise.allSettled(
        Array.from({ length: requests }, () => contender.ask(freshText(each), each)),
      )
      const whole = answers.filter(
        (answer) => answer.status === "fulfilled" && answer.value.tokens === each,
      )
      return {
        failed: requests - whole.length,
        speed: ((whole.length * each) / (performance.now() - started)) * 1000,
      }
    },
  }
}
