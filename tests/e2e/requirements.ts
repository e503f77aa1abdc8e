/**
 * What some tests need of the machine. Where it is not there they are skipped, and say why.
 *
 * @module
 */

import { test } from "bun:test"
import { spawnSync } from "node:child_process"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"

/** `test`; skipped where there is an obstacle. */
export function testUnless(obstacle: string | undefined): typeof test {
  return test.skipIf(obstacle !== undefined)
}

const IS_ROOT = process.getuid?.() === 0

/** A file system of its own in memory. */
export class SmallDisk implements Disposable {
  readonly path: string = mkdtempSync(join(tmpdir(), "cria-disk-"))

  /** @param bytes What it has room for. */
  constructor(bytes: number) {
    const args = ["-t", "tmpfs", "-o", `size=${bytes}`, "tmpfs", this.path]
    const { status, stderr } = spawnSync("mount", args, { encoding: "utf8" })
    if (status === 0) return
    rmSync(this.path, { recursive: true, force: true })
    throw new Error(`Cannot mount a small disk: ${stderr}`)
  }

  /** The file that {@link fill} makes. */
  get filler(): string {
    return join(this.path, "filler")
  }

  /** Leaves so many bytes free. */
  fill(bytesLeft: number): void {
    rmSync(this.filler, { force: true })
    const { stdout } = spawnSync("df", ["--output=avail", "-B1", this.path], { encoding: "utf8" })
    const free = Number(stdout.split("\n")[1])
    spawnSync("fallocate", ["-l", String(Math.floor(free - bytesLeft)), this.filler])
  }

  [Symbol.dispose](): void {
    spawnSync("umount", ["-l", this.path])
    rmSync(this.path, { recursive: true, force: true })
  }
}

/** Says what is missing, once. */
function told(obstacle: string, isThere: boolean): string | undefined {
  if (isThere) return undefined
  console.warn(`skipped: ${obstacle}`)
  return obstacle
}

function canMount(): boolean {
  try {
    using _ = new SmallDisk(2 ** 20)
    return true
  } catch {
    return false
  }
}

/** Why there is no {@link SmallDisk}. */
export const NO_SMALL_DISK: string | undefined = told(
  "a small disk needs a user who may mount one",
  IS_ROOT && canMount(),
)

/** Why nothing runs as another user. */
export const NO_OTHER_USER: string | undefined = told("only root can become another user", IS_ROOT)

/** Why Python's client is not tried. */
export const NO_PYTHON_CLIENT: string | undefined = told(
  "Python's openai package is not installed",
  spawnSync("python3", ["-c", "import openai"]).status === 0,
)
