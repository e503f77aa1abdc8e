/**
 * Which template a model's prompts are made with: the Modelfile's Go template, or the Jinja template of its file.
 *
 * @module
 */

import { type ChatTemplate, readChatTemplate } from "../chat/go-chat.ts"
import type { ModelFacts } from "../gguf/facts.ts"
import type { ResolvedModel } from "../store/resolve.ts"
import { CriaError, errorMessage } from "../util/errors.ts"

/** The Go template that stands for none. */
export const NO_TEMPLATE = "{{ .Prompt }}"

/** Whether a Modelfile's template is that one, which `show` writes for models that have none. */
export function isNoTemplate(source: string): boolean {
  return /^\s*\{\{-?\s*\.Prompt\s*-?\}\}\s*$/.test(source)
}

/**
 * Reads a template of a request or of a model.
 *
 * @throws {CriaError} `internal`: Ollama's status for it is 500.
 */
export function readTemplate(source: string): ChatTemplate {
  try {
    return readChatTemplate(source)
  } catch (error) {
    const hint = "The template has to be a Go template: https://pkg.go.dev/text/template"
    throw new CriaError("internal", errorMessage(error), { hint, cause: error })
  }
}

/**
 * Checks the template of a model that is to be made.
 *
 * @throws {CriaError} `invalid-input` in Ollama's words when it cannot be read.
 */
export function checkTemplate(source: string): void {
  try {
    readChatTemplate(source)
  } catch (error) {
    throw new CriaError("invalid-input", `template error: ${errorMessage(error)}`, { cause: error })
  }
}

/**
 * Decides between the Modelfile's template and the one in the model's file.
 *
 * The file's own is taken when it can do more (tools, thinking, results of tools) and the Modelfile's says nothing
 * that it does not say: then that is an older version for the same model. So it is when the Modelfile's stands for none,
 * and when the model wants one of Ollama's built-in renderers, which the templates in files stand for.
 *
 * @param forced The user's setting; undefined leaves it to us.
 * @returns Whether the Go template is used.
 */
export function usesGoTemplate(
  go: ChatTemplate,
  { config }: Pick<ResolvedModel, "config">,
  { facts, forced }: { facts: ModelFacts; forced: boolean | undefined },
): boolean {
  const jinja = facts.chatTemplate ?? ""
  if (jinja === "") return true
  if (forced !== undefined) return forced
  if (isNoTemplate(go.template.source)) return false
  if (config.renderer !== undefined || config.parser !== undefined) return false
  if (isHarmony(go, facts)) return false
  return !(canDoMore(jinja, go) && saysAll(jinja, go))
}

/** Channels and recipients of gpt-oss are read by the parser that belongs to the file's template. */
function isHarmony({ template: { source } }: ChatTemplate, facts: ModelFacts): boolean {
  return isGptOss(facts) && source.includes("<|start|>") && source.includes("<|end|>")
}

/** It thinks in channels, not between tags. Ollama's own files spell its architecture without the hyphen. */
export function isGptOss({ architecture }: ModelFacts): boolean {
  return architecture === "gpt-oss" || architecture === "gptoss"
}

/** Whether a Jinja template shows tools to the model. */
export function hasTools(jinja: string): boolean {
  return jinja.includes("tools") || jinja.includes("tool_call")
}

/** Templates show it by both tags, or by cutting the thoughts of earlier turns off. */
export function canThink(jinja: string): boolean {
  if (jinja.includes("<think>") && jinja.includes("</think>")) return true
  const isCut = /split\(\s*(["'])<\/think>\1\s*\)/.test(jinja)
  return isCut && !/reasoning_content|<SPECIAL_12>/.test(jinja)
}

/** Whether it renders calls of tools and their results too. */
function hasToolTurns(jinja: string): boolean {
  const hasCalls = /tool_calls|assistant_tool_call/.test(jinja)
  const hasResults = /["']tool["']|tool_response|tool_result|TOOL_RESULTS|ipython/i.test(jinja)
  return hasTools(jinja) && hasCalls && hasResults
}

/** Ollama's rule. */
function canDoMore(jinja: string, go: ChatTemplate): boolean {
  const theirs = [hasTools(jinja), canThink(jinja)]
  const ours = [go.hasTools, go.thinking !== undefined]
  if (ours.some((can, i) => can && theirs[i] !== true)) return false
  const isMore = theirs.some((can, i) => can && ours[i] !== true)
  if (isMore) return !go.hasToolTurns || hasToolTurns(jinja)
  return go.hasTools && hasToolTurns(jinja) && !go.hasToolTurns
}

/** Markers such as `<|im_start|>` and `[INST]`, and words. */
const WORDS = /<[^<>\s]+>|\[\/?[A-Z_]+\]|[\p{L}\p{N}]+/gu

/** Whether every word of the Go template's text is in the Jinja template. */
function saysAll(jinja: string, { text }: ChatTemplate): boolean {
  return [...text.matchAll(WORDS)].every(([word]) => jinja.includes(word))
}
