/**
 * The texts and the config of a model that is being created.
 *
 * @module
 */

import type { ModelFacts } from "../gguf/facts.ts"
import { parseOptions } from "../modelfile/parameters.ts"
import { semverOf } from "../modelfile/semver.ts"
import { MEDIA_TYPES, type ModelConfig } from "../store/manifest.ts"
import type { ResolvedTexts } from "../store/resolve.ts"
import { CriaError, errorMessage } from "../util/errors.ts"
import { checkTemplate } from "./template.ts"

/** Longest text: what the store reads back. */
const TEXT_BYTES_MAX = 16 * 1024 * 1024

/** A message as it is stored. */
export interface CreateMessage {
  readonly role: string
  readonly content: string
  readonly [field: string]: unknown
}

/** Overrides of the config that a client may give. */
export interface CreateInfo {
  readonly capabilities?: readonly string[]
  readonly model_family?: string
  readonly base_name?: string
  readonly quantization_level?: string
  readonly parameter_size?: string
  readonly context_length?: number
  readonly embedding_length?: number
}

/** What a request says about texts; undefined or empty keeps what the base has. */
export interface CreateTexts {
  readonly template?: string | undefined
  readonly system?: string | undefined
  readonly licenses: readonly string[]
  readonly parameters: Readonly<Record<string, unknown>>
  readonly messages: readonly CreateMessage[]
  readonly renderer?: string | undefined
  readonly parser?: string | undefined
  readonly requires?: string | undefined
  readonly info: CreateInfo
}

/** A text layer to write. */
export interface TextLayer {
  readonly mediaType: string
  readonly content: string
}

/**
 * Checks the texts of a request.
 *
 * @throws {CriaError} `invalid-input` for a text that is too long, a template that is none, a parameter of the wrong type, a version that is none.
 */
export function checkTexts(texts: CreateTexts): void {
  const { template, system, licenses, parameters, messages, requires } = texts
  const all = { template, system, license: licenses.join(""), messages: JSON.stringify(messages) }
  for (const [name, text = ""] of Object.entries(all)) {
    if (Buffer.byteLength(text) <= TEXT_BYTES_MAX) continue
    throw new CriaError("invalid-input", `Cannot store the ${name}: over ${TEXT_BYTES_MAX} bytes`)
  }
  if (template !== undefined) checkTemplate(template)
  try {
    parseOptions(parameters)
  } catch (cause) {
    throw new CriaError("invalid-input", errorMessage(cause), { cause })
  }
  if (requires !== undefined) semverOf(requires)
}

/** The text layers of the new model: those of the base, replaced, merged and added to by those of the request. */
export function textLayers(base: ResolvedTexts, texts: CreateTexts): TextLayer[] {
  const parameters = { ...base.params, ...texts.parameters }
  const messages = texts.messages.length > 0 ? texts.messages : (base.messages ?? [])
  const licenses = [...new Set([...base.licenses, ...texts.licenses.filter((text) => text !== "")])]
  return [
    ...textLayer(MEDIA_TYPES.template, texts.template || base.template),
    ...textLayer(MEDIA_TYPES.system, texts.system || base.system),
    ...jsonLayer(MEDIA_TYPES.params, parameters),
    ...jsonLayer(MEDIA_TYPES.messages, messages),
    ...licenses.flatMap((text) => textLayer(MEDIA_TYPES.license, text)),
  ]
}

function textLayer(mediaType: string, content: string | undefined): TextLayer[] {
  return content === undefined || content === "" ? [] : [{ mediaType, content }]
}

function jsonLayer(mediaType: string, content: object): TextLayer[] {
  if (Object.keys(content).length === 0) return []
  return [{ mediaType, content: `${JSON.stringify(content)}\n` }]
}

/** Built-in chat formats of architectures whose files do not say them. */
const ARCHITECTURE_DEFAULTS: Readonly<Record<string, { renderer: string; parser: string }>> = {
  gemma4: { renderer: "gemma4", parser: "gemma4" },
  laguna: { renderer: "laguna", parser: "laguna" },
  nemotron_h: { renderer: "nemotron-3-nano", parser: "nemotron-3-nano" },
  nemotron_h_moe: { renderer: "nemotron-3-nano", parser: "nemotron-3-nano" },
}

/**
 * The config of the new model.
 *
 * @param weights Of all its model layers; the last one is the one that runs.
 */
export function configOf(
  base: ModelConfig,
  weights: readonly ModelFacts[],
  draft: ModelFacts | undefined,
  texts: CreateTexts,
): object {
  const facts = weights.at(-1)
  const { info } = texts
  const defaults = ARCHITECTURE_DEFAULTS[facts?.architecture ?? ""]
  return withoutEmpty({
    model_format: base.model_format ?? "gguf",
    model_family: info.model_family ?? facts?.architecture,
    model_families: [...new Set(weights.map(({ architecture }) => architecture))],
    model_type: info.parameter_size ?? facts?.parameterLabel,
    file_type: info.quantization_level ?? facts?.quantization,
    renderer: texts.renderer || base.renderer || defaults?.renderer,
    parser: texts.parser || base.parser || defaults?.parser,
    requires: texts.requires === undefined ? base.requires : semverOf(texts.requires),
    capabilities: info.capabilities ?? base.capabilities,
    context_length: info.context_length,
    embedding_length: info.embedding_length,
    base_name: info.base_name ?? base.base_name,
    draft:
      draft === undefined ? base.draft : { model_format: "gguf", architecture: draft.architecture },
    // Always these, whatever the machine: images of containers must have them.
    architecture: "amd64",
    os: "linux",
  })
}

function withoutEmpty(fields: Readonly<Record<string, unknown>>): object {
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined))
}
