/**
 * A loaded model: facts, vocabulary, tokenisation, and what is made from it.
 *
 * @module
 */

import { Vocabulary } from "../src/engine/vocabulary.ts"
import { assert } from "../src/util/errors.ts"
import { encode, type NativeLibrary, nonEmpty } from "./native.ts"

/** Shorter texts are read in a few hundredths of a second. */
const ASIDE_CHARS = 2 ** 14

/** How late the end of a long text may be seen. */
const ASIDE_POLL_MS = 2

/** How weights come into memory. `auto` maps the file unless a device cannot. */
export type LoadMode = "auto" | "none" | "mmap" | "mlock" | "direct"

/** A GGUF file that is put together while it is read. It cannot be mapped. */
export interface ModelView {
  readonly header: Uint8Array
  /** Of the whole. */
  readonly bytes: number
  /** Bytes of a file (`from`) and where they come (`at`), in order. */
  readonly ranges: readonly {
    readonly path: string
    readonly from: number
    readonly at: number
    readonly bytes: number
  }[]
}

/** What to load. */
export interface ModelOptions {
  /** One GGUF file, or all parts of a split one in order. */
  readonly paths: readonly string[]
  /** Read instead of the files: a header, and bytes of files behind it; see `cria_model_load`. */
  readonly view?: ModelView | undefined
  /** GGUF files of LoRA adapters: every context of the model uses them. */
  readonly adapters?: readonly string[]
  /** Layers on the GPU; −1 all. */
  readonly gpuLayers?: number
  readonly mainGpu?: number
  readonly loadMode?: LoadMode
  /** Only the vocabulary: tokenisation works, nothing else. */
  readonly vocabularyOnly?: boolean
}

/** Facts of a loaded model, from `cria_model_info`. */
export interface ModelInfo {
  readonly architecture: string
  readonly description: string
  readonly parameters: number
  readonly tensor_bytes: number
  readonly trained_context: number
  readonly embedding_length: number
  readonly layers: number
  /** Sliding window in tokens, 0 without. */
  readonly window: number
  readonly recurrent: boolean
  readonly hybrid: boolean
  readonly encoder: boolean
  readonly decoder: boolean
  readonly diffusion: boolean
  /** Jinja source, empty when the file has none. */
  readonly chat_template: string
  readonly vocab: {
    readonly tokens: number
    readonly type: string
    readonly add_bos: boolean
    readonly add_eos: boolean
    /** −1 where there is none. */
    readonly bos: number
    readonly eos: number
    readonly eot: number
    readonly eog: readonly number[]
    readonly fim_prefix: number
    readonly fim_suffix: number
    readonly fim_middle: number
  }
}

/** How a text becomes tokens. */
export interface TokenizeOptions {
  /** Add BOS and EOS as the model wants them. */
  readonly addSpecial: boolean
  /** Read the names of control tokens as tokens. Never for text that a user wrote. */
  readonly parseSpecial: boolean
}

interface AsideOptions extends TokenizeOptions {
  readonly signal?: AbortSignal | undefined
}

/** A model in memory. Dispose its contexts first. */
export class NativeModel implements Disposable {
  readonly library: NativeLibrary
  readonly handle: number
  readonly info: ModelInfo
  /** At least some layers are on a GPU. */
  readonly isOnGpu: boolean
  #vocabulary: Vocabulary | undefined
  /** Settles when the long texts so far are read. */
  #aside: Promise<unknown> = Promise.resolve()
  #isDisposed = false

  /** Takes ownership of a handle; use {@link loadModel}. */
  constructor(library: NativeLibrary, handle: number, isOnGpu: boolean) {
    this.library = library
    this.handle = handle
    this.isOnGpu = isOnGpu
    this.info = library.json(library.functions.cria_model_info(handle), "Cannot read the model")
  }

  /** Text of every token. Read once, about 10 ms for 150,000 tokens. */
  get vocabulary(): Vocabulary {
    this.#vocabulary ??= this.#readVocabulary()
    return this.#vocabulary
  }

  /** Tokens of a text. */
  tokenize(text: string, options: TokenizeOptions): Int32Array {
    const flags = flagsOf(options)
    const [bytes, length] = encode(text)
    const action = "Cannot tokenize"
    let tokens = new Int32Array(length + 8)
    const { cria_tokenize: call } = this.#functions
    const count = this.library.check(
      call(this.handle, bytes, length, tokens, tokens.length, flags),
      action,
    )
    if (count > tokens.length) {
      tokens = new Int32Array(count)
      this.library.check(call(this.handle, bytes, length, tokens, count, flags), action)
    }
    return tokens.subarray(0, count)
  }

  /**
   * Like {@link tokenize}, but long texts keep the event loop free: they are read on another thread, one after the
   * other.
   *
   * @throws The signal's reason when it was aborted before that.
   */
  async tokenizeAside(text: string, options: AsideOptions): Promise<Int32Array> {
    if (text.length < ASIDE_CHARS) return this.tokenize(text, options)
    const tokens = this.#aside.then(() => this.#tokenizeInJob(text, options))
    this.#aside = Promise.allSettled([tokens])
    return tokens
  }

  [Symbol.dispose](): void {
    if (this.#isDisposed) return
    this.library.check(this.#functions.cria_model_free(this.handle), "Cannot free the model")
    this.#isDisposed = true
  }

  async #tokenizeInJob(text: string, options: AsideOptions): Promise<Int32Array> {
    options.signal?.throwIfAborted()
    const { library } = this
    const [bytes, length] = encode(text)
    const action = "Cannot tokenize"
    const job = this.#functions.cria_tokenize_job(this.handle, bytes, length, flagsOf(options))
    const handle = await library.finish(job, action, { pollMs: ASIDE_POLL_MS })
    const { cria_tokens_take: take } = library.functions
    const count = library.check(take(handle, new Int32Array(1), -1), action)
    const tokens = new Int32Array(Math.max(1, count))
    library.check(take(handle, tokens, tokens.length), action)
    return tokens.subarray(0, count)
  }

  get #functions(): NativeLibrary["functions"] {
    assert(!this.#isDisposed, "a model is used after disposal")
    return this.library.functions
  }

  #readVocabulary(): Vocabulary {
    const { cria_model_pieces: call } = this.#functions
    const size = this.info.vocab.tokens
    const offsets = new Int32Array(size + 1)
    const attributes = new Uint8Array(size)
    const action = "Cannot read the vocabulary"
    const read = (bytes: Uint8Array, capacity: number) =>
      this.library.check(
        call(this.handle, bytes, capacity, offsets, nonEmpty(attributes, new Uint8Array(1))),
        action,
      )
    const total = read(new Uint8Array(1), -1)
    const bytes = new Uint8Array(Math.max(1, total))
    read(bytes, total)
    return new Vocabulary(bytes, offsets, attributes)
  }
}

function flagsOf(options: TokenizeOptions): number {
  return (options.addSpecial ? 1 : 0) + (options.parseSpecial ? 2 : 0)
}

/**
 * Loads a model on a thread of its own.
 *
 * @param options.onProgress Fractions from 0 to 1.
 * @throws {CriaError} `invalid-input` when llama.cpp cannot load the file, with its reasons; `insufficient-memory` when
 * there is none left for it; the signal's reason when it was aborted.
 */
export async function loadModel(
  library: NativeLibrary,
  options: ModelOptions & { onProgress?: (fraction: number) => void; signal?: AbortSignal },
): Promise<NativeModel> {
  const { header = new Uint8Array(), ...view } = options.view ?? {}
  const config = encode(
    JSON.stringify({
      paths: options.paths,
      ...(options.view === undefined ? {} : { view }),
      adapters: options.adapters ?? [],
      gpu_layers: options.gpuLayers ?? -1,
      load_mode: options.loadMode ?? "auto",
      vocab_only: options.vocabularyOnly ?? false,
      ...(options.mainGpu === undefined ? {} : { main_gpu: options.mainGpu, split_mode: "none" }),
    }),
  )
  const action = `Cannot load "${options.paths[0] ?? ""}"`
  const job = library.functions.cria_model_load(
    ...config,
    nonEmpty(header, new Uint8Array(1)),
    header.length,
  )
  const handle = await library.finish(job, action, { ...options, nativeCode: "invalid-input" })
  return new NativeModel(library, handle, options.gpuLayers !== 0 && library.gpus().length > 0)
}
