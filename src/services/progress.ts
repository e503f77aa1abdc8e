/**
 * Progress of long operations on models, in the words of Ollama's API.
 *
 * @module
 */

/** A step of an operation. The last one of an operation that went well is `success`. */
export interface Progress {
  readonly status: string
  /** Of the blob that the step is about. */
  readonly digest?: string
  /** Bytes. */
  readonly total?: number
  /** Bytes. */
  readonly completed?: number
}
