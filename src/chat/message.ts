/**
 * The vocabulary of conversations inside cria. Each API's own shapes are turned into these and back at the edge.
 *
 * @module
 */

/** A call of a tool by the model. */
export interface ToolCall {
  readonly id: string
  readonly name: string
  /** JSON text of the arguments, as the model wrote it. */
  readonly arguments: string
}

/** A tool that the model may call. `parameters` is a JSON schema, passed on as it is. */
export interface Tool {
  readonly name: string
  readonly description?: string
  readonly parameters?: unknown
}

/** One turn. Roles other than these four are passed to the template as they are. */
export interface Message {
  readonly role: string
  readonly content: string
  readonly thinking?: string
  readonly toolCalls?: readonly ToolCall[]
  /** For role `tool`: whose result this is. */
  readonly toolName?: string
  readonly toolCallId?: string
}

/** A token's text with its natural logarithm of probability. */
export interface TokenProbability {
  readonly token: string
  readonly logprob: number
  readonly bytes: readonly number[]
}

/** A generated token and its most likely alternatives, best first. */
export interface TokenLogprobs extends TokenProbability {
  readonly top: readonly TokenProbability[]
}

/** What an answer cost. Times in milliseconds. */
export interface AnswerUsage {
  readonly promptTokens: number
  readonly cachedTokens: number
  readonly completionTokens: number
  /** Tokens that left the context while the answer was written, because the caller asked for that. */
  readonly shiftedTokens: number
  /** How often the request had to give way to others. */
  readonly preemptions: number
  readonly queueMs: number
  readonly promptMs: number
  readonly decodeMs: number
}

/** Why an answer ended. */
export type AnswerEnd = "stop" | "length"

/** What an answer yields: deltas, complete tool calls, and at last `done`. */
export type ChatEvent =
  | {
      readonly kind: "delta"
      readonly content: string
      readonly thinking: string
      readonly logprobs: readonly TokenLogprobs[]
    }
  | { readonly kind: "tool-call"; readonly call: ToolCall }
  | {
      readonly kind: "done"
      readonly reason: AnswerEnd
      readonly usage: AnswerUsage
      /** Tokens of prompt and answer, when they were asked for. */
      readonly context?: readonly number[]
      /** Messages at the front that were left out, because the caller asked to truncate. */
      readonly droppedMessages: number
    }
