/**
 * `cria cp` and `cria rm`.
 *
 * @module
 */

import type { Client } from "../../client/client.ts"
import { CriaError } from "../../util/errors.ts"
import { interruptible } from "../interrupt.ts"
import { ProgressDisplay } from "../progress.ts"

/** Gives a model another name. */
export async function copy(client: Client, source: string, destination: string): Promise<void> {
  await interruptible(async (signal) => {
    {
      using progress = new ProgressDisplay()
      for await (const step of client.copy(source, destination, signal)) {
        // Of a model in another store, on another disk, gigabytes are copied; else there is nothing to tell.
        if (step.total !== undefined) progress.show(step, performance.now())
      }
    }
    console.log(`copied '${source}' to '${destination}'`)
  })
}

/** Unloads and removes models, up to the first that cannot be. */
export async function remove(client: Client, models: readonly string[]): Promise<void> {
  for (const model of models) {
    // One after the other, so that it is clear which ones are gone.
    await unload(client, model)
    const keptIn = await client.delete(model)
    console.log(`deleted '${model}'`)
    if (keptIn !== undefined) {
      console.error(`'${model}' is still listed: there is another in ${keptIn}`)
    }
  }
}

async function unload(client: Client, model: string): Promise<void> {
  try {
    await client.generateOnce({ model, keep_alive: 0 })
  } catch (error) {
    if (error instanceof CriaError && error.code === "not-found") return
    console.error(`Warning: unable to stop model '${model}'`)
  }
}
