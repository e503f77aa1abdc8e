/**
 * The whole app over a store in a temporary folder, with runners that say what the test wants: for tests.
 *
 * Everything but the runner processes is real: names, manifests, GGUF headers, options, the pool.
 *
 * @module
 */

import { hash } from "node:crypto"
import { mkdirSync, writeFileSync } from "node:fs"
import { dirname, join } from "node:path"

import type { ChatEvent } from "../chat/message.ts"
import { type Config, readConfig } from "../config.ts"
import { encodeGguf, type GgufInput, packStrings, text, u32 } from "../gguf/write.ts"
import { Pool } from "../pool/pool.ts"
import { mirrorHost } from "../registry/hub.ts"
import { loadIdentity } from "../registry/identity.ts"
import type { AnswerRequest, EngineStatus, LoadedFacts, LoadOptions } from "../runner/protocol.ts"
import { blobFilePath, parseDigest } from "../store/digest.ts"
import { openStore } from "../store/folder-store.ts"
import { MEDIA_TYPES } from "../store/manifest.ts"
import { type TestLayer, TestStore } from "../store/test-store.ts"
import type { Logger } from "../util/log.ts"
import type { App } from "./app.ts"
import { Catalog } from "./catalog.ts"
import { Generator, type ModelRunner } from "./generate.ts"
import { Library } from "./library.ts"
import { withDefaults } from "./options.ts"
import { Resolver } from "./resolve.ts"
import type { Stores } from "./stores.ts"
import { Transfers } from "./transfer.ts"

/** What a model of a test says about itself. */
export interface TestModel {
  readonly architecture?: string
  /** Jinja. */
  readonly chatTemplate?: string
  readonly metadata?: Readonly<Record<string, GgufInput>>
  readonly config?: object
  readonly system?: string
  readonly params?: object
  readonly messages?: readonly object[]
  readonly licenses?: readonly string[]
  /** Go template. */
  readonly template?: string
  /** Metadata of a projector. */
  readonly projector?: Readonly<Record<string, GgufInput>>
  readonly hasDraft?: boolean
  /** The model that the weights were taken from. */
  readonly from?: string
}

/** A chat template of a model that can think and call tools. */
export const ABLE_TEMPLATE = "{{ tools }}{{ messages }}<think></think>"

/** Starts this program as a process of its own. */
const SELF = [process.execPath, join(import.meta.dirname, "../main.ts")]

/** Usage of every scripted answer. */
export const TEST_USAGE = {
  promptTokens: 11,
  cachedTokens: 4,
  completionTokens: 2,
  shiftedTokens: 0,
  preemptions: 0,
  queueMs: 0,
  promptMs: 30,
  decodeMs: 41,
} as const

/** What every scripted engine says of itself. */
export const TEST_STATUS: EngineStatus = {
  running: 1,
  waiting: 2,
  freeCells: 3,
  activeCells: 4,
  cachedCells: 5,
  totalCells: 12,
  counters: {
    accepted: 5,
    finished: 2,
    aborted: 0,
    failed: 0,
    refused: 0,
    steps: 6,
    reusedGraphs: 0,
    promptTokens: 7,
    cachedTokens: 0,
    completionTokens: 8,
    preemptions: 0,
    evictedTokens: 0,
    savedTokens: 0,
    restoredTokens: 0,
    queueMs: 0,
    decodeMs: 9.5,
    sampleMs: 1.5,
    betweenMs: 0.5,
  },
  step: { tokens: 3, promptTokens: 2, rows: 1, decodeMs: 9.5, sampleMs: 1.5, betweenMs: 0.5 },
  requests: [
    {
      state: "waiting",
      position: 1,
      priority: "batch",
      client: "",
      promptTokens: 7,
      cachedTokens: 0,
      computedTokens: 0,
      completionTokens: 0,
      preemptions: 0,
      ageMs: 12,
    },
  ],
}

/** A part of an answer. */
export function delta(content: string, fields: { thinking?: string } = {}): ChatEvent {
  return { kind: "delta", content, thinking: "", logprobs: [], ...fields }
}

/** A call of a tool. */
export function toolCall(name: string, args: string, id = "call_1"): ChatEvent {
  return { kind: "tool-call", call: { id, name, arguments: args } }
}

/** The end of an answer. */
export function done(fields: Partial<Extract<ChatEvent, { kind: "done" }>> = {}): ChatEvent {
  return { kind: "done", reason: "stop", usage: TEST_USAGE, droppedMessages: 0, ...fields }
}

/** What a runner was asked. */
type Script = (request: AnswerRequest, signal?: AbortSignal) => AsyncIterable<ChatEvent>

/** A runner without a process. */
class ScriptedRunner implements ModelRunner {
  readonly facts: LoadedFacts
  readonly exited: Promise<void>
  readonly isUsable = true
  readonly #exit = Promise.withResolvers<void>()
  readonly #app: TestApp

  constructor(app: TestApp, load: LoadOptions) {
    const { contextTokens = 8192, parallel = 1, cacheType = "f16", flashAttention = "auto" } = load
    this.#app = app
    this.facts = {
      contextTokens,
      parallel,
      totalBytes: 1500,
      gpuBytes: 500,
      llamaVersion: "",
      cacheType,
      flashAttention,
    }
    this.exited = this.#exit.promise
  }

  answer(request: AnswerRequest, signal?: AbortSignal): AsyncIterable<ChatEvent> {
    this.#app.requests.push(request)
    return this.#app.script(request, signal)
  }

  render(request: AnswerRequest): Promise<string> {
    this.#app.requests.push(request)
    return this.#app.rendering
  }

  status(): Promise<EngineStatus> {
    return Promise.resolve(TEST_STATUS)
  }

  async *statuses(_intervalMs: number, signal?: AbortSignal): AsyncGenerator<EngineStatus> {
    yield TEST_STATUS
    const left = new Promise<void>((resolve) => signal?.addEventListener("abort", () => resolve()))
    await Promise.race([this.exited, left])
  }

  stop(): Promise<void> {
    this.#exit.resolve()
    return this.exited
  }
}

/** See the module. */
export class TestApp implements App {
  readonly folder: TestStore = new TestStore()
  readonly config: Config
  readonly resolver: Resolver
  readonly stores: Stores
  readonly library: Library
  readonly transfers: Transfers
  readonly catalog: Catalog
  readonly generator: Generator
  readonly pool: Pool<ModelRunner>
  /** Options of every load, in order. */
  readonly loads: LoadOptions[] = []
  /** Whatever runners were asked, in order. */
  readonly requests: AnswerRequest[] = []
  /** Warnings and errors that were logged. */
  readonly complaints: string[] = []
  /** What runners answer. */
  script: Script = () => streamOf(delta("4"), done())
  /** What runners render. */
  rendering: Promise<string> = Promise.resolve("rendered")
  /** What loading waits for; a rejection fails it. */
  loading: Promise<void> = Promise.resolve()
  readonly #firstLoad = Promise.withResolvers<void>()
  /** Keep-alive timers that run: one per model that is loaded and that nobody uses. */
  readonly timers = new Map<symbol, { delayMs: number; callback: () => void }>()

  constructor(env: Readonly<Record<string, string>> = {}) {
    this.config = readConfig(env)
    const { goTemplate } = this.config
    const store = openStore(this.folder.root, { readOnly: false })
    this.stores = { own: store, folders: [store], all: store }
    this.library = new Library(this.stores, { keepsUnused: false, command: SELF })
    this.transfers = new Transfers({
      stores: this.stores,
      cache: join(this.folder.root, "cache"),
      network: {
        userAgent: "cria/test",
        replyMs: 10_000,
        sendMs: 10_000,
        storeMs: 10_000,
        bodyMs: 10_000,
      },
      auth: {
        credential: () => Promise.resolve(undefined),
        identity: () => loadIdentity([join(this.folder.root, "id_ed25519")]),
        realms: [],
      },
      hub: { token: undefined, mirror: mirrorHost(env["HF_ENDPOINT"]) },
      policy: this.config,
      hardware: {
        cacheType: "f16",
        devices: () => Promise.resolve([]),
      },
      patience: { tries: 3, pauseMs: 1, pauseMsMax: 5, stallMs: 1000, stealMs: 200 },
    })
    this.resolver = new Resolver(store, { goTemplate })
    this.pool = new Pool<ModelRunner>(
      {
        start: async (wanted) => {
          const load = withDefaults(wanted, this.config)
          this.loads.push(load)
          this.#firstLoad.resolve()
          await this.loading
          return new ScriptedRunner(this, load)
        },
        now: () => performance.now(),
        setTimer: (delayMs, callback) => {
          const key = Symbol()
          this.timers.set(key, { delayMs, callback })
          return () => this.timers.delete(key)
        },
      },
      this.config,
    )
    const { config, log, pool, resolver } = this
    this.catalog = new Catalog({ resolver, pool, log })
    this.generator = new Generator({ resolver, pool, config, log })
  }

  /** Keeps what someone should see. */
  get log(): Logger {
    const keep = (message: string, fields: object = {}) => {
      this.complaints.push([message, ...Object.values(fields).map(String)].join(" "))
    }
    return { debug() {}, info() {}, warn: keep, error: keep }
  }

  /** Resolves when a load has begun. */
  get firstLoad(): Promise<void> {
    return this.#firstLoad.promise
  }

  /** Models that are loaded and in use. */
  get leases(): number {
    return this.pool.list().filter(({ state }) => state === "ready").length - this.timers.size
  }

  /** Installs a model; returns the path of its manifest. */
  async install(name: string, model: TestModel = {}): Promise<string> {
    const { projector, hasDraft = false, from } = model
    const weights = await this.#weights(name, model)
    const others = [
      ...(projector === undefined ? [] : [[MEDIA_TYPES.projector, projector] as const]),
      ...(hasDraft ? [[MEDIA_TYPES.draft, {}] as const] : []),
    ]
    const encoded = others.map(([type, fields]) => this.#gguf(type, fields))
    const layer = (mediaType: string, content: string | object | undefined): TestLayer[] => {
      if (content === undefined) return []
      const written = typeof content === "string" ? content : JSON.stringify(content)
      return [this.folder.blob(mediaType, written)]
    }
    return this.folder.model(
      name,
      [
        { ...weights, ...(from === undefined ? {} : { from }) },
        ...(await Promise.all(encoded)),
        ...layer(MEDIA_TYPES.template, model.template),
        ...layer(MEDIA_TYPES.system, model.system),
        ...layer(MEDIA_TYPES.params, model.params),
        ...layer(MEDIA_TYPES.messages, model.messages),
        ...(model.licenses ?? []).flatMap((license) => layer(MEDIA_TYPES.license, license)),
      ],
      model.config,
    )
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.pool[Symbol.asyncDispose]()
    await this.transfers[Symbol.asyncDispose]()
    this.folder[Symbol.dispose]()
  }

  #weights(name: string, model: TestModel): Promise<TestLayer> {
    const { architecture = "llama", chatTemplate, metadata = {} } = model
    return this.#gguf(MEDIA_TYPES.model, {
      "general.architecture": text(architecture),
      "general.name": text(name),
      "general.file_type": u32(15),
      [`${architecture}.context_length`]: u32(8192),
      [`${architecture}.embedding_length`]: u32(2048),
      "tokenizer.ggml.tokens": packStrings(["a", "b"]),
      ...(chatTemplate === undefined ? {} : { "tokenizer.chat_template": text(chatTemplate) }),
      ...metadata,
    })
  }

  /** Writes a GGUF file without tensors as a blob. */
  async #gguf(mediaType: string, fields: Readonly<Record<string, GgufInput>>): Promise<TestLayer> {
    const metadata = new Map(Object.entries(fields))
    const chunks = await Array.fromAsync(encodeGguf({ metadata, tensors: [] }))
    const bytes = Buffer.concat(chunks)
    const digest = parseDigest(`sha256:${hash("sha256", bytes, "hex")}`)
    const path = blobFilePath(this.folder.root, digest)
    mkdirSync(dirname(path), { recursive: true })
    writeFileSync(path, bytes)
    return { mediaType, digest, size: bytes.length }
  }
}

/** The events of an answer. */
export async function* streamOf(...events: readonly ChatEvent[]): AsyncGenerator<ChatEvent> {
  yield* events
}

/** The events of an answer that breaks. */
export async function* breakingAfter(
  error: Error,
  ...events: readonly ChatEvent[]
): AsyncGenerator<ChatEvent> {
  yield* events
  throw error
}
