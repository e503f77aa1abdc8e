/**
 * From the name in a request to a model that can be run: files, facts, parameters, capabilities.
 *
 * @module
 */

import { statSync } from "node:fs"

import { type ModelFacts, modelFacts } from "../gguf/facts.ts"
import type { GgufHeader } from "../gguf/format.ts"
import { readModel } from "../gguf/split.ts"
import { fullName, parseName, shortName, splitSource } from "../store/name.ts"
import { type ResolvedModel, resolveModel } from "../store/resolve.ts"
import type { ModelStore } from "../store/store.ts"
import { CriaError } from "../util/errors.ts"

/** What a model can do, in the words of Ollama's API. */
export type Capability = "completion" | "tools" | "thinking" | "embedding" | "vision" | "audio"

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
}

/** What a model is wanted for: to answer, or to be described. */
export type Purpose = "inference" | "details"

/** Headers kept in memory: a large vocabulary costs some 20 ms to check. */
const HEADERS_MAX = 64

interface Known {
  readonly stamp: string
  readonly header: GgufHeader
  readonly facts: ModelFacts
}

/** Looks models up in a store and remembers what their files say. */
export class Resolver {
  readonly store: ModelStore
  readonly #known = new Map<string, Known>()

  constructor(store: ModelStore) {
    this.store = store
  }

  /**
   * @param requested The client's own text.
   * @param purpose What the model is wanted for: Ollama words the errors after it.
   * @throws {CriaError} `invalid-input` for a name that cannot be one, `not-found` when it is not installed.
   */
  resolve(requested: string, purpose: Purpose = "inference"): RunnableModel {
    const { base, source } = splitSource(requested)
    if (source === "cloud") throw cloudError(purpose)
    const name = parseName(base)
    const quoted = purpose === "details" ? shortName(name) : requested
    const stored = resolveModel(this.store, name, quoted)
    const { header, facts } = this.#read(stored.modelPath, shortName(stored.name))
    return {
      name: shortName(stored.name),
      fullName: fullName(stored.name),
      stored,
      facts,
      header,
      capabilities: capabilitiesOf(stored, facts),
    }
  }

  #read(path: string, label: string): Known {
    const { mtimeMs, size } = statSync(path)
    const stamp = `${mtimeMs}:${size}`
    const known = this.#known.get(path)
    if (known?.stamp === stamp) return known
    const { header, otherParts } = readModel(path, { label })
    const fresh = { stamp, header, facts: modelFacts(header, otherParts) }
    this.#known.delete(path)
    this.#known.set(path, fresh)
    const [oldest] = this.#known.keys()
    if (this.#known.size > HEADERS_MAX && oldest !== undefined) this.#known.delete(oldest)
    return fresh
  }
}

/** Ollama's words. Its status is 403, for which we have no code; clients look at the words. */
function cloudError(purpose: Purpose): CriaError {
  const what = purpose === "details" ? "remote model details are" : "remote model is"
  return new CriaError("invalid-input", `ollama cloud is disabled: ${what} unavailable`)
}

/** Models with the same files share a runner, whatever their texts and parameters. */
export function runnerKey({ stored }: RunnableModel): string {
  return [stored.modelPath, ...stored.adapterPaths].join("\n")
}

/** In the order in which Ollama reports them. */
export function capabilitiesOf(stored: ResolvedModel, facts: ModelFacts): Capability[] {
  const found = new Set<Capability>()
  for (const name of stored.config.capabilities ?? []) if (isCapability(name)) found.add(name)
  const template = facts.chatTemplate ?? ""
  if (template.includes("tools") || template.includes("tool_call")) found.add("tools")
  if (canThink(template) || isGptOss(facts)) found.add("thinking")
  if (facts.poolingType !== undefined) found.add("embedding")
  else found.add("completion")
  if (facts.hasVision || stored.projectorPaths.length > 0) found.add("vision")
  if (facts.hasAudio) found.add("audio")
  return [...found]
}

/** Templates show it by both tags, or by cutting the thoughts of earlier turns off. */
function canThink(template: string): boolean {
  if (template.includes("<think>") && template.includes("</think>")) return true
  const isCut = /split\(\s*(["'])<\/think>\1\s*\)/.test(template)
  return isCut && !/reasoning_content|<SPECIAL_12>/.test(template)
}

/** It thinks in channels, not between tags. Ollama's own files spell its architecture without the hyphen. */
export function isGptOss({ architecture }: ModelFacts): boolean {
  return architecture === "gpt-oss" || architecture === "gptoss"
}

function isCapability(name: string): name is Capability {
  return ["completion", "tools", "thinking", "embedding", "vision", "audio"].includes(name)
}
