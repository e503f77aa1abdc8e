/**
 * What a manifest and its config blob look like, and how they are read.
 *
 * Field names are those of the files. Fields that nobody here knows are dropped on reading; that loses nothing,
 * because a manifest is copied and pushed as bytes, and layers of an unknown media type are kept.
 *
 * @module
 */
import { hash } from "node:crypto"

import { z } from "zod"

import { CriaError } from "../util/errors.ts"
import { type Digest, toDigest } from "./digest.ts"
import { readRegularFile } from "./files.ts"
import { parseJson } from "./json.ts"

/** Media types of the manifest, its config and its layers. Layers of other types are carried along unread. */
export const MEDIA_TYPES = {
  manifest: "application/vnd.docker.distribution.manifest.v2+json",
  config: "application/vnd.docker.container.image.v1+json",
  /** GGUF weights. */
  model: "application/vnd.ollama.image.model",
  /** GGUF of the image or audio encoder. */
  projector: "application/vnd.ollama.image.projector",
  /** GGUF LoRA. */
  adapter: "application/vnd.ollama.image.adapter",
  /** GGUF of the draft model for speculative decoding. */
  draft: "application/vnd.ollama.image.draft",
  /** Go template. */
  template: "application/vnd.ollama.image.template",
  /** Go template, in the oldest manifests. */
  prompt: "application/vnd.ollama.image.prompt",
  system: "application/vnd.ollama.image.system",
  /** JSON object of options. */
  params: "application/vnd.ollama.image.params",
  /** JSON array of messages. */
  messages: "application/vnd.ollama.image.messages",
  license: "application/vnd.ollama.image.license",
  /** One safetensors tensor of a model that runs on MLX only. */
  tensor: "application/vnd.ollama.image.tensor",
} as const

/** Longest manifest. The size that container registries accept; 10 000 layers need half of it. */
export const MANIFEST_BYTES_MAX = 4 * 1024 * 1024

/** Most layers. MLX models have one per tensor, which is a few thousand for the largest. */
const LAYERS_MAX = 10_000

/** A reference to a blob. */
export interface Layer {
  readonly mediaType: string
  readonly digest: Digest
  /** Bytes, as the manifest claims. */
  readonly size: number
  /** The model that a derived model took this layer from, as its full or short name. */
  readonly from?: string
  /** Tensor or file name; in `tensor` and `json` layers. */
  readonly name?: string
}

/** What a model consists of. A stub for a cloud model has no layers. */
export interface Manifest {
  readonly schemaVersion: 2
  readonly mediaType?: string
  readonly config: Layer
  readonly layers: readonly Layer[]
  readonly annotations?: Readonly<Record<string, string>> | undefined
}

/** A manifest together with the identity that its bytes have. */
export interface IdentifiedManifest {
  readonly manifest: Manifest
  /** Model id: hex sha256 of the manifest's bytes, without `sha256:`. */
  readonly id: string
}

/** The config blob: what a model is, without opening its weights. */
export interface ModelConfig {
  /** `gguf` or `safetensors`; absent means `gguf`. */
  readonly model_format?: string
  /** GGUF architecture. */
  readonly model_family?: string
  /** Architecture of every model layer. */
  readonly model_families?: readonly string[]
  /** Number of parameters for people: `7B`, `133.70M`. */
  readonly model_type?: string
  /** Quantisation label: `Q4_K_M`. */
  readonly file_type?: string
  readonly renderer?: string
  readonly parser?: string
  /** Least version of the server that runs the model. */
  readonly requires?: string
  /** Set in the stub of a cloud model. */
  readonly remote_host?: string
  readonly remote_model?: string
  readonly capabilities?: readonly string[]
  /** Tokens. */
  readonly context_length?: number
  readonly embedding_length?: number
  readonly base_name?: string
  readonly draft?: DraftConfig
}

/** The part of {@link ModelConfig} that describes a draft model. */
export interface DraftConfig {
  readonly model_format?: string
  readonly architecture?: string
  readonly tensor_prefix?: string
  readonly config?: unknown
}

const optionalText = z.string().exactOptional()
const optionalTexts = z.array(z.string()).exactOptional()
const optionalCount = z.int().nonnegative().exactOptional()

const digestSchema = z.string().transform((text, context) => {
  const digest = toDigest(text)
  if (digest !== undefined) return digest
  context.addIssue("invalid digest format")
  return z.NEVER
})

const layerSchema: z.ZodType<Layer> = z.object({
  mediaType: z.string(),
  digest: digestSchema,
  size: z.int().nonnegative(),
  from: optionalText,
  name: optionalText,
})

const manifestSchema: z.ZodType<Manifest> = z
  .object({
    schemaVersion: z.literal(2),
    mediaType: optionalText,
    config: layerSchema,
    // Go writes an empty list as null. Layers are counted before each one is looked at.
    layers: z
      .array(z.unknown())
      .max(LAYERS_MAX)
      .nullable()
      .transform((layers) => layers ?? [])
      .pipe(z.array(layerSchema)),
    // Nothing that a model needs: what is none does no harm.
    annotations: z.record(z.string(), z.string()).optional().catch(undefined),
  })
  // Clients read the sum as a 64-bit integer; past 2^53 it would be printed as a float.
  .refine((manifest) => Number.isSafeInteger(modelBytes(manifest)), "sizes add up to over 2^53")

/** Go reads null as "not there", and old configs have it. */
function withoutNulls(value: unknown): unknown {
  if (typeof value !== "object" || value === null || Array.isArray(value)) return value
  return Object.fromEntries(Object.entries(value).filter(([, field]) => field !== null))
}

const draftSchema: z.ZodType<DraftConfig> = z.preprocess(
  withoutNulls,
  z.object({
    model_format: optionalText,
    architecture: optionalText,
    tensor_prefix: optionalText,
    config: z.unknown().exactOptional(),
  }),
)

const configSchema: z.ZodType<ModelConfig> = z.preprocess(
  withoutNulls,
  z.object({
    model_format: optionalText,
    model_family: optionalText,
    model_families: optionalTexts,
    model_type: optionalText,
    file_type: optionalText,
    renderer: optionalText,
    parser: optionalText,
    requires: optionalText,
    remote_host: optionalText,
    remote_model: optionalText,
    capabilities: optionalTexts,
    context_length: optionalCount,
    embedding_length: optionalCount,
    base_name: optionalText,
    draft: draftSchema.exactOptional(),
  }),
)

/**
 * Parses the bytes of a manifest, from a file or from a registry.
 *
 * @throws {CriaError} `internal` when they are too many or not a manifest.
 */
export function parseManifest(bytes: Uint8Array): IdentifiedManifest {
  if (bytes.length > MANIFEST_BYTES_MAX) {
    const text = `Cannot read manifest: ${bytes.length} bytes, limit ${MANIFEST_BYTES_MAX}`
    throw new CriaError("internal", text)
  }
  const manifest = parseJson(manifestSchema, new TextDecoder().decode(bytes), "manifest")
  return { manifest, id: hash("sha256", bytes, "hex") }
}

/**
 * Reads a manifest file.
 *
 * @throws {CriaError} `unavailable` when the file cannot be read, `internal` when it is not a manifest.
 */
export function readManifest(path: string): IdentifiedManifest & { readonly modifiedAt: Date } {
  const { bytes, modifiedAt } = readRegularFile(path, MANIFEST_BYTES_MAX)
  return { ...parseManifest(bytes), modifiedAt }
}

/**
 * Parses a config blob.
 *
 * @throws {CriaError} `internal` when a known field has the wrong type.
 */
export function parseConfig(text: string): ModelConfig {
  return parseJson(configSchema, text, "config")
}

/** Size of the model in bytes as users see it: all layers and the config. */
export function modelBytes(manifest: Manifest): number {
  return manifest.layers.reduce((bytes, layer) => bytes + layer.size, manifest.config.size)
}

/** All blobs of a manifest, the config last, each once. */
export function uniqueBlobs({ layers, config }: Manifest): Layer[] {
  return [...new Map([...layers, config].map((layer) => [layer.digest, layer])).values()]
}
