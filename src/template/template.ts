/**
 * A Go template: parsed once, run over data as often as wanted.
 *
 * The language is Go's `text/template` with its built-in functions and Ollama's, and with `missingkey=zero`. What
 * takes too long or makes too much ends with an error.
 *
 * @module
 */

import { CriaError } from "../util/errors.ts"
import { execute, type Limits, type Spent, TemplateExecutionError } from "./execute.ts"
import { FUNCTION_NAMES } from "./functions.ts"
import type { ListNode } from "./nodes.ts"
import { parseTree, TemplateSyntaxError } from "./parser.ts"
import type { Value } from "./value.ts"

/** Longest source in characters. The longest templates that models come with have some 20,000. */
export const SOURCE_CHARS_MAX = 131_072

/** Some tenths of a second and some 100 MB at most; a chat of 10,000 messages takes a tenth of that. */
const LIMITS: Limits = { steps: 3_000_000, chars: 64 * 2 ** 20, depth: 1000 }

/** Options of {@link parseTemplate}. */
export interface TemplateOptions {
  /** In errors. */
  readonly name?: string
  readonly limits?: Partial<Limits>
}

/** Options of {@link runTemplate}. */
export interface RunOptions {
  /** For `currentDate`. */
  readonly now?: Date
  /** Of the runs that share their limits; grows. */
  readonly spent?: Spent
}

/** A parsed template. */
export interface Template {
  readonly name: string
  readonly source: string
  /** By name, with those that `define` and `block` add. */
  readonly lists: ReadonlyMap<string, ListNode>
  readonly limits: Limits
}

/**
 * Parses a template.
 *
 * @throws {CriaError} `invalid-input` with Go's words.
 */
export function parseTemplate(source: string, options: TemplateOptions = {}): Template {
  const { name = "", limits = {} } = options
  if (source.length > SOURCE_CHARS_MAX) {
    const text = `Cannot read the template: ${source.length} characters, limit ${SOURCE_CHARS_MAX}`
    throw new CriaError("invalid-input", text)
  }
  try {
    const { lists } = parseTree(name, source, FUNCTION_NAMES)
    return { name, source, lists, limits: { ...LIMITS, ...limits } }
  } catch (error) {
    if (!(error instanceof TemplateSyntaxError)) throw error
    throw new CriaError("invalid-input", error.message)
  }
}

/**
 * Runs a template over a value.
 *
 * @throws {CriaError} `internal` with Go's words: Ollama's status for it is 500.
 */
export function runTemplate(
  template: Template,
  root: Value,
  { now = new Date(), spent = { steps: 0, chars: 0 } }: RunOptions = {},
): string {
  try {
    return execute({ ...template, now, spent }, root)
  } catch (error) {
    if (!(error instanceof TemplateExecutionError)) throw error
    throw new CriaError("internal", error.message)
  }
}
