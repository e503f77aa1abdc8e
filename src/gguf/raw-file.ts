/**
 * GGUF files for tests, written byte by byte so that anything in them can be wrong.
 *
 * Used by tests only. `write.ts` refuses to write what these contain.
 *
 * @module
 */

import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"

import { VALUE_TYPES } from "./format.ts"

/** Bytes in pieces. */
export type Bytes = readonly number[]

/** A file in pieces; what is left out is right. */
export interface RawFile {
  readonly magic?: string
  readonly version?: number
  readonly tensorCount?: bigint
  readonly pairCount?: bigint
  readonly pairs?: readonly Bytes[]
  readonly tensors?: readonly Bytes[]
  /** Bytes after the aligned end of the header. */
  readonly dataBytes?: number
}

/** A tensor info in pieces; what is left out is a row of 8 × F32 at offset 0. */
export interface RawTensor {
  readonly name?: string
  readonly dimCount?: number
  readonly dims?: readonly bigint[]
  readonly type?: number
  readonly offset?: bigint
}

/** A number of `size` bytes, little-endian, in two's complement. */
export function integer(size: number, value: bigint | number): Bytes {
  return Array.from({ length: size }, (_, index) =>
    Number((BigInt(value) >> BigInt(8 * index)) & 0xffn),
  )
}

/** A string with its length, or with another length. */
export function string(text: string, length?: bigint): Bytes {
  const bytes = new TextEncoder().encode(text)
  return [...integer(8, length ?? bytes.length), ...bytes]
}

/** A type id. */
export function valueType(type: (typeof VALUE_TYPES)[number]): Bytes {
  return integer(4, VALUE_TYPES.indexOf(type))
}

/** A metadata pair. */
export function pair(
  key: string,
  type: (typeof VALUE_TYPES)[number],
  ...value: readonly Bytes[]
): Bytes {
  return [...string(key), ...valueType(type), ...value.flat()]
}

/** A metadata pair with an array, whose declared length may be another than that of `elements`. */
export function arrayPair(
  key: string,
  type: (typeof VALUE_TYPES)[number],
  elements: readonly Bytes[],
  length: bigint | number = elements.length,
): Bytes {
  return pair(key, "array", valueType(type), integer(8, length), ...elements)
}

/** A tensor info. */
export function tensor(raw: RawTensor = {}): Bytes {
  const dims = raw.dims ?? [8n]
  return [
    ...string(raw.name ?? "t"),
    ...integer(4, raw.dimCount ?? dims.length),
    ...dims.flatMap((size) => integer(8, size)),
    ...integer(4, raw.type ?? 0),
    ...integer(8, raw.offset ?? 0n),
  ]
}

/** The bytes of a file. */
export function rawBytes(raw: RawFile = {}): Uint8Array {
  const pairs = raw.pairs ?? []
  const tensors = raw.tensors ?? []
  const header = [
    ...new TextEncoder().encode(raw.magic ?? "GGUF"),
    ...integer(4, raw.version ?? 3),
    ...integer(8, raw.tensorCount ?? BigInt(tensors.length)),
    ...integer(8, raw.pairCount ?? BigInt(pairs.length)),
    ...pairs.flat(),
    ...tensors.flat(),
  ]
  const padding = tensors.length === 0 ? 0 : -header.length & 31
  return Uint8Array.from([...header, ...integer(padding + (raw.dataBytes ?? 0), 0)])
}

/** A folder that is removed at the end of the scope. */
export class TemporaryFolder implements Disposable {
  readonly path: string = mkdtempSync(join(tmpdir(), "cria-gguf-"))

  /** Writes a file and returns its path. */
  write(bytes: Uint8Array, name: string = "model.gguf"): string {
    const path = join(this.path, name)
    writeFileSync(path, bytes)
    return path
  }

  [Symbol.dispose](): void {
    rmSync(this.path, { recursive: true, force: true })
  }
}
