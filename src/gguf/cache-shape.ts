/**
 * What a model keeps of what it read: keys and values of each token, and states of a fixed size.
 *
 * Pure arithmetic over metadata, as llama.cpp does it (`llama-hparams.cpp`, `llama-model.cpp`).
 *
 * @module
 */

import { RECURRENT_ARCHITECTURES } from "./check.ts"
import type { Keys } from "./keys.ts"

/** Elements are counted over all layers that have a KV cache of their own. */
export interface CacheShape {
  /** Of the keys of one token. */
  readonly keyElements: number
  /** Of the values of one token. */
  readonly valueElements: number
  /** Of those keys, what belongs to layers with a sliding window. */
  readonly windowKeyElements: number
  readonly windowValueElements: number
  /** Bytes of the recurrent state of one sequence, over all layers; 0 without. */
  readonly stateBytes: number
}

/**
 * Which layers have a sliding window, where the file does not say: all but every n-th, the first or the last of n; with
 * 0 all. For other architectures llama.cpp has no window, or the file says.
 */
const WINDOW_PATTERNS: ReadonlyMap<string, { every: number; isFirst?: boolean }> = new Map([
  ["afmoe", { every: 4 }],
  ["cohere2", { every: 4 }],
  ["cohere2moe", { every: 4, isFirst: true }],
  ["exaone-moe", { every: 4 }],
  ["exaone4", { every: 4 }],
  ["gemma2", { every: 2 }],
  ["gemma3", { every: 6 }],
  ["gemma3n", { every: 5 }],
  ["gpt-oss", { every: 2 }],
  ["laguna", { every: 4, isFirst: true }],
  ["lfm2", { every: 0 }],
  ["lfm2moe", { every: 0 }],
  ["mellum", { every: 4 }],
  ["muse-glimmer", { every: 4 }],
  ["olmo2", { every: 4 }],
  ["plamo3", { every: 8 }],
  ["smallthinker", { every: 4, isFirst: true }],
])

/** Keys of what has a recurrent state. */
const STATE_KEYS = ["ssm.conv_kernel", "shortconv.l_cache", "kda.head_dim"]

/** llama.cpp's default. */
const TOKEN_SHIFTS = 2

/** Recurrent states are kept in 32 bits. */
const STATE_ELEMENT_BYTES = 4

/** See the module. */
export function cacheShape(keys: Keys): CacheShape {
  const { keyElements, valueElements } = elementsOf(keys, () => true)
  const inWindow = elementsOf(keys, windowLayers(keys))
  return {
    keyElements,
    valueElements,
    windowKeyElements: inWindow.keyElements,
    windowValueElements: inWindow.valueElements,
    stateBytes: stateBytes(keys),
  }
}

function elementsOf(keys: Keys, isCounted: (layer: number) => boolean) {
  const isWindow = windowLayers(keys)
  const headLength = headLengthOf(keys)
  const length = (name: string, layer: number) =>
    (isWindow(layer) ? keys.integer(`attention.${name}_length_swa`) : undefined) ??
    keys.integer(`attention.${name}_length`) ??
    headLength
  // With multi-head latent attention the values are a part of the cached keys.
  const hasLatentValues = keys.integer("attention.value_length_mla") !== undefined
  let keyElements = 0
  let valueElements = 0
  for (const [layer, heads] of cachedHeadsKv(keys).entries()) {
    if (!isCounted(layer)) continue
    keyElements += heads * length("key", layer)
    if (!hasLatentValues) valueElements += heads * length("value", layer)
  }
  return { keyElements, valueElements }
}

function headLengthOf(keys: Keys): number {
  const heads = keys.perLayer("attention.head_count", 1) ?? []
  const most = Math.max(0, ...heads)
  return most === 0 ? 0 : Math.floor((keys.integer("embedding_length") ?? 0) / most)
}

/** KV heads of each layer; 0 for layers without a KV cache of their own. */
function cachedHeadsKv(keys: Keys): readonly number[] {
  // Encoders such as BERT see a text at once and keep nothing.
  if (keys.flag("attention.causal") === false) return []
  const { hasCache } = layerKinds(keys)
  const heads = headsKvOf(keys)
  const cachedLayers = heads.length - (keys.integer("attention.shared_kv_layers") ?? 0)
  return heads.map((count, layer) => (layer < cachedLayers && hasCache(layer) ? count : 0))
}

function headsKvOf(keys: Keys): readonly number[] {
  const blockCount = keys.integer("block_count")
  return (
    keys.perLayer("attention.head_count_kv", blockCount) ??
    keys.perLayer("attention.head_count", blockCount) ??
    []
  )
}

function windowLayers(keys: Keys): (layer: number) => boolean {
  if (!keys.integer("attention.sliding_window")) return () => false
  const flags = keys.flags("attention.sliding_window_pattern")
  if (flags !== undefined) return (layer) => flags[layer] ?? false
  const pattern = WINDOW_PATTERNS.get(keys.architecture)
  if (pattern === undefined) return () => false
  const { isFirst = false } = pattern
  const every = keys.integer("attention.sliding_window_pattern") ?? pattern.every
  return (layer) => every === 0 || layer % every !== (isFirst ? 0 : every - 1)
}

/** Which layers have keys and values, and which a recurrent state. */
interface LayerKinds {
  readonly hasCache: (layer: number) => boolean
  readonly hasState: (layer: number) => boolean
}

function layerKinds(keys: Keys): LayerKinds {
  const [all, none] = [() => true, () => false]
  if (RECURRENT_ARCHITECTURES.has(keys.architecture)) return { hasCache: none, hasState: all }
  const isRecurrent = recurrentLayers(keys)
  if (isRecurrent !== undefined) {
    return { hasCache: (layer) => !isRecurrent(layer), hasState: isRecurrent }
  }
  const isHybrid = STATE_KEYS.some((name) => keys.integer(name) !== undefined)
  if (!isHybrid) return { hasCache: all, hasState: none }
  const heads = headsKvOf(keys)
  // Falcon-H1 has both in every layer, Nemotron layers that have neither.
  if (!heads.includes(0)) return { hasCache: all, hasState: all }
  const feedForward = keys.architecture.startsWith("nemotron_h")
    ? keys.perLayer("feed_forward_length", heads.length)
    : undefined
  const hasState = (layer: number) => heads[layer] === 0 && (feedForward?.[layer] ?? 0) === 0
  return { hasCache: all, hasState }
}

/** Where the file says it layer by layer, or by an interval. */
function recurrentLayers(keys: Keys): ((layer: number) => boolean) | undefined {
  const flags = keys.flags("attention.recurrent_layers")
  if (flags !== undefined) return (layer) => flags[layer] ?? false
  const interval = keys.integer("full_attention_interval")
  return interval === undefined ? undefined : (layer) => (layer + 1) % interval !== 0
}

function stateBytes(keys: Keys): number {
  const { hasState } = layerKinds(keys)
  const layers = Array.from({ length: keys.integer("block_count") ?? 0 }, (_, layer) => layer)
  return layers.filter(hasState).length * stateElements(keys) * STATE_ELEMENT_BYTES
}

/** Tokens before the present one that a convolution sees. */
function past(kernel: number): number {
  return Math.max(0, kernel - 1)
}

/** Of one sequence in one layer: what a convolution sees of the past, and what all of the past went into. */
function stateElements(keys: Keys): number {
  const size = (name: string) => keys.integer(name) ?? 0
  const width = size("embedding_length")
  const wkv = size("wkv.head_size")
  if (wkv > 0) return width * ((keys.integer("token_shift_count") ?? TOKEN_SHIFTS) + wkv)
  const shortConvolution = size("shortconv.l_cache")
  if (shortConvolution > 0) return width * (shortConvolution - 1)
  const [heads = 0] = keys.perLayer("attention.head_count", 1) ?? []
  const delta = size("kda.head_dim")
  if (delta > 0) {
    const kernel = keys.integer("ssm.conv_kernel") ?? 4
    return delta * heads * (3 * past(kernel) + delta)
  }
  if (keys.architecture === "minimax-01") return size("attention.key_length") ** 2 * heads
  const [inner, state] = [size("ssm.inner_size"), size("ssm.state_size")]
  const convolved = inner + 2 * size("ssm.group_count") * state
  return past(size("ssm.conv_kernel")) * convolved + state * inner
}
