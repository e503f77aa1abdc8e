/**
 * Asks a child process which devices llama.cpp sees: native code is never loaded into the server.
 *
 * @module
 */

import { z } from "zod"

/** A device that models can be on. */
export interface Device {
  readonly name: string
  readonly type: string
  readonly totalBytes: number
}

const devicesSchema: z.ZodType<Device[]> = z.array(
  z.object({ name: z.string(), type: z.string(), totalBytes: z.number() }),
)

/** Drivers of several GPUs take seconds to start. */
const ANSWER_MS = 30_000

/**
 * The devices; [] when the child cannot tell.
 *
 * @param command Program and arguments that start this program again.
 */
export async function listDevices(command: readonly string[]): Promise<Device[]> {
  const child = Bun.spawn([...command, "devices-worker"], {
    stdin: "ignore",
    stdout: "pipe",
    stderr: "ignore",
    timeout: ANSWER_MS,
    killSignal: "SIGKILL",
  })
  const text = await child.stdout.text()
  await child.exited
  try {
    return devicesSchema.parse(JSON.parse(text))
  } catch {
    // No native libraries, or a driver that crashes: then models run on the processor.
    return []
  }
}
