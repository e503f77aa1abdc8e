/**
 * Which tensor of a converted model comes from which of the original: names, order, merges and splits.
 *
 * Pure: sees headers, not data. `stream.ts` reads what is planned here. Order and names are those of llama.cpp's
 * converter.
 *
 * @module
 */

import type { CriaError } from "../util/errors.ts"
import type { OutputType } from "./elements.ts"
import type { Family } from "./families.ts"
import { rowsOf, type StoredTensor } from "./safetensors.ts"

/** Factors for the elements of a quantised tensor. */
export interface Scale {
  readonly stored: StoredTensor
  /** Rows and columns that share a factor. */
  readonly blockRows: number
  readonly blockColumns: number
  /** Factors in a row of blocks. */
  readonly columns: number
}

/** Rows of a stored tensor. A row is what has the last dimension; a vector has rows of one element. */
export interface Part {
  readonly stored: StoredTensor
  readonly firstRow: number
  readonly rows: number
  readonly scale: Scale | undefined
}

/** A tensor to write. */
export interface PlannedTensor {
  readonly name: string
  /** Row-major, the row length last. */
  readonly shape: readonly number[]
  /** One after the other. */
  readonly parts: readonly Part[]
  /** Added to every element. */
  readonly shift?: number
  /** Rows of a head, whose halves are to be interleaved. */
  readonly headRows?: number
  /** The stored tensor has rows and columns the other way round. */
  readonly isTransposed?: boolean
  /** Not from a file. */
  readonly values?: Float32Array
}

/** What planning needs to know of a model. */
export interface PlanOptions {
  readonly family: Family
  readonly heads: number
  readonly keyHeads: number
  /** Experts of a layer; 0 when it has none. */
  readonly experts: number
  /** Rows that an embedding matrix is cut to. */
  readonly vocabularyRows: number | undefined
  readonly problem: (text: string) => CriaError
}

/** Parts of multimodal models that do not belong to the text model. */
const OTHER_MODALITIES =
  /^(mlp|vit\.|vpm\.|siglip2\.|conformer\.|merger\.|resampler\.)|visual\.|vision\.|audio\.|vision_|audio_|projector\.|image_newline|patch_embed|model\.connector\./

/** Tables that llama.cpp computes by itself. */
const COMPUTED = /\.(attention\.masked_bias|attention\.bias|rotary_emb\.inv_freq)$/

/** Types of tensors that stay in 32 bits: llama.cpp computes with them so. */
const FULL_PRECISION =
  /(_norm\.weight|^position_embd\.weight|^token_types\.weight|\.ffn_gate_inp(_shexp)?\.weight)$/

const EXPERT = /^(.*\.experts)\.(\d+)\.(\w+)(\.weight)$/
const FUSED_EXPERTS = /^(.*\.experts)\.(gate_up_proj|down_proj)(\.weight)?$/

/**
 * Plans all tensors of a model.
 *
 * @param stored In the order of the files, without those that only say how others are quantised.
 * @param scales By the name of the tensor they belong to.
 * @throws {CriaError} `invalid-input` for a tensor that the family does not have.
 */
export function planTensors(
  stored: readonly StoredTensor[],
  scales: ReadonlyMap<string, Scale>,
  options: PlanOptions,
): PlannedTensor[] {
  const experts = new ExpertCollector(options)
  const planned: PlannedTensor[] = []
  for (const tensor of stored) {
    const name = bareName(tensor.name, options.family)
    if (name === undefined) continue
    const part = wholePart(tensor, scales.get(tensor.name))
    const fused = FUSED_EXPERTS.exec(name)
    if (ExpertCollector.owns(name)) {
      planned.push(...experts.add(name, part))
    } else if (fused !== null && options.family.experts !== undefined) {
      planned.push(...splitExperts(fused, part, options))
    } else {
      planned.push(planOne(name, part, options))
    }
  }
  experts.checkComplete()
  return planned
}

/** All rows of a tensor. */
export function wholePart(stored: StoredTensor, scale?: Scale): Part {
  return { stored, firstRow: 0, rows: rowsOf(stored.shape), scale }
}

/** The name of a tensor as its family knows it; undefined when it is left out. */
export function bareName(name: string, family: Family): string | undefined {
  if (OTHER_MODALITIES.test(name) || COMPUTED.test(name)) return undefined
  let bare = name.replace("language_model.", "")
  if (family.prefix !== undefined && bare.startsWith(family.prefix)) {
    bare = bare.slice(family.prefix.length)
  }
  if (family.missingPrefix !== undefined) bare = family.missingPrefix + bare
  if (family.architecture === "bert" || family.architecture === "nomic-bert") {
    bare = bare.replace(/\.gamma$/, ".weight").replace(/\.beta$/, ".bias")
  }
  return family.dropped?.test(bare) === true ? undefined : bare
}

/**
 * llama.cpp's name of a tensor.
 *
 * @throws {CriaError} `invalid-input` when the family has none like it.
 */
export function mappedName(name: string, options: Pick<PlanOptions, "family" | "problem">): string {
  const [, bare = name, suffix = ""] = /^(.*?)(\.weight|\.bias)?$/.exec(name) ?? []
  const layer = /\.(\d+)\./.exec(bare)?.[1]
  const pattern = layer === undefined ? bare : bare.replace(`.${layer}.`, ".{n}.")
  const { names } = options.family
  const mapped = Object.hasOwn(names, pattern) ? names[pattern] : undefined
  if (mapped === undefined) {
    throw options.problem(
      `it has a tensor "${name}", which models of the architecture ${options.family.architecture} do not have`,
    )
  }
  return mapped.replace("{n}", layer ?? "") + suffix
}

/** How many rows the heads have of a tensor whose rows are to be reordered; undefined for other tensors. */
export function headRowsOf(name: string, rows: number, options: PlanOptions): number | undefined {
  if (options.family.interleavesHeads !== true) return undefined
  const which = /(q|k)_proj\.(weight|bias)$/.exec(name)?.[1]
  if (which === undefined) return undefined
  const heads = which === "q" ? options.heads : options.keyHeads
  if (rows % (2 * heads) === 0) return rows / heads
  throw options.problem(
    `tensor "${name}" has ${rows} rows, expected a multiple of 2 × ${heads} heads`,
  )
}

/**
 * The type a tensor is written in.
 *
 * @param type What most tensors get.
 */
export function storedType(planned: PlannedTensor, type: OutputType): OutputType {
  const { name, shape } = planned
  if (shape.length <= 1 || FULL_PRECISION.test(name)) return "F32"
  if (!/\.(weight|lora_a|lora_b)$/.test(name)) return "F32"
  if (type === "Q8_0" && (shape.at(-1) ?? 0) % 32 !== 0) return "F16"
  return type
}

/** A tensor that is one in both models. */
export function planOne(name: string, part: Part, options: PlanOptions): PlannedTensor {
  const { stored } = part
  const isEmbedding = name.endsWith("embed_tokens.weight")
  const rows = isEmbedding ? Math.min(part.rows, options.vocabularyRows ?? part.rows) : part.rows
  const headRows = headRowsOf(name, part.rows, options)
  return {
    name: mappedName(name, options),
    shape: rows === part.rows ? stored.shape : [rows, ...stored.shape.slice(1)],
    parts: [{ ...part, rows }],
    ...(options.family.shiftsNorms === true && name.endsWith("norm.weight") ? { shift: 1 } : {}),
    ...(headRows === undefined ? {} : { headRows }),
  }
}

/** Experts in one tensor each are written as three-dimensional ones when the last of a layer has come. */
export class ExpertCollector {
  /** Whether a name is that of a matrix of one expert. */
  static owns(name: string): boolean {
    return EXPERT.test(name)
  }

  readonly #options: PlanOptions
  /** By layer, then by name. */
  readonly #layers = new Map<string, Map<string, Part>>()

  constructor(options: PlanOptions) {
    this.#options = options
  }

  add(name: string, part: Part): PlannedTensor[] {
    const { experts, family, problem } = this.#options
    const [, prefix = "", number = "", projection = "", suffix = ""] = EXPERT.exec(name) ?? []
    const projections = family.experts ?? []
    if (!projections.includes(projection) || Number(number) >= experts) {
      throw problem(
        `it has a tensor "${name}", expected ${experts} experts of ${projections.join(", ")}`,
      )
    }
    const layer = this.#layers.get(prefix) ?? new Map<string, Part>()
    this.#layers.set(prefix, layer)
    layer.set(`${number}.${projection}`, part)
    if (layer.size < experts * projections.length) return []
    this.#layers.delete(prefix)
    return projections.map((each) => {
      const parts = Array.from({ length: experts }, (_, index) => layer.get(`${index}.${each}`))
      return merged(`${prefix}.${each}${suffix}`, parts.filter(isPart), this.#options)
    })
  }

  checkComplete(): void {
    for (const [prefix, layer] of this.#layers) {
      throw this.#options.problem(`experts are missing: "${prefix}" has ${layer.size} tensors`)
    }
  }
}

function isPart(part: Part | undefined): part is Part {
  return part !== undefined
}

function merged(name: string, parts: readonly Part[], options: PlanOptions): PlannedTensor {
  const shape = parts[0]?.stored.shape ?? []
  const odd = parts.find((part) => part.stored.shape.join() !== shape.join())
  if (odd !== undefined) {
    throw options.problem(`tensor "${odd.stored.name}" has another shape than the other experts`)
  }
  return { name: mappedName(name, options), shape: [parts.length, ...shape], parts }
}

/** Experts in one tensor: gate and up are one above the other, and are parted. */
function splitExperts(match: RegExpExecArray, part: Part, options: PlanOptions): PlannedTensor[] {
  const [name, prefix = "", projection = ""] = match
  const { stored } = part
  const [experts = 0, rows = 0, columns = 0] = stored.shape
  if (stored.shape.length !== 3 || part.scale !== undefined) {
    throw options.problem(
      `tensor "${name}" is not one of experts × rows × columns in full precision`,
    )
  }
  if (experts !== options.experts) {
    throw options.problem(`tensor "${name}" has ${experts} experts, expected ${options.experts}`)
  }
  if (projection === "down_proj") {
    return [
      {
        name: mappedName(`${prefix}.down_proj.weight`, options),
        shape: stored.shape,
        parts: [part],
      },
    ]
  }
  if (rows % 2 !== 0)
    throw options.problem(`tensor "${name}" has ${rows} rows, expected an even number`)
  const half = rows / 2
  return ["gate_proj", "up_proj"].map((each, index) => ({
    name: mappedName(`${prefix}.${each}.weight`, options),
    shape: [experts, half, columns],
    parts: Array.from({ length: experts }, (_, expert) => ({
      stored,
      firstRow: expert * rows + index * half,
      rows: half,
      scale: undefined,
    })),
  }))
}
