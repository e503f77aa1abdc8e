/**
 * Tiny models for tests, made on the spot. The folders in `tests/fixtures/convert` are for comparing with llama.cpp.
 *
 * @module
 */

import { cpSync, mkdirSync, readFileSync, writeFileSync } from "node:fs"
import { dirname, join } from "node:path"

import { TemporaryFolder } from "../gguf/raw-file.ts"

const FIXTURES = join(import.meta.dirname, "../../tests/fixtures/convert")

/** A tensor to write to a file. */
export interface RawTensor {
  readonly type: string
  readonly shape: readonly number[]
  readonly data: Uint8Array
}

/** The bytes of a safetensors file. */
export function safetensors(tensors: Readonly<Record<string, RawTensor>>): Uint8Array {
  let offset = 0
  const header: Record<string, object> = {}
  for (const [name, { type, shape, data }] of Object.entries(tensors)) {
    header[name] = { dtype: type, shape, data_offsets: [offset, offset + data.length] }
    offset += data.length
  }
  const text = Buffer.from(JSON.stringify(header))
  const length = Buffer.alloc(8)
  length.writeBigUInt64LE(BigInt(text.length))
  return Buffer.concat([length, text, ...Object.values(tensors).map(({ data }) => data)])
}

/** A copy of a model in `tests/fixtures/convert` that a test may spoil. */
export class TestModel implements Disposable {
  readonly #folder = new TemporaryFolder()
  /** Of the model. */
  readonly path: string = join(this.#folder.path, "model")
  /** Where it may be converted to. */
  readonly target: string = join(this.#folder.path, "out.gguf")

  constructor(name: string) {
    cpSync(join(FIXTURES, name), this.path, { recursive: true })
  }

  /** The folder around the model. */
  get outside(): string {
    return this.#folder.path
  }

  write(name: string, content: string | Uint8Array): void {
    const path = join(this.path, name)
    mkdirSync(dirname(path), { recursive: true })
    writeFileSync(path, content)
  }

  /** Changes the values of a JSON file; undefined takes a key out. */
  change(name: string, values: Readonly<Record<string, unknown>>): void {
    const before = JSON.parse(readFileSync(join(this.path, name), "utf8")) as object
    this.write(name, JSON.stringify({ ...before, ...values }))
  }

  [Symbol.dispose](): void {
    this.#folder[Symbol.dispose]()
  }
}
