/**
 * Wire schemas of Ollama's routes that change models: `/api/create`, `/api/copy`, `/api/delete`.
 *
 * @module
 */

import { z } from "zod"

import { flag, list, text } from "./parts.ts"

/** Longest list of files: a model of several hundred parts with its tokenizer. */
const FILES_MAX = 4096

const fields = z
  .record(z.string(), z.unknown())
  .nullish()
  .transform((value) => value ?? {})

const files = z
  .record(z.string(), text)
  .nullish()
  .transform((value) => value ?? {})
  .refine((value) => Object.keys(value).length <= FILES_MAX, `more than ${FILES_MAX} files`)

/** A text or a list of them. */
const license = z
  .union([z.string(), z.array(z.string())])
  .nullish()
  .transform((value) => (typeof value === "string" ? [value] : (value ?? [])))

const INFO = {
  capabilities: { schema: z.array(z.string()), complaint: "an array of strings" },
  model_family: { schema: z.string(), complaint: "a string" },
  base_name: { schema: z.string(), complaint: "a string" },
  quantization_level: { schema: z.string(), complaint: "a string" },
  parameter_size: { schema: z.string(), complaint: "a string" },
  context_length: { schema: z.int().nonnegative(), complaint: "a non-negative integer" },
  embedding_length: { schema: z.int().nonnegative(), complaint: "a non-negative integer" },
} as const

/** Overrides of what a model says about itself. */
export interface ModelInfoFields {
  readonly capabilities?: readonly string[]
  readonly model_family?: string
  readonly base_name?: string
  readonly quantization_level?: string
  readonly parameter_size?: string
  readonly context_length?: number
  readonly embedding_length?: number
}

const info = fields.transform((value, context): ModelInfoFields => {
  const known = Object.entries(INFO).filter(([name]) => value[name] !== undefined)
  for (const [name, { schema, complaint }] of known) {
    if (schema.safeParse(value[name]).success) continue
    const message =
      typeof value[name] === "number" || !complaint.endsWith("integer")
        ? `info field "${name}" must be ${complaint}`
        : `info field "${name}" must be a number`
    context.addIssue({ code: "custom", message })
    return z.NEVER
  }
  return Object.fromEntries(known.map(([name]) => [name, value[name]]))
})

const message = z.looseObject({ role: text, content: text })

/** POST /api/create */
export const createRequest = z.object({
  model: text,
  name: text,
  stream: flag(true),
  from: text,
  files,
  adapters: files,
  draft_files: files,
  template: text,
  license,
  system: text,
  parameters: fields,
  messages: list(message),
  quantize: text,
  quantization: text,
  draft_quantize: text,
  /** Digest of an importance matrix. Not in Ollama. */
  imatrix: text,
  /** Digests of uploads that nobody else needs: what the model does not have goes afterwards. Not in Ollama. */
  discard: list(z.string()),
  renderer: text,
  parser: text,
  requires: text,
  remote_host: text,
  info,
})

/** POST /api/create */
export type CreateBody = z.infer<typeof createRequest>

/** POST /api/copy */
export const copyRequest = z.object({
  source: text,
  destination: text,
  /** Say how it goes, as `/api/create` does. Not in Ollama, whose reply is empty. */
  stream: flag(false),
})

/** POST /api/copy */
export type CopyBody = z.infer<typeof copyRequest>

/** DELETE /api/delete */
export const deleteRequest = z.object({ model: text, name: text })

/** DELETE /api/delete */
export type DeleteBody = z.infer<typeof deleteRequest>
