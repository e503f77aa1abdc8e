/**
 * Quantisation of model files by llama.cpp.
 *
 * @module
 */

import { CriaError } from "../src/util/errors.ts"
import { encode, type NativeLibrary } from "./native.ts"

/** What to write. */
export interface QuantizeOptions {
  /** A GGUF file in F32, F16 or BF16; the caller has checked it. */
  readonly input: string
  readonly output: string
  /** `Q4_K_M` and the like: the names of llama.cpp's file types without "mostly". */
  readonly type: string
  /** 0: all of the machine's. */
  readonly threads?: number
  /** File with an importance matrix; the smallest types need one. */
  readonly imatrix?: string
}

/**
 * Writes a quantised copy. Takes minutes, and the memory of the largest tensor twice; cannot be cancelled but by ending
 * the process.
 *
 * @param onProgress Fractions from 0 to 1.
 * @throws {CriaError} `invalid-input` when llama.cpp refuses, with its reasons; the output may be there in part then.
 */
export async function quantizeFile(
  library: NativeLibrary,
  options: QuantizeOptions,
  onProgress: (fraction: number) => void,
): Promise<void> {
  const config = encode(JSON.stringify(options))
  const job = library.functions.cria_quantize(...config)
  const action = `Cannot quantize to ${options.type}`
  try {
    await library.finish(job, action, { onProgress, nativeCode: "invalid-input" })
  } catch (error) {
    throw needsMatrix(error) ? matrixError(action, error) : error
  }
}

/** llama.cpp says it in a picture of five lines. */
function needsMatrix(error: unknown): boolean {
  return error instanceof Error && /requires an im(portance )?matrix/.test(error.message)
}

function matrixError(action: string, cause: unknown): CriaError {
  return new CriaError("invalid-input", `${action}: it needs an importance matrix`, {
    hint: "Make one with llama-imatrix and give it with --imatrix, or choose a larger type",
    cause,
  })
}
