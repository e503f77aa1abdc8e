/**
 * Models whose weights are stored in 8 bits with factors beside them: finds the factors.
 *
 * Pure: sees names and shapes. Knows the notations of DeepSeek and Qwen ("fp8"), of compressed-tensors, of ModelOpt and
 * of FBGEMM; refuses the others by name, since their weights would be taken for noise.
 *
 * @module
 */

import type { Hyperparameters } from "./hyperparameters.ts"
import { shown } from "./json.ts"
import { elementsOf, type StoredTensor } from "./safetensors.ts"
import type { Scale } from "./tensors.ts"

/** Tensors and what belongs to them. */
export interface Weights {
  /** In the order they had. */
  readonly tensors: readonly StoredTensor[]
  /** By the name of the tensor they belong to. */
  readonly scales: ReadonlyMap<string, Scale>
}

const METHODS = ["fp8", "compressed-tensors", "modelopt", "fbgemm_fp8"]

/** Of compressed-tensors; the others pack several weights into a word. */
const FORMATS = ["float-quantized", "naive-quantized", "int-quantized"]

/** Factors of one tensor, which are held in memory: one for each block of 128 × 128 weights makes 2^38 weights. */
const FACTORS_MAX: number = 2 ** 24

const FACTORS = /^(.*)(_scale_inv|_scale|\.qscale_weight)$/

/** For activations and caches, which llama.cpp does not quantise. */
const UNUSED = /(\.|_)(activation_scale|input_scale|k_scale|v_scale|qscale_act)(_ub)?$/

/**
 * Parts weights from their factors.
 *
 * @throws {CriaError} `invalid-input` for a quantisation that cannot be undone, or factors that fit no weight.
 */
export function partWeights(stored: readonly StoredTensor[], config: Hyperparameters): Weights {
  const quantisation = config.object("quantization_config")
  if (quantisation === undefined) return { tensors: stored, scales: new Map() }
  checkMethod(quantisation["quant_method"], quantisation["format"], config)
  const blocks = blockSizes(quantisation["weight_block_size"])
  const byName = new Map(stored.map((tensor) => [tensor.name, tensor]))
  const scales = new Map<string, Scale>()
  const factors = new Set<string>()
  for (const tensor of stored) {
    const weight = byName.get(weightName(tensor.name) ?? "")
    if (UNUSED.test(tensor.name)) factors.add(tensor.name)
    else if (weight !== undefined) {
      factors.add(tensor.name)
      scales.set(weight.name, scaleOf(weight, tensor, { blocks, config }))
    }
  }
  return { tensors: stored.filter((tensor) => !factors.has(tensor.name)), scales }
}

function weightName(name: string): string | undefined {
  const [, bare, suffix] = FACTORS.exec(name) ?? []
  return suffix === ".qscale_weight" ? `${bare}.weight` : bare
}

function checkMethod(method: unknown, format: unknown, config: Hyperparameters): void {
  const isKnown = METHODS.some((known) => known === method)
  const isKnownFormat = method !== "compressed-tensors" || FORMATS.some((known) => known === format)
  if (isKnown && isKnownFormat) return
  const what = isKnown ? `${shown(method)} in the format ${shown(format)}` : shown(method)
  throw config.problem(
    `the weights are quantised by ${what}, expected none or ${METHODS.join(", ")} in 8 bits`,
  )
}

function blockSizes(value: unknown): readonly [number, number] | undefined {
  if (!Array.isArray(value)) return undefined
  const [rows, columns]: unknown[] = value
  return isBlockSize(rows) && isBlockSize(columns) ? [rows, columns] : undefined
}

function isBlockSize(value: unknown): value is number {
  return typeof value === "number" && Number.isInteger(value) && value > 0
}

/** One factor for all, one for each row, or one for each block. */
function scaleOf(
  weight: StoredTensor,
  stored: StoredTensor,
  { blocks, config }: { blocks: readonly [number, number] | undefined; config: Hyperparameters },
): Scale {
  const rows = weight.shape[0] ?? 0
  const columns = weight.shape.at(-1) ?? 0
  const count = elementsOf(stored.shape)
  if (count > FACTORS_MAX) {
    throw config.problem(`tensor "${stored.name}" has ${count} factors, limit ${FACTORS_MAX}`)
  }
  const whole = { stored, blockRows: Number.MAX_SAFE_INTEGER, blockColumns: columns, columns: 1 }
  if (count === 1) return whole
  if (weight.shape.length === 2 && stored.shape[0] === rows && count === rows) {
    return { ...whole, blockRows: 1 }
  }
  if (weight.shape.length === 2 && blocks !== undefined) {
    const [blockRows, blockColumns] = blocks
    const across = Math.ceil(columns / blockColumns)
    if (stored.shape.join() === [Math.ceil(rows / blockRows), across].join()) {
      return { stored, blockRows, blockColumns, columns: across }
    }
  }
  throw config.problem(
    `tensor "${weight.name}" has ${rows} × ${columns} weights and factors of [${stored.shape.join(", ")}]`,
  )
}
