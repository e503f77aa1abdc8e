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
import {
  type BlobVerification,
  type Repair,
  removeDamaged,
  storeRoot,
  verifyModels,
} from "../../services/verify.ts"
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

/** A file that is missing or not what its name says. */
interface BadFile {
  readonly found: BlobVerification
  /** What was done about it; undefined for nothing. */
  readonly repair: Repair | undefined
  /** The store that it lies in when that is only read. */
  readonly otherStore: string | undefined
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
  const all = stores(config)
  const bad: BadFile[] = []
  for await (const found of verifyModels(all.all, names)) {
    if (json) console.log(JSON.stringify(found))
    if (found.kind === "done") {
      if (found.problems > 0) process.exitCode = 1
      if (json) return
      console.log(`${found.blobs} files, ${formatBytes(found.bytes)}: ${verdict(found.problems)}`)
      for (const line of advice(bad, repair)) console.log(line)
    } else if (found.kind === "manifest") {
      if (!json) console.log(`unreadable  ${found.path}\n            ${found.problem}`)
    } else if (found.state !== "ok") {
      if (!json) {
        console.log(`${found.state.padEnd(11)} ${found.digest} (${found.models.join(", ")})`)
      }
      bad.push(await badFile(all, found, repair))
    }
  }
}

async function badFile(all: Stores, found: BlobVerification, isRepair: boolean): Promise<BadFile> {
  const root = found.path === undefined ? all.own?.root : storeRoot(all, found)
  const isOwn = root === all.own?.root
  const repair = isRepair && isOwn ? await removeDamaged(all, found) : undefined
  return { found, repair, otherStore: isOwn ? undefined : root }
}

function verdict(problems: number): string {
  return problems === 0 ? "all well" : `${problems} ${plural("problem", problems)}`
}

/** What to do about files that are missing or damaged. A pull fetches what is missing, but believes what is there. */
function advice(bad: readonly BadFile[], isRepair: boolean): string[] {
  const own = bad.filter(({ otherStore }) => otherStore === undefined)
  const removed = own.filter(({ repair }) => repair === "removed").length
  const changed = own.filter(({ repair }) => repair === "changed meanwhile").length
  const models = [...new Set(own.flatMap(({ found }) => found.models))]
  return [
    ...bad.flatMap(({ otherStore, found: { path } }) =>
      otherStore === undefined
        ? []
        : [
            `"${otherStore}" is only read: nothing was changed there. With the program whose store it is,`,
            `remove ${path} and get the model again`,
          ],
    ),
    ...(removed > 0 ? [`removed ${removed} damaged ${plural("file", removed)}`] : []),
    ...(changed > 0
      ? [`left ${changed} ${plural("file", changed)} written meanwhile: verify again`]
      : []),
    ...(models.length === 0
      ? []
      : [
          ...(isRepair
            ? []
            : ["cria verify --repair removes the damaged files; then get them again:"]),
          ...models.map((model) => `  cria pull ${model}`),
          "A model that was created here has to be created again.",
        ]),
  ]
}

function plural(noun: string, count: number): string {
  return count === 1 ? noun : `${noun}s`
}

function stores(config: Config): Stores {
  return openStores(
    config,
    createLogger((line) => process.stderr.write(`${line}\n`), "error"),
  )
}
