/*
 * cria.h - the flat C interface between cria and llama.cpp.
 *
 * Rules
 *   - No struct by value, no C++ type and no exception crosses this interface.
 *   - Handles are integers > 0 from one counter; a stale or foreign handle is an error, never a crash.
 *   - Text goes in as (bytes, length), UTF-8, not NUL-terminated.
 *   - Text comes out in two calls: the function returns the length in bytes, cria_text() copies it.
 *     The text belongs to the calling thread and lives until its next call that returns text.
 *   - A negative result is a cria_status; cria_error() then copies a message meant for people.
 *   - Cold configuration is JSON. The hot path is the step block: arrays mapped once, see cria_step_block().
 *
 * ffi/symbols.ts holds the same list of functions; scripts/check.ts compares the two.
 */
#ifndef CRIA_H
#define CRIA_H

#include <stdint.h>

#if defined(_WIN32)
#    define CRIA_API __declspec(dllexport)
#else
#    define CRIA_API __attribute__((visibility("default")))
#endif

/* Raised whenever a signature, the step block or the meaning of a JSON field changes. */
#define CRIA_ABI_VERSION 4

#ifdef __cplusplus
extern "C" {
#endif

typedef enum {
    CRIA_OK            = 0,
    CRIA_PENDING       = 1,  /* not an error: still running when the timeout passed */
    CRIA_ERR_ARGUMENT  = -1, /* an argument is out of range or malformed */
    CRIA_ERR_STATE     = -2, /* the handle is gone, or busy with a step */
    CRIA_ERR_NATIVE    = -3, /* llama.cpp failed or threw */
    CRIA_ERR_MEMORY    = -4, /* out of memory */
    CRIA_ERR_CANCELLED = -5, /* cria_job_cancel() took effect */
} cria_status;

/* ---- core -------------------------------------------------------------------------------------- */

CRIA_API int32_t cria_abi_version(void);
/* {"backend_dir": string, "log_level": 0..4 (debug, info, warn, error, none)}. Idempotent but for the level. */
CRIA_API int32_t cria_init(const uint8_t * json, int32_t length);
CRIA_API int32_t cria_text(uint8_t * buffer, int32_t capacity);
CRIA_API int32_t cria_error(uint8_t * buffer, int32_t capacity);
/* Text: one record a line, "D|I|W|E" + message. Empties the ring. */
CRIA_API int32_t cria_log_drain(void);
/* Text: {"llama_version", "system", "devices": [{name, description, type, backend, free_bytes, total_bytes}]} */
CRIA_API int32_t cria_system(void);
/* Ends the process when stdin is closed by its other end and the process still lives grace_ms later: the last
 * resort against an orphan whose JavaScript thread hangs. Starts one thread; further calls do nothing. */
CRIA_API int32_t cria_exit_with_input(int32_t grace_ms);

/* ---- jobs: work that takes long runs on a thread of its own --------------------------------------- */

CRIA_API int32_t cria_job_wait(int32_t job, int32_t timeout_us);
CRIA_API float   cria_job_progress(int32_t job);
CRIA_API int32_t cria_job_cancel(int32_t job);
/* The handle the job made, or its error. Waits for the end; the job handle is gone afterwards. */
CRIA_API int32_t cria_job_finish(int32_t job);

/* ---- model ------------------------------------------------------------------------------------- */

/* Starts a job that ends with a model handle.
 * {"paths": [string], "gpu_layers": int (-1 all), "load_mode": "auto"|"none"|"mmap"|"mlock"|"direct",
 *  "vocab_only": bool, "check_tensors": bool, "main_gpu": int, "split_mode": "none"|"layer"|"row",
 *  "devices": [string], "tensor_split": [number],
 *  "overrides": [{"key": string, "type": "int"|"float"|"bool"|"str", "value": any}],
 *  "adapters": [string] (LoRA files; every context of the model uses them),
 *  "view": {"bytes": int, "ranges": [{"path": string, "from": int, "at": int, "bytes": int}]}}
 * With a view that is read instead of the paths: a GGUF file that begins with `header` and has at each `at` bytes of
 * another file, in order; what lies between is zero. It cannot be mapped. Without, header_length is 0. */
CRIA_API int32_t cria_model_load(const uint8_t * json, int32_t length, const uint8_t * header, int32_t header_length);
/* CRIA_ERR_STATE while a context of it lives. */
CRIA_API int32_t cria_model_free(int32_t model);
/* Text: sizes, trained context, memory kind, special tokens, chat template; see ffi/native.ts ModelInfo. */
CRIA_API int32_t cria_model_info(int32_t model);
/* Total bytes of all token pieces (control tokens rendered as text). With capacity >= total it also fills bytes,
 * offsets[n_vocab + 1] and attributes[n_vocab] (bit 0 control, bit 1 ends generation, bit 2 not text). */
CRIA_API int32_t cria_model_pieces(int32_t model, uint8_t * bytes, int32_t capacity, int32_t * offsets,
                                   uint8_t * attributes);
/* flags: 1 add BOS/EOS as the model wants, 2 parse special tokens in the text.
 * The number of tokens; when it is larger than capacity nothing was written. */
CRIA_API int32_t cria_tokenize(int32_t model, const uint8_t * text, int32_t length, int32_t * tokens,
                               int32_t capacity, int32_t flags);
/* The same as a job, for long texts: it ends with a handle of the tokens. */
CRIA_API int32_t cria_tokenize_job(int32_t model, const uint8_t * text, int32_t length, int32_t flags);
/* The number of tokens. When they fit they are copied, and the handle is gone. */
CRIA_API int32_t cria_tokens_take(int32_t tokens, int32_t * out, int32_t capacity);

/* ---- context and steps ------------------------------------------------------------------------- */

/* Starts a job that ends with a context handle. The context has a thread of its own that runs every step.
 * {"cells": int, "batch": int, "rows": int, "sequences": int, "threads": int, "threads_batch": int,
 *  "flash_attention": "auto"|"on"|"off", "type_k": string, "type_v": string, "embeddings": bool,
 *  "pooling": "model"|"none"|"mean"|"cls"|"last", "offload_kv": bool, "swa_full": bool, "top": int,
 *  "pins": int, "adapt_threads": bool}
 * pins: sequence ids beyond "sequences", where the memory can share any beginning of a sequence; ignored elsewhere.
 * adapt_threads: where threads spin while they wait for each other (no OpenMP), use fewer when the cores are busy with
 * something else. Not for models on GPUs, where the thread that waits for them seems to be kept from running.
 * swa_full: keep the cells that have left a sliding window, so that any beginning can be shared. It takes two of
 * llama.cpp's ids a sequence, so there are at most 128.
 * Where any beginning can be shared, id 0 is for cria_state_get() and cria_state_set(). */
CRIA_API int32_t cria_context_new(int32_t model, const uint8_t * json, int32_t length);
CRIA_API int32_t cria_context_free(int32_t context);
/* Text: what the context really has; see ffi/native.ts ContextInfo. */
CRIA_API int32_t cria_context_info(int32_t context);

/* Address of the step block, which lives as long as the context. All fields are 4 bytes wide:
 *   header [16]          0 rc of llama_decode, 1 decode_us, 2 sample_us, 3 graphs of the step that were reused,
 *                        4 threads that sampled, 5.. reserved
 *   token [batch]  i32   in
 *   position [batch] i32 in
 *   sequence [batch] i32 in
 *   row_index [rows] i32 in:  index in the batch whose logits are sampled
 *   row_sampler [rows] i32 in: sampler handle
 *   row_top [rows] i32   in:  -1 no logprobs, n >= 0 the chosen token's and n alternatives
 *   out_token [rows] i32 out
 *   out_status [rows] i32 out: 0 ok, 1 no logits, 2 grammar allows no token, 3 logits are not finite, 4 sampler failed
 *   out_logprob [rows] f32 out
 *   top_token [rows * top] i32, top_logprob [rows * top] f32 out, -1 where there are fewer
 */
CRIA_API uint64_t cria_step_block(int32_t context);
CRIA_API int32_t  cria_step_submit(int32_t context, int32_t tokens, int32_t rows);
/* CRIA_PENDING, or CRIA_OK when the block holds the results. */
CRIA_API int32_t  cria_step_wait(int32_t context, int32_t timeout_us);
/* Ends a running step early where the backend can (CPU): rc 2 in the header. */
CRIA_API int32_t  cria_step_cancel(int32_t context);
/* Copies the pooled embedding of a sequence of the last step (or of batch index -1-sequence without pooling);
 * returns its width. */
CRIA_API int32_t  cria_embedding(int32_t context, int32_t sequence, float * out, int32_t capacity);

/* ---- memory: the cells of a context. Never while a step runs --------------------------------------- */

/* 1 removed, 0 the memory kind cannot do that. p1 < 0: to the end. */
CRIA_API int32_t cria_sequence_remove(int32_t context, int32_t sequence, int32_t p0, int32_t p1);
CRIA_API int32_t cria_sequence_copy(int32_t context, int32_t source, int32_t target, int32_t p0, int32_t p1);
/* range[0] = first, range[1] = last position held, -1 when empty. */
CRIA_API int32_t cria_sequence_range(int32_t context, int32_t sequence, int32_t * range);
CRIA_API int32_t cria_memory_clear(int32_t context);
/* State of positions p0 <= p < p1 of a sequence, as bytes for a context of the same model, cache types and kind of
 * window. Where only whole sequences can be shared, it is that of all: p0 = 0, p1 = -1. */
CRIA_API int64_t cria_state_size(int32_t context, int32_t sequence, int32_t p0, int32_t p1);
CRIA_API int64_t cria_state_get(int32_t context, int32_t sequence, int32_t p0, int32_t p1, uint8_t * data,
                                int64_t capacity);
/* Puts positions p0 <= p < p1 out of a state into a sequence that holds those before, in cells of their own. A state
 * that cannot be restored leaves the sequence as it was; empty, where only whole sequences can be shared. */
CRIA_API int64_t cria_state_set(int32_t context, int32_t sequence, int32_t p0, int32_t p1, const uint8_t * data,
                                int64_t length);

/* ---- samplers ---------------------------------------------------------------------------------- */

/* See ffi/backend.ts samplerJson() for the fields: they are llama.cpp's own sampling parameters. */
CRIA_API int32_t cria_sampler_new(int32_t model, const uint8_t * json, int32_t length);
CRIA_API int32_t cria_sampler_free(int32_t sampler);
CRIA_API int32_t cria_sampler_reset(int32_t sampler);
CRIA_API int32_t cria_sampler_clone(int32_t sampler);
/* Feeds tokens to the penalties, not to the grammar. */
CRIA_API int32_t cria_sampler_accept(int32_t sampler, const int32_t * tokens, int32_t count);
/* Constrains what follows. prefill: text already produced that the grammar has to swallow first. */
CRIA_API int32_t cria_sampler_grammar(int32_t sampler, const uint8_t * gbnf, int32_t gbnf_length,
                                      const uint8_t * prefill, int32_t prefill_length);

/* ---- chat templates, parsing, grammars ----------------------------------------------------------- */

/* {"model": handle or 0, "template": string, "bos": string, "eos": string}; without template the model's own. */
CRIA_API int32_t cria_chat_new(const uint8_t * json, int32_t length);
CRIA_API int32_t cria_chat_free(int32_t chat);
/* Text: {"source": string, "caps": {name: bool}, "thinking": bool} */
CRIA_API int32_t cria_chat_info(int32_t chat);
/* {"messages": [OpenAI], "tools": [OpenAI], "tool_choice", "json_schema": string, "thinking": bool, "kwargs": {},
 *  "add_generation_prompt": bool} -> text: {"prompt", "grammar", "grammar_lazy", "generation_prompt", "triggers",
 *  "stops", "parser", "format", "thinking_start", "thinking_ends"} */
CRIA_API int32_t cria_chat_apply(int32_t chat, const uint8_t * json, int32_t length);
/* {"parser", "format", "generation_prompt", "thinking": bool, "tools": bool} */
CRIA_API int32_t cria_parse_new(const uint8_t * json, int32_t length);
CRIA_API int32_t cria_parse_free(int32_t parse);
/* Adds generated text. Text: [{"thinking"?, "content"?, "tool"?: {"index", "id", "name", "arguments"}}] deltas. */
CRIA_API int32_t cria_parse_feed(int32_t parse, const uint8_t * text, int32_t length, int32_t final);
/* Text: GBNF of a JSON schema. */
CRIA_API int32_t cria_schema_to_gbnf(const uint8_t * json, int32_t length);

/* ---- files ------------------------------------------------------------------------------------- */

/* Starts a job that writes a quantised copy of a GGUF file and ends with CRIA_OK. It cannot be cancelled: run it in a
 * process of its own. {"input": string, "output": string, "type": string (Q4_K_M, ...), "threads": int (0 all),
 * "imatrix": string (a file, or "")} */
CRIA_API int32_t cria_quantize(const uint8_t * json, int32_t length);

#ifdef __cplusplus
}
#endif

#endif
