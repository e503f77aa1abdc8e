/**
 * `cria create`: reads a Modelfile, hands its files to the server, has the model created.
 *
 * @module
 */

import { open, stat } from "node:fs/promises"
import { dirname, join, resolve } from "node:path"

import type { ProgressReply } from "../../api/ollama.ts"
import type { Client, RequestFields } from "../../client/client.ts"
import type { Config } from "../../config.ts"
import { parseParameters } from "../../modelfile/parameters.ts"
import {
  decodeModelfile,
  MODELFILE_BYTES_MAX,
  type ModelfileCommand,
  parseModelfile,
  type PlainCommandName,
} from "../../modelfile/parse.ts"
import { semverOf } from "../../modelfile/semver.ts"
import { type FileMap, type Gathered, gatherFiles } from "../../services/gather.ts"
import { isModelName, Uploader } from "../../services/upload.ts"
import { CriaError } from "../../util/errors.ts"
import { interruptible } from "../interrupt.ts"
import { ProgressPrinter } from "../progress.ts"

/** Flags of the command. */
export interface CreateFlags {
  readonly file?: string
  readonly quantize?: string
  readonly draftQuantize?: string
  readonly imatrix?: string
  readonly json?: boolean
}

/** How often files are uploaded that somebody takes away again. */
const ATTEMPTS_MAX = 3

/** What a Modelfile that is not there says. */
const NO_MODELFILE = "FROM ."

/** Creates a model. */
export async function create(
  client: Client,
  config: Config,
  model: string,
  flags: CreateFlags,
): Promise<void> {
  if (!isModelName(model)) throw new CriaError("invalid-input", `invalid model name: ${model}`)
  const { text, folder } = await readModelfile(flags.file)
  const commands = parseModelfile(text)
  const warnings: string[] = []
  const fields = fieldsOf(commands, (warning) => warnings.push(warning))
  for (const warning of warnings) console.error(warning)

  await interruptible(async (signal) => {
    using progress = new ProgressPrinter(flags.json === true)
    const report = (step: ProgressReply) => progress.show(step)
    report({ status: "gathering model components" })
    const { from, ...files } = gatherFiles(commands, folder)
    if (flags.draftQuantize !== undefined && files.draftFiles.size === 0) {
      throw new CriaError("invalid-input", "--draft-quantize requires a DRAFT model")
    }
    const uploader = new Uploader({ client, config, report, signal })
    const request = {
      model,
      ...fields,
      ...(from === undefined ? {} : { from }),
      ...(flags.quantize === undefined ? {} : { quantize: flags.quantize }),
      ...(flags.draftQuantize === undefined ? {} : { draft_quantize: flags.draftQuantize }),
    }
    const { imatrix } = flags
    const all = {
      ...files,
      imatrix: new Map(imatrix === undefined ? [] : [["imatrix", resolve(imatrix)] as const]),
    }
    const discard = new Set<string>()
    for (let attempt = 1; ; attempt++) {
      const uploads = await uploadAll(uploader, all, discard)
      try {
        for await (const step of client.create({ ...request, ...uploads }, signal)) report(step)
        return
      } catch (error) {
        if (attempt === ATTEMPTS_MAX || !isBlobMissing(error)) throw error
      }
    }
  })
}

/** Files by what they are for. */
interface AllFiles extends Omit<Gathered, "from"> {
  readonly imatrix: FileMap
}

/**
 * Uploads all files; the fields of a request that name them.
 *
 * @param discard Gets what the server has from us alone.
 */
async function uploadAll(
  uploader: Uploader,
  { files, adapters, draftFiles, imatrix }: AllFiles,
  discard: Set<string>,
): Promise<RequestFields> {
  const digestsOf = async (map: FileMap): Promise<Record<string, string>> => {
    const uploads = await uploader.putAll(map)
    for (const { digest, isNew } of uploads.values()) if (isNew) discard.add(digest)
    return Object.fromEntries([...uploads].map(([name, { digest }]) => [name, digest]))
  }
  const field = async (name: string, map: FileMap) =>
    map.size === 0 ? {} : { [name]: await digestsOf(map) }
  return {
    ...(await field("files", files)),
    ...(await field("adapters", adapters)),
    ...(await field("draft_files", draftFiles)),
    ...(await digestsOf(imatrix)),
    discard: [...discard],
  }
}

/** Another command may have discarded a file that the server had when we asked. */
function isBlobMissing(error: unknown): boolean {
  return (
    error instanceof CriaError && error.code === "not-found" && error.message.startsWith('blob "')
  )
}

/** Everything of a Modelfile that is no file. */
function fieldsOf(
  commands: readonly ModelfileCommand[],
  warn: (message: string) => void,
): RequestFields {
  const valuesOf = (name: PlainCommandName) =>
    commands.filter(({ command }) => command === name).map(({ value }) => value)
  const last = (name: PlainCommandName) => {
    const value = valuesOf(name).at(-1)
    return value === undefined ? {} : { [name]: value }
  }
  const license = valuesOf("license")
  const requires = valuesOf("requires").at(-1)
  const messages = commands.flatMap((command) =>
    command.command === "message" ? [{ role: command.role, content: command.value }] : [],
  )
  const parameters = commands.flatMap((command) =>
    command.command === "parameter" ? [command] : [],
  )
  return {
    ...last("template"),
    ...last("system"),
    ...last("renderer"),
    ...last("parser"),
    ...(requires === undefined ? {} : { requires: semverOf(requires) }),
    ...(license.length === 0 ? {} : { license }),
    ...(messages.length === 0 ? {} : { messages }),
    ...(parameters.length === 0 ? {} : { parameters: parseParameters(parameters, warn) }),
  }
}

/** The Modelfile and what its paths begin at. Without one the folder itself is the model. */
async function readModelfile(path: string | undefined): Promise<{ text: string; folder: string }> {
  const file = path ?? join(process.cwd(), "Modelfile")
  try {
    const stats = await stat(file)
    if (stats.isDirectory()) {
      throw new CriaError("invalid-input", `Cannot read "${file}": it is a folder`, {
        hint: `-f ${join(file, "Modelfile")}`,
      })
    }
    return { text: decodeModelfile(await readBounded(file)), folder: dirname(resolve(file)) }
  } catch (error) {
    if (!(error instanceof Error && "code" in error && error.code === "ENOENT")) throw error
    if (path === undefined) return { text: NO_MODELFILE, folder: process.cwd() }
    throw new CriaError("not-found", "specified Modelfile wasn't found", {
      hint: `There is no "${path}"`,
    })
  }
}

/** A file, or a pipe as the shell's `<(…)`; one byte more than allowed is enough to know. */
async function readBounded(path: string): Promise<Uint8Array> {
  await using file = await open(path)
  const bytes = new Uint8Array(MODELFILE_BYTES_MAX + 1)
  let length = 0
  for (;;) {
    const { bytesRead } = await file.read(bytes, length, bytes.length - length)
    length += bytesRead
    if (bytesRead === 0 || length === bytes.length) return bytes.subarray(0, length)
  }
}
