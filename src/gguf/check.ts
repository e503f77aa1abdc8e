/**
 * Checks what metadata means to llama.cpp: the values it divides by, loops over, allocates for or asserts.
 *
 * Pure. Decides nothing about how bytes are laid out (`read.ts`) and extracts nothing (`facts.ts`). A key
 * that is absent is fine here: shards, vocabularies and adapters lack most of them.
 *
 * @module
 */

import { quote } from "./cursor.ts"
import {
  type GgufArray,
  type GgufElementType,
  type GgufValue,
  type GgufValueType,
} from "./format.ts"

/** Makes the error for a problem; the caller knows the file. */
export type Fail = (problem: string) => Error

/** Most layers of a model (`LLAMA_MAX_LAYERS`); llama.cpp aborts above it. */
const MAX_LAYERS = 512

/** Most experts of a model (`LLAMA_MAX_EXPERTS`); llama.cpp aborts above it. */
const MAX_EXPERTS = 1024

/** Most tokens of a vocabulary: eight times the largest known, 262k. */
export const MAX_TOKENS: number = 2 ** 21

/** llama.cpp keeps sizes as `uint32_t` and computes with `int32_t` in places. */
const MAX_INT32: number = 2 ** 31 - 1

const INTEGER_TYPES: ReadonlySet<GgufValueType> = new Set([
  "u8",
  "i8",
  "u16",
  "i16",
  "u32",
  "i32",
  "u64",
  "i64",
])

/** Architectures without attention; their head count is 0. `llm_arch_is_recurrent` in llama.cpp. */
export const RECURRENT_ARCHITECTURES: ReadonlySet<string> = new Set([
  "mamba",
  "mamba2",
  "rwkv6",
  "rwkv6qwen2",
  "rwkv7",
  "arwkv7",
])

interface IntegerRule {
  readonly min: number
  readonly max: number
  /** Also an array with one value per layer, in which 0 marks a layer without it. */
  readonly perLayer?: boolean
}

const SIZE: IntegerRule = { min: 1, max: MAX_INT32 }
const SIZE_OR_NONE: IntegerRule = { min: 0, max: MAX_INT32 }

// What follows "<architecture>." in a key. Kept to what is a divisor, a loop bound, an allocation or an
// assertion in llama.cpp.
const INTEGER_RULES: ReadonlyMap<string, IntegerRule> = new Map([
  ["attention.head_count", { ...SIZE, perLayer: true }],
  ["attention.head_count_kv", { ...SIZE, perLayer: true }],
  ["attention.key_length", SIZE],
  ["attention.sliding_window", SIZE_OR_NONE],
  ["attention.value_length", SIZE],
  ["block_count", { min: 1, max: MAX_LAYERS }],
  ["context_length", SIZE],
  ["embedding_length", SIZE],
  ["expert_count", { min: 0, max: MAX_EXPERTS }],
  ["expert_group_count", { min: 0, max: MAX_EXPERTS }],
  ["expert_used_count", { min: 0, max: MAX_EXPERTS, perLayer: true }],
  ["feed_forward_length", { ...SIZE_OR_NONE, perLayer: true }],
  ["full_attention_interval", { min: 1, max: MAX_LAYERS }],
  // NONE to RANK of `enum llama_pooling_type`; llama.cpp aborts on others.
  ["pooling_type", { min: 0, max: 4 }],
  ["rope.dimension_count", SIZE_OR_NONE],
  ["shortconv.l_cache", SIZE],
  ["ssm.conv_kernel", SIZE],
  // 0 in plamo2, which has no groups.
  ["ssm.group_count", SIZE_OR_NONE],
  ["ssm.inner_size", SIZE],
  ["ssm.state_size", SIZE],
  ["ssm.time_step_rank", SIZE],
  ["vocab_size", { min: 1, max: MAX_TOKENS }],
  ["wkv.head_size", SIZE],
])

// In vision and audio encoders 0 is legal: some have no blocks of their own.
const ENCODER_RULES: ReadonlyMap<string, IntegerRule> = new Map([
  ["attention.head_count", SIZE_OR_NONE],
  ["attention.head_count_kv", SIZE_OR_NONE],
  ["block_count", { min: 0, max: MAX_LAYERS }],
  ["embedding_length", SIZE],
  ["patch_size", SIZE],
])

const ENCODER_PREFIX = /^(?:vision|audio)\./

// The types llama.cpp insists on. Arrays that go with the tokens have one element for each.
const TOKEN_ARRAYS: ReadonlyMap<string, readonly GgufElementType[]> = new Map([
  ["tokenizer.ggml.tokens", ["string"]],
  ["tokenizer.ggml.scores", ["f32", "i32"]],
  ["tokenizer.ggml.token_type", ["i32"]],
])

// Read without a check of their type by llama.cpp, which aborts on any other.
const SPLIT_TYPES: ReadonlyMap<string, GgufValue["type"]> = new Map([
  ["split.no", "u16"],
  ["split.count", "u16"],
  ["split.tensors.count", "i32"],
])

/**
 * Checks the metadata of one file.
 *
 * @param tensorCount Tensors in this file.
 * @throws What `fail` makes, for the first problem found.
 */
export function checkMetadata(
  metadata: ReadonlyMap<string, GgufValue>,
  tensorCount: number,
  fail: Fail,
): void {
  const architecture = checkArchitecture(metadata.get("general.architecture"), fail)
  if (architecture !== undefined) checkModelKeys(metadata, architecture, fail)
  checkTokenizer(metadata, fail)
  checkSplit(metadata, tensorCount, fail)
}

/** An integer of any width as a number; undefined for other types and beyond 2^53. */
export function integerOf(value: GgufValue | undefined): number | undefined {
  if (value === undefined || value.type === "array" || !INTEGER_TYPES.has(value.type)) {
    return undefined
  }
  const integer = Number(value.value)
  return Number.isSafeInteger(integer) ? integer : undefined
}

/** The elements of a short array of integers as numbers; undefined for other values. */
export function integersOf(value: GgufValue | undefined): readonly number[] | undefined {
  if (value?.type !== "array" || !INTEGER_TYPES.has(value.elementType)) return undefined
  return value.values?.map(Number)
}

function checkArchitecture(value: GgufValue | undefined, fail: Fail): string | undefined {
  if (value === undefined) return undefined
  if (value.type !== "string" || !/^[\w.-]{1,64}$/.test(value.value)) {
    throw fail(
      `"general.architecture" is ${describe(value)}, expected a name of letters, digits, ".", "_" and "-"`,
    )
  }
  return value.value
}

function checkModelKeys(
  metadata: ReadonlyMap<string, GgufValue>,
  architecture: string,
  fail: Fail,
): void {
  const isRecurrent = RECURRENT_ARCHITECTURES.has(architecture)
  for (const [key, value] of metadata) {
    if (!key.startsWith(`${architecture}.`)) continue
    const name = key.slice(architecture.length + 1)
    const rule = ENCODER_PREFIX.test(name)
      ? ENCODER_RULES.get(name.replace(ENCODER_PREFIX, ""))
      : INTEGER_RULES.get(name)
    if (rule === undefined) continue
    const isHeadCount = name.startsWith("attention.head_count")
    checkInteger(key, value, isRecurrent && isHeadCount ? { ...rule, min: 0 } : rule, fail)
  }
}

function checkInteger(key: string, value: GgufValue, rule: IntegerRule, fail: Fail): void {
  if (value.type === "array" && rule.perLayer === true) {
    checkPerLayer(key, value, rule, fail)
    return
  }
  const integer = integerOf(value)
  if (integer === undefined || integer < rule.min || integer > rule.max) {
    throw fail(
      `${quote(key)} is ${describe(value)}, expected an integer from ${rule.min} to ${rule.max}`,
    )
  }
}

function checkPerLayer(key: string, array: GgufArray, rule: IntegerRule, fail: Fail): void {
  const integers = integersOf(array)
  if (integers === undefined || array.length > MAX_LAYERS) {
    throw fail(`${quote(key)} is ${describe(array)}, expected at most ${MAX_LAYERS} integers`)
  }
  const wrong = integers.find((integer) => integer < 0 || integer > rule.max)
  if (wrong !== undefined) {
    throw fail(`${quote(key)} contains ${wrong}, expected integers from 0 to ${rule.max}`)
  }
}

function checkTokenizer(metadata: ReadonlyMap<string, GgufValue>, fail: Fail): void {
  const tokens = metadata.get("tokenizer.ggml.tokens")
  const tokenCount = tokens?.type === "array" ? tokens.length : 0
  for (const [key, types] of TOKEN_ARRAYS) {
    const value = metadata.get(key)
    if (value === undefined) continue
    if (value.type !== "array" || !types.includes(value.elementType)) {
      throw fail(`"${key}" is ${describe(value)}, expected an array of ${types.join(" or ")}`)
    }
    if (value.length < tokenCount) {
      throw fail(
        `"${key}" has ${value.length} elements, expected one for each of the ${tokenCount} tokens`,
      )
    }
  }
  const merges = metadata.get("tokenizer.ggml.merges")
  if (merges !== undefined && (merges.type !== "array" || merges.elementType !== "string")) {
    throw fail(`"tokenizer.ggml.merges" is ${describe(merges)}, expected an array of string`)
  }
}

function checkSplit(
  metadata: ReadonlyMap<string, GgufValue>,
  tensorCount: number,
  fail: Fail,
): void {
  for (const [key, type] of SPLIT_TYPES) {
    const value = metadata.get(key)
    if (value !== undefined && value.type !== type) {
      throw fail(`"${key}" has type ${value.type}, expected ${type}`)
    }
  }
  const count = integerOf(metadata.get("split.count"))
  if (count === undefined || count < 2) return
  const index = integerOf(metadata.get("split.no"))
  if (index === undefined || index >= count) {
    throw fail(`"split.no" is ${index ?? "missing"}, expected below the ${count} of "split.count"`)
  }
  const total = integerOf(metadata.get("split.tensors.count"))
  if (total === undefined || total < tensorCount) {
    throw fail(
      `"split.tensors.count" is ${total ?? "missing"}, expected at least the ${tensorCount} tensors of this part`,
    )
  }
}

function describe(value: GgufValue): string {
  if (value.type === "array") return `an array of ${value.length} × ${value.elementType}`
  return `${typeof value.value === "string" ? quote(value.value) : value.value} (${value.type})`
}
