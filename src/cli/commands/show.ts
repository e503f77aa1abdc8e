/**
 * `cria show`: what a model is and what it can do.
 *
 * @module
 */

import type { ShowReply } from "../../api/ollama.ts"
import type { Client } from "../../client/client.ts"
import { CriaError } from "../../util/errors.ts"
import { formatCount, formatShortest } from "../../util/units.ts"
import { wrapRows } from "../output.ts"

/** Flags of the command. */
export interface ShowFlags {
  readonly license?: boolean
  readonly modelfile?: boolean
  readonly parameters?: boolean
  readonly system?: boolean
  readonly template?: boolean
  readonly verbose?: boolean
  readonly fit?: boolean
  readonly insecure?: boolean
  readonly json?: boolean
}

const SECTIONS = ["license", "modelfile", "parameters", "system", "template"] as const

/** Lines of a text section that are printed. */
const TEXT_LINES = 2

/** Longer ones are wrapped. */
const TEXT_COLUMNS = 100

/** What values of an array may take in `--verbose`; the first is shown in any case. */
const ARRAY_COLUMNS = 10

/** Prints one raw section, or the overview. */
export async function show(client: Client, model: string, flags: ShowFlags): Promise<void> {
  const wanted = SECTIONS.filter((name) => flags[name] === true)
  if (wanted.length > 1) {
    throw new CriaError(
      "invalid-input",
      "only one of '--license', '--modelfile', '--parameters', '--system', or '--template' can be specified",
    )
  }
  const isVerbose = flags.verbose === true
  const reply = await client.show(model, isVerbose)
  const [raw] = wanted
  if (flags.json === true) console.log(JSON.stringify(reply))
  else if (raw === undefined) process.stdout.write(overview(reply, isVerbose))
  else if (raw === "system" || raw === "template") process.stdout.write(reply[raw] ?? "")
  else console.log(reply[raw] ?? "")
}

/** The overview: sections of aligned rows. */
export function overview(reply: ShowReply, isVerbose: boolean): string {
  const { capabilities, parameters } = reply
  const sections = [
    section("Model", modelRows(reply)),
    section(
      "Capabilities",
      capabilities.map((name) => [name]),
    ),
    section("Projector", projectorRows(reply.projector_info)),
    section("Parameters", rowsOf(parameters)),
    ...(isVerbose ? verboseSections(reply) : []),
    section("System", firstLines(reply.system), TEXT_COLUMNS),
    section("License", firstLines(reply.license), TEXT_COLUMNS),
  ]
  return sections.join("")
}

function modelRows(reply: ShowReply): string[][] {
  const { details, model_info: info, remote_model, remote_host, requires } = reply
  const architecture = info["general.architecture"]
  const parameters = details.parameter_size || humanCount(info["general.parameter_count"])
  return [
    ...rowOf("Remote model", remote_model),
    ...rowOf("Remote URL", remote_host),
    ...rowOf("architecture", architecture),
    ...rowOf("parameters", parameters || undefined),
    ...rowOf("context length", info[`${plain(architecture)}.context_length`]),
    ...rowOf("embedding length", info[`${plain(architecture)}.embedding_length`]),
    ["quantization", details.quantization_level],
    ...rowOf("requires", requires),
  ]
}

function projectorRows(info: ShowReply["projector_info"]): string[][] {
  if (info === undefined) return []
  const architecture = plain(info["general.architecture"])
  const kinds = ["vision", "audio"].map((kind) => `${architecture}.${kind}`)
  const encoder = kinds.find((kind) => info[`${kind}.embedding_length`] !== undefined)
  return [
    ["architecture", architecture],
    ...rowOf("parameters", humanCount(info["general.parameter_count"])),
    ...rowOf("embedding length", info[`${encoder}.embedding_length`]),
    ...rowOf("dimensions", info[`${encoder}.projection_dim`]),
  ]
}

function humanCount(count: unknown): string | undefined {
  return typeof count === "number" ? formatCount(count) : undefined
}

function verboseSections({ model_info: info, tensors }: ShowReply): string[] {
  const metadata = Object.entries(info)
    .toSorted(([a], [b]) => (a < b ? -1 : 1))
    .map(([key, value]) => [key, detailed(value)])
  const rows = tensors.map(({ name, type, shape }) => [name, type, `[${shape.join(" ")}]`])
  return [section("Metadata", metadata), section("Tensors", rows)]
}

function section(title: string, unwrapped: readonly (readonly string[])[], columns?: number) {
  if (unwrapped.length === 0) return ""
  const rows = wrapRows(unwrapped, columns)
  const count = Math.max(...rows.map((row) => row.length))
  const widths = Array.from({ length: count }, (_, i) =>
    Math.max(...rows.map((row) => (row[i] ?? "").length)),
  )
  const lines = rows.map(
    (row) => `    ${row.map((cell, i) => cell.padEnd((widths[i] ?? 0) + 4)).join("")}`,
  )
  return `  ${title}\n${lines.join("\n")}\n\n`
}

/** No row for what the file does not say. */
function rowOf(title: string, value: unknown): string[][] {
  return value === undefined ? [] : [[title, plain(value)]]
}

function rowsOf(parameters = ""): string[][] {
  return parameters
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => line.trim().split(/\s+/))
}

function firstLines(text = ""): string[][] {
  const lines = text.split("\n").filter((line) => line.trim() !== "")
  const shown = lines.slice(0, TEXT_LINES).map((line) => [line.trim()])
  return lines.length > TEXT_LINES ? [...shown, ["..."]] : shown
}

/** Metadata are texts, numbers, flags, or arrays of those. */
function plain(value: unknown): string {
  if (value === undefined || value === null) return ""
  return typeof value === "string" ? value : JSON.stringify(value)
}

/** A value as Go prints it. */
function detailed(value: unknown): string {
  if (Array.isArray(value)) return arrayText(value)
  return typeof value === "number" ? formatShortest(value) : plain(value)
}

/** As many values as fit, and how many more there are. */
function arrayText(values: readonly unknown[]): string {
  const texts = values.slice(0, ARRAY_COLUMNS).map((value) => detailed(value))
  let width = 1
  const left = texts.findIndex((text, i) => {
    width += text.length + (i === 0 ? 0 : 2)
    return i > 0 && width > ARRAY_COLUMNS
  })
  const shown = left === -1 ? texts : texts.slice(0, left)
  const rest = values.length - shown.length
  return rest > 0 ? `[${shown.join(" ")} ...+${rest} more]` : `[${shown.join(" ")}]`
}
