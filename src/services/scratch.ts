/**
 * Files that one operation makes on its way: what is converted before it is quantised, what is not a blob yet.
 *
 * They lie in the folder of blobs, where the result can be moved to its name, and go when the operation ends, however.
 * After a crash a prune removes them.
 *
 * @module
 */

import type { StoreWriter } from "../store/writer.ts"

/** Digits of an id: as many as Ollama's have. */
const ID_DIGITS = 19

/** A file to be written. */
export interface ScratchFile {
  readonly path: string
  /** Stands for the digest in steps of progress. */
  readonly id: string
}

/** See the module. Dispose it to remove what is left. */
export class Scratch implements Disposable {
  readonly #writer: StoreWriter
  readonly #paths: string[] = []

  constructor(writer: StoreWriter) {
    this.#writer = writer
  }

  /** A name that nothing has yet. */
  file(): ScratchFile {
    const id = String(this.#paths.length).padStart(ID_DIGITS, "0")
    const path = this.#writer.temporaryPath()
    this.#paths.push(path)
    return { path, id }
  }

  [Symbol.dispose](): void {
    for (const path of this.#paths) this.#writer.removeTemporary(path)
  }
}
