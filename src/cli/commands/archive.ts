/**
 * `cria export`, `cria import` and `cria verify`: work on the store of this machine, with or without a server.
 *
 * @module
 */

import { createReadStream, rmSync, statSync } from "node:fs"
import { open } from "node:fs/promises"

import type { Config } from "../../config.ts"
import { exportModels, importModels } from "../../services/archive.ts"
import { openStores, storeWriter, type Stores } from "../../services/stores.ts"
import { removeDamaged, verifyModels } from "../../services/verify.ts"
import { CriaError, errorMessage } from "../../util/errors.ts"
import { createLogger } from "../../util/log.ts"
import { formatBytes } from "../../util/units.ts"
import { ProgressDisplay } from "../progress.ts"

/** The standard output or input as a file. */
const STANDARD = "-"

/** Flags of `export`. */
export interface ExportFlags {
  readonly output: string
}

/** Flags of `verify`. */
export interface VerifyFlags {
  readonly repair?: boolean
  readonly json?: boolean
}

/** Writes models to a tar file in the OCI image layout. */
export async function exportArchive(
  config: Config,
  models: readonly string[],
  { output }: ExportFlags,
): Promise<void> {
  const { all, folders } = stores(config)
  const chunks = exportModels(all, folders, models)
  if (output === STANDARD) {
    for await (const chunk of chunks) await Bun.write(Bun.stdout, chunk)
    return
  }
  if (statSync(output, { throwIfNoEntry: false })?.isFile() === true) {
    throw new CriaError("conflict", `Cannot write "${output}": it is there already`, {
      hint: "Remove it, or choose another name",
    })
  }
  let bytes = 0
  try {
    await using file = await open(output, "w")
    for await (const chunk of chunks) {
      bytes += chunk.length
      await file.writeFile(chunk)
    }
    await file.sync()
  } catch (error) {
    if (bytes > 0) rmSync(output, { force: true })
    if (error instanceof CriaError) throw error
    const text = `Cannot write "${output}": ${errorMessage(error)}`
    throw new CriaError("unavailable", text, { cause: error })
  }
  console.log(`exported ${models.join(", ")} to ${output} (${formatBytes(bytes)})`)
}

/** Installs the models of a tar file. */
export async function importArchive(
  config: Config,
  file: string,
  name: string | undefined,
): Promise<void> {
  const source = file === STANDARD ? Bun.stdin.stream() : fileChunks(file)
  const steps = importModels(storeWriter(stores(config)), source, name)
  using display = new ProgressDisplay()
  for (;;) {
    const { done, value } = await steps.next()
    if (done === true) {
      display[Symbol.dispose]()
      for (const model of value) console.log(`imported '${model}'`)
      return
    }
    const { name: digest, completed, total } = value
    const status = `importing ${digest.slice(7, 19)}`
    display.show({ status, digest, completed, total }, performance.now())
  }
}

async function* fileChunks(path: string): AsyncGenerator<Uint8Array> {
  const stats = statSync(path, { throwIfNoEntry: false })
  if (stats === undefined || stats.isDirectory()) {
    const what = stats === undefined ? "there is no such file" : "it is a folder"
    throw new CriaError("not-found", `Cannot import "${path}": ${what}`)
  }
  // Buffers, as no encoding was asked for.
  for await (const chunk of createReadStream(path, { highWaterMark: 2 ** 20 }))
    yield chunk as Buffer
}

/** Checks the files of installed models, of all without names. Exit status 1 when something is wrong. */
export async function verify(
  config: Config,
  names: readonly string[],
  { repair = false, json = false }: VerifyFlags,
): Promise<void> {
  const affected = new Set<string>()
  let removed = 0
  for await (const found of verifyModels(stores(config).all, names)) {
    if (json) console.log(JSON.stringify(found))
    if (found.kind === "done") {
      if (found.problems > 0) process.exitCode = 1
      if (json) return
      console.log(`${found.blobs} files, ${formatBytes(found.bytes)}: ${verdict(found.problems)}`)
      advise([...affected], removed, repair)
      return
    }
    if (found.kind === "manifest") {
      if (!json) console.log(`unreadable  ${found.path}\n            ${found.problem}`)
      continue
    }
    if (found.state === "ok") continue
    for (const model of found.models) affected.add(model)
    if (!json) console.log(`${found.state.padEnd(11)} ${found.digest} (${found.models.join(", ")})`)
    if (!repair || found.path === undefined) continue
    removeDamaged(found.path)
    removed++
  }
}

function verdict(problems: number): string {
  return problems === 0 ? "all well" : `${problems} ${problems === 1 ? "problem" : "problems"}`
}

/** What to do about it. A pull fetches what is missing, but believes what is there. */
function advise(models: readonly string[], removed: number, isRepair: boolean): void {
  if (models.length === 0) return
  if (removed > 0) console.log(`removed ${removed} damaged ${removed === 1 ? "file" : "files"}`)
  if (!isRepair) console.log("cria verify --repair removes the damaged files; then get them again:")
  for (const model of models) console.log(`  cria pull ${model}`)
  console.log("A model that was created here has to be created again.")
}

function stores(config: Config): Stores {
  return openStores(
    config,
    createLogger((line) => process.stderr.write(`${line}\n`), "error"),
  )
}
