/**
 * The files of a model as Hugging Face lays them out: the small ones, read with a limit, and an index of its tensors.
 *
 * Owns where bytes may come from. They lie in a folder, of which only regular files are read, or each is listed with
 * its path, as uploads are, of which nothing else is read. A link that leads out of a folder is refused, but for the
 * cache of Hugging Face's own tools, whose files are links into the `blobs` folder beside it.
 *
 * @module
 */

import {
  closeSync,
  constants,
  fstatSync,
  openSync,
  readdirSync,
  readSync,
  realpathSync,
} from "node:fs"
import { basename, dirname, join, posix, sep } from "node:path"

import { z } from "zod"

import { CriaError } from "../util/errors.ts"
import { isObject, type JsonObject } from "./json.ts"
import { compareCodePoints, readSafetensors, type StoredTensor } from "./safetensors.ts"

/** Bytes. Four times the largest tokenizer in use, that of Gemma 3 with 33 MB. */
const TEXT_BYTES_MAX: number = 128 * 1024 * 1024

/** More files than any model is split into. */
const PARTS_MAX = 4096

const INDEX = z.object({ weight_map: z.record(z.string(), z.string()) })

/** Files of a model that lie anywhere. Their paths are trusted; a name is only looked up. */
export interface ListedFiles {
  /** Of the model, when no file says it. */
  readonly name: string
  /** What errors call the whole. */
  readonly label: string
  /** Path by name. Names are relative, with forward slashes: `1_Pooling/config.json`. */
  readonly paths: Readonly<Record<string, string>>
}

/** Where the files of a model are: the path of a folder, or a list. */
export type ModelSource = string | ListedFiles

/** What {@link ModelFolder} asks of either. */
interface Place {
  /** Of the model, when it does not say its name itself. */
  readonly name: string
  /** What errors call a file; the whole for "". */
  labelOf(name: string): string
  /** What lies in a folder, in no order. */
  list(folder: string): readonly string[]
  /** Undefined when there is no such file. @throws {CriaError} `invalid-input` when it may not be read. */
  find(name: string): string | undefined
}

/** The files of a model. */
export class ModelFolder {
  readonly #place: Place

  /** @throws {CriaError} `not-found` when it is not a folder. */
  constructor(source: ModelSource) {
    this.#place = typeof source === "string" ? new DiskFolder(source) : new FileList(source)
  }

  /** Of the folder, for a model that does not say its name itself. */
  get name(): string {
    return this.#place.name
  }

  /** What errors call a file, or the whole model when no name is given. */
  labelOf(name = ""): string {
    return this.#place.labelOf(name)
  }

  /** Names in the folder, ordered. */
  names(folder: string = "."): string[] {
    return this.#place.list(folder).toSorted(compareCodePoints)
  }

  /** Whether the folder has such a file. */
  has(name: string): boolean {
    return this.#place.find(name) !== undefined
  }

  /**
   * The real path of a file.
   *
   * @param name Relative to the folder.
   * @throws {CriaError} `not-found` when it is not there; `invalid-input` when it leads out of the folder.
   */
  file(name: string): string {
    const path = this.#place.find(name)
    if (path !== undefined) return path
    throw this.missing(`"${name}"`)
  }

  /**
   * A whole file.
   *
   * @throws {CriaError} `invalid-input` when it is longer than 128 MiB or not a regular file.
   */
  bytes(name: string): Buffer {
    // Without O_NONBLOCK, opening a FIFO waits for a writer. Windows lacks the flag.
    const file = openSync(this.file(name), constants.O_RDONLY | (constants.O_NONBLOCK ?? 0))
    try {
      const stats = fstatSync(file)
      if (!stats.isFile()) throw this.wrong(name, "it is not a regular file")
      if (stats.size > TEXT_BYTES_MAX) {
        throw this.wrong(name, `it has ${stats.size} bytes, limit ${TEXT_BYTES_MAX}`)
      }
      const bytes = Buffer.allocUnsafe(stats.size)
      let length = 0
      while (length < bytes.length) {
        const count = readSync(file, bytes, length, bytes.length - length, null)
        if (count === 0) break
        length += count
      }
      return bytes.subarray(0, length)
    } finally {
      closeSync(file)
    }
  }

  /** A whole file as text. */
  text(name: string): string {
    try {
      return new TextDecoder("utf-8", { fatal: true }).decode(this.bytes(name))
    } catch (error) {
      if (error instanceof CriaError) throw error
      throw this.wrong(name, "it is not UTF-8", error)
    }
  }

  /** A whole file as JSON. */
  json(name: string): unknown {
    const text = this.text(name)
    try {
      return JSON.parse(text)
    } catch (error) {
      throw this.wrong(name, "it is not JSON", error)
    }
  }

  /** A whole file as a JSON object; undefined when there is none. */
  object(name: string): JsonObject | undefined {
    if (!this.has(name)) return undefined
    const value = this.json(name)
    if (!isObject(value)) throw this.wrong(name, "it is not a JSON object")
    return value
  }

  /**
   * All tensors: those of the files that the index names, else of `<prefix>*.safetensors`; file by file, ordered by
   * name in each.
   *
   * @param prefix "model" for models, "adapter_model" for adapters.
   * @throws {CriaError} `not-found` when there are no such files; `invalid-input` when index and files differ.
   */
  tensors(prefix: string): StoredTensor[] {
    const index = this.#index(`${prefix}.safetensors.index.json`)
    const parts = index === undefined ? this.#parts(prefix) : this.#indexed(index)
    const tensors = new Map<string, StoredTensor>()
    for (const part of parts) {
      for (const tensor of readSafetensors(this.file(part), this.labelOf(part))) {
        if (tensors.has(tensor.name))
          throw this.wrong(part, `tensor "${tensor.name}" is in two files`)
        if (index !== undefined && index.get(tensor.name) !== part) {
          throw this.wrong(part, `the index does not say that tensor "${tensor.name}" is here`)
        }
        tensors.set(tensor.name, tensor)
      }
    }
    for (const [name, part] of index ?? []) {
      if (!tensors.has(name)) throw this.wrong(part, `tensor "${name}" of the index is missing`)
    }
    return [...tensors.values()]
  }

  /** The error for a file that cannot be used. */
  wrong(name: string, problem: string, cause?: unknown): CriaError {
    return new CriaError("invalid-input", `Cannot use "${this.labelOf(name)}": ${problem}`, {
      cause,
    })
  }

  /** The error for something that is not there. */
  missing(
    what: string,
    hint = "the files of a model as it is on Hugging Face are expected",
  ): CriaError {
    return new CriaError("not-found", `Cannot find ${what} in "${this.labelOf()}"`, { hint })
  }

  #index(name: string): ReadonlyMap<string, string> | undefined {
    if (!this.has(name)) return undefined
    const index = INDEX.safeParse(this.json(name))
    if (!index.success) throw this.wrong(name, 'it has no "weight_map" of names', index.error)
    return new Map(Object.entries(index.data.weight_map))
  }

  #indexed(index: ReadonlyMap<string, string>): string[] {
    const parts = [...new Set(index.values())].toSorted(compareCodePoints)
    if (parts.length > PARTS_MAX) {
      throw this.wrong("", `its index names ${parts.length} files, limit ${PARTS_MAX}`)
    }
    return parts
  }

  #parts(prefix: string): string[] {
    const names = this.names()
    const parts = names.filter((name) => name.startsWith(prefix) && name.endsWith(".safetensors"))
    if (parts.length > 0) return parts
    const pickled = names.some((name) => /\.(bin|pt|pth|ckpt)$/.test(name))
    throw pickled
      ? this.missing(
          `${prefix}*.safetensors`,
          "its weights are pickled, which can run code when read: use the safetensors version of the model",
        )
      : this.missing(`${prefix}*.safetensors`)
  }
}

/** A folder. */
class DiskFolder implements Place {
  readonly #path: string
  readonly #root: string

  constructor(path: string) {
    this.#path = path
    try {
      this.#root = realpathSync(path)
      readdirSync(this.#root)
    } catch (error) {
      throw new CriaError("not-found", `Cannot find the folder "${path}"`, { cause: error })
    }
  }

  /** Of the folder, or of the repository when the folder is in Hugging Face's cache. */
  get name(): string {
    const cached = /^models--.*--([^-].*)$/.exec(basename(dirname(dirname(this.#root))))?.[1]
    return basename(dirname(this.#root)) === "snapshots" && cached !== undefined
      ? cached
      : basename(this.#root)
  }

  labelOf(name: string): string {
    return join(this.#path, name)
  }

  list(folder: string): string[] {
    try {
      return readdirSync(join(this.#root, folder))
    } catch {
      return []
    }
  }

  find(name: string): string | undefined {
    const label = this.labelOf(name)
    if (name.includes("\0")) {
      throw new CriaError("invalid-input", `Cannot use "${label}": the name has a NUL`)
    }
    let path: string
    try {
      path = realpathSync(join(this.#root, name))
    } catch {
      return undefined
    }
    if (path.startsWith(this.#root + sep) || this.#isCached(path)) return path
    throw new CriaError("invalid-input", `Cannot use "${label}": it leads out of the folder`, {
      hint: `copy the folder with its links followed: cp -rL ${this.#path} <copy>`,
    })
  }

  /** `models--x/snapshots/<revision>/config.json` is a link to `models--x/blobs/<digest>`. */
  #isCached(path: string): boolean {
    const snapshots = dirname(this.#root)
    return (
      basename(snapshots) === "snapshots" && dirname(path) === join(dirname(snapshots), "blobs")
    )
  }
}

/** Files that lie anywhere. No name becomes a path. */
class FileList implements Place {
  readonly name: string
  readonly #label: string
  readonly #paths: ReadonlyMap<string, string>

  constructor({ name, label, paths }: ListedFiles) {
    this.name = name
    this.#label = label
    this.#paths = new Map(Object.entries(paths))
  }

  labelOf(name: string): string {
    return name === "" ? this.#label : name
  }

  list(folder: string): string[] {
    const prefix = folder === "." ? "" : `${folder}/`
    const inside = [...this.#paths.keys()].filter((name) => name.startsWith(prefix))
    return [...new Set(inside.map((name) => name.slice(prefix.length).replace(/\/.*$/s, "")))]
  }

  find(name: string): string | undefined {
    return this.#paths.get(posix.normalize(name))
  }
}
