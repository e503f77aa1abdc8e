/**
 * The opened shim: statuses become errors, texts become strings, long calls become promises.
 *
 * One per process. Everything else in this folder talks to native code through it.
 *
 * @module
 */

import { setImmediate as nextTurn, setTimeout as sleep } from "node:timers/promises"

import { openFunctions } from "#ffi"

import { CriaError, type ErrorCode } from "../src/util/errors.ts"
import type { Logger, LogLevel } from "../src/util/log.ts"
import { ABI_VERSION, type NativeBuffer, type NativeFunctions } from "./symbols.ts"

/** `cria_status` of `cria.h`. */
const STATUS = {
  pending: 1,
  argument: -1,
  state: -2,
  native: -3,
  memory: -4,
  cancelled: -5,
} as const

/** For programs that embed cria and have other things to do. */
const WAIT_SLICE_MS = 4

const LOG_LEVELS: Readonly<Record<LogLevel, number>> = { debug: 0, info: 1, warn: 2, error: 3 }
const LETTER_LEVELS: Readonly<Record<string, LogLevel>> = {
  D: "debug",
  I: "info",
  W: "warn",
  E: "error",
}

/** A device that llama.cpp can compute on. */
export interface NativeDevice {
  readonly name: string
  readonly description: string
  readonly type: "cpu" | "gpu" | "igpu" | "accel"
  readonly backend: string
  readonly free_bytes: number
  readonly total_bytes: number
}

/** What the native libraries say about themselves and this machine. */
export interface NativeSystem {
  readonly llama_version: string
  readonly system: string
  readonly devices: readonly NativeDevice[]
}

/** Options of a {@link NativeLibrary}. */
export interface NativeOptions {
  readonly logLevel?: LogLevel
  /**
   * Milliseconds that a wait for native code may hold the JavaScript thread before the event loop turns. On a CPU each
   * turn takes time from the threads that compute: a process that does nothing else wants long ones.
   */
  readonly waitSliceMs?: number
}

/** UTF-8 bytes of a text and their count; the array is never empty. */
export function encode(text: string): readonly [bytes: Uint8Array, length: number] {
  const bytes = new TextEncoder().encode(text)
  return [bytes.length === 0 ? new Uint8Array(1) : bytes, bytes.length]
}

/** The shim, opened and initialised. */
export class NativeLibrary {
  readonly functions: NativeFunctions
  /** The folder that it was loaded from. */
  readonly folder: string
  /** Of one wait, see {@link NativeOptions}. */
  readonly waitSliceMicros: number

  /**
   * Opens the shim at `path` and loads the compute backends of `folder`.
   *
   * @throws {CriaError} `unavailable` when a library is missing, built for another ABI or finds no CPU backend.
   */
  constructor(path: string, folder: string, options: NativeOptions = {}) {
    const { logLevel = "warn", waitSliceMs = WAIT_SLICE_MS } = options
    this.folder = folder
    this.waitSliceMicros = waitSliceMs * 1000
    this.functions = open(path)
    const abi = this.functions.cria_abi_version()
    if (abi !== ABI_VERSION) {
      throw new CriaError(
        "unavailable",
        `Cannot use "${path}": it has interface version ${abi}, expected ${ABI_VERSION}`,
        { hint: "Build it again: npm run native" },
      )
    }
    const config = encode(JSON.stringify({ backend_dir: folder, log_level: LOG_LEVELS[logLevel] }))
    this.check(this.functions.cria_init(...config), "Cannot start llama.cpp", "unavailable")
  }

  /** Result of a call that returns a handle, a count or 0. @throws {CriaError} When it is a status. */
  check(result: number, action: string, nativeCode: ErrorCode = "internal"): number {
    if (result < 0) throw this.error(result, action, nativeCode)
    return result
  }

  /** The text that a call left behind; `length` is what the call returned. */
  text(length: number, action: string): string {
    const bytes = new Uint8Array(Math.max(1, this.check(length, action)))
    this.functions.cria_text(bytes, bytes.length)
    return new TextDecoder().decode(bytes.subarray(0, length))
  }

  /** Like {@link text}, parsed. The shape is what `cria.h` documents. */
  json<T>(length: number, action: string): T {
    // Written by our own shim from a documented shape.
    return JSON.parse(this.text(length, action)) as T
  }

  /** The error of a status, with the message that native code left on this thread. */
  error(status: number, action: string, nativeCode: ErrorCode = "internal"): CriaError {
    const bytes = new Uint8Array(16_384)
    const length = Math.min(this.functions.cria_error(bytes, bytes.length), bytes.length)
    const reason = new TextDecoder().decode(bytes.subarray(0, length))
    return new CriaError(codeOf(status, nativeCode), `${action}: ${reason}`)
  }

  /**
   * Waits for a job without blocking the event loop for longer than a slice.
   *
   * @returns The handle that the job made.
   * @throws {CriaError} When the job failed; the signal's reason when it was aborted.
   */
  async finish(
    job: number,
    action: string,
    options: {
      onProgress?: (fraction: number) => void
      signal?: AbortSignal
      nativeCode?: ErrorCode
      /** Look so often, and wait nowhere else: something else waits for native code meanwhile. */
      pollMs?: number
    } = {},
  ): Promise<number> {
    this.check(job, action)
    const { onProgress, signal, nativeCode, pollMs } = options
    const slice = pollMs === undefined ? this.waitSliceMicros : 0
    while (this.check(this.functions.cria_job_wait(job, slice), action) === STATUS.pending) {
      if (signal?.aborted === true) this.functions.cria_job_cancel(job)
      onProgress?.(this.functions.cria_job_progress(job))
      // The wait is the point of the loop.
      // oxlint-disable-next-line no-await-in-loop
      await (pollMs === undefined ? nextTurn() : sleep(pollMs))
    }
    const result = this.functions.cria_job_finish(job)
    if (result === STATUS.cancelled) signal?.throwIfAborted()
    return this.check(result, action, nativeCode)
  }

  /** Versions, build features and devices. */
  system(): NativeSystem {
    return this.json(this.functions.cria_system(), "Cannot list devices")
  }

  /** Devices that llama.cpp puts layers on: GPUs with memory of their own, or else one that shares the machine's. */
  gpus(): readonly NativeDevice[] {
    const { devices } = this.system()
    const discrete = devices.filter(({ type }) => type === "gpu")
    return discrete.length > 0 ? discrete : devices.filter(({ type }) => type === "igpu")
  }

  /** Moves what llama.cpp logged since the last call to a logger. */
  drainLog(log: Logger): void {
    const text = this.text(this.functions.cria_log_drain(), "Cannot read the native log")
    for (const line of text.split("\n")) {
      const level = LETTER_LEVELS[line.charAt(0)]
      if (level !== undefined) log[level]("llama.cpp", { line: line.slice(1) })
    }
  }

  /** GBNF that accepts exactly the JSON that a schema describes. @throws {CriaError} `invalid-input` */
  schemaToGrammar(schema: string): string {
    const action = "Cannot turn the JSON schema into a grammar"
    const length = this.functions.cria_schema_to_gbnf(...encode(schema))
    return this.text(this.check(length, action, "invalid-input"), action)
  }
}

/** True while a wait has to be repeated. */
export function isPending(result: number): boolean {
  return result === STATUS.pending
}

/** True when llama.cpp could not do it; what we did wrong is something else. */
export function hasFailed(result: number): boolean {
  return result === STATUS.native || result === STATUS.memory
}

/** A typed array that can be passed although it may hold nothing. */
export function nonEmpty<T extends NativeBuffer>(buffer: T, empty: T): T {
  return buffer.length === 0 ? empty : buffer
}

function open(path: string): NativeFunctions {
  try {
    return openFunctions(path)
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause)
    throw new CriaError("unavailable", `Cannot load "${path}": ${reason}`, { cause })
  }
}

function codeOf(status: number, nativeCode: ErrorCode): ErrorCode {
  switch (status) {
    case STATUS.argument:
      return "invalid-input"
    case STATUS.memory:
      return "insufficient-memory"
    case STATUS.native:
      return nativeCode
    default:
      return "internal"
  }
}
