/**
 * The C interface as one neutral table, from which each runtime's adapter makes its bindings.
 *
 * C types and names stand in the trailing comments, in the words of `native/cria.h`; `scripts/check.ts` compares the
 * two. Buffers are typed arrays; 64-bit results arrive as numbers (sizes and addresses are below 2^53).
 *
 * @module
 */

/** Types that cross. */
export type NativeType = "i32" | "i64" | "u64" | "f32" | "buffer"

/** One C function. */
export interface NativeSymbol {
  readonly args: readonly NativeType[]
  readonly returns: NativeType
}

/** The version of `cria.h` that this table describes. */
export const ABI_VERSION = 4

/** Every function of `cria.h`. */
export const SYMBOLS = {
  cria_abi_version: { args: [], returns: "i32" },
  cria_init: { args: ["buffer", "i32"], returns: "i32" }, // const uint8_t * json, int32_t length
  cria_text: { args: ["buffer", "i32"], returns: "i32" }, // uint8_t * buffer, int32_t capacity
  cria_error: { args: ["buffer", "i32"], returns: "i32" }, // uint8_t * buffer, int32_t capacity
  cria_log_drain: { args: [], returns: "i32" },
  cria_system: { args: [], returns: "i32" },
  cria_exit_with_input: { args: ["i32"], returns: "i32" }, // int32_t grace_ms

  cria_job_wait: { args: ["i32", "i32"], returns: "i32" }, // int32_t job, int32_t timeout_us
  cria_job_progress: { args: ["i32"], returns: "f32" }, // int32_t job
  cria_job_cancel: { args: ["i32"], returns: "i32" }, // int32_t job
  cria_job_finish: { args: ["i32"], returns: "i32" }, // int32_t job

  cria_model_load: { args: ["buffer", "i32", "buffer", "i32"], returns: "i32" }, // const uint8_t * json, int32_t length, const uint8_t * header, int32_t header_length
  cria_model_free: { args: ["i32"], returns: "i32" }, // int32_t model
  cria_model_info: { args: ["i32"], returns: "i32" }, // int32_t model
  cria_model_pieces: { args: ["i32", "buffer", "i32", "buffer", "buffer"], returns: "i32" }, // int32_t model, uint8_t * bytes, int32_t capacity, int32_t * offsets, uint8_t * attributes
  cria_tokenize: { args: ["i32", "buffer", "i32", "buffer", "i32", "i32"], returns: "i32" }, // int32_t model, const uint8_t * text, int32_t length, int32_t * tokens, int32_t capacity, int32_t flags
  cria_tokenize_job: { args: ["i32", "buffer", "i32", "i32"], returns: "i32" }, // int32_t model, const uint8_t * text, int32_t length, int32_t flags
  cria_tokens_take: { args: ["i32", "buffer", "i32"], returns: "i32" }, // int32_t tokens, int32_t * out, int32_t capacity

  cria_context_new: { args: ["i32", "buffer", "i32"], returns: "i32" }, // int32_t model, const uint8_t * json, int32_t length
  cria_context_free: { args: ["i32"], returns: "i32" }, // int32_t context
  cria_context_info: { args: ["i32"], returns: "i32" }, // int32_t context
  cria_step_block: { args: ["i32"], returns: "u64" }, // int32_t context
  cria_step_submit: { args: ["i32", "i32", "i32"], returns: "i32" }, // int32_t context, int32_t tokens, int32_t rows
  cria_step_wait: { args: ["i32", "i32"], returns: "i32" }, // int32_t context, int32_t timeout_us
  cria_step_cancel: { args: ["i32"], returns: "i32" }, // int32_t context
  cria_embedding: { args: ["i32", "i32", "buffer", "i32"], returns: "i32" }, // int32_t context, int32_t sequence, float * out, int32_t capacity

  cria_sequence_remove: { args: ["i32", "i32", "i32", "i32"], returns: "i32" }, // int32_t context, int32_t sequence, int32_t p0, int32_t p1
  cria_sequence_copy: { args: ["i32", "i32", "i32", "i32", "i32"], returns: "i32" }, // int32_t context, int32_t source, int32_t target, int32_t p0, int32_t p1
  cria_sequence_range: { args: ["i32", "i32", "buffer"], returns: "i32" }, // int32_t context, int32_t sequence, int32_t * range
  cria_memory_clear: { args: ["i32"], returns: "i32" }, // int32_t context
  cria_state_size: { args: ["i32", "i32", "i32", "i32"], returns: "i64" }, // int32_t context, int32_t sequence, int32_t p0, int32_t p1
  cria_state_get: { args: ["i32", "i32", "i32", "i32", "buffer", "i64"], returns: "i64" }, // int32_t context, int32_t sequence, int32_t p0, int32_t p1, uint8_t * data, int64_t capacity
  cria_state_set: { args: ["i32", "i32", "i32", "i32", "buffer", "i64"], returns: "i64" }, // int32_t context, int32_t sequence, int32_t p0, int32_t p1, const uint8_t * data, int64_t length

  cria_sampler_new: { args: ["i32", "buffer", "i32"], returns: "i32" }, // int32_t model, const uint8_t * json, int32_t length
  cria_sampler_free: { args: ["i32"], returns: "i32" }, // int32_t sampler
  cria_sampler_reset: { args: ["i32"], returns: "i32" }, // int32_t sampler
  cria_sampler_clone: { args: ["i32"], returns: "i32" }, // int32_t sampler
  cria_sampler_accept: { args: ["i32", "buffer", "i32"], returns: "i32" }, // int32_t sampler, const int32_t * tokens, int32_t count
  cria_sampler_grammar: { args: ["i32", "buffer", "i32", "buffer", "i32"], returns: "i32" }, // int32_t sampler, const uint8_t * gbnf, int32_t gbnf_length, const uint8_t * prefill, int32_t prefill_length

  cria_chat_new: { args: ["buffer", "i32"], returns: "i32" }, // const uint8_t * json, int32_t length
  cria_chat_free: { args: ["i32"], returns: "i32" }, // int32_t chat
  cria_chat_info: { args: ["i32"], returns: "i32" }, // int32_t chat
  cria_chat_apply: { args: ["i32", "buffer", "i32"], returns: "i32" }, // int32_t chat, const uint8_t * json, int32_t length
  cria_parse_new: { args: ["buffer", "i32"], returns: "i32" }, // const uint8_t * json, int32_t length
  cria_parse_free: { args: ["i32"], returns: "i32" }, // int32_t parse
  cria_parse_feed: { args: ["i32", "buffer", "i32", "i32"], returns: "i32" }, // int32_t parse, const uint8_t * text, int32_t length, int32_t final
  cria_schema_to_gbnf: { args: ["buffer", "i32"], returns: "i32" }, // const uint8_t * json, int32_t length

  cria_quantize: { args: ["buffer", "i32"], returns: "i32" }, // const uint8_t * json, int32_t length
} as const

// Fails to compile when an entry of the table is malformed.
const checked: Readonly<Record<string, NativeSymbol>> = SYMBOLS
void checked

/** An array that native code reads or writes in place. Never empty: some runtimes refuse those. */
export type NativeBuffer = Uint8Array | Int32Array | Float32Array

type ValueOf<T extends NativeType> = T extends "buffer" ? NativeBuffer : number
type ArgsOf<A extends readonly NativeType[]> = { [I in keyof A]: ValueOf<A[I]> }

/** The bound functions. */
export type NativeFunctions = {
  readonly [K in keyof typeof SYMBOLS]: (...args: ArgsOf<(typeof SYMBOLS)[K]["args"]>) => number
}
