/**
 * Models in several files: `<name>-00001-of-00003.gguf` and the parts beside it.
 *
 * Owns the name pattern (`llama_split_path`) and the agreement between the parts. File names come from the
 * path the caller gave and from numbers, never from a file, so no part can point anywhere else.
 *
 * @module
 */

import { existsSync } from "node:fs"

import { CriaError } from "../util/errors.ts"
import { integerOf } from "./check.ts"
import { type GgufHeader } from "./format.ts"
import { type ReadOptions, readGguf } from "./read.ts"

const PART_NAME = /^(?<prefix>.*)-(?<number>\d{5})-of-(?<count>\d{5})\.gguf$/s

/** A model of one file or of several. */
export interface GgufModel {
  /** In order; the first is the one to load. */
  readonly paths: readonly string[]
  /** The header of the first file, which has the metadata. */
  readonly header: GgufHeader
  /** The headers of the others, which have tensors only. */
  readonly otherParts: readonly GgufHeader[]
}

/**
 * Reads the headers of all files of a model and checks that they belong together.
 *
 * @param path The only file, or the first part.
 * @throws {CriaError} What `readGguf` and {@link splitPaths} throw; `invalid-input` when the parts disagree.
 */
export function readModel(path: string, options: ReadOptions = {}): GgufModel {
  const header = readGguf(path, options)
  const paths = splitPaths(path, header, options)
  if (paths.length === 1) return { paths, header, otherParts: [] }
  return withParts(header, paths, options)
}

/**
 * Like {@link readModel}, of parts that may lie anywhere and have any names.
 *
 * @param paths In order.
 * @param label What errors call the model.
 */
export function readParts(paths: readonly string[], label: string): GgufModel {
  const [first = ""] = paths
  const header = readGguf(first, { label })
  checkPart(header, 0, paths.length, label)
  return withParts(header, paths, { label })
}

function withParts(header: GgufHeader, paths: readonly string[], options: ReadOptions): GgufModel {
  const otherParts = paths.slice(1).map((path, index) => {
    const label = options.label === undefined ? path : `${options.label} part ${index + 2}`
    const part = readGguf(path, { label })
    checkPart(part, index + 1, paths.length, label)
    return part
  })
  checkTensors([header, ...otherParts], options.label ?? paths[0] ?? "")
  return { paths, header, otherParts }
}

/**
 * The paths of all parts of a model, in order; only `path` for a model of one file.
 *
 * @param path The only file, or the first part.
 * @param header The header of that file.
 * @throws {CriaError} `not-found` when a part is missing; `invalid-input` when the file name and the header
 *   disagree or `path` is not the first part.
 */
export function splitPaths(
  path: string,
  header: GgufHeader,
  options: ReadOptions = {},
): readonly string[] {
  const count = integerOf(header.metadata.get("split.count")) ?? 1
  if (count < 2) return [path]
  const label = JSON.stringify(options.label ?? path)
  const number = (integerOf(header.metadata.get("split.no")) ?? 0) + 1
  const { prefix, number: named, count: namedCount } = PART_NAME.exec(path)?.groups ?? {}
  if (prefix === undefined) {
    throw new CriaError(
      "invalid-input",
      `Cannot load ${label}: it is part ${number} of ${count}, expected a name that ends in "${partSuffix(number, count)}"`,
    )
  }
  if (Number(named) !== number || Number(namedCount) !== count) {
    throw new CriaError(
      "invalid-input",
      `Cannot load ${label}: its name says part ${Number(named)} of ${Number(namedCount)}, its header part ${number} of ${count}`,
    )
  }
  if (number !== 1) {
    throw new CriaError(
      "invalid-input",
      `Cannot load ${label}: it is part ${number} of ${count}, expected part 1`,
    )
  }
  return Array.from({ length: count }, (_, index) => {
    const suffix = partSuffix(index + 1, count)
    if (!existsSync(prefix + suffix)) {
      throw new CriaError(
        "not-found",
        `Cannot load ${label}: part ${index + 1} of ${count} is missing, expected "…${suffix}" beside it`,
      )
    }
    return prefix + suffix
  })
}

function partSuffix(number: number, count: number): string {
  const [paddedNumber, paddedCount] = [number, count].map((value) => String(value).padStart(5, "0"))
  return `-${paddedNumber}-of-${paddedCount}.gguf`
}

function checkPart(part: GgufHeader, index: number, count: number, label: string): void {
  const partIndex = integerOf(part.metadata.get("split.no"))
  const partCount = integerOf(part.metadata.get("split.count"))
  if (partIndex === index && partCount === count) return
  const found =
    partIndex === undefined ? "has no split.no" : `is part ${partIndex + 1} of ${partCount ?? "?"}`
  throw new CriaError(
    "invalid-input",
    `Cannot load ${JSON.stringify(label)}: it ${found}, expected part ${index + 1} of ${count}`,
  )
}

function checkTensors(parts: readonly GgufHeader[], label: string): void {
  const names = parts.flatMap((part) => part.tensors.map((tensor) => tensor.name))
  const expected = integerOf(parts[0]?.metadata.get("split.tensors.count"))
  const distinct = new Set(names).size
  if (names.length !== expected || distinct !== expected) {
    throw new CriaError(
      "invalid-input",
      `Cannot load ${JSON.stringify(label)}: its ${parts.length} parts have ${names.length} tensors with ${distinct} names, expected ${expected} of each`,
    )
  }
}
