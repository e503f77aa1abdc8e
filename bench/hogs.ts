/**
 * One stream while every core is busy with something else.
 *
 * @module
 */

import { availableParallelism } from "node:os"

import { type BenchOptions, type LoadCase, speedOf } from "./load.ts"
import { freshText } from "./prompts.ts"

/** Programs that only compute, one per core, until disposed. */
function startHogs(): Disposable {
  const hogs = Array.from({ length: availableParallelism() }, () =>
    Bun.spawn([process.execPath, "-e", "for (;;);"], { stdio: ["ignore", "ignore", "ignore"] }),
  )
  const kill = () => {
    for (const hog of hogs) hog.kill("SIGKILL")
  }
  process.on("exit", kill)
  return {
    [Symbol.dispose]() {
      process.off("exit", kill)
      kill()
    },
  }
}

/** Speed beside the hogs, and what part of the idle speed that is. */
export function hogsCase({ scale }: BenchOptions): LoadCase<"speed" | "idleSpeed" | "kept"> {
  const tokens = Math.max(16, Math.round(48 * scale))
  const speed = { unit: "tok/s", better: "more" } as const
  return {
    setting: { parallel: 1, contextTokens: 1024 },
    isLong: true,
    rivals: ["server"],
    figures: {
      speed: { name: "one stream beside a busy loop per core", ...speed, server: 15 },
      idleSpeed: { name: "the same on an idle machine", ...speed },
      kept: { name: "part of the idle speed that is kept", unit: "%", better: "more", limit: 40 },
    },
    async measure(contender) {
      const idleSpeed = speedOf(await contender.ask(freshText(16), tokens))
      using _ = startHogs()
      await Bun.sleep(200)
      const busySpeed = speedOf(await contender.ask(freshText(8), tokens))
      return { speed: busySpeed, idleSpeed, kept: (busySpeed / idleSpeed) * 100 }
    },
  }
}
