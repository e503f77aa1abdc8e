/**
 * `cria export`, `cria import` and `cria verify`: work on the store of this machine, with or without a server.
 *
 * @module
 */

import { createReadStream, statSync } from "node:fs"

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
import { CriaError } from "../../util/errors.ts"
import { untilAborted } from "../../util/iterate.ts"
import { createLogger } from "../../util/log.ts"
import { formatBytes } from "../../util/units.ts"
import { interruptible } from "../interrupt.ts"
import { writeOutput } from "../output-file.ts"
import { ProgressPrinter } from "../progress.ts"

/** The standard output or input as a file. */
const STANDARD = "-"

/** Flags of `export`. */
export interface ExportFlags {
  readonly output: string
  readonly json?: boolean
}

/** Flags of `import`, and the name to give the model. */
export interface ImportFlags {
  readonly name?: string | undefined
  readonly json?: boolean
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
  { output, json = false }: ExportFlags,
): Promise<void> {
  if (output === STANDARD) checkStandard(json)
  const { all, folders } = stores(config)
  const { bytes, chunks } = exportModels(all, folders, models)
  await interruptible(async (signal) => {
    using progress = new ProgressPrinter(json)
    const line = { status: `exporting to ${output}`, digest: output, total: bytes }
    const shown = counted(untilAborted(chunks, signal), (completed) =>
      progress.show({ ...line, completed }),
    )
    if (output === STANDARD) for await (const chunk of shown) await Bun.write(Bun.stdout, chunk)
    else await writeOutput(output, bytes, shown)
    progress.end({ status: "success" })
    if (output === STANDARD || json) return
    console.log(`exported ${models.join(", ")} to ${output} (${formatBytes(bytes)})`)
  })
}

function checkStandard(json: boolean): void {
  if (json) throw new CriaError("invalid-input", "--json needs a file: -o FILE")
  if (process.stdout.isTTY) {
    const hint = "Redirect it, or name a file: -o FILE"
    throw new CriaError("invalid-input", "Cannot write an archive to a terminal", { hint })
  }
}

/** Passes chunks on and tells after each how many bytes went by. */
async function* counted(
  chunks: AsyncIterable<Uint8Array>,
  tell: (bytes: number) => void,
): AsyncGenerator<Uint8Array, void> {
  let bytes = 0
  tell(bytes)
  for await (const chunk of chunks) {
    yield chunk
    bytes += chunk.length
    tell(bytes)
  }
}

/** Installs the models of a tar file. */
export async function importArchive(
  config: Config,
  file: string,
  { name, json = false }: ImportFlags,
): Promise<void> {
  const writer = storeWriter(stores(config))
  const source = file === STANDARD ? Bun.stdin.stream() : fileChunks(file)
  await interruptible(async (signal) => {
    using progress = new ProgressPrinter(json)
    const { keepsUnused } = config
    const options = { rename: name, keepsUnused, signal }
    const steps = importModels(writer, untilAborted(source, signal), options)
    for (;;) {
      const { done, value } = await steps.next()
      if (done === true) {
        progress.end({ status: "success", models: value })
        if (!json) for (const model of value) console.log(`imported '${model}'`)
        return
      }
      progress.show(value)
    }
  })
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
  flags: VerifyFlags,
): Promise<void> {
  await interruptible((signal) => verifyUntil(config, names, { ...flags, signal }))
}

async function verifyUntil(
  config: Config,
  names: readonly string[],
  { repair = false, json = false, signal }: VerifyFlags & { readonly signal: AbortSignal },
): Promise<void> {
  const all = stores(config)
  const bad: BadFile[] = []
  for await (const found of verifyModels(all.all, names, signal)) {
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
