/**
 * From the name in a request to a model that can be run: files, facts, parameters, capabilities.
 *
 * @module
 */

import { statSync } from "node:fs"

import type { ChatTemplate } from "../chat/go-chat.ts"
import { type ModelFacts, modelFacts } from "../gguf/facts.ts"
import type { GgufHeader } from "../gguf/format.ts"
import { readModel } from "../gguf/split.ts"
import { fullName, parseName, shortName, splitSource } from "../store/name.ts"
import {
  findRemote,
  remoteError,
  type RemoteModel,
  type ResolvedModel,
  resolveModel,
} from "../store/resolve.ts"
import type { ModelStore } from "../store/store.ts"
import { canThink, hasTools, isGptOss, readTemplate, usesGoTemplate } from "./template.ts"

/** What a model can do, in the words of Ollama's API. */
export type Capability = (typeof CAPABILITIES)[number]

const CAPABILITIES = [
  "completion",
  "tools",
  "thinking",
  "embedding",
  "vision",
  "audio",
  "insert",
] as const

/** A model with everything that serving it needs. */
export interface RunnableModel {
  /** Short name, as lists show it. */
  readonly name: string
  /** With registry and namespace, as some errors show it. */
  readonly fullName: string
  readonly stored: ResolvedModel
  readonly facts: ModelFacts
  readonly header: GgufHeader
  readonly capabilities: readonly Capability[]
  /** The Modelfile's template; undefined when prompts are made with the one in the model's file. */
  readonly template: ChatTemplate | undefined
}

/** What a model is wanted for: to answer, or to be described. */
export type Purpose = "inference" | "details"

/** Headers and templates kept in memory: a large vocabulary costs some 20 ms to check. */
const KNOWN_MAX = 64

interface Known {
  readonly stamp: string
  readonly header: GgufHeader
  readonly facts: ModelFacts
}

/** Looks models up in a store and remembers what their files say. */
export class Resolver {
  readonly store: ModelStore
  readonly #goTemplate: boolean | undefined
  readonly #known = new Map<string, Known>()
  readonly #templates = new Map<string, ChatTemplate>()

  /** @param options.goTemplate Whether Go templates win over those in models' files; undefined: the better one. */
  constructor(store: ModelStore, { goTemplate }: { goTemplate?: boolean | undefined } = {}) {
    this.store = store
    this.#goTemplate = goTemplate
  }

  /**
   * @param requested The client's own text.
   * @param purpose What the model is wanted for: Ollama words the errors after it.
   * @throws {CriaError} `invalid-input` for a name that cannot be one, `not-found` when it is not installed.
   */
  resolve(requested: string, purpose: Purpose = "inference"): RunnableModel {
    const { base, source } = splitSource(requested)
    if (source === "cloud") throw remoteError(purpose === "details" ? "details" : "model")
    const name = parseName(base)
    const quoted = purpose === "details" ? shortName(name) : requested
    const stored = resolveModel(this.store, name, quoted)
    const { header, facts } = this.#read(stored.modelPath, shortName(stored.name))
    const template = this.#template(stored, facts, purpose)
    return {
      name: shortName(stored.name),
      fullName: fullName(stored.name),
      stored,
      facts,
      header,
      capabilities: capabilitiesOf(stored, facts, template),
      template,
    }
  }

  /** The stub of a model that answers on another machine; undefined when the name is not that of one. */
  remote(requested: string): RemoteModel | undefined {
    const { base, source } = splitSource(requested)
    return source === "cloud" ? undefined : findRemote(this.store, parseName(base))
  }

  /** A template that cannot be read is no reason not to describe a model. */
  #template(stored: ResolvedModel, facts: ModelFacts, purpose: Purpose): ChatTemplate | undefined {
    const source = stored.template
    if (source === undefined) return undefined
    try {
      const template = this.#templates.get(source) ?? readTemplate(source)
      keepLatest(this.#templates, source, template)
      const options = { facts, forced: this.#goTemplate }
      return usesGoTemplate(template, stored, options) ? template : undefined
    } catch (error) {
      if (purpose === "details") return undefined
      throw error
    }
  }

  #read(path: string, label: string): Known {
    const { mtimeMs, size } = statSync(path)
    const stamp = `${mtimeMs}:${size}`
    const known = this.#known.get(path)
    if (known?.stamp === stamp) return known
    const { header, otherParts } = readModel(path, { label })
    const fresh = { stamp, header, facts: modelFacts(header, otherParts) }
    keepLatest(this.#known, path, fresh)
    return fresh
  }
}

function keepLatest<T>(known: Map<string, T>, key: string, value: T): void {
  known.delete(key)
  known.set(key, value)
  const [oldest] = known.keys()
  if (known.size > KNOWN_MAX && oldest !== undefined) known.delete(oldest)
}

/** Models with the same files share a runner, whatever their texts and parameters. */
export function runnerKey({ stored }: RunnableModel): string {
  return [stored.modelPath, ...stored.adapterPaths].join("\n")
}

/** In the order in which Ollama reports them. */
function capabilitiesOf(
  stored: ResolvedModel,
  facts: ModelFacts,
  template: ChatTemplate | undefined,
): Capability[] {
  const found = new Set<Capability>()
  for (const name of stored.config.capabilities ?? []) {
    // Without a template for it that is a promise which cannot be kept.
    if (isCapability(name) && name !== "insert") found.add(name)
  }
  const jinja = facts.chatTemplate ?? ""
  if (template?.hasTools ?? hasTools(jinja)) found.add("tools")
  const thinks = template === undefined ? canThink(jinja) : template.thinking !== undefined
  if (thinks || isGptOss(facts)) found.add("thinking")
  if (facts.poolingType !== undefined) found.add("embedding")
  else found.add("completion")
  if (facts.hasVision || stored.projectorPaths.length > 0) found.add("vision")
  if (facts.hasAudio) found.add("audio")
  if (template?.hasSuffix === true) found.add("insert")
  return [...found]
}

function isCapability(name: string): name is Capability {
  return CAPABILITIES.some((known) => known === name)
}
