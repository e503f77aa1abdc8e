/**
 * One model loaded in this process: files → weights and context → engine → answers and embeddings.
 *
 * The runner process holds one for the server; programs that embed cria hold as many as they like.
 *
 * @module
 */

import { hash } from "node:crypto"

import { createBackend, type NativeBackend } from "../../ffi/backend.ts"
import { type LoadMode, loadModel, type NativeModel } from "../../ffi/model.ts"
import type { NativeLibrary } from "../../ffi/native.ts"
import type { ChatEvent } from "../chat/message.ts"
import { Embedder } from "../engine/embedder.ts"
import type { EngineStatus } from "../engine/engine-status.ts"
import { Engine } from "../engine/engine.ts"
import type { SamplingOptions } from "../engine/sampling.ts"
import { kvBytesPerToken, type ModelFacts, modelFacts, windowBytesPerToken } from "../gguf/facts.ts"
import { readModel } from "../gguf/split.ts"
import { readLoadable } from "../gguf/translate.ts"
import { assert, CriaError } from "../util/errors.ts"
import { memoryState } from "../util/memory.ts"
import { physicalCores } from "../util/processor.ts"
import { answerEvents } from "./answer.ts"
import { CACHE_DEFAULT, cacheTypesOf, checkLoad, tensorTypeOf } from "./check-load.ts"
import type { DiskTier } from "./disk-tier.ts"
import { fitContext, type FitFacts, type FitWishes } from "./fit.ts"
import { loadNotes } from "./load-notes.ts"
import { ParseShare } from "./parse-share.ts"
import { type PreparedPrompt, PromptBuilder } from "./prompt.ts"
import type { AnswerRequest, LoadedFacts, LoadOptions } from "./request.ts"
import { planSequences } from "./sequence-plan.ts"
import { keptTokens } from "./shift.ts"
import { afterThinking } from "./thinking-grammar.ts"
import { createTiers, type StateIdentity, type TierHooks, type Tiers } from "./tiers.ts"

/** Tokens in a step: llama.cpp's own default, beyond which prefill gets no faster on CPUs. */
const BATCH_TOKENS = 512

/** Requests of one burst come within so much of each other, one by one through the server. */
const GATHER_MS = 6

/** Texts in a step. */
const EMBEDDING_SEQUENCES = 32

/** An embedding context keeps a row of logits per token of a step: this bounds that buffer. */
const EMBEDDING_LOGITS_BYTES = 512 * 2 ** 20

/** Options beside those that cross to a runner. */
export interface LoadHooks extends TierHooks {
  /** Fractions from 0 to 1. */
  readonly onProgress?: (fraction: number) => void
  readonly signal?: AbortSignal
}

/** See the module. Dispose it to free everything. */
export class LocalModel implements AsyncDisposable {
  readonly facts: ModelFacts
  readonly loaded: LoadedFacts
  readonly #model: NativeModel
  readonly #prompts: PromptBuilder
  readonly #parsing = new ParseShare()
  readonly #engine: Engine
  readonly #options: LoadOptions
  readonly #disk: DiskTier | undefined
  #embedder: Promise<Embedder> | undefined

  /** Takes ownership of what was loaded; use {@link LocalModel.load}. */
  constructor(parts: {
    facts: ModelFacts
    loaded: LoadedFacts
    model: NativeModel
    backend: NativeBackend
    options: LoadOptions
    tiers: Tiers
  }) {
    this.facts = parts.facts
    this.loaded = parts.loaded
    this.#model = parts.model
    this.#options = parts.options
    this.#prompts = new PromptBuilder(parts.model)
    this.#disk = parts.tiers.disk
    this.#engine = new Engine(parts.backend, parts.model.vocabulary, {
      contextTokens: parts.loaded.contextTokens,
      parallelMax: parts.loaded.runningMax ?? Infinity,
      gatherMs: GATHER_MS,
      ...(parts.options.queueMax === undefined ? {} : { queueMax: parts.options.queueMax }),
      ...(parts.tiers.all === undefined ? {} : { tier: parts.tiers.all }),
      now: () => performance.now(),
    })
  }

  /**
   * Checks the file, decides the sizes, loads.
   *
   * @throws {CriaError} `invalid-input` when it is no model that llama.cpp can load, `insufficient-memory` when it
   * does not fit.
   */
  static async load(
    library: NativeLibrary,
    options: LoadOptions,
    hooks: LoadHooks = {},
  ): Promise<LocalModel> {
    const { paths, header, otherParts, view } = readLoadable(options.path, options.name)
    const facts = modelFacts(header, otherParts)
    refuseOther(options.name, facts)
    checkLoad(options, facts)
    for (const file of options.adapters ?? []) checkAdapter(file, options.name, facts)
    const fit = fitContext(fitFacts(facts, options), fitWishes(options), availableBytes(library))
    const model = await loadModel(library, {
      paths,
      view,
      adapters: options.adapters ?? [],
      ...hooks,
      gpuLayers: options.gpuLayers ?? -1,
      ...(options.mainGpu === undefined ? {} : { mainGpu: options.mainGpu }),
      loadMode: loadMode(options, library),
    })
    try {
      const { runningMax, ...ids } = planSequences(model.info, fit, options.parallel)
      const backend = await createBackend(model, {
        cells: fit.cells,
        // Each request has to get a token into a step.
        batchTokens: Math.max(
          ids.sequences,
          Math.min(options.batchTokens ?? BATCH_TOKENS, fit.cells),
        ),
        ...ids,
        isWindowFull: fit.isWindowFull,
        ...contextOptions(options),
      })
      const totalBytes = facts.weightsBytes + fit.cacheBytes
      const loaded: LoadedFacts = {
        contextTokens: fit.contextTokens,
        parallel: fit.parallel,
        runningMax,
        notes: loadNotes(options, { ...fit, runningMax }),
        ...(model.info.window === 0 ? {} : { window: fit.isWindowFull ? "kept" : "sliding" }),
        totalBytes,
        gpuBytes: model.isOnGpu ? totalBytes : 0,
        llamaVersion: library.system().llama_version,
        cacheType: options.cacheType ?? CACHE_DEFAULT,
        flashAttention: options.flashAttention ?? "auto",
      }
      for (const note of loaded.notes ?? []) hooks.warn?.(note)
      const files = [...paths, ...(options.adapters ?? [])]
      const settings = stateSettings(options, facts, { backend, library })
      const translated = view === undefined ? "" : hash("sha256", view.header, "hex")
      const identity = { files, settings: { ...settings, translated } }
      const tiers = createTiers(options, identity, hooks)
      return new LocalModel({ facts, loaded, model, backend, options, tiers })
    } catch (error) {
      model[Symbol.dispose]()
      throw error
    }
  }

  get status(): EngineStatus {
    return this.#engine.status
  }

  /** Resolves with the reason when nothing can be computed any more. */
  get broken(): Promise<CriaError> {
    return this.#engine.broken
  }

  /** The status after each step; see {@link Engine.statuses}. */
  statuses(signal?: AbortSignal): AsyncGenerator<EngineStatus> {
    return this.#engine.statuses(signal)
  }

  /** Renders the prompt of a request without answering it. */
  async render(request: AnswerRequest): Promise<string> {
    return (await this.#prepare(request)).text
  }

  /**
   * Answers a request. The iteration ends with `done`; leaving it early frees what the request holds.
   *
   * @throws {CriaError} `invalid-input` for a prompt, an option or a grammar that cannot be used.
   */
  async *answer(request: AnswerRequest, signal?: AbortSignal): AsyncGenerator<ChatEvent> {
    // A long prompt is not read for nothing.
    this.#engine.checkQueue()
    const prompt = await this.#prepare(request, signal)
    const { rendered } = prompt
    const events = this.#engine.submit(
      {
        prompt: prompt.tokens,
        sampling: this.#sampling(request, prompt),
        maxTokens: request.maxTokens ?? Infinity,
        ...(request.contextTokens === undefined ? {} : { contextTokens: request.contextTokens }),
        stop: [...request.stop, ...(rendered?.stops ?? [])],
        ...(request.logprobs === undefined ? {} : { logprobs: request.logprobs }),
        ...(request.shift === undefined
          ? {}
          : { shift: { keepTokens: this.#kept(request.shift.keepTokens, request, prompt) } }),
        ...request.terms,
        shownControl: this.#shownControl(prompt),
        ...(rendered === undefined || !rendered.grammar_lazy || rendered.grammar === ""
          ? {}
          : {
              lazyGrammar: {
                gbnf: rendered.grammar,
                triggers: rendered.triggers,
                thinkingStart: rendered.thinking_start,
                thinkingEnds: rendered.thinking_ends,
                before: rendered.generation_prompt,
              },
            }),
      },
      signal,
    )
    yield* answerEvents(events, {
      library: this.#model.library,
      vocabulary: this.#model.vocabulary,
      prompt,
      parsing: this.#parsing,
      hasTools: request.input.kind === "chat" && request.input.tools.length > 0,
      wantsContext: request.wantsContext,
    })
  }

  /**
   * Turns texts into vectors of Euclidean length 1, in order. Models without a pooling of their own use the mean.
   *
   * @throws {CriaError} `invalid-input` for an empty text or one that is too long.
   */
  async embed(texts: readonly string[]): Promise<Float32Array[]> {
    const embedder = await this.#openEmbedder()
    const inputs = await Promise.all(
      texts.map((text) =>
        this.#model.tokenizeAside(text, { addSpecial: true, parseSpecial: false }),
      ),
    )
    return embedder.embed(inputs)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#engine[Symbol.asyncDispose]()
    await this.#disk?.flush()
    const embedder = await this.#embedder?.catch(() => undefined)
    await embedder?.[Symbol.asyncDispose]()
    this.#prompts[Symbol.dispose]()
    this.#model[Symbol.dispose]()
  }

  #prepare(request: AnswerRequest, signal?: AbortSignal): Promise<PreparedPrompt> {
    return this.#prompts.prepare(request, { contextTokens: this.#contextOf(request), signal })
  }

  #contextOf({ contextTokens }: AnswerRequest): number {
    return Math.min(contextTokens ?? Infinity, this.#engine.contextTokens)
  }

  #kept(wanted: number, request: AnswerRequest, { tokens }: PreparedPrompt): number {
    return keptTokens({
      wanted,
      promptTokens: tokens.length,
      contextTokens: this.#contextOf(request),
      hasBos: this.#model.info.vocab.add_bos,
    })
  }

  #sampling(request: AnswerRequest, prompt: PreparedPrompt): SamplingOptions {
    const { rendered, reading } = prompt
    const sampling = { ...request.sampling, history: prompt.tokens }
    if (rendered !== undefined) {
      if (rendered.grammar === "" || rendered.grammar_lazy) return sampling
      const { grammar, generation_prompt: grammarPrefill } = rendered
      return { ...sampling, grammar, grammarPrefill }
    }
    if (request.format === undefined) return sampling
    const grammar = this.#model.library.schemaToGrammar(request.format)
    return {
      ...sampling,
      grammar: reading === undefined ? grammar : afterThinking(grammar, reading),
    }
  }

  /** Control tokens that the answer is read by, and that are therefore text. */
  #shownControl({ rendered, reading }: PreparedPrompt): ReadonlySet<number> {
    if (reading === undefined) return this.#tokensOf(rendered?.preserved ?? [])
    const { thinking, toolTag, toolNames } = reading
    const tags = [
      ...(thinking === undefined ? [] : [thinking.opening, thinking.closing]),
      ...(toolNames.length === 0 ? [] : [toolTag]),
    ]
    const tokens = tags.flatMap((tag) => [
      ...this.#model.tokenize(tag, { addSpecial: false, parseSpecial: true }),
    ])
    return new Set(tokens.filter((token) => this.#model.vocabulary.isControl(token)))
  }

  #tokensOf(names: readonly string[]): ReadonlySet<number> {
    const tokens = names.map((name) =>
      this.#model.tokenize(name, { addSpecial: false, parseSpecial: true }),
    )
    return new Set(tokens.flatMap((ids) => (ids.length === 1 ? [...ids] : [])))
  }

  /** Made when it is first needed. What could not be made is tried again the next time. */
  #openEmbedder(): Promise<Embedder> {
    this.#embedder ??= this.#createEmbedder().catch((error: unknown) => {
      this.#embedder = undefined
      throw error
    })
    return this.#embedder
  }

  async #createEmbedder(): Promise<Embedder> {
    const { vocab, trained_context: trained } = this.#model.info
    const affordable = Math.floor(EMBEDDING_LOGITS_BYTES / (vocab.tokens * 4))
    const most = Math.max(BATCH_TOKENS, Math.min(affordable, 8192))
    const batchTokens = Math.max(EMBEDDING_SEQUENCES, Math.min(trained, most))
    const backend = await createBackend(this.#model, {
      cells: batchTokens,
      batchTokens,
      sequences: EMBEDDING_SEQUENCES,
      embeddings: true,
      pooling: this.facts.poolingType === undefined ? "mean" : "model",
      ...contextOptions(this.#options),
    })
    return new Embedder(backend)
  }
}

/** What the values of a state and their layout depend on, beside the files. */
function stateSettings(
  options: LoadOptions,
  { originalContextLength }: ModelFacts,
  { backend, library }: { backend: NativeBackend; library: NativeLibrary },
): StateIdentity["settings"] {
  const { cells, memory, sharing } = backend.info
  return {
    ...cacheTypesOf(options),
    flashAttention: options.flashAttention ?? "auto",
    memory,
    sharing,
    llama: library.system().llama_version,
    // Models with two sets of rope factors choose one by the size of the context.
    isLong: originalContextLength !== undefined && cells > originalContextLength,
  }
}

function contextOptions(options: LoadOptions) {
  const { keys, values } = cacheTypesOf(options)
  return {
    threads: options.threads ?? physicalCores(),
    flashAttention: options.flashAttention ?? "auto",
    cacheTypeK: keys,
    cacheTypeV: values,
  }
}

/**
 * On a CPU weights are read, not mapped, unless the caller wants it otherwise, as in Ollama: they are rearranged for
 * the CPU anyway, which takes mapped ones twice, and memory of our own can have large pages.
 */
function loadMode({ useMmap, gpuLayers }: LoadOptions, library: NativeLibrary): LoadMode {
  if (useMmap !== undefined) return useMmap ? "mmap" : "none"
  return gpuLayers !== 0 && library.gpus().length > 0 ? "auto" : "none"
}

/** llama.cpp loads adapters and projectors too, but only beside a model. */
function refuseOther(name: string, facts: ModelFacts): void {
  if (facts.generalType === "adapter" || facts.architecture === "clip") {
    const kind =
      facts.architecture === "clip" ? "a projector for images or audio" : "a LoRA adapter"
    throw new CriaError("invalid-input", `Cannot run "${name}": it is ${kind}, not a model`)
  }
  if (facts.blockCount === undefined || facts.vocabSize === undefined || facts.weightsBytes === 0) {
    throw new CriaError("invalid-input", `Cannot run "${name}": it has no weights, only metadata`)
  }
}

/** An adapter is made for one architecture; llama.cpp checks the shapes of its tensors when it loads it. */
function checkAdapter(path: string, model: string, { architecture }: ModelFacts): void {
  const adapter = modelFacts(readModel(path, { label: `the adapter of ${model}` }).header)
  if (adapter.generalType !== "adapter" || adapter.architecture !== architecture) {
    throw new CriaError(
      "invalid-input",
      `Cannot use the adapter of "${model}": it is a ${adapter.generalType ?? "model"} for ${adapter.architecture}, expected an adapter for ${architecture}`,
    )
  }
}

function fitFacts(facts: ModelFacts, options: LoadOptions): FitFacts {
  const { keys, values } = cacheTypesOf(options)
  const types = [tensorTypeOf(keys), tensorTypeOf(values)] as const
  return {
    name: options.name,
    weightsBytes: facts.weightsBytes,
    kvBytesPerToken: kvBytesPerToken(facts, ...types),
    windowBytesPerToken: windowBytesPerToken(facts, ...types),
    windowTokens: facts.slidingWindow ?? 0,
    stateBytes: facts.cache.stateBytes,
    trainedTokens: facts.contextLength,
  }
}

function fitWishes(options: LoadOptions): FitWishes {
  const { contextTokens, parallel, isWindowFull, batchTokens = BATCH_TOKENS } = options
  return { contextTokens, parallel, isWindowFull, batchTokens }
}

/** Memory for weights and cache: what the machine and its GPUs have free together, as layers can be in either. */
function availableBytes(library: NativeLibrary): number {
  // Others use the machine's own memory.
  const gpus = library.gpus().filter(({ type }) => type === "gpu")
  const { availableBytes: host } = memoryState()
  assert(host > 0, "memory has a size")
  return host + gpus.reduce((sum, gpu) => sum + gpu.free_bytes, 0)
}
