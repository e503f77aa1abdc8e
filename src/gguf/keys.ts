/**
 * Typed access to the metadata of a model.
 *
 * @module
 */

import { CriaError } from "../util/errors.ts"
import { integerOf, integersOf } from "./check.ts"
import type { GgufValue } from "./format.ts"

/** Typed access to metadata. `name` is relative to the architecture, `key` is whole. */
export class Keys {
  readonly architecture: string
  readonly #metadata: ReadonlyMap<string, GgufValue>

  constructor(metadata: ReadonlyMap<string, GgufValue>) {
    const value = metadata.get("general.architecture")
    if (value?.type !== "string") {
      throw new CriaError(
        "invalid-input",
        'Cannot tell what model this is: "general.architecture" is missing',
      )
    }
    this.architecture = value.value
    this.#metadata = metadata
  }

  /** An integer of this architecture. */
  integer(name: string): number | undefined {
    return integerOf(this.#own(name))
  }

  /** One integer for each layer of this architecture; a single value goes for all. */
  perLayer(name: string, blockCount: number | undefined): readonly number[] | undefined {
    const value = this.#own(name)
    const single = integerOf(value)
    if (single !== undefined) return Array.from({ length: blockCount ?? 1 }, () => single)
    return integersOf(value)
  }

  /** One truth for each layer of this architecture. */
  flags(name: string): readonly boolean[] | undefined {
    const value = this.#own(name)
    if (value?.type !== "array" || value.elementType === "string") return undefined
    return value.values?.map(Boolean)
  }

  /** A boolean of this architecture. */
  flag(name: string): boolean | undefined {
    const value = this.#own(name)
    return value?.type === "bool" ? value.value : undefined
  }

  /** A string of this architecture. */
  ownText(name: string): string | undefined {
    return this.text(`${this.architecture}.${name}`)
  }

  text(key: string): string | undefined {
    const value = this.#metadata.get(key)
    return value?.type === "string" ? value.value : undefined
  }

  number(key: string): number | undefined {
    const value = this.#metadata.get(key)
    return value?.type === "f32" || value?.type === "f64" ? value.value : integerOf(value)
  }

  arrayLength(key: string): number | undefined {
    const value = this.#metadata.get(key)
    return value?.type === "array" ? value.length : undefined
  }

  /** A token id; undefined outside the vocabulary, where llama.cpp ignores it too. */
  tokenId(key: string, vocabSize: number | undefined): number | undefined {
    const id = integerOf(this.#metadata.get(key))
    return id !== undefined && id >= 0 && id < (vocabSize ?? Infinity) ? id : undefined
  }

  #own(name: string): GgufValue | undefined {
    return this.#metadata.get(`${this.architecture}.${name}`)
  }
}
