/**
 * The `general.` metadata: what a model is called, who made it, under which licence, how it likes to be sampled.
 *
 * Reads the card (`README.md`), `generation_config.json` and names; a card that cannot be read is as good as none.
 * Which source wins is as in llama.cpp's converter.
 *
 * @module
 */

import { type GgufInput, packStrings, text, u32 } from "../gguf/write.ts"
import type { ModelFolder } from "./folder.ts"
import { isObject, type JsonObject, shown } from "./json.ts"
import { type NameParts, nameParts, sizeLabelOf, titleOf } from "./model-name.ts"

/** Bytes of the part of a card that is data. Real ones have below 30 kB. */
const CARD_BYTES_MAX: number = 1024 * 1024

/** What the tensors say. */
export interface SizeFacts {
  /** All parameters; negative for an adapter. */
  readonly parameters: number
  /** Parameters of the shared part and of one expert of each layer. */
  readonly activeParameters: number
  /** Experts of a layer; 0 when there are none. */
  readonly experts: number
}

type Metadata = Map<string, GgufInput>

const SAMPLING = [
  ["sequence", ["sequence"], "string"],
  ["top_k", ["top_k"], "i32"],
  ["top_p", ["top_p"], "f32"],
  ["min_p", ["min_p"], "f32"],
  ["xtc_probability", ["xtc_probability"], "f32"],
  ["xtc_threshold", ["xtc_threshold"], "f32"],
  ["temp", ["temperature"], "f32"],
  ["penalty_last_n", ["penalty_last_n"], "i32"],
  ["penalty_repeat", ["penalty_repeat", "repetition_penalty"], "f32"],
  ["mirostat", ["mirostat"], "i32"],
  ["mirostat_tau", ["mirostat_tau"], "f32"],
  ["mirostat_eta", ["mirostat_eta"], "f32"],
] as const

/** The key, and what a card calls it, the first that is there counts. */
const CARD_KEYS = [
  ["author", ["author", "model_author", "model_creator"]],
  ["description", ["description", "model_description"]],
  ["license", ["license"]],
  ["license.name", ["license_name"]],
  ["license.link", ["license_link"]],
  ["source.url", ["url", "model_url"]],
  ["source.doi", ["doi", "model_doi"]],
  ["source.uuid", ["uuid", "model_uuid"]],
  ["source.repo_url", ["repo_url", "model_repo_url"]],
] as const

/** All `general.` keys but those of the file itself. */
export function generalMetadata(
  folder: ModelFolder,
  config: JsonObject,
  size: SizeFacts,
): Metadata {
  const metadata: Metadata = new Map()
  const put = (key: string, value: GgufInput | undefined): void => {
    if (value !== undefined) metadata.set(`general.${key}`, value)
  }
  addSampling(put, folder)
  const card = readCard(folder)
  const named = names(card, config, folder, size.parameters)
  put("name", text(named.name ?? folder.name))
  put("version", optional(named.version))
  put("organization", optional(named.organization))
  put("finetune", optional(named.finetune))
  put("basename", optional(named.basename))
  const computed =
    size.parameters > 0 ? sizeLabelOf(labelParameters(size), size.experts) : undefined
  put("size_label", optional(named.sizeLabel ?? computed))
  for (const [key, sources] of CARD_KEYS) put(key, optional(cardText(card, sources)))
  addSources(put, "base_model", {
    values: list(card["base_model"] ?? card["base_models"] ?? card["base_model_sources"]),
    parameters: size.parameters,
  })
  addSources(put, "dataset", {
    values: list(card["datasets"] ?? card["dataset"] ?? card["dataset_sources"]),
    parameters: size.parameters,
  })
  put("tags", strings([...list(card["tags"]), ...list(card["pipeline_tag"])]))
  put("languages", strings([...list(card["languages"]), ...list(card["language"])]))
  return metadata
}

type Put = (key: string, value: GgufInput | undefined) => void

function optional(value: string | undefined): GgufInput | undefined {
  return value === undefined ? undefined : text(value)
}

function strings(values: readonly unknown[]): GgufInput | undefined {
  return values.length === 0 ? undefined : packStrings(values.map(shown))
}

function labelParameters(size: SizeFacts): number {
  return size.experts > 0 ? size.activeParameters : size.parameters
}

/** A list, or a value that stands for a list of one. */
function list(value: unknown): unknown[] {
  if (value === undefined || value === null) return []
  return Array.isArray(value) ? value : [value]
}

function cardText(card: JsonObject, keys: readonly string[]): string | undefined {
  const value = keys.map((key) => card[key]).find((each) => each !== undefined && each !== null)
  const parts = list(value).filter((each) => typeof each !== "object")
  return parts.length === 0 ? undefined : parts.map(String).join(",")
}

function addSampling(put: Put, folder: ModelFolder): void {
  let settings: JsonObject | undefined
  try {
    settings = folder.object("generation_config.json")
  } catch {
    // Some models have a broken one. It holds recommendations only.
    return
  }
  for (const [key, sources, type] of SAMPLING) {
    const value = sources.map((source) => settings?.[source]).find((each) => each !== undefined)
    if (type === "string") {
      if (typeof value === "string") put(`sampling.${key}`, text(value))
    } else if (typeof value === "number" && Math.abs(value) < 2 ** 31) {
      put(`sampling.${key}`, { type, value: type === "i32" ? Math.trunc(value) : value })
    }
  }
}

/** The data at the beginning of the card; empty when there are none or they cannot be read. */
function readCard(folder: ModelFolder): JsonObject {
  try {
    if (!folder.has("README.md")) return {}
    const [first, ...lines] = folder.text("README.md").split(/\r\n|\r|\n/)
    const end = lines.indexOf("---")
    if (first !== "---") return {}
    const yaml = lines.slice(0, end === -1 ? lines.length : end).join("\n")
    if (yaml.length > CARD_BYTES_MAX) return {}
    const card: unknown = Bun.YAML.parse(yaml.replaceAll("\t", "  "))
    return isObject(card) ? card : {}
  } catch {
    return {}
  }
}

/** The card wins over the configuration, which wins over the name of the folder. */
function names(
  card: JsonObject,
  config: JsonObject,
  folder: ModelFolder,
  parameters: number,
): NameParts {
  const path = config["_name_or_path"]
  const isName = typeof path === "string" && path !== "" && path.split("/").length <= 2
  const configured = isName ? nameParts(path, parameters) : {}
  const found = nameParts(folder.name, parameters)
  const name = configured.name ?? found.name
  const organization = configured.organization ?? found.organization
  const parts = {
    name: cardText(card, ["name", "model_name"]) ?? (name && titleOf(name)),
    organization:
      cardText(card, ["organization", "model_organization"]) ??
      (organization && titleOf(organization)),
    basename:
      cardText(card, ["basename", "model_basename", "model_type"]) ??
      configured.basename ??
      found.basename,
    finetune:
      cardText(card, ["finetune", "model_finetune"]) ?? configured.finetune ?? found.finetune,
    version: cardText(card, ["version", "model_version"]) ?? configured.version ?? found.version,
    sizeLabel:
      cardText(card, ["size_label", "model_size_label"]) ?? configured.sizeLabel ?? found.sizeLabel,
  }
  return Object.fromEntries(Object.entries(parts).filter(([, value]) => value !== undefined))
}

/** Models and data that this one was made from. */
function addSources(
  put: Put,
  kind: "base_model" | "dataset",
  { values, parameters }: { values: readonly unknown[]; parameters: number },
): void {
  if (values.length === 0) return
  put(`${kind}.count`, u32(values.length))
  for (const [index, value] of values.entries()) {
    const source = typeof value === "string" ? sourceOf(value, parameters) : {}
    for (const [key, each] of Object.entries(source)) {
      put(`${kind}.${index}.${key}`, optional(each))
    }
  }
}

function sourceOf(id: string, parameters: number): Record<string, string | undefined> {
  const isAddress = /^(https?|ssh):\/\//.test(id)
  const inAddress = /^https?:\/\/huggingface\.co\/([^/]+\/[^/]+)$/.exec(id)?.[1]
  const repository = isAddress ? inAddress : id
  if (repository === undefined) return { repo_url: id }
  const { name, organization, version } = nameParts(repository, parameters)
  const address =
    organization === undefined ? undefined : `https://huggingface.co/${organization}/${name}`
  return {
    name: name && titleOf(name),
    version,
    organization: organization && titleOf(organization),
    repo_url: isAddress ? id : address,
  }
}
