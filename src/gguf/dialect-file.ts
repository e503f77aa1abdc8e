/**
 * What rules of translation ask of a file.
 *
 * @module
 */

import { integerOf } from "./check.ts"
import type { GgufElement, GgufTensor, GgufValue } from "./format.ts"
import { readArray } from "./read.ts"
import type { GgufModel } from "./split.ts"

/** A model's metadata and tensors, by the names that stand in rules: without the architecture's prefix. */
export class DialectFile {
  readonly architecture: string
  readonly #model: GgufModel
  readonly #tensors: ReadonlyMap<string, GgufTensor>

  constructor(model: GgufModel) {
    const { header, otherParts } = model
    const value = header.metadata.get("general.architecture")
    this.architecture = value?.type === "string" ? value.value : ""
    this.#model = model
    const tensors = [header, ...otherParts].flatMap((part) => part.tensors)
    this.#tensors = new Map(tensors.map((tensor) => [tensor.name, tensor]))
  }

  /** All keys, whole. */
  get keys(): Iterable<string> {
    return this.#model.header.metadata.keys()
  }

  /** What the file calls the model. */
  get title(): string | undefined {
    const { metadata } = this.#model.header
    const name = metadata.get("general.basename") ?? metadata.get("general.name")
    return name?.type === "string" && name.value !== "" ? name.value : undefined
  }

  get tokenCount(): number {
    const tokens = this.value("tokenizer.ggml.tokens")
    return tokens?.type === "array" ? tokens.length : 0
  }

  has(key: string): boolean {
    return this.value(key) !== undefined
  }

  value(key: string): GgufValue | undefined {
    const full = key.startsWith("tokenizer.") ? key : `${this.architecture}.${key}`
    return this.#model.header.metadata.get(full)
  }

  integer(key: string): number | undefined {
    return integerOf(this.value(key))
  }

  text(key: string): string | undefined {
    const value = this.value(key)
    return value?.type === "string" ? value.value : undefined
  }

  /** The elements of an array, of any length. */
  elements(key: string): readonly GgufElement[] | undefined {
    const value = this.value(key)
    return value?.type === "array" ? readArray(this.#model.paths[0] ?? "", value) : undefined
  }

  /** A tensor by its name, or the first one with a name of this form. */
  tensor(name: string | RegExp): GgufTensor | undefined {
    if (typeof name === "string") return this.#tensors.get(name)
    return [...this.#tensors.values()].find((tensor) => name.test(tensor.name))
  }

  /** How many rows a matrix has. */
  rowsOf(tensor: string): number | undefined {
    return this.tensor(tensor)?.dims[1]
  }

  hasTensor(name: string | RegExp): boolean {
    return this.tensor(name) !== undefined
  }
}
