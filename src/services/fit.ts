/**
 * Which of several quantisations suits this machine. Pure.
 *
 * The best one is the largest that leaves room for a useful context: all on the GPUs if any does, else with the help of
 * the processor. Memory counts as it is in total, not as it is free right now, so that the choice stays the same.
 *
 * @module
 */

import { isAvailable, isUnquantized, type Quant } from "../registry/quants.ts"
import { CriaError } from "../util/errors.ts"
import { formatBytes } from "../util/units.ts"

/** Memory that models can be in, in bytes. */
export interface Memory {
  /** Of all GPUs together; 0 without one. */
  readonly gpuBytes: number
  /** Beside that of the GPUs. */
  readonly hostBytes: number
}

/** What of a model decides how long its context can be. */
export interface ContextShape {
  readonly kvBytesPerToken: number
  /** Tokens. */
  readonly trainedTokens: number
}

/** Where a model would be. */
export type Place = "gpu" | "partly" | "cpu" | "none"

/** A quantisation on this machine. */
export interface QuantFit extends Quant {
  readonly place: Place
  /** The longest context that fits there; 0 when even the weights do not. */
  readonly contextTokens: number
  readonly isChosen: boolean
}

/** A long chat, or some pages of text. */
const USEFUL_TOKENS = 8192

/** Compute buffers and the program itself: measured 150 to 400 MB for models up to 14B. */
const OVERHEAD_BYTES = 400 * 2 ** 20

/** Of the memory in total: the rest is for the screen and for other programs. */
const GPU_SHARE = 0.92
const HOST_SHARE = 0.8

/** Looks where each quantisation would be, and marks the best one. Keeps the order. */
export function fitQuants(
  quants: readonly Quant[],
  shape: ContextShape,
  memory: Memory,
): QuantFit[] {
  const fits = quants.map((quant) => fitQuant(quant, shape, memory))
  const best = bestOf(fits)
  return fits.map((fit) => ({ ...fit, isChosen: fit === best }))
}

/**
 * The quantisation to take.
 *
 * @throws {CriaError} `insufficient-memory` when none fits.
 */
export function chosenQuant(fits: readonly QuantFit[], name: string): QuantFit {
  const chosen = fits.find(({ isChosen }) => isChosen)
  if (chosen !== undefined) return chosen
  const [smallest] = fits.toSorted((a, b) => a.bytes - b.bytes)
  throw new CriaError(
    "insufficient-memory",
    `None of the ${fits.length} quantisations of "${name}" fits this machine: the smallest, ${smallest?.label}, has ${formatBytes(smallest?.bytes ?? 0)}`,
    { hint: `cria pull --quant ${smallest?.label} ${name} takes it all the same` },
  )
}

/** Says what was chosen and why, in one line. */
export function explainChoice({ label, bytes, files, place, contextTokens }: QuantFit): string {
  const size = files > 1 ? `${formatBytes(bytes)} in ${files} files` : formatBytes(bytes)
  const tokens = `${contextTokens} tokens of context`
  const why = {
    gpu: `the largest that fits on the GPU, with ${tokens}`,
    partly: `the largest that fits on GPU and CPU together, with ${tokens}`,
    cpu: `the largest that fits in memory, with ${tokens}`,
    // Of several none would have been chosen.
    none:
      contextTokens > 0
        ? `the only one, but this machine has room for no more than ${tokens}`
        : "the only one, but too large for the memory of this machine",
  }[place]
  return `chose ${label} (${size}): ${why}`
}

function fitQuant(quant: Quant, shape: ContextShape, memory: Memory): QuantFit {
  const gpu = memory.gpuBytes * GPU_SHARE
  const all = gpu + memory.hostBytes * HOST_SHARE
  const room = (bytes: number) => {
    const left = bytes - quant.bytes - OVERHEAD_BYTES
    const tokens = left / Math.max(1, shape.kvBytesPerToken)
    return left <= 0 ? 0 : Math.floor(Math.min(shape.trainedTokens, tokens))
  }
  const useful = Math.min(USEFUL_TOKENS, shape.trainedTokens)
  if (room(gpu) >= useful) {
    return { ...quant, place: "gpu", contextTokens: room(gpu), isChosen: false }
  }
  const contextTokens = room(all)
  const place = contextTokens < useful ? "none" : gpu > 0 ? "partly" : "cpu"
  return { ...quant, place, contextTokens, isChosen: false }
}

/** Weights as they were trained answer no better than the best quantisation, and take twice the memory. */
function bestOf(fits: readonly QuantFit[]): QuantFit | undefined {
  const available = fits.filter(isAvailable)
  const quantized = available.filter(({ label }) => !isUnquantized(label))
  const largest = (candidates: readonly QuantFit[], ...places: readonly Place[]) =>
    candidates
      .filter(({ place }) => places.includes(place))
      .toSorted((a, b) => b.bytes - a.bytes)
      .at(0)
  return (
    largest(quantized, "gpu") ??
    largest(quantized, "partly", "cpu") ??
    largest(available, "gpu", "partly", "cpu")
  )
}
