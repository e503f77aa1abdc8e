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
   * @param requested The client's own text; errors quote it.
   * @throws {CriaError} `invalid-input` for a name that cannot be one, `not-found` when it is not installed.
   */
  resolve(requested: string): RunnableModel {
    const { base, source } = splitSource(requested)
    if (source === "cloud") {
      throw new CriaError("invalid-input", "ollama cloud is disabled: remote model is unavailable")
    }
    const name = parseName(base)
    const stored = resolveModel(this.store, name, requested)
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

/** In the order in which Ollama reports them. */
export function capabilitiesOf(stored: ResolvedModel, facts: ModelFacts): Capability[] {
  const found = new Set<Capability>()
  for (const name of stored.config.capabilities ?? []) if (isCapability(name)) found.add(name)
  const template = facts.chatTemplate ?? ""
  if (template.includes("tools") || template.includes("tool_call")) found.add("tools")
  if (template.includes("<think>") && template.includes("</think>")) found.add("thinking")
  if (facts.poolingType !== undefined) found.add("embedding")
  else found.add("completion")
  if (facts.hasVision || stored.projectorPaths.length > 0) found.add("vision")
  if (facts.hasAudio) found.add("audio")
  return [...found]
}

function isCapability(name: string): name is Capability {
  return ["completion", "tools", "thinking", "embedding", "vision", "audio"].includes(name)
}
