import { describe, expect, test } from "bun:test"
import { existsSync, writeFileSync } from "node:fs"

import { type Config, readConfig } from "../../config.ts"
import { blobFilePath } from "../../store/digest.ts"
import { MEDIA_TYPES } from "../../store/manifest.ts"
import { TestStore } from "../../store/test-store.ts"
import { TestTerminal } from "../test-terminal.ts"
import { verify } from "./archive.ts"

/** Installs a model whose file is damaged; the path of that file. */
function damagedModel(store: TestStore, name: string): string {
  const { digest } = store.blob(MEDIA_TYPES.model, `weights of ${name}`)
  store.weights(name)
  const path = blobFilePath(store.root, digest)
  writeFileSync(path, `Weights of ${name}`)
  return path
}

function configOf(own: TestStore, theirs: TestStore): Config {
  return readConfig({ CRIA_MODELS: own.root, CRIA_READ_MODELS: theirs.root })
}

describe("verify()", () => {
  test("repairs the own store only, and says what to do about the others", async () => {
    using own = new TestStore()
    using theirs = new TestStore()
    using terminal = new TestTerminal()
    const [mine, other] = [damagedModel(own, "mine"), damagedModel(theirs, "other")]
    await verify(configOf(own, theirs), ["mine", "other"], { repair: true })
    expect(existsSync(mine)).toBe(false)
    expect(existsSync(other)).toBe(true)
    expect(terminal.stdout).toContain("2 problems")
    expect(terminal.stdout).toContain(`"${theirs.root}" is only read`)
    expect(terminal.stdout).toContain(`remove ${other}`)
    expect(terminal.stdout).toContain("removed 1 damaged file\n  cria pull mine:latest\n")
    expect(terminal.stdout).not.toContain("cria pull other")
    process.exitCode = 0
  })
})
