/**
 * `cria show`: what a model is and what it can do.
 *
 * @module
 */

import type { ShowReply } from "../../api/ollama.ts"
import type { Client } from "../../client/client.ts"
import { CriaError } from "../../util/errors.ts"

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

/** Values of an array that fit on a line of `--verbose`. */
const ARRAY_ITEMS = 10

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
  const { details, model_info: info, capabilities, parameters } = reply
  const architecture = plain(info["general.architecture"])
  const sections = [
    section("Model", [
      ["architecture", architecture],
      ["parameters", details.parameter_size],
      ...rowOf("context length", info[`${architecture}.context_length`]),
      ...rowOf("embedding length", info[`${architecture}.embedding_length`]),
      ["quantization", details.quantization_level],
      ...(reply.requires === undefined ? [] : [["requires", reply.requires]]),
    ]),
    section(
      "Capabilities",
      capabilities.map((name) => [name]),
    ),
    section("Parameters", rowsOf(parameters)),
    ...(isVerbose ? verboseSections(reply) : []),
    section("System", firstLines(reply.system)),
    section("License", firstLines(reply.license)),
  ]
  return sections.join("")
}

function verboseSections({ model_info: info, tensors }: ShowReply): string[] {
  const metadata = Object.entries(info)
    .toSorted(([a], [b]) => (a < b ? -1 : 1))
    .map(([key, value]) => [key, plain(value)])
  const rows = tensors.map(({ name, type, shape }) => [name, type, `[${shape.join(" ")}]`])
  return [section("Metadata", metadata), section("Tensors", rows)]
}

function section(title: string, rows: readonly (readonly string[])[]): string {
  if (rows.length === 0) return ""
  const columns = Math.max(...rows.map((row) => row.length))
  const widths = Array.from({ length: columns }, (_, i) =>
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
  const shown = lines.slice(0, TEXT_LINES).flatMap((line) => wrapped(line.trim()))
  return [...shown, ...(lines.length > TEXT_LINES ? ["..."] : [])].map((line) => [line])
}

/** A line that is too long as several, cut between words; a word that is too long stands alone. */
function wrapped(text: string): string[] {
  if (text.length <= TEXT_COLUMNS) return [text]
  const [first = "", ...words] = text.split(/\s+/)
  const lines = [first]
  for (const word of words) {
    const longer = `${lines.at(-1)} ${word}`
    if (longer.length <= TEXT_COLUMNS) lines[lines.length - 1] = longer
    else lines.push(word)
  }
  return lines
}

/** Metadata are texts, numbers, flags, or arrays of those. */
function plain(value: unknown): string {
  if (Array.isArray(value)) return arrayText(value)
  if (value === undefined || value === null) return ""
  return typeof value === "string" ? value : JSON.stringify(value)
}

function arrayText(values: readonly unknown[]): string {
  const rest = values.length - ARRAY_ITEMS
  const shown = values.slice(0, ARRAY_ITEMS).map(String).join(" ")
  return rest > 0 ? `[${shown} ...+${rest} more]` : `[${shown}]`
}
